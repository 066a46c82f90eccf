"""One version from the hub to a staging folder: documents first, the signature before any layer, each blob hashed as it arrives."""

from __future__ import annotations

import hmac
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import INDEX, LAYOUT, LAYOUT_CONTENT, read
from cellwright.bundle.manifest import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Manifest,
    assemble,
    check_signature,
    parse_index,
    parse_model,
    parse_signature,
)
from cellwright.edge.download import Download
from cellwright.edge.uses import Key
from cellwright.errors import BundleError
from cellwright.files import write_bytes


@dataclass(frozen=True)
class Order:
    """A version to pull. `held`: folders of other versions of the model, whose blobs need not come again."""

    key: Key
    digest: str
    trust: Trust
    staging: Path
    held: tuple[Path, ...] = ()
    bytes: int | None = None  # that the hub announced, and room was made for


def pull(download: Download, base: str, order: Order) -> Manifest:
    """Bring a version to its staging folder; what an earlier attempt left there is used. `base`: its path at the hub.

    Raises:
        EdgeError: the hub cannot be reached or refuses.
        BundleError: it is another version, damaged or not signed by a trusted key; the staging folder is emptied.
        WorkspaceError: the disk is full; the staging folder is emptied, so that what serves keeps its room.
    """
    try:
        manifest, documents = _documents(download, base, order)
        for path, content in documents.items():
            write_bytes(order.staging / path, content)
        for described in {d.digest: d for d in manifest.blobs if d.blob not in documents}.values():
            _bring(download, base, order, manifest, described)
        (order.staging / "partial").rmdir() if (order.staging / "partial").is_dir() else None
        return read(order.staging, order.trust)
    except Exception as error:
        if not _resumes(error):
            shutil.rmtree(order.staging, ignore_errors=True)
        raise


def _resumes(error: Exception) -> bool:
    """Whether what has arrived is of use to the next attempt: after a broken line, yes."""
    from cellwright.errors import EdgeError

    return isinstance(error, EdgeError)


def _documents(download: Download, base: str, order: Order) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and documents (path -> bytes), checked: it is this very version, signed by a trusted key."""
    documents = {LAYOUT: LAYOUT_CONTENT, INDEX: download.document(f"{base}/{INDEX}", MAX_DOCUMENT_BYTES, str(order.key))}

    def get(path: str) -> bytes:
        documents[path] = download.document(f"{base}/{path}", MAX_DOCUMENT_BYTES, str(order.key))
        return documents[path]

    index = parse_index(documents[INDEX])
    model = parse_model(get(index.model.blob), index.model)
    signature = parse_signature(get(index.signature.blob), index.signature, index.model)
    envelope = get(signature.layers[0].blob)
    signature.layers[0].check(envelope, "signature")
    manifest = assemble(index, model, signature, check_signature(envelope, index.model, order.trust))
    found = (manifest.name, manifest.version)
    if found != (order.key.model, order.key.version) or not hmac.compare_digest(manifest.digest, order.digest):
        raise BundleError(
            f"the hub announced {order.key} with {order.digest[:19]}…, and sent {found} with {manifest.digest[:19]}…"
        )
    if order.bytes is not None and manifest.bytes > order.bytes:
        raise BundleError(f"the hub announced {order.key} with {order.bytes} bytes, and its manifest names {manifest.bytes}")
    return manifest, documents


def _bring(download: Download, base: str, order: Order, manifest: Manifest, described: Descriptor) -> None:
    target = order.staging / described.blob
    if target.is_file():
        return
    if (held := _held(described, order.held)) is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(held, target)  # versions never change, so two of them may share a blob
        return
    what = next((n for n, d in manifest.layers.items() if d.digest == described.digest), described.mediaType)
    download.blob(f"{base}/{described.blob}", order.staging / "partial" / described.hex, described, what, target)


def _held(described: Descriptor, folders: Iterable[Path]) -> Path | None:
    return next((path for folder in folders if (path := folder / described.blob).is_file()), None)
