"""An owner's part of homomorphic aggregation. Every stage is answered once, and in order; "advertise" begins a round anew."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.errors import Refused
from cellwright.federation.privacy import _ciphertexts
from cellwright.federation.privacy._contract import Message, OwnerSide, blaming
from cellwright.federation.privacy._envelopes import (
    KEY_BYTES,
    KeyPair,
    agreed,
    check_keys,
    opened,
    packed,
    signed_keys,
    unpacked,
    wrapped,
)
from cellwright.federation.privacy._masking import NONCE_BYTES, keys_of

if TYPE_CHECKING:
    from cellwright.federation.privacy.ckks import Options

PURPOSE = b"cellwright homomorphic aggregation"
_FIELDS = {"phase", "nonce", "private", "roster", "key"}


class Owner(OwnerSide):
    """Makes or receives the owners' key, encrypts its vector, decrypts the sum."""

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.options = options
        self._begin()

    def _begin(self) -> None:
        self.phase = "new"
        self._nonce = self._private = self._key = b""
        self._roster: dict[str, bytes] = {}  # public key by owner
        self._opened: Any = None  # the context of `_key`

    def answer(self, stage: str, message: Message) -> dict[str, bytes]:
        """Answer "advertise", "deal", "accept" or "decrypt".

        Raises:
            Refused: the stage is out of turn, or the message cannot be trusted.
        """
        if stage == "advertise":
            return self._advertise(message)
        if stage == "deal" and "roster" not in message and self.phase == "advertise":
            return {}  # others make the key
        if stage == "deal":
            self._enter("deal", after=("advertise",))
            return self._deal(message)
        if stage == "accept":
            self._enter("accept", after=("advertise", "deal"))
            return self._accept(message)
        if stage == "decrypt":
            self._enter("decrypt", after=("accept", "sealed"))
            return self._decrypt(message)
        raise Refused(f"homomorphic aggregation has no stage '{stage}'; it has advertise, deal, accept and decrypt")

    def seal(self, vector: np.ndarray) -> dict[str, bytes]:
        """The vector, encrypted.

        Raises:
            Refused: no key was accepted in this round, or a vector was sealed already.
            FederationError: a value is beyond the option `range`, or not finite.
        """
        integers = self.options.grid.integers(vector)
        self._enter("sealed", after=("accept",))
        return {"encrypted": _ciphertexts.encrypted(self._context(), integers, self.options.grid)}

    def _enter(self, phase: str, *, after: tuple[str, ...]) -> None:
        if self.phase not in after:
            raise Refused(
                f"'{self.name}' is asked to {phase} after '{self.phase}', which comes after {' or '.join(after)} and once a round; "
                "begin the round anew"
            )
        self.phase = phase

    def _context(self) -> Any:
        """Kept, since reading a key takes as long as a ciphertext."""
        if self._opened is None:
            self._opened = _ciphertexts.with_key(self._key)
        return self._opened

    def _advertise(self, message: Message) -> dict[str, bytes]:
        nonce = message.get("nonce", b"")
        if len(nonce) != NONCE_BYTES:
            raise Refused(f"the round's nonce has {len(nonce)} bytes, expected {NONCE_BYTES}")
        self._begin()
        pair = KeyPair.new()
        self.phase, self._nonce, self._private = "advertise", nonce, pair.private
        # not called "signature": that is the blob of the whole message's, which would take its place
        return {"keys": pair.public, "keys_signature": signed_keys(PURPOSE + nonce, self.name, pair.public, self.sign)}

    def _deal(self, message: Message) -> dict[str, bytes]:
        """One envelope with the key, and for every other owner one with the key to it."""
        self._roster = self._checked_roster(message)
        self._key = _ciphertexts.new_key()
        inner = os.urandom(KEY_BYTES)
        reply = {"envelope": wrapped(inner, self._key, self._bound(self.name, ""))}
        for owner in self._roster:
            if owner != self.name:
                with blaming(owner):
                    reply[f"to/{owner}"] = wrapped(self._with(owner), inner, self._bound(self.name, owner))
        return reply

    def _accept(self, message: Message) -> dict[str, bytes]:
        roster = self._checked_roster(message)
        dealer = message.get("dealer", b"").decode(errors="replace")
        self._roster = roster
        if dealer == self.name:
            self._context()  # its own: there, and readable
            return {"accepted": self._nonce}
        if dealer not in roster:
            raise Refused(f"the key is said to be dealt by '{dealer}', who is not in the roster")
        with blaming(dealer):
            self._take_key(dealer, message)
        return {"accepted": self._nonce}

    def _take_key(self, dealer: str, message: Message) -> None:
        inner = opened(self._with(dealer), message.get("inner", b""), self._bound(dealer, self.name), dealer)
        if len(inner) != KEY_BYTES:
            raise Refused(f"the envelope from '{dealer}' holds a key of {len(inner)} bytes, expected {KEY_BYTES}")
        self._key = opened(inner, message.get("envelope", b""), self._bound(dealer, ""), dealer)
        self._opened = None
        self._context()

    def _checked_roster(self, message: Message) -> dict[str, bytes]:
        advertised = keys_of(message.get("roster", b""))
        if advertised.get(self.name, (b"", b""))[0] != KeyPair.of(self._private).public:
            raise Refused(
                f"the roster does not hold the key that '{self.name}' advertised; the coordinator must begin the round anew"
            )
        for owner, (keys, signature) in advertised.items():
            if owner != self.name:
                with blaming(owner):
                    check_keys(PURPOSE + self._nonce, owner, keys, signature, self.verify)
        if len(advertised) < self.options.least:
            raise Refused(f"{len(advertised)} owners in the roster, at least {self.options.least} are needed")
        self.options.grid.check(len(advertised), _ciphertexts.TOTAL_BITS)
        return {owner: keys for owner, (keys, _) in advertised.items()}

    def _with(self, other: str) -> bytes:
        """The key that two owners agree on."""
        return agreed(self._private, self._roster[other], PURPOSE + self._nonce)

    def _bound(self, sender: str, receiver: str) -> bytes:
        """What an envelope is bound to: the round and the whole roster."""
        names = {"sender": sender.encode(), "receiver": receiver.encode()}
        return packed({**names, "nonce": self._nonce, "roster": packed(self._roster)})

    def _decrypt(self, message: Message) -> dict[str, bytes]:
        length, owners = (int.from_bytes(message.get(name, b"")) for name in ("length", "owners"))
        if owners < self.options.least:
            raise Refused(f"a sum over {owners} owners would be decrypted, at least {self.options.least} are needed")
        integers = _ciphertexts.decrypted(self._context(), message.get("total", b""), length, self.options.grid)
        return {"integers": integers.astype("<i8").tobytes()}

    def state(self) -> bytes:
        """Everything, secrets included: it stays at the owner."""
        fields = {"phase": self.phase.encode(), "nonce": self._nonce, "private": self._private, "key": self._key}
        return packed({**fields, "roster": packed(self._roster)})

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave.

        Raises:
            Refused: it is damaged.
        """
        fields = unpacked(state)
        if set(fields) != _FIELDS:
            raise Refused("the owner's state of homomorphic aggregation is damaged; begin the round anew")
        self.phase, self._nonce, self._private = fields["phase"].decode(), fields["nonce"], fields["private"]
        self._key, self._roster, self._opened = fields["key"], unpacked(fields["roster"]), None
