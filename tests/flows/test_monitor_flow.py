"""The monitor on telemetry in which nothing changes."""

from __future__ import annotations

import json
import sys

import httpx

LOOK_TWICE = """
import json
from flows._catalogue import DataSet
from flows.monitor import monitor
print(json.dumps([monitor(dataset=DataSet("town"), batch_h=20) for _ in range(2)]))
"""


def events(server: str, prefix: str) -> list[dict]:
    found = httpx.post(f"{server}/events/filter", json={"filter": {"event": {"prefix": [prefix]}}}, timeout=30)
    found.raise_for_status()
    return found.json()["events"]


def test_a_stretch_without_a_change_triggers_nothing(project, server, ended):
    before = json.loads(project.cellwright("champion", "list", "--json").stdout)
    looked = project.program(sys.executable, "-c", LOOK_TWICE)
    assert looked.returncode == 0, looked.stderr
    assert json.loads(looked.stdout.splitlines()[-1]) == ["no site drifts"] * 2
    (artifact,) = httpx.post(
        f"{server}/artifacts/latest/filter", json={"artifacts": {"key": {"any_": ["monitor-town"]}}}, timeout=30
    ).json()
    assert "2026-01-17T20:00:00Z – 2026-01-18T16:00:00Z" in artifact["data"]  # the second look begins where the first ended
    assert events(server, "cellwright.drift") == []
    assert json.loads(project.cellwright("champion", "list", "--json").stdout) == before
