"""Files that hold a secret: mode 0600, written whole, never read where others could have read them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from cellwright.errors import FederationError
from cellwright.files import explained

_LARGEST_BYTES = 4096


def read_secret(path: Path, what: str) -> bytes:
    """The content of a secret's file; `what` it is, for the message.

    Raises:
        FederationError: it is missing, larger than any key, or others than its owner may read it.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_BYTES else b""
    except OSError as error:
        raise FederationError(f"cannot read {what} {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise FederationError(
            f"{what} {path} can be read by others than its owner; run `chmod 600 {path}`, and replace it if they may have"
        )
    if not content:
        raise FederationError(f"{what} {path} must hold 1 to {_LARGEST_BYTES} bytes; it is empty or larger")
    return content


def write_secret(path: Path, content: bytes, what: str) -> None:
    """Write a secret's file. One that is there stays: a key that is overwritten is lost.

    Raises:
        FederationError: there is one already.
        WorkspaceError: the disk is full or the folder is not writable.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600 by itself
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.link(aside, path)  # fails where a rename would replace
        except FileExistsError:
            raise FederationError(f"{what} {path} is there already; move it away first, or use it") from None
        finally:
            Path(aside).unlink(missing_ok=True)
