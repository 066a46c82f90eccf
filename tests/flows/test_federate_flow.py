"""`cellwright federate`: one command from the request to the published champion, beside central training and references."""

from __future__ import annotations

import json
import re

import pytest

SMALL = (
    "--set",
    "federation.rounds=3",
    "--set",
    "federation.model=mlp",
    "--set",
    "federation.compare_budget_s=1",
    "--set",
    "train.budget_s=1",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory, another_project):
    """A federation of the town in a project of its own, and what it printed."""
    project = another_project(tmp_path_factory.mktemp("federate"))
    return project, project.cellwright("federate", "--dataset", "town", *SMALL)


def test_it_goes_from_the_request_to_a_champion(done):
    _project, ended = done
    assert ended.returncode == 0, ended.stderr
    steps = re.findall(r"\d\d:\d\d:\d\d  (\w+) ", ended.stderr)
    told = ("data", "run", "federate", "train", "score", "rank", "register", "publish", "report")
    assert tuple(s for s in dict.fromkeys(steps) if s in told) == told
    assert "4 owners chosen, 0 left out" in ended.stderr
    assert "audit verify" in ended.stdout


def test_the_federated_candidate_stands_beside_the_central_one(done):
    project, _ = done
    board = json.loads(project.cellwright("leaderboard", "--json").stdout)
    assert {row["key"] for row in board["rows"]} == {"persistence", "ridge", "mlp", "fedavgm:mlp"}
    assert "MLP by FedAvgM" in {row["title"] for row in board["rows"]}


def test_owners_are_shown_with_training_alone_and_central_beside(done):
    project, _ = done
    found = json.loads(project.cellwright("federate", "show", "--json").stdout)
    assert len(found["owners"]) == 4
    assert all(owner["mae_alone"] and owner["mae_central"] and owner["contribution"] is not None for owner in found["owners"])


def test_the_audit_log_verifies_by_command(done):
    project, _ = done
    (log,) = project.root.glob("artifacts/*/candidates/fedavgm-mlp/job/audit.jsonl")
    assert project.cellwright("audit", "verify", str(log)).returncode == 0
    content = log.read_text().splitlines()
    log.write_text("\n".join(content[:1] + content[2:]) + "\n")
    broken = project.cellwright("audit", "verify", str(log))
    assert broken.returncode == 1
    assert "line 2" in broken.stderr + broken.stdout


def test_the_same_command_shows_what_is_finished(done):
    project, _ = done
    again = project.cellwright("federate", "--dataset", "town", *SMALL)
    assert again.returncode == 0
    assert "is finished" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rule", "fedavgg"), "fedavg"),
        (("--set", "federation.owners=900"), "25 sites"),
        (("--set", "federation.least_owners=9"), "at least 9"),
    ],
)
def test_wrong_requests_are_told(done, arguments, words):
    project, _ = done
    ended = project.cellwright("federate", "--dataset", "town", *SMALL, *arguments)
    assert ended.returncode in (1, 2)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
