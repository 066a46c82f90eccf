"""What `gc` takes of runs: of each data set the newest stay, whether a leaderboard or a federation of parties came of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cellwright import runs
from cellwright.workspace import Workspace
from flows.cli import app

REPOSITORY = Path(__file__).parents[2]


def run(root: Path, name: str, at: int, *, board: bool = False, finished: bool = True, dataset: str = "tiny") -> Path:
    """A run's folder of some bytes, as old as `at` says."""
    folder = root / "artifacts" / name
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps({"dataset": dataset}))
    marks = [*(["finished.json"] if finished else []), *(["leaderboard.json"] if board else [])]
    for mark in marks:
        (folder / mark).write_text(json.dumps({"data": {"dataset": dataset}}))
        os.utime(folder / mark, (at, at))
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    return tmp_path


def test_federations_of_parties_go_and_stay_as_other_runs_do(root):
    old = run(root, "tiny-1-vertical", 100)
    board = run(root, "tiny-2", 200, board=True)
    new = run(root, "tiny-3-transfer", 300)
    elsewhere = run(root, "city-1-vertical", 50, dataset="city")
    under_way = run(root, "tiny-4-vertical", 10, finished=False)
    gone = runs.collect_garbage(Workspace(root), keep=2, dry=True)
    assert [path for path, _ in gone] == [old]
    assert old.is_dir()
    assert [path for path, _ in runs.collect_garbage(Workspace(root), keep=2, dry=False)] == [old]
    assert [path.is_dir() for path in (old, board, new, elsewhere, under_way)] == [False, True, True, True, True]


def test_one_that_another_process_works_on_is_left_alone(root):
    old = run(root, "tiny-1-vertical", 100)
    run(root, "tiny-2-vertical", 200)
    ws = Workspace(root, "tiny-1-vertical")
    with runs.locked(ws):
        assert runs.collect_garbage(ws, keep=1, dry=False) == []
    assert [path for path, _ in runs.collect_garbage(ws, keep=1, dry=False)] == [old]


def test_the_command_says_what_would_go(root, monkeypatch):
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(root))
    run(root, "tiny-1-vertical", 100)
    run(root, "tiny-2-transfer", 200)
    done = CliRunner().invoke(app, ["gc", "--dry-run", "--keep", "1", "--json"])
    assert [Path(row["path"]).name for row in json.loads(done.output)] == ["tiny-1-vertical"]


@pytest.mark.parametrize(
    ("flow", "entry"), [("vertical", "federate_kinds.py:vertical"), ("transfer", "federate_kinds.py:transfer")]
)
def test_both_kinds_have_a_deployment_that_is_off_and_asks_for_what_there_is(flow, entry):
    from cellwright.catalogue import load_catalogue
    from cellwright.federation.alignment.asked import check_asked
    from cellwright.params import load

    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    (found,) = [d for d in deployments if d["entrypoint"] == f"flows/{entry}"]
    assert [schedule["active"] for schedule in found["schedules"]] == [False]
    assert found["concurrency_limit"] == 1
    asked = found["parameters"]
    params = load(REPOSITORY / "params.yaml", [*asked.get("overrides", []), f"dataset={asked['dataset']}"])
    check_asked(params, flow, load_catalogue(REPOSITORY / "data" / "catalogue.yaml"))
