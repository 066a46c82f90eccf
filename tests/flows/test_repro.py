"""The same chain under DVC."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest

CHAIN = ["train@persistence", "train@mlp", "score", "rank", "scorecard", "report", "register", "publish"]


def dvc(project, *arguments: str):
    done = project.program(sys.executable, "-m", "dvc", *arguments, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dvc_replays_the_chain_does_nothing_twice_and_trains_again_only_what_was_edited(own_project):
    params = own_project.root / "params.yaml"
    params.write_text(params.read_text().replace("models: [persistence, ridge, mlp]", "models: [persistence, mlp]"))
    params.write_text(re.sub(r"(?m)^  models: \[.*\]$", "  models: [persistence, mlp]", params.read_text()))

    data = [f"data/dvc.yaml:{stage}@town" for stage in ("ingest", "normalise", "validate")]
    assert sorted(ran(dvc(own_project, "repro"))) == sorted(data + CHAIN)
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
