"""`network serve`, `qos sessions` and `qos release`, as commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from qos_parts import UE, body

from cellwright.qos.client import QodClient
from cellwright.qos.forms import CreateSession
from cellwright.qos.journal import Entry, Journal
from cellwright.qos.simulator.options import Terminal
from cellwright.qos.simulator.remote import Remote
from cellwright.qos.simulator.state import read_state
from cellwright.workspace import Workspace

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text("")
    device = Terminal(name="ue", identifiers=UE).model_dump(mode="json", exclude_none=True, by_alias=True)
    (tmp_path / "network.yaml").write_text(json.dumps({"devices": [device]}))
    return Workspace(tmp_path)


def start(project, *arguments):
    environment = {**os.environ, "CELLWRIGHT_ROOT": str(project.root), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(project, *arguments):
    process = start(project, *arguments)
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def test_a_network_whose_crashed_sessions_are_released(project):
    code, said = run(project, "qos", "sessions")
    assert (code, "cellwright network serve" in said) == (2, True)
    server = start(project, "network", "serve", "--port", "0", "--config", str(project.root / "network.yaml"))
    try:
        assert server.stdout.readline().startswith("network on http://127.0.0.1:")
        state = read_state(project.network)
        assert project.network.stat().st_mode & 0o077 == 0
        asked = CreateSession.model_validate(body(qosProfile="model_1g"))
        client = QodClient(state.url, state.token)
        made = client.create(asked)
        Journal(project.qos_journal).write(Entry(state.url, asked, made.session_id, owner=2**22 + 1, born_s=0.0))

        code, said = run(project, "qos", "sessions", "--json")
        [row] = json.loads(said)
        assert (row["session"], row["status"], row["owner"]) == (str(made.session_id), "AVAILABLE", "its process is gone")
        assert run(project, "qos", "release") == (0, f"{made.session_id}  released\n")
        assert client.retrieve(UE) == ()
        client.close()
        with Remote(state.url, state.control_token) as remote:
            assert [device["name"] for device in remote.all()["devices"]] == ["ue"]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    assert server.returncode == 0
    deadline = time.monotonic() + 5
    while project.network.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
