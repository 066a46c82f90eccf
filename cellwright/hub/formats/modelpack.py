"""ModelPack: a tar of an OCI image layout that the tenant has signed; kept as it is, every byte of it named by the signature.

Name and version in it must be those of the upload, the signature by one of the tenant's registered keys (or the hub's). Weights that
its manifest says are ONNX or safetensors are checked as such.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from cellwright.bundle import media
from cellwright.bundle.layout import verify
from cellwright.bundle.manifest import Manifest
from cellwright.errors import HubRefused
from cellwright.hub.contract import safe_path
from cellwright.hub.formats import onnx, safetensors
from cellwright.hub.formats._contract import Given, refuse_code
from cellwright.hub.formats._tar import Member, members

title = "a ModelPack"
_MOST_FILES = 64
_CHUNK_BYTES = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


def sniff(head: bytes) -> None:
    """A tar archive has its mark at byte 257."""
    refuse_code(head, title)
    if head.startswith(_COMPRESSED):
        raise HubRefused(
            "the file is compressed; a ModelPack is taken as a plain tar of its OCI image layout: decompress it first"
        )
    if len(head) >= 262 and head[257:262] != b"ustar":
        raise HubRefused("the file is said to be a ModelPack and is no tar archive; make it with `tar -C <layout> -cf <file> .`")


def layout(given: Given, folder: Path) -> Manifest:
    """Unpack it, then check every byte of it."""
    folder.mkdir(parents=True)
    total = given.path.stat().st_size
    with given.path.open("rb") as archive:
        seen: set[str] = set()
        for member in members(archive, total, _MOST_FILES):
            if not safe_path(member.name):
                raise HubRefused(
                    f"the ModelPack holds '{member.name[:80]}', which no OCI image layout of a model has; it is refused"
                )
            if member.name in seen:
                raise HubRefused(f"the ModelPack holds '{member.name}' twice; it is refused")
            seen.add(member.name)
            _extract(archive, member, folder / member.name)
    manifest = verify(folder, given.trust)
    if (manifest.name, manifest.version) != (given.form.model, given.form.version):
        raise HubRefused(
            f"the ModelPack is {manifest.name} {manifest.version}, the upload is for {given.form.model} {given.form.version}; "
            "name them as it does, or sign it anew"
        )
    _check_weights(folder, manifest)
    return manifest


def _extract(archive: BinaryIO, member: Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    archive.seek(member.start)
    left = member.size
    with target.open("xb") as out:
        while left:
            chunk = archive.read(min(_CHUNK_BYTES, left))
            out.write(chunk)
            left -= len(chunk)


def _check_weights(folder: Path, manifest: Manifest) -> None:
    checks = {media.FORECAST: onnx.check, "onnx": onnx.check, "safetensors": safetensors.check}
    check = checks.get(manifest.format)
    if check is not None:
        for described in manifest.layers.values():
            if described.mediaType == media.WEIGHT:
                check(folder / described.blob)
