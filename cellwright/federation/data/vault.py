"""Authenticated encryption of what is stored (M.3387 10.2): AES-256-GCM under a key that can be replaced.

    sealed  =  "CWS1" · key id (8) · nonce (12) · ciphertext and tag (16)

What is sealed opens only under the same context (associated data): its name, its version, its place. Nonces are 96 random bits;
NIST SP 800-38D (8.3) allows 2³² of them under one key, far beyond what a store writes: replace the key before.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cellwright.errors import FederationError
from cellwright.federation.data.keyring import KeySource, key_id

MAGIC = b"CWS1"
_NONCE_BYTES = 12
_HEAD_BYTES = len(MAGIC) + 8
_LEAST_BYTES = _HEAD_BYTES + _NONCE_BYTES + 16


class Vault:
    """Seals with one key, opens with that and the former ones."""

    def __init__(self, key: KeySource, former: Sequence[KeySource] = ()) -> None:
        self._keys = [key.key(), *(source.key() for source in former)]  # the first seals

    def seal(self, content: bytes, context: bytes) -> bytes:
        """Encrypted, and bound to its context."""
        head, nonce = MAGIC + key_id(self._keys[0]), secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + AESGCM(self._keys[0]).encrypt(nonce, content, head + context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed under this context.

        Raises:
            FederationError: it was sealed with a key that is not given, for another context, or altered.
        """
        what = context.decode("utf-8", "replace")
        if len(sealed) < _LEAST_BYTES or not sealed.startswith(MAGIC):
            raise FederationError(f"{what} is not sealed content: it was overwritten, cut off, or never sealed")
        key = self._key(sealed[len(MAGIC) : _HEAD_BYTES], what)
        nonce, head = sealed[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], sealed[:_HEAD_BYTES]
        try:
            return AESGCM(key).decrypt(nonce, sealed[_HEAD_BYTES + _NONCE_BYTES :], head + context)
        except InvalidTag:
            raise FederationError(f"{what} was altered, or belongs to another place; take it from a backup") from None

    def rotate(self, new: KeySource) -> None:
        """Seal with another key from now on; those so far still open."""
        self._keys.insert(0, new.key())

    def current(self, sealed: bytes) -> bool:
        """Whether it is sealed with the key that seals now."""
        return sealed[:_HEAD_BYTES] == MAGIC + key_id(self._keys[0])

    def _key(self, wanted: bytes, what: str) -> bytes:
        for key in self._keys:
            if key_id(key) == wanted:
                return key
        given = ", ".join(key_id(key).hex() for key in self._keys)
        raise FederationError(
            f"{what} is sealed with key {wanted.hex()}, given: {given}. Give that key; as a former one, if it was replaced"
        )
