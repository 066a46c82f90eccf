"""What the tests of fetching share: a network that breaks or lies as told, and a hub with edges."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from cellwright.edge.agent import Hub, Pace
from cellwright.edge.device import Device
from cellwright.edge.finding import Wanted
from cellwright.edge.library import Keeping
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits, tls_context
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread as hub_in_thread
from cellwright.hub.service import open_hub
from cellwright.web.running import Listening

SCOPES = ("models:read", "models:write", "placement:write", "publish", "device")
HERE = c.Location(longitude=2.05, latitude=48.05)
WANTED = Wanted(service="guide", location=HERE)
_QUICK = Pace(beat_s=0.2, wait_s=2.0, first_pause_s=0.05, longest_pause_s=0.2, look_s=0.05)


@dataclass
class Line:
    """A TCP line to a server. `cuts`: bytes towards the client after which a connection breaks; each once, in this order."""

    target: tuple[str, int]
    cuts: list[int] = field(default_factory=list)
    spoil: int | None = None  # every connection: the byte at this offset is another
    on_cut: Callable[[int], None] = lambda number: None
    down: bool = False  # nobody is let through
    connections: int = 0

    @contextmanager
    def open(self) -> Iterator[str]:
        server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()

    def _accept(self, server):
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return  # closed: the end
            if self.down:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client, self.connections), daemon=True).start()
            self.connections += 1

    def _carry(self, client, number):
        sent = 0
        with client, socket.create_connection(self.target) as upstream:
            threading.Thread(target=_pump, args=(client, upstream), daemon=True).start()
            try:
                while chunk := upstream.recv(65536):
                    if self.spoil is not None and sent <= self.spoil < sent + len(chunk):
                        chunk = bytearray(chunk)
                        chunk[self.spoil - sent] ^= 1
                    if self.cuts and sent + len(chunk) > self.cuts[0]:
                        client.sendall(chunk[: max(0, self.cuts.pop(0) - sent)])
                        self.on_cut(number)
                        client.shutdown(socket.SHUT_RDWR)  # closing alone would wait for the other thread
                        return
                    client.sendall(chunk)
                    sent += len(chunk)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the client is gone


def _pump(source, target):
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
    except OSError:
        return  # the other side was cut


def line_to(url: str, **how) -> Line:
    parts = urlsplit(url)
    return Line((parts.hostname, parts.port), **how)


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def until(what, seconds: float = 30.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


@dataclass
class Cloud:
    """A hub, tenant acme, and edges that hold the model "guide"."""

    hub: object
    url: str
    acme: HubClient
    folder: Path
    edges: dict[str, Edge] = field(default_factory=dict)

    def publish(self, version: str, content: bytes, model: str = "guide") -> None:
        path = self.folder / "upload.bin"
        path.write_bytes(content)
        self.acme.upload(path, c.UploadForm(model=model, version=version, format="opaque", bytes=len(content)))
        self.acme.place(model, c.PlacementForm(model=model, services=("guide",)))
        self.acme.publish(model, c.Publication(version=version))

    def token(self, tenant: str, name: str, *scopes: str) -> str:
        return self.hub.new_token(LOCAL, tenant, c.TokenForm(name=name, scopes=scopes)).token

    def held(self, version: str) -> bool:
        """Whether all edges hold it and the hub knows."""
        found = self.acme.match(c.MatchAsk(device="ue-1", service="guide", location=HERE))
        return found.version == version and len(found.edges) == len(self.edges) and all(e.holds for e in found.edges)

    def device(self, folder: Path) -> Device:
        return Device(folder, {}, name="ue-1")


@contextmanager
def cloud_of(
    folder: Path,
    content: bytes,
    edges: Sequence[tuple[str, float]],
    lines: dict[str, Line],
    *,
    tls: tuple[Path, Path, Path] | None = None,
    **more,
) -> Iterator[Cloud]:
    """`edges`: name and longitude; `lines`: name -> how devices reach it; `tls`: certificate, key, authority; `more`: for every edge."""
    certificate, key, ca = tls or (None, None, None)
    secured = tls_context(certificate, key) if certificate else None
    with ExitStack() as stack:
        hub = stack.enter_context(open_hub(folder / "hub"))
        hub.put_tenant(LOCAL, "acme", c.TenantForm())
        url = stack.enter_context(hub_in_thread(hub, Listening(certificate=certificate, key=key)))
        token = hub.new_token(LOCAL, "acme", c.TokenForm(name="ci", scopes=SCOPES)).token
        cloud = Cloud(hub, url, HubClient(url, token, ca=ca), folder)
        stack.callback(cloud.acme.close)
        for name, longitude in edges:
            public = None
            if name in lines:
                public = stack.enter_context(lines[name].open())
            where = c.Location(longitude=longitude, latitude=48.05)
            told = Hub(url, cloud.token("operator", name, "edge"), name, where, url=public, ca=ca)
            kept = {"hub": told, "keeping": Keeping(), "pace": _QUICK}
            edge = Edge(folder / name, {}, port=0, limits=Limits(poll_s=5, shutdown_s=1), tls=secured, **kept, **more)
            edge.agent._energy = False
            cloud.edges[name] = stack.enter_context(in_thread(edge))
            if name in lines:
                lines[name].target = (edge.host, edge.port)
        cloud.publish("1.0.0", content)
        until(lambda: cloud.held("1.0.0"))
        yield cloud
