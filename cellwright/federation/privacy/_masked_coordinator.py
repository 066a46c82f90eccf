"""The coordinator's part of secure aggregation, for one round."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import FederationError, Refused, Spoilt
from cellwright.federation.privacy import _shamir
from cellwright.federation.privacy._contract import CoordinatorSide, Message
from cellwright.federation.privacy._envelopes import KEY_BYTES, KeyPair, packed
from cellwright.federation.privacy._masking import NONCE_BYTES, TOTAL_BITS, Roster, commitment, pairwise, stream, threshold

if TYPE_CHECKING:
    from cellwright.federation.privacy.secure_aggregation import Options


_SPARE = 2  # helpers beyond the threshold that are tried in others' places, where a share is wrong


class Coordinator(CoordinatorSide):
    """Hands keys and envelopes on, adds the masked vectors, and takes the masks out of the sum."""

    def __init__(self, owners: tuple[str, ...], options: Options) -> None:
        options.grid.check(len(owners), TOTAL_BITS)
        self.options = options
        self.owners = owners
        self.left_out: dict[str, str] = {}  # owner -> why, in words
        self.summed: tuple[str, ...] = ()
        self._nonce = os.urandom(NONCE_BYTES)
        self._advertised: dict[str, dict[str, bytes]] = {}
        self._roster: Roster | None = None
        self._shared: dict[str, Message] = {}  # who dealt shares: envelopes and commitment
        self._vectors: dict[str, np.ndarray] = {}
        self._length = 0
        self._total: np.ndarray | None = None

    @property
    def roster(self) -> Roster:
        """Who advertised keys.

        Raises:
            FederationError: the stage has not been.
        """
        if self._roster is None:
            raise FederationError('secure aggregation: the stage "advertise" comes first')
        return self._roster

    @property
    def needed(self) -> int:
        """Fewest owners that must stay to the end."""
        return threshold(self.options.threshold, self.options.least, len(self.roster.keys))

    def ask(self, stage: str, owners: tuple[str, ...]) -> dict[str, dict[str, bytes]]:
        """What each owner is asked; those that fell out in an earlier stage are asked no more."""
        if stage == "advertise":
            return {owner: {"nonce": self._nonce} for owner in owners}
        if stage == "share":
            entries = {owner: packed(entry) for owner, entry in self._advertised.items()}
            return {owner: {"roster": packed(entries)} for owner in owners if owner in entries}
        if stage == "deal":
            return {owner: self._envelopes(owner) for owner in owners if owner in self._shared}
        summed = json.dumps(self.summed).encode()
        return {owner: {"summed": summed} for owner in owners if owner in self._shared}

    def _envelopes(self, owner: str) -> dict[str, bytes]:
        return {f"from/{other}": sent[f"to/{owner}"] for other, sent in self._shared.items() if other != owner}

    def take(self, stage: str, replies: Mapping[str, Message]) -> None:
        """What came back in a stage.

        Raises:
            FederationError: fewer owners are left than the threshold.
        """
        if stage == "advertise":
            self._take_keys(replies)
        elif stage == "share":
            self._take_shares(replies)
            self._enough(self._shared, "shared their secrets")
        elif stage == "deal":
            self._enough(replies, "received their shares")
        else:
            self._unmask(replies)

    def _take_keys(self, replies: Mapping[str, Message]) -> None:
        for owner, reply in sorted(replies.items()):
            if len(reply.get("keys", b"")) != 2 * KEY_BYTES:
                self.left_out[owner] = f"advertised keys of {len(reply.get('keys', b''))} bytes"
                continue
            if sum(reply["keys"] == other.get("keys") for other in replies.values()) > 1:
                self.left_out[owner] = "advertised keys that another owner advertised too"
                continue
            self._advertised[owner] = {"keys": reply["keys"], "keys_signature": reply.get("keys_signature", b"")}
        keys = {owner: entry["keys"] for owner, entry in self._advertised.items()}
        self._roster = Roster.of(keys, self.options.settings + self._nonce)
        self._enough(keys, "advertised keys")

    def _take_shares(self, replies: Mapping[str, Message]) -> None:
        for owner, reply in sorted(replies.items()):
            wanted = {f"to/{other}" for other in self.roster.keys if other != owner} | {"commitment"}
            if owner not in self.roster.keys or set(reply) != wanted:
                self.left_out[owner] = "did not share its secrets with every other owner"
                continue
            self._shared[owner] = reply

    def _enough(self, owners: Iterable[str], what: str) -> None:
        """At least the threshold."""
        found = len(list(owners))
        if found < self.needed:
            raise FederationError(
                f"secure aggregation: only {found} of {len(self.owners)} owners {what}, at least {self.needed} are needed; lengthen the "
                "deadline, or lower privacy_options.secure_aggregation.threshold"
            )

    def check(self, owner: str, message: Message, length: int) -> None:
        """See CoordinatorSide."""
        found = len(message.get("masked", b"")) / 8
        if owner not in self._shared or found != length:
            raise Refused(f"the sealed vector of '{owner}' has {found:g} values, expected {length} from an owner of this round")

    def collect(self, sealed: Mapping[str, Message], length: int) -> None:
        """The masked vectors that came, each of `length` values.

        Raises:
            Refused: a vector of another length, or of an owner that dealt no shares; ask again without that owner.
            FederationError: fewer came than the threshold.
        """
        for owner, message in sealed.items():
            self.check(owner, message, length)
        self._length = length
        self._vectors = {owner: np.frombuffer(sealed[owner]["masked"], "<u8") for owner in sorted(sealed)}
        self.summed = tuple(self._vectors)
        self._enough(self.summed, "sent their vector")

    def _unmask(self, replies: Mapping[str, Message]) -> None:
        wanted = {f"self/{owner}" if owner in self.summed else f"mask/{owner}" for owner in self._shared}
        good = {}
        for owner, reply in sorted(replies.items()):
            if set(reply) == wanted and all(len(share) == _shamir.SHARE_BYTES for share in reply.values()):
                good[owner] = reply
            else:
                self.left_out[owner] = "gave out other shares than were asked for"
        self._enough(good, "helped to take the masks out")
        total = np.zeros(self._length, np.uint64)
        for vector in self._vectors.values():
            np.add(total, vector, out=total)
        for owner in self._shared:
            np.subtract(total, self._mask_left(owner, good), out=total)
        self._total = total.view(np.int64)

    def _mask_left(self, owner: str, good: Mapping[str, Message]) -> np.ndarray:
        """What an owner left in the sum: its own mask, or, where its vector did not come, the others' masks with it."""
        secret = self._secret(owner, good, sorted(good)[: self.needed])
        if secret is None:
            raise self._spoilt(owner, good)
        if owner in self.summed:
            return stream(secret, self._length)
        left: np.ndarray = np.negative(pairwise(self.roster, secret, owner, self.summed, self._length))
        return left

    def _secret(self, owner: str, good: Mapping[str, Message], helpers: Sequence[str]) -> bytes | None:
        """An owner's secret from the helpers' shares; None: they do not give the one that it committed to."""
        came, points = owner in self.summed, self.roster.points()
        kind = "self" if came else "mask"
        try:
            secret = _shamir.combine({points[helper]: good[helper][f"{kind}/{owner}"] for helper in helpers})
        except FederationError:
            return None
        right = (
            commitment(secret) == self._shared[owner]["commitment"]
            if came
            else KeyPair.of(secret).public == self.roster.mask_key(owner)
        )
        return secret if right else None

    def _spoilt(self, owner: str, good: Mapping[str, Message]) -> FederationError:
        """Whose doing it is that an owner's shares do not give its secret.

        Where more helped than are needed, another takes the place of each in turn: the one without whom the secret comes out gave a wrong
        share. If it never comes out, the owner itself dealt other shares than it committed to. Where just as many helped as are needed,
        nobody can be named.
        """
        words = f"the shares of '{owner}' do not give its secret: an owner sent a wrong one; the round must be begun anew"
        first, spare = sorted(good)[: self.needed], sorted(good)[self.needed :][:_SPARE]
        for stand_in in spare:
            for one in first:
                if self._secret(owner, good, sorted({*first, stand_in} - {one})) is not None:
                    return Spoilt(f"{words}, without '{one}'", {one: f"gave a wrong share of the secret of '{owner}'"})
        if spare:
            return Spoilt(f"{words}, without '{owner}'", {owner: "dealt shares of another secret than it committed to"})
        return FederationError(words)

    def integers(self) -> np.ndarray:
        """The exact sum in units of 2^−fraction_bits, (length,) int64.

        Raises:
            FederationError: the last stage has not been.
        """
        if self._total is None:
            raise FederationError('secure aggregation: there is no sum before the stage "unmask"')
        return self._total

    def total(self) -> np.ndarray:
        """The sum of the vectors of those whose update came, (length,) float64."""
        return self.options.grid.values(self.integers())
