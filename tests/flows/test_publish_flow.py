"""Publishing is one transaction: what fails later takes registry, edge and hub back; what ends well is in all three."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace

import pytest

from cellwright.bundle import store
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread
from cellwright.hub.service import open_hub
from cellwright.workspace import Workspace

NAME = "town--traffic_mbps--h6-3"
PUBLISH = "from flows.publish import publish; print(publish(overrides={overrides!r}))"
FAIL = """
from prefect import task
import flows.publish as flow

@task
def broken(root, run):
    raise RuntimeError("the report's disk is gone")

flow.write_report = broken
try:
    flow.publish(overrides={overrides!r})
except RuntimeError as error:
    print("failed:", error)
"""
STOP = """
import json, os, signal
from pathlib import Path
from prefect import task
import cellwright.steps.hub as hubs
import flows._publication as parts
import flows.publish as flow
from cellwright.bundle import store
from cellwright.registry import champions
from cellwright.workspace import Workspace

def stop(*_, **__):
    if {kill}:
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("stopped here")

@task
def broken(*_, **__):
    stop()

PLACES = {{
    "registered": (parts, "publish_bundle", broken), "placed": (parts, "publish_to_hub", broken),
    "uploaded": (hubs, "put_in_use", stop), "in use": (flow, "write_report", broken), "reported": (parts, "settle", stop),
}}
ws = Workspace(Path.cwd())
for name in {places!r}:
    where, what, instead = PLACES[name]
    whole = getattr(where, what)
    setattr(where, what, instead)
    try:
        flow.publish(overrides={overrides!r})
    except RuntimeError as error:
        latest = store.pointer(ws.published, {model!r})
        stands = [champions.number(ws, {model!r}), store.versions(ws.published, {model!r}), latest]
        print("stopped:", name, error, json.dumps(stands))
    setattr(where, what, whole)
"""
AS_BEFORE = """
from pathlib import Path
from cellwright.bundle import store
from cellwright.registry import champions
from cellwright.workspace import Workspace
ws = Workspace(Path.cwd())
champions.give_back(ws, {name!r}, "1", None, "as if it had never won")
store.unpublish(ws.published, {name!r}, "1.0.0")
"""


@pytest.fixture
def copied(project, ended, tmp_path):
    """A copy of the project after its first run: nothing that is done to it is seen by other tests."""
    root = tmp_path / "copy"
    shutil.copytree(project.root, root, symlinks=True)
    environment = project.environment | {"CELLWRIGHT_ROOT": str(root)}
    environment["PYTHONPATH"] = environment["PYTHONPATH"].replace(str(project.root), str(root))
    return replace(project, root=root, environment=environment)


@pytest.fixture
def hub(tmp_path):
    """(client, address, token) of a hub with an edge that shall hold the model."""
    with open_hub(tmp_path / "hub") as opened, in_thread(opened) as url:
        opened.put_tenant(LOCAL, "town", c.TenantForm())
        scopes = ("models:read", "models:write", "placement:write", "publish")
        token = opened.new_token(LOCAL, "town", c.TokenForm(name="flows", scopes=scopes)).token
        with HubClient(url, token) as client:
            yield client, url, token


def champions(project) -> list[tuple[str, str | None]]:
    found = json.loads(project.cellwright("champion", "list", "--json").stdout)
    return [(each["model_name"], each["version"]) for each in found]


def test_a_later_failure_takes_the_publication_back_and_success_reaches_edge_hub_and_registry(copied, hub):
    client, url, token = hub
    ws = Workspace(copied.root)
    acting = replace(copied, environment=copied.environment | {"CELLWRIGHT_HUB_TOKEN": token})
    overrides = [f"hub.url={url}"]
    assert acting.program(sys.executable, "-c", AS_BEFORE.format(name=NAME)).returncode == 0
    assert champions(acting) == [(NAME, None)]

    failed = acting.program(sys.executable, "-c", FAIL.format(overrides=overrides))
    assert "failed: the report's disk is gone" in failed.stdout, failed.stderr
    assert f"publish  taken back: {NAME} is as it was before (nothing serves)" in failed.stderr
    assert store.versions(ws.published, NAME) == []
    assert store.pointer(ws.published, NAME) is None
    assert client.models() == ()
    assert champions(acting) == [(NAME, None)]

    done = acting.program(sys.executable, "-c", PUBLISH.format(overrides=overrides))
    assert done.returncode == 0, done.stderr
    assert f"{NAME} 1.0.0: there was no champion yet" in done.stdout
    assert store.pointer(ws.published, NAME).version == "1.0.0"
    assert client.publication(NAME).shares == {"1.0.0": 1.0}
    assert client.release(NAME, "1.0.0").digest == store.digest_of(ws.published, NAME, "1.0.0")
    assert champions(acting) == [(NAME, "1")]

    again = acting.program(sys.executable, "-c", FAIL.format(overrides=overrides))  # what stood before is what stands
    assert "failed:" in again.stdout, again.stderr
    assert client.publication(NAME).shares == {"1.0.0": 1.0}
    assert champions(acting) == [(NAME, "1")]

    client.unpublish(NAME)
    followed = acting.cellwright("rollout", "follow", "--set", overrides[0])
    assert f"hub: {NAME} 1.0.0 on no edge yet" in followed.stdout, followed.stderr
    assert acting.cellwright("rollout", "follow", "--set", overrides[0]).stdout.strip() == "nothing has changed"
    refused = acting.cellwright("rollout", "start", NAME, "1.0.0", "--mode", "canary")
    assert refused.returncode == 2
    assert "in use already" in refused.stderr
    assert "there was no rollout yet" in acting.cellwright("rollout", "status").stdout


class Publishing:
    """A project whose run was published and is as if it never had been, and a hub."""

    def __init__(self, copied, hub) -> None:
        self.client, self.url, token = hub
        self.ws = Workspace(copied.root)
        self.project = replace(copied, environment=copied.environment | {"CELLWRIGHT_HUB_TOKEN": token})
        assert self.project.program(sys.executable, "-c", AS_BEFORE.format(name=NAME)).returncode == 0

    def stopped(self, *places: str, kill: bool = False):
        """One publication after the other, stopped at these places."""
        script = STOP.format(places=places, kill=kill, model=NAME, overrides=[f"hub.url={self.url}"])
        return self.project.program(sys.executable, "-c", script)

    def stands(self) -> tuple:
        """(champion's number, published versions, the hub's shares)."""
        shares = () if self.client.models() == () else self.client.publication(NAME).shares
        return champions(self.project)[0][1], store.versions(self.ws.published, NAME), shares


def test_wherever_it_fails_nothing_is_published(copied, hub):
    publishing, places = Publishing(copied, hub), ("registered", "placed", "uploaded", "in use")
    failed = publishing.stopped(*places)
    said = [line for line in failed.stdout.splitlines() if line.startswith("stopped:")]
    assert said == [f"stopped: {place} stopped here [null, [], null]" for place in places], failed.stderr
    assert publishing.stands() == (None, [], ())


@pytest.mark.slow
def test_after_a_kill_the_next_start_knows_what_stood_before(copied, hub):
    publishing = Publishing(copied, hub)
    assert publishing.stopped("uploaded", kill=True).returncode == -signal.SIGKILL
    assert champions(publishing.project) == [
        (NAME, "1")
    ]  # half of it: the hub holds the version, and no edge is told to serve it
    assert publishing.client.models() != ()
    assert "stopped: in use" in publishing.stopped("in use").stdout
    assert publishing.stands() == (None, [], ())

    assert publishing.stopped("reported", kill=True).returncode == -signal.SIGKILL
    done = publishing.project.program(sys.executable, "-c", PUBLISH.format(overrides=[f"hub.url={publishing.url}"]))
    assert done.returncode == 0, done.stderr
    assert publishing.stands() == ("1", ["1.0.0"], {"1.0.0": 1.0})
    assert not list((copied.root / "artifacts").glob("*/standing.json"))
