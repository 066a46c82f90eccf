"""Models as bytes (M.3387 9.1): safetensors, or a bundle (OCI image layout) as one tar file. Nothing that can carry code."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from cellwright.errors import Refused

SAFETENSORS = "application/vnd.safetensors"
BUNDLE = "application/vnd.oci.image.layout.v1+tar"
MOST_BYTES = 512 << 20
_LAYOUT = ("oci-layout", "index.json")


def packed(content: bytes | Path) -> tuple[str, bytes]:
    """Media type and bytes of a model: of bytes, of a file, or of a bundle's folder.

    Raises:
        Refused: neither safetensors nor a bundle, or larger than MOST_BYTES.
    """
    data = content if isinstance(content, bytes) else _tar(content) if content.is_dir() else _file(content)
    if len(data) > MOST_BYTES:
        raise Refused(
            f"a model of at most {MOST_BYTES:,} bytes can be delivered, found {len(data):,}; publish it as a bundle instead"
        )
    return (BUNDLE if _is_bundle(data) else _safetensors(data)), data


def _safetensors(data: bytes) -> str:
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise Refused(f"a model is delivered as safetensors or as a bundle, found neither ({error})") from None
    return SAFETENSORS


def _is_bundle(data: bytes) -> bool:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = {member.name for member in tar.getmembers() if member.isfile()}
    except tarfile.TarError:
        return False
    return members.issuperset(_LAYOUT)


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Refused(f"{path} holds {path.stat().st_size:,} bytes, at most {MOST_BYTES:,} can be delivered")
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"cannot read the model {path}: {error.strerror}") from error


def _tar(folder: Path) -> bytes:
    """The same bytes for the same files: sorted, without times and owners. Links are not followed."""
    if missing := [name for name in _LAYOUT if not (folder / name).is_file()]:
        raise Refused(f"{folder} is no bundle: {', '.join(missing)} missing; deliver a safetensors file or an OCI image layout")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)
    return out.getvalue()
