"""The main job in a fresh checkout, as a user calls it: what it prints, what it leaves, and what it asks of the network."""

from __future__ import annotations

import json
import re
import socket
import sys

import pytest
import yaml

from cellwright.bundle.keys import trusted
from cellwright.bundle.layout import verify
from cellwright.workspace import Workspace

NAME = "town--traffic_mbps--h6-3"
OUR_LINE = re.compile(r"starting Prefect …|\d\d:\d\d:\d\d  (data|run|train|score|rank|probe|register|publish|report) .*")


@pytest.fixture(scope="module")
def ws(project, ended) -> Workspace:
    found = json.loads(project.cellwright("leaderboard", "--json").stdout)
    return Workspace(project.root, found["run"])


def flat(text: str) -> str:
    return " ".join(text.split())


def test_it_prints_the_leaderboard_the_champion_its_energy_and_where_to_look(ended):
    out = flat(ended[0].stdout)
    assert "town: 25 sites, 6 steps in, 3 out, traffic_mbps" in out
    assert "Ridge ★" in out or "MLP ★" in out
    assert "champion " in out
    assert "noise floor" in out
    assert "J for all trainings" in out
    assert f"registered {NAME} 1.0.0: there was no champion yet" in out
    assert out.count("mlflow ui") == out.count("cellwright up") == out.count("xdg-open artifacts/town-") == 1


def test_no_line_of_a_library_reaches_the_terminal(ended):
    for line in [*ended[0].stderr.splitlines()]:
        assert OUR_LINE.fullmatch(line), line
    assert "Warning" not in ended[0].stdout


def test_nothing_but_this_machine_was_spoken_to(ended):
    assert ended[2] == ""


def test_the_guard_sees_whoever_speaks_to_elsewhere(own_project):
    code = "import socket; socket.create_connection(('198.51.100.1', 80), timeout=1)"
    assert "only this machine may be spoken to" in own_project.program(sys.executable, "-c", code).stderr
    assert "socket.getaddrinfo 198.51.100.1" in own_project.attempts


def test_only_the_new_data_version_is_left_for_git(project, ended):
    _done, before, _attempts, status = ended
    assert [line[3:] for line in status.splitlines()] == ["data/dvc.lock"]
    old, new = (yaml.safe_load(t or "{}") or {} for t in (before, (project.root / "data" / "dvc.lock").read_text()))
    added = {k: v for k, v in new["stages"].items() if old.get("stages", {}).get(k) != v}
    assert sorted(added) == ["ingest@town", "normalise@town", "validate@town"]


def test_a_candidate_that_fails_is_listed_with_its_reason_and_stops_nobody(ended, ws):
    reason = "dlinear: lag 2 is shorter than the horizon of 3 steps"
    board = json.loads(ws.leaderboard.read_text())
    assert [(f["key"], reason in f["reason"]) for f in board["failures"]] == [("dlinear", True)]
    assert {row["key"] for row in board["rows"]} == {"persistence", "ridge", "mlp"}
    assert reason in flat(ended[0].stdout)
    assert reason in flat(ended[0].stderr)
    assert reason in ws.report.read_text()


def test_the_bundle_is_published_and_can_be_verified(ended, ws):
    trust = trusted(ws.keys)
    packed, published = verify(ws.bundle, trust), verify(ws.published / NAME / "1.0.0", trust)
    assert packed.digest == published.digest
    assert json.loads((ws.published / NAME / "latest.json").read_text())["digest"] == packed.digest


def test_the_report_needs_no_other_file(ended, ws):
    page = ws.report.read_text()
    linked = re.findall(r"<(?:script|img|iframe|link|source)\b[^>]*?(?:src|href)\s*=\s*[\"']([^\"']+)", page)
    assert [a for a in linked if not a.startswith(("data:", "#"))] == []
    assert "@import" not in page
    assert {"Ridge", "MLP", "Persistence"} <= set(re.findall(r"Ridge|MLP|Persistence", page))


def test_mlflow_knows_the_run_its_candidates_and_the_data_version(project, ended, ws):
    found = json.loads(project.cellwright("champion", "list", "--json").stdout)
    (champion,) = found
    assert (champion["model_name"], champion["version"], champion["semantic"], champion["versions"]) == (NAME, "1", "1.0.0", 1)
    lock = yaml.safe_load((project.root / "data" / "dvc.lock").read_text())
    (panel,) = lock["stages"]["normalise@town"]["outs"]
    assert champion["data_version"] == panel["md5"]


def test_the_same_command_shows_the_finished_run(project, ended, ws):
    before = {p.name for p in ws.artifacts.iterdir()}
    models = "train.models=[persistence, ridge, mlp, dlinear]"
    again = project.cellwright("run", "--set", models, "--set", "train.settings={dlinear: {lags: [2]}}", "--json")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    assert json.loads(again.stdout) == json.loads(ws.leaderboard.read_text())
    assert {p.name for p in ws.artifacts.iterdir()} == before


def test_a_step_can_be_run_by_itself(project, ended, ws):
    before = json.loads(ws.leaderboard.read_text())
    done = project.cellwright("step", "rank", "--run", ws.run)
    assert (done.returncode, done.stderr) == (0, "")
    assert flat(done.stdout) == flat(before["choice"]["sentence"])
    assert json.loads(ws.leaderboard.read_text())["rows"] == before["rows"]
    refused = project.cellwright("step", "rank", "--run", ws.run, "--set", "rank.similar_accuracy=0.5")
    assert refused.returncode == 2
    assert f"run {ws.run} keeps the parameters it was started with" in refused.stderr


def test_the_edge_serves_what_was_published(project, ended, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    log = tmp_path / "edge.log"
    edge = project.start_program(sys.executable, "-m", "flows.cli", "edge", "serve", "--port", url.rpartition(":")[2], log=log)
    try:
        edge.wait_until(lambda: "edge on" in log.read_text(), "the edge server", 60)
        fetched = json.loads(project.cellwright("fetch", "--edge", url, "--json").stdout)
        assert (fetched["name"], fetched["version"], fetched["new"]) == (NAME, "1.0.0", True)
        asked = json.loads(project.cellwright("forecast", "--edge", url, "--site", "r2c2", "--json").stdout)
        own = json.loads(project.cellwright("forecast", "--local", "--site", "r2c2", "--json").stdout)
    finally:
        edge.process.terminate()
        edge.finish(30)
    assert edge.left_behind() == []
    assert asked["units"] == {"traffic_mbps": "Mbit/s"}
    (answer,) = asked["forecasts"].values()
    assert len(answer["traffic_mbps"]) == 3
    assert own["forecasts"] == asked["forecasts"]


def test_dvc_knows_the_chain_and_that_the_data_are_up_to_date(project, ended):
    graph = project.program(sys.executable, "-m", "dvc", "dag", "--mermaid")
    assert graph.returncode == 0, graph.stderr
    stages = set(re.findall(r'\["([^"]+)"\]', graph.stdout))
    mine = {f"data/dvc.yaml:{stage}@town" for stage in ("ingest", "normalise", "validate")}
    assert stages >= mine | {"train@persistence", "train@ridge", "train@mlp", "score", "rank", "report", "register", "publish"}
    status = project.program(sys.executable, "-m", "dvc", "status", "data/dvc.yaml:validate@town", "--with-deps")
    assert (status.returncode, status.stdout.strip()) == (0, "Data and pipelines are up to date.")
