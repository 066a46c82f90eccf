"""The command, as a user calls it: exit codes, errors, JSON, and what it does not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a configuration and a catalogue, and nothing else."""
    (tmp_path / "data").mkdir()
    for name in ("params.yaml", "data/catalogue.yaml"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    return tmp_path


def cellwright(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CELLWRIGHT_ROOT": str(project)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--dataset", "milan-5x6"], "there is no data set 'milan-5x6'.*Did you mean 'milan-5x5'"),
        (["run", "--set", "train.models=[lsmt]"], "there is no model 'lsmt'.*Did you mean 'lstm'"),
        (
            ["run", "--models", "gru,nets/mine.py"],
            r"there is no file .*nets/mine.py; a relative path starts at the folder of params",
        ),
        (["run", "--set", "train.epoch=3"], "train.epoch: unknown key; did you mean 'max_epochs'"),
        (["run", "--set", "train.budget_s=-1"], "train.budget_s: Input should be greater than 0, found -1"),
        (["run", "--set", "train"], "--set wants section.key=value, found 'train'"),
        (["run", "--set", "normalise.max_gap=9"], r"edit params.yaml, line \d+, instead"),
        (["step", "trian"], "there is no step 'trian'.*Did you mean 'train'"),
        (["data", "describe", "paris"], "there is no data set 'paris'"),
        (["data", "pull", "city"], "city has nothing to pull: it is generated"),
        (["--unknown"], "No such option"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_is_right(project, arguments, said):
    done = cellwright(project, *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    import re

    assert re.search(said, " ".join(done.stderr.split()).replace("│ ", "")), done.stderr


def test_a_refused_data_override_names_the_line(project):
    lines = (project / "params.yaml").read_text().splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if line.strip().startswith("max_gap:"))
    assert f"line {number}," in cellwright(project, "run", "--set", "normalise.max_gap=9").stderr


def test_a_job_that_cannot_be_done_is_exit_code_1(project):
    done = cellwright(project, "leaderboard")
    assert done.returncode == 1
    assert done.stderr == "error: there is no finished run yet; start one with `cellwright run`\n"
    assert cellwright(project, "champion", "rollback", "nobody").returncode in (1, 2)


def test_outside_a_project_it_says_where_to_go(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "CELLWRIGHT_ROOT"} | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "data", "list"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no params.yaml in" in done.stderr


def test_results_are_json_when_asked(project):
    listed = json.loads(cellwright(project, "data", "list", "--json").stdout)
    assert [row["name"] for row in listed][:2] == ["city", "milan-5x5"]
    keys = json.loads(cellwright(project, "doctor", "--params", "--json").stdout)
    assert {"key", "type", "default", "description"} == set(keys[0])
    assert any(row["key"] == "train.budget_s" and row["default"] == 60 for row in keys)
    assert json.loads(cellwright(project, "champion", "list", "--json").stdout) == []


def test_the_doctor_says_what_is_there_and_what_follows(project):
    found = json.loads(cellwright(project, "doctor", "--json").stdout)
    assert {f["topic"] for f in found} == {"versions", "machine", "energy", "stores", "ports"}
    torch = next(f for f in found if f["name"] == "torch")
    assert torch["state"] == "ok"
    assert torch["found"].startswith("2.13")
    assert all(f["follows"] for f in found if f["state"] == "missing")


@pytest.mark.parametrize("arguments", [["--help"], ["data", "list"], ["doctor", "--params"], ["leaderboard"]])
def test_light_commands_import_nothing_heavy(project, arguments):
    script = (
        "import sys, flows.cli as c\nsys.argv = ['cellwright', *sys.argv[1:]]\n"
        "try: c.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'prefect', 'polars', 'plotly', 'great_expectations', 'codecarbon', 'onnxruntime'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CELLWRIGHT_ROOT": str(project)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
