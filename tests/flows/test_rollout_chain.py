"""From a run's win to the alias: the event, the deployment, the canary on a real edge under load, promotion and the way back."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime

import httpx
import pytest
import yaml

from cellwright.bundle import store
from cellwright.bundle.keys import trusted
from cellwright.edge.predictor import read_problem
from cellwright.edge.sample import sample_request
from cellwright.panel import Panel
from cellwright.workspace import Workspace

NAME = "town--traffic_mbps--h6-3"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
FLAT = 60.0  # Mbit/s, with a little on top by turns: whoever says "as it was" is right, whoever has learnt the day is not
CANARY = {
    "mode": "canary",
    "stages": [0.2, 0.5],
    "min_requests": 10,
    "min_stage_s": 0.5,
    "poll_s": 0.2,
    "max_s": 120,
    "latency_ms": 2000,
    "guards": {"error": {"margin": 0.05}, "failures": {"margin": 0.2}, "latency": {"margin": 0.5}},
}


class Load:
    """Devices that ask one after the other, the telemetry going on; with `flat`, in a network whose traffic stands still."""

    def __init__(self, ws: Workspace, url: str) -> None:
        self._problem = read_problem(*store.latest(ws.published, NAME, trusted(ws.keys)))
        self._panel = Panel.open(ws.panel("town"))
        self._url, self.answers, self.flat = url, [], False

    def body(self, number: int) -> dict:
        sites = self._problem.sites
        first = number % 5 * 5
        request = sample_request(self._problem, self._panel, sites=sites[first : first + 5], origin=300 + number // 5 % 1700)
        if self.flat:
            start = round(datetime.fromisoformat(request["time"]).timestamp()) // 600 - self._problem.history
            for each in request["history"].values():
                each["traffic_mbps"] = [FLAT + 0.1 * ((start + i) % 3) for i in range(self._problem.history)]
        return request

    @contextmanager
    def running(self):
        stop = threading.Event()

        def devices() -> None:
            number = 0
            with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as http:
                while not stop.is_set():
                    answer = http.post("/v1/forecast", json=self.body(number))
                    self.answers.append((answer.status_code, answer.json().get("version")))
                    number += 1
                    time.sleep(0.01)

        thread = threading.Thread(target=devices)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def champion(project) -> tuple[str, int]:
    """(number of the version that is champion, versions there are)."""
    (found,) = json.loads(project.cellwright("champion", "list", "--json").stdout)
    return found["version"], found["versions"]


def rollouts(server: str) -> list[dict]:
    """Runs of the flow `publish` that a deployment started, newest first."""
    asked = {"flows": {"name": {"any_": ["publish"]}}, "sort": "START_TIME_DESC"}
    found = httpx.post(f"{server}/flow_runs/filter", json=asked, timeout=60).raise_for_status().json()
    return [run for run in found if run["deployment_id"]]


def rolled_out(server: str, number: int, log) -> dict:
    """The `number`-th rollout that a deployment started, when it has ended."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = rollouts(server)
        if len(found) >= number and found[0]["state"]["type"] in ENDED:
            assert found[0]["state"]["type"] == "COMPLETED", log.read_text()
            return found[0]
        time.sleep(1)
    pytest.fail(f"rollout {number} was not started, or did not end: {rollouts(server)}\n{log.read_text()}")


@contextmanager
def serving(project, port: int, log):
    edge = project.start_program(sys.executable, "-m", "flows.cli", "edge", "serve", "--port", str(port), log=log)
    url = f"http://127.0.0.1:{port}"
    try:
        edge.wait_until(lambda: _ready(url), "the edge")
        yield url
    finally:
        edge.process.terminate()
        edge.process.wait(30)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_win_is_rolled_out_by_its_event_and_the_alias_follows_the_guards(own_project, server, tmp_path):
    project, port = own_project, _free_port()
    ws, params = Workspace(project.root), project.root / "params.yaml"
    content = yaml.safe_load(params.read_text())
    content["rollout"] = CANARY | {"edges": [f"http://127.0.0.1:{port}"]}
    params.write_text(yaml.safe_dump(content, sort_keys=False))
    deployed = project.cellwright("deploy", "--url", server)
    assert deployed.returncode == 0, deployed.stderr

    first = project.cellwright("run", "--models", "persistence")  # nothing to compare it with: it serves directly
    assert first.returncode == 0, first.stderr
    assert champion(project) == ("1", 1)
    log = tmp_path / "worker.log"
    worker = project.start_program(sys.executable, "-m", "prefect", "worker", "start", "--pool", "cellwright", log=log)
    try:
        with serving(project, port, tmp_path / "edge.log") as url:
            load = Load(ws, url)
            load.flat = True  # the network's traffic stands still: what won on the city's days is worse there
            with load.running():
                won = project.cellwright("run", "--models", "persistence,ridge")
                assert won.returncode == 0, won.stderr
                assert f"{NAME} 1.1.0 awaits its rollout: deployment publish/on-win" in won.stderr
                assert champion(project) == ("1", 2)
                rolled_out(server, 1, log)
                time.sleep(2)
            assert champion(project) == ("1", 2)
            assert store.pointer(ws.published, NAME).version == "1.0.0"
            assert store.trial(ws.published, NAME) is None
            (told,) = json.loads(project.cellwright("rollout", "status", "--json").stdout)
            assert told["state"]["outcome"] == "rolled_back"
            assert told["state"]["events"][-1]["what"].startswith("1.1.0 rolled back: error: error +")
            assert {status for status, _ in load.answers} == {200}
            assert {version for _, version in load.answers} == {"1.0.0", "1.1.0"}
            assert load.answers[-1] == (200, "1.0.0")

            won = project.cellwright("run", "--models", "persistence,mlp")
            assert won.returncode == 0, won.stderr
            assert f"{NAME} 1.2.0 awaits its rollout" in won.stderr
            load = Load(ws, url)  # the city's days again
            with load.running():
                rolled_out(server, 2, log)
                time.sleep(2)
            assert champion(project) == ("3", 3)
            assert store.pointer(ws.published, NAME).version == "1.2.0"
            (told,) = json.loads(project.cellwright("rollout", "status", "--json").stdout)
            assert told["state"]["outcome"] == "promoted"
            assert {status for status, _ in load.answers} == {200}
            assert load.answers[-1] == (200, "1.2.0")
    finally:
        worker.process.terminate()
        worker.finish(60)
    assert worker.left_behind() == []
    assert project.attempts == ""
