"""The coordinator's part of homomorphic aggregation, for one round. It holds no key."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import FederationError, Refused
from cellwright.federation.privacy import _ciphertexts
from cellwright.federation.privacy._contract import CoordinatorSide, Message
from cellwright.federation.privacy._envelopes import KEY_BYTES, packed
from cellwright.federation.privacy._masking import NONCE_BYTES

if TYPE_CHECKING:
    from cellwright.federation.privacy.ckks import Options


class Coordinator(CoordinatorSide):
    """Hands the key's envelopes on, adds ciphertexts, takes the decrypted sum that most owners agree on."""

    def __init__(self, owners: tuple[str, ...], options: Options, seed: int) -> None:
        options.grid.check(len(owners), _ciphertexts.TOTAL_BITS)
        self.options = options
        self.owners = owners
        self.left_out: dict[str, str] = {}  # owner -> why, in words
        self.summed: tuple[str, ...] = ()
        self._seed = seed
        self._nonce = os.urandom(NONCE_BYTES)
        self._roster: dict[str, dict[str, bytes]] = {}
        self._asked: list[str] = []  # to deal
        self._dealer = ""
        self._dealt: Message = {}
        self._length = 0
        self._sum = b""
        self._total: np.ndarray | None = None

    def ask(self, stage: str, owners: tuple[str, ...]) -> dict[str, dict[str, bytes]]:
        """What each owner is asked; "deal" holds the roster for the dealers, and nothing for those who are only asked to stay."""
        if stage == "advertise":
            return {owner: {"nonce": self._nonce} for owner in owners}
        present = [owner for owner in owners if owner in self._roster]
        roster = packed({owner: packed(entry) for owner, entry in self._roster.items()})
        if stage == "deal":
            self._asked = self._dealers(present)
            return {owner: {"roster": roster} if owner in self._asked else {} for owner in present}
        if stage == "accept":
            return {owner: {"roster": roster, **self._key_for(owner)} for owner in present}
        size = {"length": self._length.to_bytes(8), "owners": len(self.summed).to_bytes(8)}
        return {owner: {"total": self._sum, **size} for owner in present}

    def _dealers(self, present: list[str]) -> list[str]:
        """Others in every round."""
        chosen = np.random.default_rng(self._seed).permutation(len(present))[: self.options.dealers]
        return sorted(present[i] for i in chosen)

    def _key_for(self, owner: str) -> dict[str, bytes]:
        if owner == self._dealer:
            return {"dealer": self._dealer.encode()}
        return {"dealer": self._dealer.encode(), "envelope": self._dealt["envelope"], "inner": self._dealt[f"to/{owner}"]}

    def take(self, stage: str, replies: Mapping[str, Message]) -> None:
        """What came back in a stage.

        Raises:
            FederationError: too few owners are left, no dealer answered, or no sum was decrypted alike by most.
        """
        if stage == "advertise":
            self._take_keys(replies)
        elif stage == "deal":
            self._take_key(replies)
        elif stage == "accept":
            self._enough(len(replies), "accepted the key")
        else:
            self._take_sum(replies)

    def _take_keys(self, replies: Mapping[str, Message]) -> None:
        for owner, reply in sorted(replies.items()):
            if len(reply.get("keys", b"")) != KEY_BYTES:
                self.left_out[owner] = f"advertised a key of {len(reply.get('keys', b''))} bytes"
                continue
            self._roster[owner] = {"keys": reply["keys"], "keys_signature": reply.get("keys_signature", b"")}
        self._enough(len(self._roster), "advertised keys")

    def _take_key(self, replies: Mapping[str, Message]) -> None:
        """The first dealer, by name, that dealt to everybody."""
        for owner in self._asked:
            reply = replies.get(owner, {})
            if set(reply) == {"envelope"} | {f"to/{other}" for other in self._roster if other != owner}:
                self._dealer, self._dealt = owner, reply
                return
            self.left_out[owner] = "did not deal a key to every other owner"
        raise FederationError("CKKS: none of the dealers answered; try the round again, or raise privacy_options.ckks.dealers")

    def _enough(self, found: int, what: str) -> None:
        if found < self.options.least:
            raise FederationError(
                f"CKKS: only {found} of {len(self.owners)} owners {what}, at least {self.options.least} are needed; lengthen the deadline"
            )

    def check(self, owner: str, message: Message, length: int) -> None:
        """See CoordinatorSide; what of it is no ciphertext is found only when they are added."""
        try:
            _ciphertexts.parts(message.get("encrypted", b""), length)
        except Refused as error:
            raise Refused(f"'{owner}': {error}") from None

    def collect(self, sealed: Mapping[str, Message], length: int) -> None:
        """The encrypted vectors that came, each of `length` values; they are added at once.

        Raises:
            Refused: one of them is no vector of that length; ask again without that owner.
            FederationError: fewer came than `least`.
        """
        self._enough(len(sealed), "sent their vector")
        vectors = {owner: sealed[owner].get("encrypted", b"") for owner in sorted(sealed)}
        self._sum = _ciphertexts.added(_ciphertexts.keyless(), vectors, length)
        self.summed, self._length = tuple(vectors), length

    def _take_sum(self, replies: Mapping[str, Message]) -> None:
        said = Counter(reply.get("integers", b"") for reply in replies.values())
        if not said:
            raise FederationError("CKKS: no owner decrypted the sum; lengthen the deadline")
        best, agree = said.most_common(1)[0]
        if 2 * agree <= said.total() or len(best) != 8 * self._length:
            raise FederationError(f"CKKS: only {agree} of {said.total()} owners decrypted the same sum; one of them is faulty")
        self.left_out.update({o: "decrypted another sum" for o, reply in replies.items() if reply.get("integers", b"") != best})
        self._total = np.frombuffer(best, "<i8")

    def integers(self) -> np.ndarray:
        """The sum in units of 2^−fraction_bits, (length,) int64.

        Raises:
            FederationError: the last stage has not been.
        """
        if self._total is None:
            raise FederationError('CKKS: there is no sum before the stage "decrypt"')
        return self._total

    def total(self) -> np.ndarray:
        """The sum of the vectors of those whose update came, (length,) float64."""
        return self.options.grid.values(self.integers())
