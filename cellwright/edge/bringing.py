"""One bundle on its way to a device: documents first, then every blob as cheaply as it can be had, then activation.

A blob is had, in this order: left whole by a broken fetch; held by another version on the device; rebuilt from another version by a
patch; from the network. The layout is put together aside and renamed when all of it is verified.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cellwright.bundle import store
from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import INDEX, LAYOUT, LAYOUT_CONTENT, read, verify
from cellwright.bundle.manifest import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Manifest,
    assemble,
    check_digest,
    check_name,
    check_signature,
    parse_index,
    parse_model,
    parse_signature,
)
from cellwright.edge.contract import PATCHES
from cellwright.edge.download import Download, Transfer
from cellwright.edge.wire import Nonsense
from cellwright.errors import BundleError, DeltaError, EdgeError
from cellwright.files import explained, write_bytes

MAX_BUNDLE_BYTES = 8 * 1024**3
_LEAST_PATCHED_BYTES = 64 * 1024  # below, asking for a patch costs more than it can save
_MOST_PATCH_SHARE = 0.75  # of the blob: a larger patch is not worth rebuilding from
_SLOWEST_REBUILD_BYTES_S = 140e6  # of one core (benchmarks/results, delta): on a faster link, the whole blob is there sooner
_PATCH = "application/vnd.cellwright.patch"


@dataclass(frozen=True)
class _Offer:
    """A patch that an edge has, and that pays. `base`: the file that it begins from; `edge`: whose it is."""

    base: Path
    path: str
    patch: Descriptor
    edge: str


@dataclass
class Bringing:
    """Brings one version. `base`: its address below the edge's; `rate_bit_s`: of the link, where it is known."""

    bundles: Path
    partial: Path
    trust: Trust
    download: Download
    base: str
    patches: bool = False
    rate_bit_s: float | None = None
    transfer: Transfer = field(default=Transfer(), init=False)
    delta: str | None = field(default=None, init=False)  # mode of the patches that were used
    notes: list[str] = field(default_factory=list, init=False)
    _offers: dict[str, _Offer | None] = field(default_factory=dict, init=False)  # digest of a blob -> the patch to it

    def documents(self, name: str, version: str) -> tuple[Manifest, dict[str, bytes]]:
        """Manifests and signature, checked; path -> bytes. Raises BundleError, EdgeError."""
        documents = {LAYOUT: LAYOUT_CONTENT, INDEX: self.download.document(f"{self.base}/{INDEX}", MAX_DOCUMENT_BYTES)}

        def get(path: str) -> bytes:
            documents[path] = self.download.document(f"{self.base}/{path}", MAX_DOCUMENT_BYTES)
            return documents[path]

        index = parse_index(documents[INDEX])
        model = parse_model(get(index.model.blob), index.model)
        signature = parse_signature(get(index.signature.blob), index.signature, index.model)
        envelope = get(signature.layers[0].blob)
        signature.layers[0].check(envelope, "signature")
        manifest = assemble(index, model, signature, check_signature(envelope, index.model, self.trust))
        if (manifest.name, manifest.version) != (name, version):
            raise BundleError(
                f"asked for {name} {version}, the edge sent {manifest.name} {manifest.version}; it was not activated"
            )
        if (size := sum(d.size for d in manifest.blobs)) > MAX_BUNDLE_BYTES:
            raise BundleError(f"{name} {manifest.version} has {size} bytes, at most {MAX_BUNDLE_BYTES} are fetched")
        self.transfer += Transfer(received_bytes=sum(map(len, documents.values())) - len(LAYOUT_CONTENT))
        return manifest, documents

    def plan(self, manifest: Manifest, documents: dict[str, bytes]) -> int:
        """Bytes that are still to come: not what is here (by its size; it is hashed later), and of what has a patch that patch alone."""
        staging = self.partial / manifest.digest.removeprefix("sha256:")
        blobs = {d.digest: d for d in manifest.blobs if d.blob not in documents}.values()
        return sum(self._needed(staging, manifest, described) for described in blobs)

    def complete(self, manifest: Manifest, documents: dict[str, bytes]) -> Path:
        """Bring the blobs and put the layout together aside; every byte of it is verified. Returns where it lies.

        Each byte is hashed once: documents as they were parsed, blobs as they were written (and synchronised before they got their
        name), what was left or held when it was taken up. So the whole is not read again; its documents and its files' names are.
        """
        staging = self.partial / manifest.digest.removeprefix("sha256:")
        for name, content in documents.items():
            write_bytes(staging / name, content)
        for described in {d.digest: d for d in manifest.blobs if d.blob not in documents}.values():
            self.transfer += self._bring(staging, manifest, described)
        try:
            verified = verify(staging, self.trust, hashed=frozenset(d.blob for d in manifest.blobs))
            check_digest(verified.digest, manifest.digest, "model manifest")
        except BundleError:
            shutil.rmtree(staging)
            raise
        return staging

    def _bring(self, staging: Path, manifest: Manifest, described: Descriptor) -> Transfer:
        target = staging / described.blob
        if target.is_file():
            if _sha256(target) == described.hex:
                return Transfer(resumed_bytes=described.size)
            target.unlink()
        what = _what(manifest, described)
        return (
            self._reused(described, target)
            or self._patched(staging, manifest, described, what)
            or self.download.blob(f"{self.base}/{described.blob}", self.partial / described.hex, described, what, target)
        )

    def _reused(self, described: Descriptor, target: Path) -> Transfer | None:
        """From another version on the device, hashed while it is copied."""
        for held in self.bundles.glob(f"*/*/{described.blob}"):
            if _sha256(held) == described.hex:
                with explained(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if _copied(held, target) == described.hex:
                        return Transfer(reused_bytes=described.size)
                target.unlink()
        return None

    def _needed(self, staging: Path, manifest: Manifest, described: Descriptor) -> int:
        here = (staging / described.blob, *self.bundles.glob(f"*/*/{described.blob}"))
        if any(path.is_file() and path.stat().st_size == described.size for path in here):
            return 0
        partial = self.partial / described.hex
        if partial.is_file():
            return max(0, described.size - partial.stat().st_size)
        offer = self._offers[described.digest] = self._offered(manifest, described)
        return offer.patch.size if offer else described.size

    def _patched(self, staging: Path, manifest: Manifest, described: Descriptor, what: str) -> Transfer | None:
        """Rebuilt from the same file of another version, where the edge has a patch and it pays; None: it has to come whole.

        A patch is not signed, what it leads to is. So one that is wrong is let go, and the whole asked for.
        """
        known = described.digest in self._offers
        offer = self._offers.pop(described.digest, None)
        if not known or (offer is not None and offer.edge != self.download.url):  # another edge has patches of its own
            offer = self._offered(manifest, described)
        if offer is None:
            return None
        try:
            return self._rebuilt(offer, staging, described, what)
        except (BundleError, DeltaError, EdgeError) as error:
            self.notes.append(f"{what} came whole, not by a patch: {error}"[:500])
            return None

    def _offered(self, manifest: Manifest, described: Descriptor) -> _Offer | None:
        if not self.patches or described.size < _LEAST_PATCHED_BYTES or (self.partial / described.hex).is_file():
            return None
        what = _what(manifest, described)
        for base, sha256 in self._bases(manifest, what):
            path = f"{self.base}/{PATCHES}/{sha256}/{described.hex}"
            try:
                patch = self.download.describe(path, _PATCH, f"a patch of {what}")
            except EdgeError as error:
                self.notes.append(f"{what} came whole, not by a patch: {error}"[:500])
                return None
            if patch is not None and self._pays(patch.size, described.size):
                return _Offer(base, path, patch, self.download.url)
        return None

    def _rebuilt(self, offer: _Offer, staging: Path, described: Descriptor, what: str) -> Transfer:
        from cellwright.delta import FileId, apply, inspect

        base, patch = offer.base, offer.patch
        place = self.partial / f"{patch.hex}.patch"
        came = self.download.blob(offer.path, self.partial / patch.hex, patch, f"the patch of {what}", place, again=False)
        try:
            apply(base, place, staging / described.blob, expected=FileId(sha256=described.hex, bytes=described.size))
            self.delta = inspect(place).mode
        finally:
            place.unlink()
        return came + Transfer(reused_bytes=max(0, described.size - patch.size))

    def _pays(self, patch_bytes: int, full_bytes: int) -> bool:
        if patch_bytes > _MOST_PATCH_SHARE * full_bytes:
            return False
        saved_s = (full_bytes - patch_bytes) * 8 / self.rate_bit_s if self.rate_bit_s else float("inf")
        return saved_s > full_bytes / _SLOWEST_REBUILD_BYTES_S

    def _bases(self, manifest: Manifest, what: str) -> Iterator[tuple[Path, str]]:
        """Files of that name in the versions held, the active one first."""
        now = store.pointer(self.bundles, manifest.name)
        versions = store.versions(self.bundles, manifest.name)[::-1]
        for version in sorted(versions, key=lambda v: now is None or v != now.version):
            folder = self.bundles / manifest.name / version
            try:
                layer = read(folder, self.trust).layers.get(what)
            except BundleError as error:
                self.notes.append(f"{version} is no base of a patch: {error}"[:500])
                continue
            if layer is not None:
                yield folder / layer.blob, layer.hex


def resolved(download: Download, below: str, name: str, version: str) -> dict[str, str]:
    """What an edge says a version is: name, version, digest. `below`: "/v1", or a tenant's. Raises EdgeError, BundleError."""
    found = download.json(f"{below}/bundles/{name}/{version}", f"{name} {version}")
    if not all(isinstance(found.get(key), str) for key in ("version", "digest")) or found.get("name") != name:
        raise Nonsense(f"{download.url} answered something else than a description of {name}; is it a Cellwright edge?")
    check_name(name, found["version"])
    if version not in ("latest", found["version"]):
        raise BundleError(f"asked for {name} {version}, the edge offers {found['version']}; ask for that one, or for latest")
    return found


def _what(manifest: Manifest, described: Descriptor) -> str:
    """A blob's name for people."""
    return next((name for name, layer in manifest.layers.items() if layer.digest == described.digest), described.mediaType)


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _copied(source: Path, target: Path) -> str:
    """Copy and synchronise; the SHA-256 of what was written."""
    sha256 = hashlib.sha256()
    with source.open("rb") as held, target.open("wb") as out:
        while chunk := held.read(1 << 20):
            sha256.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return sha256.hexdigest()
