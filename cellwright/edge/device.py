"""A device (UE): fetches bundles from an edge, believes only what is signed, and forecasts on its own.

<folder>/bundles/<name>/<version>/      verified OCI layouts
<folder>/bundles/<name>/latest.json     the active version; replaced whole, so it always names a verified bundle
<folder>/partial/<sha256>               blobs that are still on their way; a broken download goes on from there
<folder>/asked/                         what the hub answered last, for when it is away
<folder>/tenants/<tenant>/              the same once more for each tenant of a hub, with the keys that the hub delivered for it
"""

from __future__ import annotations

import hmac
import json
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from filelock import FileLock, Timeout

from cellwright.bundle import store
from cellwright.bundle.keys import Trust, public_pem, trusted
from cellwright.bundle.layout import verify
from cellwright.bundle.manifest import Manifest, check_name
from cellwright.edge.bringing import Bringing, resolved
from cellwright.edge.contract import Asker
from cellwright.edge.download import Download, Transfer
from cellwright.edge.fetched import Fetched
from cellwright.edge.predictor import Precision, Predictor
from cellwright.edge.request import RequestError
from cellwright.edge.wire import Link
from cellwright.errors import BundleError, EdgeError, WorkspaceError, WrongUse
from cellwright.files import write_bytes

if TYPE_CHECKING:
    from cellwright.edge.finding import Found, Wanted
    from cellwright.edge.quality import Network
    from cellwright.hub.client import HubClient

__all__ = ["Device", "Fetched", "ask", "offered"]

_LEAST_RATED_BYTES = 1 << 20  # less says little about a link
_LOCK_WAIT_S = 60
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class Device:
    """Bundles on one device. `trust`: the publishers' public keys; nothing else is ever made active."""

    def __init__(self, folder: Path, trust: Trust, *, ca: Path | None = None, name: str = "device") -> None:
        """`ca`: certificate authority (PEM) of an edge that serves over TLS, where it is not a public one. `name`: to hub and edges."""
        self.folder, self.name, self._trust = folder, name, trust
        self._parts: dict[Path, Device] = {}
        self._rate_bit_s: float | None = None  # of the link, as the last transfer of some size found it
        self._bundles, self._partial = folder / "bundles", folder / "partial"
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._loaded: dict[tuple[str, Precision], Predictor] = {}

    def fetch(self, url: str, name: str, version: str = "latest", *, patches: bool = False) -> Fetched:
        """Download a bundle from one edge, verify it, and make it the active one. `patches`: by a patch, where the edge has one.

        The signature is checked before the first layer is asked for, every blob's hash while it arrives.

        Raises:
            EdgeError: the edge cannot be reached, or has no such bundle; run again to resume.
            BundleError: the bundle is damaged, tampered with or not signed by a trusted key; what was active stays active.
        """
        check_name(name, version if version != "latest" else "0.0.0")
        started = time.perf_counter()
        with self.locked(), closing(Link(url, tls=self._tls)) as link:
            download = Download(link)
            found = resolved(download, "/v1", name, version)
            if held := self.held(name, found):
                return self.activated(held, started)
            bringing = self.bringing(download, f"/v1/bundles/{name}/{found['version']}", patches)
            manifest, documents = bringing.documents(name, found["version"])
            return self.activate(bringing.complete(manifest, documents), manifest, bringing, started)

    def get(
        self,
        hub: HubClient,
        wanted: Wanted | None = None,
        *,
        deadline_s: float | None = None,
        qos: Asker = "edge",
        network: Network | None = None,
        patches: bool = True,
        edge: str | None = None,
    ) -> Fetched:
        """The model that this device needs, here and now, made active under `of(tenant)`.

        Args:
            hub: says which model, by whose keys, from which edges, and gives leave to fetch it.
            qos: who asks the network for quality of service: the edge, told of the arrival; the device itself; nobody.
            network: says which edge is closest, and follows the device while it moves; None: the hub's order by distance.
            edge: name of the only edge to use, or its address.

        Raises:
            HubError: nothing it has fits; or it cannot be reached, and this device did not ask it the same within a day.
            EdgeError: no edge can be reached; run again to resume.
            BundleError: what came was not what was signed, from any edge there is; what was active stays active.
        """
        from cellwright.edge.finding import Finder, Wanted
        from cellwright.edge.getting import Getting
        from cellwright.edge.remembered import Memory

        if qos == "device" and network is None:
            raise WrongUse("to ask for quality of service itself, the device needs a network; give one, or let the edge ask")
        finder = Finder(hub, self.name, network.closest_zone if network else None, edge, Memory(self.folder / "asked"))
        getting = Getting(finder, wanted or Wanted(), self._of, deadline_s, qos, network, patches, self._tls)
        return getting.run()

    def of(self, tenant: str) -> Device:
        """The same device's models of one tenant, believing the keys that the hub last delivered for it."""
        folder = path_of(self.folder, tenant)
        return self._like(folder, trusted(folder / "keys"))

    def _of(self, found: Found) -> Device:
        keys = path_of(self.folder, found.tenant) / "keys" / "trusted"
        wanted = {f"{known}.pub": public_pem(key) for known, key in found.trust.items()}
        for name, content in wanted.items():
            write_bytes(keys / name, content)
        for path in keys.glob("*.pub"):
            if path.name not in wanted:
                path.unlink()  # the hub no longer stands for it
        return self._like(path_of(self.folder, found.tenant), found.trust)

    def _like(self, folder: Path, trust: Trust) -> Device:
        made = self._parts.setdefault(folder, Device(folder, trust, name=self.name))
        made._trust, made._tls = trust, self._tls
        return made

    def forecast(self, request: dict[str, Any], *, precision: Precision = "fp32") -> dict[str, Any]:
        """Answer a request (see request.py) from the active bundle, without any network.

        Raises:
            RequestError: the request is malformed.
            BundleError: no bundle is active, or it was damaged since.
        """
        return self._predictor(request.get("bundle"), precision).forecast(request)

    def active(self) -> dict[str, str]:
        """Name -> active version."""
        found = {name: store.pointer(self._bundles, name) for name in store.names(self._bundles)}
        return {name: now.version for name, now in found.items() if now}

    def _predictor(self, name: str | None, precision: Precision) -> Predictor:
        names = store.names(self._bundles)
        if name is None and len(names) != 1:
            raise RequestError(
                400, f"name one bundle under 'bundle'; on this device: {', '.join(names) or 'none (fetch one first)'}"
            )
        wanted = name or names[0]
        now, held = store.pointer(self._bundles, wanted), self._loaded.get((wanted, precision))
        if held is None or now is None or held.manifest.digest != now.digest:
            folder, _ = store.latest(self._bundles, wanted, self._trust)
            self._loaded[wanted, precision] = held = Predictor.load(folder, self._trust, precision=precision)
        return held

    # steps of a fetch (getting.py)

    def held(self, name: str, found: dict[str, str]) -> Manifest | None:
        """The manifest of a version that is here already; one that was damaged since is removed, so that it is fetched again."""
        folder = self._bundles / name / found["version"]
        if not folder.exists():
            return None
        try:
            manifest = verify(folder, self._trust)
        except BundleError:
            shutil.rmtree(folder)
            return None
        if not hmac.compare_digest(manifest.digest, found["digest"]):
            raise BundleError(
                f"{name} {manifest.version} is here with digest {manifest.digest[:19]}…, the edge has {found['digest'][:19]}…"
            )
        return manifest

    def activated(self, manifest: Manifest, started: float) -> Fetched:
        """Make a version active that is here already."""
        now = store.pointer(self._bundles, manifest.name)
        path = store.place(self._bundles, self._bundles / manifest.name / manifest.version, manifest, activate=True)
        new = now is None or now.version != manifest.version
        return Fetched(manifest.name, manifest.version, manifest.digest, path, new, Transfer(), time.perf_counter() - started)

    def bringing(self, download: Download, base: str, patches: bool) -> Bringing:
        """A fetch into this device's folders."""
        return Bringing(self._bundles, self._partial, self._trust, download, base, patches, self._rate_bit_s)

    def activate(self, staging: Path, manifest: Manifest, bringing: Bringing, started: float) -> Fetched:
        """Put a layout that is verified in its place, and make it the active one."""
        verified_s = time.perf_counter() - started
        path = store.place(self._bundles, staging, manifest, activate=True, move=True)
        seconds = time.perf_counter() - started
        moved = bringing.transfer
        if moved.received_bytes >= _LEAST_RATED_BYTES:
            self._rate_bit_s = 8 * moved.received_bytes / verified_s
        return Fetched(
            manifest.name,
            manifest.version,
            manifest.digest,
            path,
            True,
            moved,
            seconds,
            verified_s,
            streams=bringing.download.streams,
            delta=bringing.delta,
            notes=tuple(bringing.notes),
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One fetch at a time. Raises WorkspaceError: another process has been at it for too long."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=_LOCK_WAIT_S):
                yield
        except Timeout:
            raise WorkspaceError(
                f"another process has been fetching into {self.folder} for {_LOCK_WAIT_S} s; wait for it"
            ) from None


def path_of(folder: Path, tenant: str) -> Path:
    """Where a device keeps a tenant's models."""
    return folder / "tenants" / tenant


def ask(url: str, request: dict[str, Any], *, ca: Path | None = None) -> dict[str, Any]:
    """The edge's answer to a request (see request.py).

    Raises:
        RequestError: the edge refuses it; the message is the edge's.
        EdgeError: it cannot be reached, or is too busy.
    """
    return _exchange("POST", url, "/v1/forecast", ca, json.dumps(request))


def offered(url: str, *, ca: Path | None = None) -> tuple[str, ...]:
    """Names of the bundles that an edge has a latest version of.

    Raises:
        EdgeError: it cannot be reached.
    """
    listed = _exchange("GET", url, "/v1/bundles", ca).get("bundles", [])
    return tuple(bundle["name"] for bundle in listed if bundle.get("latest"))


def _exchange(method: str, url: str, path: str, ca: Path | None, content: str | None = None) -> dict[str, Any]:
    verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
    try:
        response = httpx.request(method, f"{url.rstrip('/')}{path}", content=content, timeout=_TIMEOUT, verify=verify)
        body = response.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EdgeError(f"cannot reach an edge at {url} ({error}); start one with `cellwright edge serve`") from error
    except ValueError:
        raise EdgeError(f"{url} answered no JSON (status {response.status_code}); is it a Cellwright edge?") from None
    if not isinstance(body, dict):
        raise EdgeError(f"{url} answered no JSON object; is it a Cellwright edge?")
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise EdgeError(f"{url} is too busy: {body.get('detail')}")
    if response.is_error:
        raise RequestError(response.status_code, str(body.get("detail", response.reason_phrase)))
    return body
