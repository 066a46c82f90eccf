"""A hub on loopback and edges that ask it; `edge_cloud` can be imported by the room's tests (see conftest.py)."""

import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest

from cellwright.edge.agent import Hub, Pace
from cellwright.edge.library import Keeping
from cellwright.edge.sample import sample_request
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread as hub_in_thread
from cellwright.hub.service import open_hub

HERE = c.Location(longitude=2.05, latitude=48.05)
QUICK = Pace(beat_s=0.2, wait_s=2.0, first_pause_s=0.05, longest_pause_s=0.2, look_s=0.05)
SCOPES = ("models:read", "models:write", "placement:write", "publish", "device", "truth")


LOADED, ROWS, SITES = "mini--traffic--h6-3", (160, 399), tuple(f"c{i}" for i in range(9))


class Load:
    """Devices that ask all the time, the telemetry going on with each request; every answer is kept."""

    def __init__(self, project, edge, *, path="/v1/forecast", headers=None):
        problem, panel = project.problem, project.panel
        self.bodies = [json.dumps(sample_request(problem, panel, sites=SITES, origin=row, bundle=LOADED)) for row in range(*ROWS)]
        self.url, self.answers, self._stop = edge.url, [], threading.Event()
        self.path, self.headers = path, headers or {}

    def ask(self, number: int) -> None:
        answer = self.client.post(self.path, content=self.bodies[number % len(self.bodies)])
        self.answers.append((number % len(self.bodies), answer.status_code, answer.content))

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            self.ask(number)
            number += 1

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._run)
        with httpx.Client(base_url=self.url, headers=self.headers, trust_env=False) as self.client:
            thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                thread.join()

    def wrong(self, shift: float, new_version: str = "1.1.0") -> list[str]:
        """Answers that failed, or whose numbers are not those of the version that they name."""
        found = [f"{status}: {content[:200]}" for _, status, content in self.answers if status != 200]
        numbers: dict[tuple[int, str], list[float]] = {}
        for number, _, content in self.answers:
            told = json.loads(content)
            values = told["forecasts"]["c4"]["traffic"]
            first = numbers.setdefault((number, told["version"]), values)
            if first != pytest.approx(values, rel=1e-4):
                found.append(f"{told['version']} gave {first} and {values} for the same request")
        for number in {n for n, _ in numbers}:
            old, new = numbers.get((number, "1.0.0")), numbers.get((number, new_version))
            if old and new and [n - o for o, n in zip(old, new, strict=True)] != pytest.approx([shift] * len(old), abs=1e-2):
                found.append(f"{new_version} gave {new} where 1.0.0 gave {old}")
        return found


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
            yield SimpleNamespace(hub=hub, url=url, acme=client, acme_token=company, edge_token=edge, tmp=tmp_path)


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


def leave(cloud, device="ue-1", *, truth=False):
    """What a device shows; with `truth` a source of telemetry, whom trials believe."""
    return {"Authorization": f"Bearer {cloud.acme.grant(c.GrantAsk(device=device, truth=truth)).grant}"}


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
