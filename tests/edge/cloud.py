"""A hub on loopback and edges that ask it; `edge_cloud` can be imported by the room's tests (see conftest.py)."""

import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest

from cellwright.edge.agent import Hub, Pace
from cellwright.edge.library import Keeping
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread as hub_in_thread
from cellwright.hub.service import open_hub

HERE = c.Location(longitude=2.05, latitude=48.05)
QUICK = Pace(beat_s=0.2, wait_s=2.0, first_pause_s=0.05, longest_pause_s=0.2, look_s=0.05)
SCOPES = ("models:read", "models:write", "placement:write", "publish", "device")


def until(what, seconds=20.0):
    """Wait for something to become true; what it is then."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def operator_cloud(tmp_path):
    """A hub on loopback; its tenant acme, and a token for the edge `east`."""
    with open_hub(tmp_path / "hub") as hub:
        hub.put_tenant(LOCAL, "acme", c.TenantForm())
        company = hub.new_token(LOCAL, "acme", c.TokenForm(name="ci", scopes=SCOPES)).token
        edge = hub.new_token(LOCAL, "operator", c.TokenForm(name="east", scopes=("edge",))).token
        with hub_in_thread(hub) as url, HubClient(url, company) as client:
            yield SimpleNamespace(hub=hub, url=url, acme=client, edge_token=edge, tmp=tmp_path)


def publish(cloud, model, version="1.0.0", content=None, *, weights=None, upload=True, **rule):
    path = cloud.tmp / "upload.bin"
    content = f"{model} {version} ".encode() * 100 if content is None else content
    path.write_bytes(content)
    if upload:
        cloud.acme.upload(path, c.UploadForm(model=model, version=version, format="opaque", bytes=len(content)))
    cloud.acme.place(model, c.PlacementForm(model=model, **rule))
    cloud.acme.publish(model, c.Publication(version=version, **(weights or {})))
    return content


@contextmanager
def edge_of(cloud, url=None, *, name="east", more=None, **keeping):
    token = cloud.edge_token if name == "east" else new_edge(cloud, name)
    hub = Hub(url or cloud.url, token, name, HERE)
    keep = Keeping(**{"disk_bytes": 10**9, "linger_s": 0.0} | keeping)
    folder = cloud.tmp / ("store" if name == "east" else f"store-{name}")
    limits = Limits(poll_s=5, shutdown_s=2)
    edge = Edge(folder, {}, port=0, limits=limits, hub=hub, keeping=keep, pace=QUICK, energy=False, **(more or {}))
    with in_thread(edge) as running, httpx.Client(base_url=running.url, headers=leave(cloud)) as http:
        running.http = http
        yield running


def leave(cloud, device="ue-1"):
    """What a device shows."""
    return {"Authorization": f"Bearer {cloud.acme.grant(c.GrantAsk(device=device)).grant}"}


def served(edge, model):
    """Latest version of a model and its content, from the edge."""
    found = edge.http.get(f"/v1/tenants/acme/bundles/{model}/latest")
    if found.status_code != 200:
        return None
    digest = found.json()["layers"]["model.bin"]["digest"].removeprefix("sha256:")
    version = found.json()["version"]
    got = edge.http.get(f"/v1/tenants/acme/bundles/{model}/{version}/blobs/sha256/{digest}")
    return (version, got.content) if got.status_code == 200 else None


def new_edge(cloud, name):
    """A token for another edge."""
    return cloud.hub.new_token(LOCAL, "operator", c.TokenForm(name=name, scopes=("edge",))).token
