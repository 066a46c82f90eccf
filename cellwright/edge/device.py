"""A device (UE): fetches bundles from an edge, believes only what is signed, and forecasts on its own.

<folder>/bundles/<name>/<version>/      verified OCI layouts
<folder>/bundles/<name>/latest.json     the active version; replaced whole, so it always names a verified bundle
<folder>/partial/<sha256>               blobs that are still on their way; a broken download goes on from there
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout

from cellwright.bundle import store
from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import INDEX, LAYOUT, LAYOUT_CONTENT, verify
from cellwright.bundle.manifest import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Manifest,
    assemble,
    check_name,
    check_signature,
    parse_index,
    parse_model,
    parse_signature,
)
from cellwright.edge.download import Download, Transfer
from cellwright.edge.predictor import Precision, Predictor
from cellwright.edge.request import RequestError
from cellwright.errors import BundleError, EdgeError, WorkspaceError
from cellwright.files import write_bytes

MAX_BUNDLE_BYTES = 8 * 1024**3
_LOCK_WAIT_S = 60
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True)
class Fetched:
    """A bundle that was fetched, verified and made active."""

    name: str
    version: str
    digest: str
    path: Path
    new: bool  # False: this version was active already
    transfer: Transfer  # bytes received over the network, resumed, reused
    seconds: float  # all of it: asking, downloading, verifying, activating

    @property
    def rate_bps(self) -> float:
        """Bits a second over the network."""
        return 8 * self.transfer.received_bytes / self.seconds if self.seconds > 0 else 0.0


class Device:
    """Bundles on one device. `trust`: the publishers' public keys; nothing else is ever made active."""

    def __init__(self, folder: Path, trust: Trust, *, ca: Path | None = None) -> None:
        """`ca`: certificate authority (PEM) of an edge that serves over TLS, where it is not a public one."""
        self.folder, self._trust = folder, trust
        self._bundles, self._partial = folder / "bundles", folder / "partial"
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._loaded: dict[tuple[str, Precision], Predictor] = {}

    def fetch(self, url: str, name: str, version: str = "latest") -> Fetched:
        """Download a bundle, verify it, and make it the active one.

        The signature is checked before the first layer is asked for, every blob's hash while it arrives.

        Raises:
            EdgeError: the edge cannot be reached, or has no such bundle; run again to resume.
            BundleError: the bundle is damaged, tampered with or not signed by a trusted key; what was active stays active.
        """
        check_name(name, version if version != "latest" else "0.0.0")
        started = time.perf_counter()
        with self._locked(), httpx.Client(base_url=url, timeout=_TIMEOUT, verify=self._tls) as client:
            download = Download(client, url)
            found = self._resolve(download, name, version)
            if held := self._held(name, found):
                return self._activated(held, started)
            base = f"/v1/bundles/{name}/{found['version']}"
            manifest, documents = self._documents(download, base, name, found)
            return self._complete(download, base, manifest, documents, started)

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

    def _resolve(self, download: Download, name: str, version: str) -> dict[str, str]:
        found = download.json(f"/v1/bundles/{name}/{version}", f"{name} {version}")
        if not all(isinstance(found.get(key), str) for key in ("version", "digest")) or found.get("name") != name:
            raise EdgeError(f"{download.url} answered something else than a description of {name}; is it a Cellwright edge?")
        check_name(name, found["version"])
        if version not in ("latest", found["version"]):
            raise BundleError(f"asked for {name} {version}, the edge offers {found['version']}; ask for that one, or for latest")
        return found

    def _documents(self, download: Download, base: str, name: str, found: dict[str, str]) -> tuple[Manifest, dict[str, bytes]]:
        """Manifests and signature, checked; path -> bytes."""
        documents = {LAYOUT: LAYOUT_CONTENT, INDEX: download.document(f"{base}/{INDEX}", MAX_DOCUMENT_BYTES)}

        def get(path: str) -> bytes:
            documents[path] = download.document(f"{base}/{path}", MAX_DOCUMENT_BYTES)
            return documents[path]

        index = parse_index(documents[INDEX])
        model = parse_model(get(index.model.blob), index.model)
        signature = parse_signature(get(index.signature.blob), index.signature, index.model)
        envelope = get(signature.layers[0].blob)
        signature.layers[0].check(envelope, "signature")
        manifest = assemble(index, model, signature, check_signature(envelope, index.model, self._trust))
        if (manifest.name, manifest.version) != (name, found["version"]):
            raise BundleError(
                f"asked for {name} {found['version']}, the edge sent {manifest.name} {manifest.version}; it was not activated"
            )
        if (size := sum(d.size for d in manifest.blobs)) > MAX_BUNDLE_BYTES:
            raise BundleError(f"{name} {manifest.version} has {size} bytes, at most {MAX_BUNDLE_BYTES} are fetched")
        return manifest, documents

    def _held(self, name: str, found: dict[str, str]) -> Manifest | None:
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

    def _activated(self, manifest: Manifest, started: float) -> Fetched:
        """Make a version active that is here already."""
        now = store.pointer(self._bundles, manifest.name)
        path = store.place(self._bundles, self._bundles / manifest.name / manifest.version, manifest, activate=True)
        new = now is None or now.version != manifest.version
        return Fetched(manifest.name, manifest.version, manifest.digest, path, new, Transfer(), time.perf_counter() - started)

    def _complete(
        self, download: Download, base: str, manifest: Manifest, documents: dict[str, bytes], started: float
    ) -> Fetched:
        """Bring the layers, put the layout together aside, verify it whole, and activate it."""
        staging = self._partial / manifest.digest.removeprefix("sha256:")
        for name, content in documents.items():
            write_bytes(staging / name, content)
        total = Transfer(received_bytes=sum(map(len, documents.values())) - len(LAYOUT_CONTENT))
        for described in {d.digest: d for d in manifest.blobs if d.blob not in documents}.values():
            total += self._bring(download, base, staging, manifest, described)
        try:
            verified = verify(staging, self._trust)
        except BundleError:
            shutil.rmtree(staging)
            raise
        path = store.place(self._bundles, staging, verified, activate=True, move=True)
        return Fetched(manifest.name, manifest.version, manifest.digest, path, True, total, time.perf_counter() - started)

    def _bring(self, download: Download, base: str, staging: Path, manifest: Manifest, described: Descriptor) -> Transfer:
        """One blob: left by a broken fetch, held undamaged by another version, or from the network."""
        target = staging / described.blob
        if target.is_file():
            return Transfer(resumed_bytes=described.size)
        if held := next((p for p in self._bundles.glob(f"*/*/{described.blob}") if _sha256(p) == described.hex), None):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(held, target)
            return Transfer(reused_bytes=described.size)
        what = next((n for n, d in manifest.layers.items() if d.digest == described.digest), described.mediaType)
        return download.blob(f"{base}/{described.blob}", self._partial / described.hex, described, what, target)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=_LOCK_WAIT_S):
                yield
        except Timeout:
            raise WorkspaceError(
                f"another process has been fetching into {self.folder} for {_LOCK_WAIT_S} s; wait for it"
            ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
