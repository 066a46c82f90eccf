"""Any model file as a bundle: an OCI image layout of one weight layer, signed, so that it travels as forecasting bundles do.

The file is stored as it is and never opened here; what it claims to be is checked by whoever takes it in (cellwright/hub/formats).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import media
from cellwright.bundle.keys import key_id
from cellwright.bundle.layout import About, read, write
from cellwright.bundle.manifest import MAX_LAYER_BYTES, Manifest
from cellwright.errors import BundleError
from cellwright.files import whole_folder

FILE_NAMES = {"onnx": "model.onnx", "safetensors": "model.safetensors", "opaque": "model.bin"}


@dataclass(frozen=True)
class File:
    """A file to wrap. `sha256`: its hash (hexadecimal), where whoever has it has just computed it; None: it is computed."""

    path: Path
    name: str | None = None  # in the bundle; None: after its format
    sha256: str | None = None


def wrap(folder: Path, file: Path | File, file_format: str, about: About, key: Ed25519PrivateKey) -> Manifest:
    """Write a signed file bundle to `folder`, whole or not at all. `file_format`: one of `media.FILE_FORMATS`.

    With its hash given, the file becomes the layer by a second name (a copy, where the disk is another): nothing may change it
    afterwards.

    Raises:
        BundleError: another format, a file too large for a layer, or a name that cannot be one.
    """
    given = file if isinstance(file, File) else File(file)
    size = given.path.stat().st_size
    if file_format not in FILE_NAMES:
        raise BundleError(f"'{file_format}' is not a format of a file bundle; there are: {', '.join(sorted(FILE_NAMES))}")
    if size > MAX_LAYER_BYTES:
        raise BundleError(f"{given.path.name} has {size} bytes, a layer at most {MAX_LAYER_BYTES}; divide it")
    name = given.name or FILE_NAMES[file_format]
    with whole_folder(folder) as aside:
        write(aside, [(name, media.WEIGHT, given.path, given.sha256)], about, key, file_format=file_format)
        return read(aside, {key_id(key.public_key()): key.public_key()})
