"""Where the key of the sealed store comes from: a file of one's own, or a program that asks a key management system.

FileKey     32 random bytes as hex, mode 0600, made on first use
CommandKey  any program that prints 64 hexadecimal characters: `vault kv get -field=key secret/cellwright`, a cloud's KMS, a TPM
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cellwright.errors import FederationError
from cellwright.federation.audit.keyfiles import read_secret, write_secret

KEY_BYTES = 32
_WHAT = "the storage key"


class KeySource(Protocol):
    """Anything that has a key of AES-256."""

    def key(self) -> bytes:
        """32 bytes.

        Raises:
            FederationError: the key cannot be had.
        """
        ...


class FileKey:
    """A key in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def key(self) -> bytes:
        """The key; made on first use."""
        if not self.path.exists():
            write_secret(self.path, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n", _WHAT)
        return _key(read_secret(self.path, _WHAT), str(self.path))


class CommandKey:
    """The key that a program prints; it runs without a shell, once a call of `key`, and its output is never shown."""

    def __init__(self, command: Sequence[str], *, timeout_s: float = 10.0) -> None:
        self.command, self.timeout_s = tuple(command), timeout_s

    def key(self) -> bytes:
        """The key, asked for anew."""
        name = self.command[0] if self.command else ""
        try:
            done = subprocess.run(self.command, capture_output=True, timeout=self.timeout_s, check=True, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise FederationError(f"the key program '{name}' did not answer within {self.timeout_s:g} s") from None
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode("utf-8", "replace").strip()[-300:]
            raise FederationError(
                f"the key program '{name}' ended with code {error.returncode}: {told or 'it said nothing'}"
            ) from None
        except (OSError, IndexError, ValueError) as error:
            raise FederationError(f"the key program '{name}' cannot be started ({error}); give its path and arguments") from None
        return _key(done.stdout, f"the output of '{name}'")


def key_id(key: bytes) -> bytes:
    """8 bytes that tell keys apart and say nothing else about them."""
    return hashlib.sha256(b"cellwright storage key 1\0" + key).digest()[:8]


def _key(content: bytes, where: str) -> bytes:
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise FederationError(f"{_WHAT} in {where} must be {2 * KEY_BYTES} hexadecimal characters ({KEY_BYTES} bytes); it is not")
    return key
