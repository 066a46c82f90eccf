"""Keys that two owners agree on through the coordinator, and envelopes that it carries without reading them.

X25519 (RFC 7748) for the agreement, HKDF-SHA-256 (RFC 5869) for the key, AES-256-GCM for the envelope.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cellwright.errors import Refused

KEY_BYTES = 32
_NONCE_BYTES, _MOST_FIELDS = 12, 100_000


@dataclass(frozen=True)
class KeyPair:
    """Raw X25519 keys, 32 bytes each."""

    private: bytes
    public: bytes

    @classmethod
    def new(cls) -> KeyPair:
        """A pair from the operating system's entropy."""
        return cls.of(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """The pair of a private key."""
        return cls(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def agreed(private: bytes, public: bytes, purpose: bytes) -> bytes:
    """The key that both sides derive, for one purpose, 32 bytes.

    Raises:
        Refused: `public` is no key (of low order, of another length).
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise Refused(f"a key that was advertised is no X25519 key ({error}); nothing is sealed with it") from None
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(shared)


def wrapped(key: bytes, content: bytes, context: bytes) -> bytes:
    """Nonce and ciphertext; opens only with the key and in the same context."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, context)


def opened(key: bytes, envelope: bytes, context: bytes, sender: str) -> bytes:
    """What an envelope holds.

    Raises:
        Refused: it was altered, or meant for another owner, round or set of keys.
    """
    try:
        return AESGCM(key).decrypt(envelope[:_NONCE_BYTES], envelope[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise Refused(f"the envelope from '{sender}' cannot be opened: altered on its way, or sealed for other keys") from None


def packed(fields: Mapping[str, bytes]) -> bytes:
    """Named bytes as one: for each, sorted by name, length and name, length and content. The same fields give the same bytes."""
    parts = []
    for name in sorted(fields):
        for part in (name.encode(), fields[name]):
            parts += [len(part).to_bytes(8), part]
    return b"".join(parts)


def unpacked(content: bytes) -> dict[str, bytes]:
    """What `packed` packed.

    Raises:
        Refused: it is of another form.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(content) and len(parts) < 2 * _MOST_FIELDS:
        size = int.from_bytes(content[at : at + 8])
        parts.append(content[at + 8 : at + 8 + size])
        at += 8 + size
    if at != len(content) or len(parts) % 2:
        raise Refused(f"a packed message of {len(content)} bytes is cut or damaged; it must be sent again")
    try:
        return {name.decode(): value for name, value in zip(parts[::2], parts[1::2], strict=True)}
    except UnicodeDecodeError:
        raise Refused("a packed message holds names that are not text; both sides must run the same version") from None


def signed_keys(purpose: bytes, owner: str, keys: bytes, sign: Callable[[bytes], bytes] | None) -> bytes:
    """The signature over an owner's advertised keys; empty where the owner has no signing key."""
    return sign(packed({"purpose": purpose, "owner": owner.encode(), "keys": keys})) if sign else b""


def check_keys(
    purpose: bytes, owner: str, keys: bytes, signature: bytes, verify: Callable[[str, bytes, bytes], bool] | None
) -> None:
    """Check the signature over an owner's advertised keys, where signatures can be checked.

    Raises:
        Refused: it is missing or not the owner's.
    """
    if verify and not verify(owner, packed({"purpose": purpose, "owner": owner.encode(), "keys": keys}), signature):
        raise Refused(
            f"the keys advertised for '{owner}' are not signed by it; the coordinator may have put others in their place"
        )
