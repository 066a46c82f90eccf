"""What both sides of secure aggregation share: the roster of keys, the threshold, the masks.

A roster is every owner's two public keys, 32 bytes each, `share` first. Its digest binds every envelope and every mask to one set of
keys, one round and one configuration: owners who were shown different rosters cannot open each other's envelopes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from cellwright.errors import Refused
from cellwright.federation.privacy._envelopes import KEY_BYTES, agreed, packed, unpacked

PURPOSE = b"cellwright secure aggregation"
NONCE_BYTES = 16  # of a round
TOTAL_BITS = 63  # sums stay within int64


@dataclass(frozen=True)
class Roster:
    """Who takes part in a round, with which keys."""

    keys: dict[str, bytes]  # share key and mask key, 64 bytes
    digest: bytes

    @classmethod
    def of(cls, keys: dict[str, bytes], settings: bytes) -> Roster:
        """`settings`: what both sides must agree on, the round's nonce included.

        Raises:
            Refused: keys of another length.
        """
        if wrong := [owner for owner, pair in keys.items() if len(pair) != 2 * KEY_BYTES]:
            raise Refused(f"'{wrong[0]}' has keys of {len(keys[wrong[0]])} bytes in the roster, expected {2 * KEY_BYTES}")
        return cls(keys, hashlib.sha256(packed({"roster": packed(keys), "settings": settings, "purpose": PURPOSE})).digest())

    def share_key(self, owner: str) -> bytes:
        """For envelopes."""
        return self.keys[owner][:KEY_BYTES]

    def mask_key(self, owner: str) -> bytes:
        """For pairwise masks."""
        return self.keys[owner][KEY_BYTES:]

    def point(self, owner: str) -> int:
        """Where an owner's shares lie, from 1."""
        return sorted(self.keys).index(owner) + 1

    def points(self) -> dict[str, int]:
        """The same of all owners."""
        return {owner: i for i, owner in enumerate(sorted(self.keys), 1)}


def threshold(share: float, least: int, owners: int) -> int:
    """Fewest owners whose shares give a secret, of so many that advertised keys."""
    return max(2, least, math.ceil(share * owners - 1e-9))


def envelope_key(roster: Roster, private: bytes, other: str) -> bytes:
    """The key of the envelopes between two owners."""
    return agreed(private, roster.share_key(other), PURPOSE + b" share" + roster.digest)


def envelope_context(roster: Roster, sender: str, receiver: str) -> bytes:
    """What an envelope is bound to."""
    return packed({"roster": roster.digest, "sender": sender.encode(), "receiver": receiver.encode()})


def pairwise(roster: Roster, private: bytes, mine: str, others: Iterable[str], length: int) -> np.ndarray:
    """Sum of the masks of `mine` with each of the others: added by the first of two by name, taken off by the second."""
    total = np.zeros(length, np.uint64)
    for other in others:
        mask = stream(agreed(private, roster.mask_key(other), PURPOSE + b" mask" + roster.digest), length)
        np.add(total, mask, out=total) if mine < other else np.subtract(total, mask, out=total)
    return total


def stream(key: bytes, length: int) -> np.ndarray:
    """AES-256 in counter mode as a stream of uint64; a key is used once, so that the counter may start at 0."""
    encryptor = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * length)), "<u8")


def commitment(self_mask: bytes) -> bytes:
    """By which the coordinator knows that it put a self-mask's seed together rightly."""
    return hashlib.sha256(PURPOSE + b" self" + self_mask).digest()


def keys_of(blob: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Keys and signature of every owner, as the coordinator passes them on."""
    found = {}
    for owner, entry in unpacked(blob).items():
        fields = unpacked(entry)
        if set(fields) != {"keys", "keys_signature"}:
            raise Refused(f"the roster's entry for '{owner}' holds {sorted(fields)}, expected keys and signature")
        found[owner] = (fields["keys"], fields["keys_signature"])
    return found
