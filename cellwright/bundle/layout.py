"""A bundle on disk: an OCI image layout that holds one signed model.

    oci-layout               {"imageLayoutVersion":"1.0.0"}
    index.json               the two manifests (see manifest.py)
    blobs/sha256/<hex>       manifests, config, layers, signature

Equal contents give equal bytes: JSON is canonical, Ed25519 signatures are deterministic, and the only date is the one given.
Nothing is ever unpickled; ONNX and JSON are all there is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import dsse, media
from cellwright.bundle.keys import Trust, key_id
from cellwright.bundle.manifest import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Manifest,
    assemble,
    canonical,
    check_digest,
    check_name,
    check_signature,
    parse_index,
    parse_model,
    parse_signature,
)
from cellwright.errors import BundleError
from cellwright.files import whole_folder

LAYOUT, INDEX = "oci-layout", "index.json"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
_MOST_FILES = 64


@dataclass(frozen=True)
class About:
    """What a bundle says of its model in the ModelPack config."""

    name: str
    version: str
    title: str  # "PatchTST"
    family: str  # the zoo's name: "patchtst"
    description: str
    parameters: int
    created: str | None  # RFC 3339; the only date in a bundle
    revision: str | None  # commit


def pack(folder: Path, contents: Mapping[str, bytes | Path], about: About, key: Ed25519PrivateKey) -> Manifest:
    """Write a signed bundle to `folder`, whole or not at all. `contents`: layer name (`media.LAYERS`) -> bytes or file.

    Raises:
        BundleError: a layer is missing or unknown, or the name or version cannot be one.
    """
    with whole_folder(folder) as aside:
        layers = [(name, kind, contents[name], None) for name, kind in media.LAYERS.items() if name in contents]
        write(aside, layers, about, key)
        manifest = verify(aside, {key_id(key.public_key()): key.public_key()})
    return manifest


def write(
    folder: Path,
    files: Sequence[tuple[str, str, bytes | Path, str | None]],
    about: About,
    key: Ed25519PrivateKey,
    *,
    file_format: str | None = None,
) -> None:
    """Put a layout together in an empty folder. `files`: name, media type, content, and its SHA-256 where it is known.

    Raises:
        BundleError: what was put together is not a bundle.
    """
    check_name(about.name, about.version)
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layers = [_add(folder, content, kind, {media.FILEPATH: name}, sha256) for name, kind, content, sha256 in files]
    config = _add(folder, canonical(_config(about, layers, file_format)), media.MODEL_CONFIG)
    document = _manifest(media.MODEL_ARTIFACT, config, layers, annotations=_annotations(about, file_format))
    model = _add(folder, document, media.OCI_MANIFEST)
    parse_model(document, model)  # what is not accepted is not written
    signature = _sign(folder, model, key)
    named = model.model_copy(update={"artifactType": media.MODEL_ARTIFACT, "annotations": {media.REF_NAME: about.version}})
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [_plain(named), _plain(signature)]}
    (folder / INDEX).write_bytes(canonical(index))
    (folder / LAYOUT).write_bytes(LAYOUT_CONTENT)


def content_digest(contents: Mapping[str, bytes | Path]) -> str:
    """SHA-256 (hexadecimal) over all layers: names a version where none was given."""
    return hashlib.sha256(canonical({name: _sha256(content) for name, content in contents.items()})).hexdigest()


def verify(folder: Path, trusted_keys: Trust, *, hashed: Set[str] = frozenset()) -> Manifest:
    """Check every byte of a bundle: signature first, then each blob's hash, then that nothing else lies there.

    `hashed`: blobs (paths inside the layout) that the caller itself has hashed as they were written; of those only the size is looked at.

    Raises:
        BundleError: what is wrong, and with which file.
    """
    found = _listing(folder)
    manifest = read(folder, trusted_keys)
    expected = {LAYOUT, INDEX, *(d.blob for d in manifest.blobs)}
    if missing := expected - found:
        raise BundleError(f"{folder} lacks {_named(manifest, min(missing))}; it is incomplete: fetch or publish it again")
    if extra := found - expected:
        raise BundleError(f"{folder} holds {min(extra)}, which its manifest does not name; remove it")
    for described in manifest.blobs:
        _check_blob(folder, described, _named(manifest, described.blob), hashed=described.blob in hashed)
    return manifest


def read(folder: Path, trusted_keys: Trust) -> Manifest:
    """The manifest of a bundle, its signature checked; the layers are not read (`verify` does).

    Raises:
        BundleError: a document is missing, malformed, or not signed by a trusted key.
    """
    layout = _bounded(folder, LAYOUT)
    if layout.strip() != LAYOUT_CONTENT:
        raise BundleError(f"{folder}/{LAYOUT}: expected {LAYOUT_CONTENT.decode()}, found {layout[:80].decode(errors='replace')}")
    index = parse_index(_bounded(folder, INDEX))
    model = parse_model(_bounded(folder, index.model.blob), index.model)
    signature = parse_signature(_bounded(folder, index.signature.blob), index.signature, index.model)
    envelope = _bounded(folder, signature.layers[0].blob)
    signature.layers[0].check(envelope, "signature")
    return assemble(index, model, signature, check_signature(envelope, index.model, trusted_keys))


def read_layer(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of a layer, hashed as they were read: what is used is what was signed.

    Raises:
        BundleError: the bundle has no such layer, or its bytes are others.
    """
    if name not in manifest.layers:
        raise BundleError(f"bundle {manifest.name} {manifest.version} has no {name}; it has {', '.join(manifest.layers)}")
    described = manifest.layers[name]
    try:
        content = (folder / described.blob).read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{folder} lacks {name}; fetch or publish it again") from None
    described.check(content, name)
    return content


def _add(
    folder: Path, content: bytes | Path, kind: str, annotations: dict[str, str] | None = None, sha256: str | None = None
) -> Descriptor:
    digest = sha256 or _sha256(content)
    target = folder / "blobs" / "sha256" / digest
    if isinstance(content, Path):
        _bring(content, target, link=sha256 is not None)
    else:
        target.write_bytes(content)
    return Descriptor(mediaType=kind, digest=f"sha256:{digest}", size=target.stat().st_size, annotations=annotations or {})


def _bring(source: Path, target: Path, *, link: bool) -> None:
    """A copy, or a second name of the same file where whoever gave its hash gave the file away too and the disk is the same."""
    if link:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def _sign(folder: Path, model: Descriptor, key: Ed25519PrivateKey) -> Descriptor:
    payload = canonical(_plain(model))
    envelope = _add(folder, dsse.seal(media.OCI_DESCRIPTOR, payload, key), media.DSSE)
    empty = _add(folder, b"{}", media.OCI_EMPTY)
    manifest = _add(folder, _manifest(media.DSSE, empty, [envelope], subject=model), media.OCI_MANIFEST)
    return manifest.model_copy(update={"artifactType": media.DSSE})


def _manifest(
    kind: str,
    config: Descriptor,
    layers: list[Descriptor],
    *,
    subject: Descriptor | None = None,
    annotations: dict[str, str] | None = None,
) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": kind,
        "config": _plain(config),
        "layers": [_plain(layer) for layer in layers],
    }
    if subject is not None:
        document["subject"] = _plain(subject)
    if annotations:
        document["annotations"] = annotations
    return canonical(document)


def _annotations(about: About, file_format: str | None) -> dict[str, str]:
    given = {media.TITLE: about.name, media.VERSION: about.version, media.CREATED: about.created, media.REVISION: about.revision}
    given[media.FORMAT] = file_format
    return {key: value for key, value in given.items() if value is not None}


def _config(about: About, layers: list[Descriptor], file_format: str | None) -> dict[str, Any]:
    """The ModelPack model config (schema/config-schema.json of the model-spec)."""
    descriptor = {
        "createdAt": about.created,
        "family": about.family,
        "name": about.name,
        "version": about.version,
        "title": about.title,
        "description": about.description,
        "revision": about.revision,
    }
    return {
        "descriptor": {key: value for key, value in descriptor.items() if value is not None},
        "config": {
            "architecture": about.family,
            "format": file_format or "onnx",
            "capabilities": {"inputTypes": ["other"], "outputTypes": ["other"]},
            **({} if file_format else {"paramSize": f"{about.parameters / 1000:.1f}k", "precision": "float32"}),
        },
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
    }


def _plain(described: Descriptor) -> dict[str, Any]:
    return described.model_dump(exclude_defaults=True)


def _listing(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise BundleError(f"there is no bundle in {folder}: expected a folder with {INDEX}; publish or fetch one first")
    found: set[str] = set()
    for path in _walk(folder):
        found.add(path.relative_to(folder).as_posix())
        if len(found) > _MOST_FILES:
            raise BundleError(f"{folder} holds more than {_MOST_FILES} files; it is not a bundle")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise BundleError(f"{path} is a link or a special file; a bundle holds plain files only")


def _bounded(folder: Path, name: str) -> bytes:
    """A small document, never through a link at its end."""
    path = folder / name
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        raise BundleError(f"{folder} lacks {name}; it is no bundle, or incomplete: publish or fetch it again") from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise BundleError(f"{path} is larger than {MAX_DOCUMENT_BYTES} bytes, which no bundle's documents are")
    return content


def _check_blob(folder: Path, described: Descriptor, what: str, *, hashed: bool) -> None:
    path = folder / described.blob
    size = path.stat().st_size
    if size != described.size:
        raise BundleError(f"{what}: expected {described.size} bytes, found {size}; it is cut off or was changed: fetch it again")
    if not hashed:
        check_digest(_sha256(path), described.hex, what)


def _named(manifest: Manifest, blob: str) -> str:
    return next((name for name, layer in manifest.layers.items() if layer.blob == blob), blob)


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
