"""The same chain under DVC."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from cellwright.errors import ParamsError
from cellwright.params import check
from cellwright.training import digest
from cellwright.workspace import Workspace
from flows._cli.replayable import check_replayable
from flows._cli.steps import perform

REPOSITORY = Path(__file__).parents[2]
CHAIN = ["train@persistence", "train@mlp", "score", "rank", "scorecard", "report", "register", "publish"]


def dvc(project, *arguments: str):
    done = project.program(sys.executable, "-m", "dvc", *arguments, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.mark.parametrize("key", ["vmrnn:b", "nets/mine.py", "neuralforecast:NHITS", "seasonal-naive"])
def test_what_is_no_file_of_the_zoo_is_not_replayed(key):
    with pytest.raises(ParamsError, match=f"not '{key}'; take it out"):
        check_replayable(check({"train": {"models": ["gru", key]}}, "test"))


def test_series_are_not_replayed_for_dvc_does_not_watch_them(tmp_path, monkeypatch):
    params = check({"train": {"models": ["ridge"]}, "problem": {"exogenous": ["data/weather.csv:temperature"]}}, "test")
    monkeypatch.setenv("DVC_STAGE", "dvc.yaml:train@ridge")
    with pytest.raises(ParamsError, match=r"DVC does not watch data/weather\.csv:temperature"):
        perform("train", params, Workspace(tmp_path), "ridge")
    check_replayable(check({"train": {"models": ["ridge", "seasonal_naive"]}}, "test"))


def test_stages_watch_the_code_that_their_results_rest_on():
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    deps = {name: set(stage["deps"]) for name, stage in stages.items()}
    assert {f"cellwright/{name}" for name in digest._OURS} <= deps["train"]
    data = {f"cellwright/{name}" for name in digest._OURS if name.startswith("data/")}
    assert data <= deps["scorecard"]
    assert data - {"cellwright/data/scaler.py"} <= deps["score"]  # a trained forecaster holds its scaler
    assert {"models", "cellwright/conformal.py", "cellwright/kpis"} <= deps["score"]
    gone = [d for ds in deps.values() for d in ds if d.startswith("cellwright/") and not (REPOSITORY / d).exists()]
    assert gone == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dvc_replays_the_chain_does_nothing_twice_and_trains_again_only_what_was_edited(own_project):
    params = own_project.root / "params.yaml"
    params.write_text(params.read_text().replace("models: [persistence, ridge, mlp]", "models: [persistence, mlp]"))
    params.write_text(re.sub(r"(?m)^  models: \[.*\]$", "  models: [persistence, mlp]", params.read_text()))

    data = [f"data/dvc.yaml:{stage}@town" for stage in ("ingest", "normalise", "validate")]
    assert sorted(ran(dvc(own_project, "repro"))) == sorted([*data, *CHAIN, "federate"])
    assert ran(dvc(own_project, "repro")) == []

    model = own_project.root / "models" / "mlp.py"
    model.write_text(model.read_text() + "\n# a remark\n")
    assert ran(dvc(own_project, "repro")) == CHAIN[1:]

    shown = json.loads(dvc(own_project, "metrics", "show", "--json"))
    (metrics,) = shown[""]["data"].values()
    assert set(metrics["data"]["kpis"]) == {"persistence", "mlp"}
    assert "mlp" in dvc(own_project, "plots", "show", "--show-vega", "artifacts/repro/plots/leaderboard.csv")

    (model,) = json.loads(own_project.cellwright("champion", "list", "--json").stdout)
    assert model["version"] is None  # registered, and no champion
    assert model["versions"] >= 1

    dvc(own_project, "push")
    panel = own_project.root / "data" / "panels" / "town"
    before = {p.name: p.read_bytes() for p in panel.rglob("*") if p.is_file()}
    shutil.rmtree(panel)
    shutil.rmtree(own_project.root / ".dvc" / "cache")
    dvc(own_project, "pull", "--allow-missing")  # other data sets of the catalogue were never made here
    assert {p.name: p.read_bytes() for p in panel.rglob("*") if p.is_file()} == before
    assert ran(dvc(own_project, "repro")) == []
    assert own_project.attempts == ""
