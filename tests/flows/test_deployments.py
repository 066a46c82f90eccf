"""Under a real Prefect server, with a worker: a run started from the form, and a drift that leads to a retraining."""

from __future__ import annotations

import json
import sys
import time

import httpx
import pytest
import yaml

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
WATCH = {
    "batch_h": 24,
    "min_sites": 3,
    "together_h": 96,
    "settle_h": 24,
    "cooldown_h": 96,
    "retrain_window_h": 120,
    "holdout_h": 24,
}


class Api:
    """The few calls that the Prefect UI makes when one fills in a form."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url.rstrip("/") + "/", timeout=60)

    def post(self, path: str, **content):
        answer = self._client.post(path, json=content)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str):
        answer = self._client.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    def start(self, deployment: str, **parameters) -> str:
        """The id of a flow run of `flow/deployment`."""
        found = self.get(f"deployments/name/{deployment}")
        state = {"type": "SCHEDULED", "message": "Run from the form"}
        return self.post(f"deployments/{found['id']}/create_flow_run", parameters=parameters, state=state)["id"]

    def runs(self, flow: str) -> list[dict]:
        return self.post("flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="START_TIME_DESC")

    def state(self, run: str, timeout_s: float = 300) -> tuple[str, str]:
        """The state in which a flow run ended, and its message."""
        deadline = time.monotonic() + timeout_s
        while (found := self.get(f"flow_runs/{run}")["state"])["type"] not in ENDED and time.monotonic() < deadline:
            time.sleep(0.5)
        return found["type"], found["message"] or ""

    def artifacts(self) -> set[str]:
        return {a["key"] for a in self.post("artifacts/latest/filter", limit=200) if a["key"]}

    def events(self, name: str) -> list[dict]:
        return self.post("events/filter", filter={"event": {"name": [name]}})["events"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_form_starts_a_run_and_a_change_of_the_network_retrains_the_champion(own_project, server, tmp_path):
    params = own_project.root / "params.yaml"
    content = yaml.safe_load(params.read_text())
    content["monitor"] |= WATCH
    params.write_text(yaml.safe_dump(content, sort_keys=False))
    api = Api(server)
    deployed = own_project.cellwright("deploy", "--url", server)
    assert deployed.returncode == 0, deployed.stderr
    form = api.get("deployments/name/benchmark/weekly")["parameter_openapi_schema"]
    assert "town" in form["definitions"]["DataSet"]["enum"]
    assert {"dataset", "models", "budget_s", "promote"} <= set(form["properties"])

    log = tmp_path / "worker.log"
    worker = own_project.start_program(sys.executable, "-m", "prefect", "worker", "start", "--pool", "cellwright", log=log)
    try:
        run = api.start("benchmark/weekly", dataset="town", models=["persistence", "ridge"], budget_s=5, promote=True)
        assert api.state(run)[0] == "COMPLETED", log.read_text()
        assert {"validation-town", "leaderboard-town", "choice-town", "report-town"} <= api.artifacts()

        looks = []
        while not api.events("cellwright.drift.settled") and len(looks) < 8:
            looks.append(api.start("monitor/hourly", dataset="town"))
            assert api.state(looks[-1])[0] == "COMPLETED", log.read_text()
            time.sleep(8)  # the server keeps events a batch at a time
        (settled,) = api.events("cellwright.drift.settled")
        assert 3 <= len(looks) <= 7
        assert settled["payload"]["dataset"] == "town"

        deadline = time.monotonic() + 120
        while not (retrainings := api.runs("retrain")) and time.monotonic() < deadline:
            time.sleep(1)
        assert api.state(retrainings[0]["id"])[0] == "COMPLETED", log.read_text()
        assert retrainings[0]["parameters"]["until"] == settled["payload"]["until"]
        assert len(api.runs("retrain")) == 1
    finally:
        worker.process.terminate()
        worker.finish(60)
    assert worker.left_behind() == []

    newest = max((own_project.root / "artifacts").glob("*/registration.json"), key=lambda p: p.stat().st_mtime)
    registered = json.loads(newest.read_text())
    (champion,) = json.loads(own_project.cellwright("champion", "list", "--json").stdout)
    assert champion["versions"] == 2
    assert champion["version"] == ("2" if registered["champion"] else "1")
    assert own_project.attempts == ""
