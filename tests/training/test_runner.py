"""Runners: every kind trains every candidate, one failure stops nobody, and threads stay bounded."""

import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from cellwright.errors import UnknownName
from cellwright.training.runner import _train_there, bounded, train_all


def test_threads_are_bounded_inside_the_block_only():
    before = torch.get_num_threads()
    with bounded(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kind", ["serial", "threads", "dask"])
def test_one_failure_stops_nobody_else(workspace, make_params, kind):
    models = ["persistence", "seasonal_naive", "mlp"]
    params = make_params(
        problem={"history": 2},
        train={"models": models, "max_epochs": 1},
        runner={"kind": kind, "workers": 1 + (kind == "threads")},
    )
    outcome = train_all(params, workspace)
    assert [t.key for t in outcome.trained] == ["persistence", "mlp"]
    assert [f.key for f in outcome.failures] == ["seasonal_naive"]
    assert "horizon 3 is longer than history 2" in outcome.failures[0].reason


def test_a_dask_worker_of_another_folder_finds_the_file_of_the_project(workspace, make_params, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "params.yaml").touch()
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(elsewhere))
    monkeypatch.chdir(elsewhere)
    shutil.copy(Path(__file__).parents[2] / "examples" / "my_model.py", workspace.root / "mine.py")
    params = make_params(train={"models": ["mine.py"], "max_epochs": 1})
    trained = _train_there(params.model_dump(mode="json", by_alias=True), workspace, "mine.py", None, False)
    assert trained.title == "Smoothing"


def test_a_wrong_name_is_refused_before_anything_starts(workspace, make_params):
    with pytest.raises(UnknownName):
        train_all(make_params(train={"models": ["persistence", "lsmt"]}), workspace)
    assert not workspace.run_folder.exists()


def test_a_killed_worker_takes_only_its_own_candidate_with_it(workspace, make_params):
    """In processes: one candidate fails by itself, one is trained, and the process of an endless one is killed."""
    endless = {"models": ["seasonal_naive", "persistence", "mlp"], "max_epochs": 100_000, "patience": 100_000, "budget_s": 600}
    params = make_params(problem={"history": 2}, train=endless, runner={"kind": "processes", "workers": 1})
    history, me = workspace.candidate("mlp") / "history.jsonl", psutil.Process()
    before = {child.pid for child in me.children()}

    def kill_the_mlp():
        while not history.is_file() or not history.read_text():
            time.sleep(0.05)
        for child in me.children():
            if child.pid not in before and child.cpu_percent(0.5) > 5:  # not the idle resource tracker
                child.send_signal(signal.SIGKILL)

    threading.Thread(target=kill_the_mlp, daemon=True).start()
    outcome = train_all(params, workspace)
    assert [t.key for t in outcome.trained] == ["persistence"]
    assert [f.key for f in outcome.failures] == ["seasonal_naive", "mlp"]
    assert "horizon 3 is longer than history 2" in outcome.failures[0].reason
    assert "run again to resume" in outcome.failures[1].reason
    assert (workspace.candidate("mlp") / "training.ckpt").is_file()
