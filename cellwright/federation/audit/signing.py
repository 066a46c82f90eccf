"""Ed25519 signatures over whole parcels (RFC 8032): who sent it, for which request, in which order (M.3387 9.4, 10.1).

A signed parcel holds four more values, `sender`, `sequence`, `request` and `kind`, and the blob `signature` over the digest of
everything else. Altering any of it breaks the signature. A copy of an older parcel carries an older sequence, one that is passed off
as a message of another kind its own: `newer` finds both, and replay.py where messages may overtake each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from cellwright.errors import FederationError, Refused
from cellwright.federation.audit.keyfiles import read_secret, write_secret
from cellwright.federation.contract import Parcel, Value

SIGNATURE = "signature"  # the blob
_PURPOSE = b"cellwright parcel 1\0"  # so that a signature made for something else is none of a parcel
_INTRODUCED = b"cellwright name 1\0"
_WHAT = "the signing key"


class Signer:
    """One node's private key."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._key = private_key
        self.public = private_key.public_key().public_bytes_raw().hex()

    @classmethod
    def generate(cls) -> Signer:
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_file(cls, path: Path) -> Signer:
        """The key that `save` wrote: PKCS #8 in PEM, as `cellwright publish` keeps its own.

        Raises:
            FederationError: missing, readable by others, or no Ed25519 key.
        """
        try:
            key = load_pem_private_key(read_secret(path, _WHAT), password=None)
        except (ValueError, TypeError) as error:
            raise FederationError(f"{_WHAT} {path} must be PKCS #8 in PEM, not encrypted ({error})") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise FederationError(f"{_WHAT} {path} must be an Ed25519 key, found {type(key).__name__}")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the private key, mode 0600.

        Raises:
            FederationError: there is a file already.
        """
        write_secret(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _WHAT)

    def sign(self, parcel: Parcel, *, sender: str, sequence: int, request: str, kind: str = "") -> Parcel:
        """The parcel with `sender`, `sequence` (above that of any parcel before), `request` and, where it is told, `kind`, signed."""
        of_kind = {"kind": kind} if kind else {}
        told = replace(parcel, values={**parcel.values, "sender": sender, "sequence": sequence, "request": request, **of_kind})
        return replace(told, blobs={**told.blobs, SIGNATURE: self._key.sign(_PURPOSE + told.digest(without=SIGNATURE))})

    def vouch(self, name: str, challenge: str) -> str:
        """A signature (hex) that shows whoever made the challenge that the node of this name answers; see `vouches`."""
        return self._key.sign(_introduction(name, challenge)).hex()

    def sign_bytes(self, content: bytes) -> bytes:
        """A signature over bytes that say themselves what they are; 64 bytes."""
        return self._key.sign(content)


def verify(parcel: Parcel, public_key: str | bytes, *, digest: bytes | None = None) -> None:
    """Whether the holder of `public_key` (32 bytes, or as hex) signed exactly this; `digest`: the parcel's, where it is known.

    Raises:
        Refused: not signed, altered since, or signed by another.
    """
    signature = parcel.blobs.get(SIGNATURE)
    if signature is None:
        raise Refused("the message is not signed; every message of an audited federation must be (federation.audit)")
    if not verified(signature, _PURPOSE + (digest or parcel.digest(without=SIGNATURE)), public_key):
        raise Refused("the signature is not that of the expected key over this message: it was forged, or altered on its way")


def vouches(public_key: str | bytes, name: str, challenge: str, signature: str) -> bool:
    """Whether a signature (hex) is `Signer.vouch`'s over this name and challenge, by the key's holder."""
    try:
        return verified(bytes.fromhex(signature), _introduction(name, challenge), public_key)
    except ValueError:  # no hex
        return False


def _introduction(name: str, challenge: str) -> bytes:
    return _INTRODUCED + json.dumps([name, challenge]).encode()


def verified(signature: bytes, content: bytes, public_key: str | bytes) -> bool:
    """Whether the signature over `content` is that of the key.

    Raises:
        FederationError: the key is no Ed25519 public key.
    """
    try:
        _public(public_key).verify(signature, content)
    except InvalidSignature:
        return False
    return True


def newer(values: Mapping[str, Value], last: int, *, request: str, kind: str = "") -> int:
    """The sequence of a verified parcel's values, if it is above `last` and the parcel is of this request and not of another kind.

    Raises:
        Refused: a replay, of another request, or signed as a message of another kind.
    """
    sequence = sequence_of(values, request=request, kind=kind)
    if sequence <= last:
        raise Refused(f"the message has sequence {sequence}, after {last} was seen: it is a replay of an older one")
    return sequence


def sequence_of(values: Mapping[str, Value], *, request: str, kind: str = "") -> int:
    """The sequence of a verified parcel's values, if it is of this request and not of another kind.

    Raises:
        Refused: it is not, or tells no sequence.
    """
    sequence = values.get("sequence")
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise Refused(f"the message must tell its sequence as a whole number, found {str(sequence)[:40]!r}")
    if values.get("request") != request:
        raise Refused(
            f"the message is of request {str(values.get('request'))[:40]!r}, this one is {request!r}: it was sent elsewhere"
        )
    if kind and values.get("kind", kind) != kind:
        raise Refused(
            f"the message was signed as '{str(values.get('kind'))[:40]}' and came as '{kind[:40]}': it was passed off as another"
        )
    return sequence


def public_pem(public_key: str | bytes) -> bytes:
    """A public key as PEM."""
    return _public(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@lru_cache(maxsize=4096)
def _public(key: str | bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key) if isinstance(key, str) else key)
    except ValueError:
        raise FederationError(f"a public key must be 32 bytes of Ed25519, as hex {64} characters; found {len(key)}") from None
