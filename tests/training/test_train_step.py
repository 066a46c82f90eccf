"""The step `train`: its files, that it does nothing twice, and a process that is killed in the middle of it."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time

import pytest

from cellwright.errors import TrainingError, UnknownName, WorkspaceError
from cellwright.forecaster import Forecaster
from cellwright.results import Trained
from cellwright.steps.train import train
from cellwright.training import memory
from cellwright.workspace import Workspace


def test_it_writes_its_record_its_forecaster_and_its_history(workspace, make_params):
    said = []
    trained = train(make_params(), workspace, "mlp", on_epoch=said.append)
    folder = workspace.candidate("mlp")
    assert {p.name for p in folder.iterdir()} == {"candidate.json", "forecaster.safetensors", "history.jsonl", "inputs.json"}
    assert Trained.read(folder / "candidate.json") == trained
    assert (trained.key, trained.title, trained.status, trained.epochs) == ("mlp", "MLP", "max_epochs", 4)
    assert trained.windows == 4 * 376
    assert trained.parameters == sum(p.numel() for p in Forecaster.load(folder).network.parameters())
    assert trained.data.rows == 480
    assert trained.train_rows == (0, 384)
    assert trained.energy.cpu_s > 0
    assert [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()] == said


def test_it_does_nothing_twice_but_changed_work_again(workspace, make_params):
    first = train(make_params(), workspace, "mlp")
    written = (workspace.candidate("mlp") / "candidate.json").stat().st_mtime_ns
    assert train(make_params(), workspace, "mlp") == first
    assert train(make_params(score={"batch": 9}, train={"models": ["lstm", "mlp"]}), workspace, "mlp") == first
    assert (workspace.candidate("mlp") / "candidate.json").stat().st_mtime_ns == written
    again = train(make_params(train={"seed": 8}), workspace, "mlp")
    assert again.seed == 8


def test_memory_is_told_of_the_first_training_of_a_process_alone(workspace, make_params, monkeypatch):
    monkeypatch.setattr(memory, "_trainings", [])  # as in a new process
    first = train(make_params(), workspace, "mlp")
    assert (
        first.peak_memory_bytes
        >= max(json.loads(line)["rss_bytes"] for line in (workspace.candidate("mlp") / "history.jsonl").read_text().splitlines())
        * 0.9
    )  # read a moment apart
    assert train(make_params(train={"seed": 8}), workspace, "mlp").peak_memory_bytes is None
    assert train(make_params(), workspace, "ridge").peak_memory_bytes is None


def test_other_data_is_trained_on_anew(workspace, make_params, make_panel):
    first = train(make_params(), workspace, "ridge")
    make_panel(seed=1).save(workspace.panel("toy"))
    assert train(make_params(), workspace, "ridge").validation_loss != first.validation_loss


def test_rows_bound_what_is_split_and_trained_on(workspace, make_params):
    stretch = make_params(split={"since": 300, "until": 420})
    assert train(stretch, workspace, "ridge").windows == 4 * (96 - 3 + 1)


def test_what_other_inputs_left_must_go_before_anything_is_trained(workspace, make_params, monkeypatch):
    train(make_params(), workspace, "mlp")

    def refused(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(WorkspaceError, match="make the folder writable"):
        train(make_params(train={"seed": 8}), workspace, "mlp")
    monkeypatch.undo()
    assert train(make_params(train={"seed": 8}), workspace, "mlp").seed == 8


def test_a_failure_is_recorded_with_its_reason_and_tried_again(workspace, make_params):
    bad = make_params(problem={"history": 2})  # seasonal naive wants a history as long as the horizon
    with pytest.raises(TrainingError, match=r"seasonal_naive: ValueError: .*horizon 3 is longer than history 2"):
        train(bad, workspace, "seasonal_naive")
    record = Trained.read(workspace.candidate("seasonal_naive") / "candidate.json")
    assert record.status == "failed"
    assert "horizon 3 is longer than history 2" in record.reason
    with pytest.raises(TrainingError):
        train(bad, workspace, "seasonal_naive")


def test_a_wrong_name_starts_nothing(workspace, make_params):
    with pytest.raises(UnknownName):
        train(make_params(), workspace, "lsmt")
    assert not workspace.run_folder.exists()


def test_a_warm_start_is_recorded_by_name(workspace, make_params):
    train(make_params(), workspace, "mlp")
    other = Workspace(workspace.root, "later")
    newest = make_params(split={"since": 100, "until": 480})
    trained = train(newest, other, "mlp", warm_start=workspace.candidate("mlp"))
    assert trained.warm_start == "mlp"
    assert trained.train_rows == (0, 404)  # rows 100 - 404 of its own, and those that its start had learnt from
    with pytest.raises(TrainingError, match=r"cannot start from .*nowhere: there is no forecaster\.safetensors"):
        train(make_params(), other, "mlp", warm_start=workspace.root / "nowhere")


def test_a_start_of_another_form_is_not_used_and_the_record_says_so(workspace, make_params):
    train(make_params(), workspace, "mlp")
    other = Workspace(workspace.root, "wider")
    wider = make_params(train={"settings": {"mlp": {"options": {"hidden": 64}}}})
    trained = train(wider, other, "mlp", warm_start=workspace.candidate("mlp"))
    assert trained.warm_start is None
    assert trained.train_rows == (0, 384)
    assert trained.notes["start"].startswith("fresh weights, not those offered: its options is {")
    fresh = train(wider, Workspace(workspace.root, "fresh"), "mlp")
    assert (fresh.validation_loss, fresh.notes.get("start")) == (trained.validation_loss, None)


def in_a_process(*arguments):
    """Train in a process of its own, forked from one that has imported what it needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cellwright.training.fit", "models.mlp"])
    process = context.Process(target=train, args=arguments, daemon=True)
    process.start()
    return process


def wait_for_epochs(process, history, count):
    deadline = time.monotonic() + 120
    while not history.is_file() or len(history.read_text().splitlines()) < count:
        assert process.is_alive(), "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_killed_process_goes_on_to_the_very_same_weights(workspace, make_params):
    params = make_params(train={"max_epochs": 20, "patience": 20, "learning_rate": 0.02, "lr_patience": 1, "batch": 32})
    cut = Workspace(workspace.root, "cut")
    process = in_a_process(params, cut, "mlp")
    wait_for_epochs(process, cut.candidate("mlp") / "history.jsonl", 3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (cut.candidate("mlp") / "candidate.json").exists()

    again = in_a_process(params, cut, "mlp")
    again.join()
    assert again.exitcode == 0
    whole = train(params, workspace, "mlp")
    resumed = Trained.read(cut.candidate("mlp") / "candidate.json")
    assert (resumed.resumed, whole.resumed) == (1, 0)
    assert (resumed.epochs, resumed.validation_loss) == (20, whole.validation_loss)
    assert "resumed 1 times" in resumed.energy.meter
    stored = [w.candidate("mlp") / "forecaster.safetensors" for w in (workspace, cut)]
    assert stored[0].read_bytes() == stored[1].read_bytes()
