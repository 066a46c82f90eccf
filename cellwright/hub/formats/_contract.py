"""What each format does.

    title: str                                    for people
    def sniff(head: bytes) -> None                the first bytes (up to `HEAD_BYTES`), as soon as they are there
    def layout(given: Given, folder: Path) -> Manifest   check the whole file, then write a signed OCI layout to `folder`

Both raise HubRefused or BundleError, which name what was expected and found. Nothing is unpickled, imported or run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import About
from cellwright.bundle.manifest import Manifest
from cellwright.bundle.wrap import File, wrap
from cellwright.errors import HubRefused
from cellwright.hub.contract import UploadForm

HEAD_BYTES = 512
_PICKLE_PROTOCOLS = (2, 3, 4, 5)
_AS_OPAQUE = "store it as format 'opaque', which is handed on unopened, or convert it to safetensors or ONNX"


@dataclass(frozen=True)
class Given:
    """A whole uploaded file."""

    path: Path
    form: UploadForm
    sha256: str
    key: Ed25519PrivateKey  # the hub's, which signs what is wrapped
    trust: Trust  # the tenant's keys and the hub's


def refuse_code(head: bytes, claimed: str) -> None:
    """Refuse what can run code when it is opened, by its first bytes; `claimed`: the format's title."""
    found = carries_code(head)
    if found:
        raise HubRefused(f"the file is said to be {claimed} and is {found}, which can run code when it is opened; {_AS_OPAQUE}")


def carries_code(head: bytes) -> str:
    """What a file is that may carry pickles; "" for anything else."""
    if len(head) >= 2 and head[0] == 0x80 and head[1] in _PICKLE_PROTOCOLS:
        return "a pickle"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "a zip archive (as torch.save and Keras write, with pickles or code inside)"
    if head.startswith(b"\x93NUMPY"):
        return "a NumPy file (which may hold pickled objects)"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file (as Keras writes, with code inside)"
    return ""


def wrapped(given: Given, folder: Path, file_format: str) -> Manifest:
    """The file as a bundle of one layer, signed by the hub."""
    form = given.form
    about = About(form.model, form.version, form.title or form.model, "other", form.description, 0, None, None)
    return wrap(folder, File(given.path, form.filename, given.sha256), file_format, about, given.key)
