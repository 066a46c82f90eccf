"""A run's own files as they lie on the disk: sealed where a key is configured, else open under the rights of their files (M.3387 10.2).

What is sealed is bound to its place, such as the request and the file's name: a file that is moved, or put back from another run, does not
open. A file that lies open where sealed ones are expected is refused: anyone could have put it there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, Spec
from cellwright.federation.data.keyring import CommandKey, FileKey, KeySource
from cellwright.federation.data.vault import MAGIC, Vault
from cellwright.files import write_bytes


class Storage(Spec):
    """Where the key is; it is in no other file."""

    file: str = ""  # of 64 hexadecimal characters, made on first use; "": the program tells
    command: tuple[str, ...] = ()  # that prints it: a key management system

    def key(self) -> KeySource:
        """The source of the key.

        Raises:
            FederationError: neither is named, or both.
        """
        if bool(self.file) == bool(self.command):
            raise FederationError("a storage key comes from a file (storage_key) or a program (key_command); name one of them")
        return CommandKey(self.command) if self.command else FileKey(Path(self.file))


def storage_of(file: str | None, command: tuple[str, ...], root: Path) -> Storage | None:
    """As parameters name it, paths from the project's root; None: no key is configured."""
    if file is None and not command:
        return None
    found = Storage(file=str((root / Path(file).expanduser()).resolve()) if file else "", command=command)
    found.key()
    return found


class AtRest:
    """Writes and reads files of one place, whole."""

    def __init__(self, storage: Storage | None = None, place: str = "") -> None:
        """`place`: what the files belong to, such as a request."""
        self._vault, self._place = None if storage is None else Vault(storage.key()), place

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Whole or not at all.

        Raises:
            WorkspaceError: the disk is full or the folder is not writable.
        """
        write_bytes(path, content if self._vault is None else self._vault.seal(content, self._context(path)), mode=mode)

    def read(self, path: Path) -> bytes:
        """What was written.

        Raises:
            FederationError: sealed with another key, altered, of another place; or not as a file is expected to be.
            OSError: it cannot be read.
        """
        content = path.read_bytes()
        if self._vault is not None:
            return self._vault.unseal(content, self._context(path))
        if content.startswith(MAGIC):
            raise FederationError(f"{path} is sealed, and no key is configured; name it in federation.storage_key or key_command")
        return content

    def _context(self, path: Path) -> bytes:
        return json.dumps([self._place, path.name]).encode()


def tensors(content: bytes) -> tuple[dict[str, str], Arrays]:
    """Metadata and arrays of a safetensors file's bytes.

    Raises:
        SafetensorError, ValueError, KeyError: it is none.
    """
    from safetensors.numpy import load

    arrays: dict[str, np.ndarray] = load(content)  # also whether the header is sound
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header.get("__metadata__", {})), arrays
