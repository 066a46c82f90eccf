"""An owner's part of secure aggregation. Every stage is answered once, and in order; "advertise" begins a round anew."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import Refused
from cellwright.federation.privacy import _shamir
from cellwright.federation.privacy._contract import Message, OwnerSide, blaming
from cellwright.federation.privacy._envelopes import KeyPair, agreed, check_keys, opened, packed, signed_keys, unpacked, wrapped
from cellwright.federation.privacy._masking import (
    NONCE_BYTES,
    PURPOSE,
    TOTAL_BITS,
    Roster,
    commitment,
    envelope_context,
    envelope_key,
    keys_of,
    pairwise,
    stream,
    threshold,
)

if TYPE_CHECKING:
    from cellwright.federation.privacy.secure_aggregation import Options

_ORDER = ("new", "advertise", "share", "deal", "sealed", "unmask")
_BOTH = 2 * _shamir.SHARE_BYTES


class Owner(OwnerSide):
    """Masks its vector; gives out shares of one secret of every other owner, once."""

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.options = options
        self._begin()

    def _begin(self) -> None:
        self.phase = "new"
        self._nonce = self._share_key = self._mask_key = self._self_mask = b""
        self._roster: Roster | None = None
        self._held: dict[str, bytes] = {}  # by owner, its own included: share of its mask key, share of its own mask

    def answer(self, stage: str, message: Message) -> dict[str, bytes]:
        """Answer "advertise", "share", "deal" or "unmask".

        Raises:
            Refused: the stage is out of turn, or the message asks for what must not be given.
        """
        if stage == "advertise":
            return self._advertise(message)
        if stage == "share":
            self._enter("share", after=("advertise",))
            return self._share(message)
        if stage == "deal":
            self._enter("deal", after=("share",))
            return self._deal(message)
        if stage == "unmask":
            self._enter("unmask", after=("deal", "sealed"))
            return self._unmask(message)
        raise Refused(f"secure aggregation has no stage '{stage}'; it has advertise, share, deal and unmask")

    def seal(self, vector: np.ndarray) -> dict[str, bytes]:
        """The vector under all masks, uint64, little-endian.

        Raises:
            Refused: no keys were dealt in this round, or a vector was sealed with them already.
            FederationError: a value is beyond the option `range`, or not finite.
        """
        integers = self.options.grid.integers(vector)
        self._enter("sealed", after=("deal",))
        masked = integers.astype(np.uint64) + stream(self._self_mask, len(integers))
        others = [owner for owner in self._held if owner != self.name]
        masked += pairwise(self.roster, self._mask_key, self.name, others, len(integers))
        return {"masked": masked.astype("<u8").tobytes()}

    @property
    def roster(self) -> Roster:
        """Who takes part in this round.

        Raises:
            Refused: it has not been told yet.
        """
        if self._roster is None:
            raise Refused(f"'{self.name}' was told of no roster in this round; the stage \"share\" comes first")
        return self._roster

    def _enter(self, phase: str, *, after: tuple[str, ...]) -> None:
        """A stage is entered once; twice with the same masks would give away the difference of two vectors, or both secrets."""
        if self.phase not in after:
            raise Refused(
                f"'{self.name}' is asked to {phase} after '{self.phase}', which comes after {' or '.join(after)} and once a round; "
                "begin the round anew"
            )
        self.phase = phase

    def _advertise(self, message: Message) -> dict[str, bytes]:
        nonce = message.get("nonce", b"")
        if len(nonce) != NONCE_BYTES:
            raise Refused(f"the round's nonce has {len(nonce)} bytes, expected {NONCE_BYTES}")
        self._begin()
        self.phase, self._nonce = "advertise", nonce
        share, mask = KeyPair.new(), KeyPair.new()
        self._share_key, self._mask_key, self._self_mask = share.private, mask.private, os.urandom(32)
        keys = share.public + mask.public
        # not called "signature": that is the blob of the whole message's, which would take its place
        return {"keys": keys, "keys_signature": signed_keys(PURPOSE + nonce, self.name, keys, self.sign)}

    def _share(self, message: Message) -> dict[str, bytes]:
        self._roster = roster = self._checked_roster(message)
        needed = threshold(self.options.threshold, self.options.least, len(roster.keys))
        self.options.grid.check(len(roster.keys), TOTAL_BITS)
        points = roster.points()
        masks = _shamir.split(self._mask_key, needed, points.values())
        selves = _shamir.split(self._self_mask, needed, points.values())
        both = {owner: masks[point] + selves[point] for owner, point in points.items()}
        self._held = {self.name: both.pop(self.name)}
        envelopes = {f"to/{owner}": self._wrapped(owner, content) for owner, content in both.items()}
        return {**envelopes, "commitment": commitment(self._self_mask)}

    def _checked_roster(self, message: Message) -> Roster:
        advertised = keys_of(message.get("roster", b""))
        mine = KeyPair.of(self._share_key).public + KeyPair.of(self._mask_key).public
        if advertised.get(self.name, (b"", b""))[0] != mine:
            raise Refused(
                f"the roster does not hold the keys that '{self.name}' advertised; the coordinator must begin the round anew"
            )
        for owner, (keys, signature) in advertised.items():
            if owner != self.name:
                with blaming(owner):
                    check_keys(PURPOSE + self._nonce, owner, keys, signature, self.verify)
        roster = Roster.of({owner: keys for owner, (keys, _) in advertised.items()}, self.options.settings + self._nonce)
        if len(set(roster.keys.values())) < len(roster.keys):
            raise Refused("the roster holds the same keys twice; every owner has keys of its own")
        for owner in roster.keys:
            if owner != self.name:
                with blaming(owner):  # before a vector is masked with it: that would be too late to go on without
                    agreed(self._mask_key, roster.mask_key(owner), PURPOSE)
        self._least(len(roster.keys), "owners in the roster", roster)
        return roster

    def _least(self, found: int, what: str, roster: Roster) -> None:
        needed = threshold(self.options.threshold, self.options.least, len(roster.keys))
        if found < needed:
            raise Refused(f"{found} {what}, at least {needed} are needed; '{self.name}' gives nothing out for fewer")

    def _wrapped(self, owner: str, content: bytes) -> bytes:
        with blaming(owner):
            key = envelope_key(self.roster, self._share_key, owner)
        return wrapped(key, content, envelope_context(self.roster, self.name, owner))

    def _deal(self, message: Message) -> dict[str, bytes]:
        envelopes = {name.removeprefix("from/"): content for name, content in message.items() if name.startswith("from/")}
        if strange := sorted(set(envelopes) - set(self.roster.keys) | set(envelopes) & {self.name}):
            raise Refused(f"shares are dealt from '{strange[0]}', who is not among the others of the roster")
        self._least(len(envelopes) + 1, "owners shared their secrets", self.roster)
        for owner, envelope in envelopes.items():
            context = envelope_context(self.roster, owner, self.name)
            with blaming(owner):
                content = opened(envelope_key(self.roster, self._share_key, owner), envelope, context, owner)
                if len(content) != _BOTH:
                    raise Refused(f"the envelope from '{owner}' holds {len(content)} bytes, expected {_BOTH}")
            self._held[owner] = content
        return {"dealt": hashlib.sha256(json.dumps(sorted(self._held)).encode()).digest()}

    def _unmask(self, message: Message) -> dict[str, bytes]:
        summed = self._summed(message)
        shares = {}
        for owner, both in self._held.items():
            mask, self_mask = both[: _shamir.SHARE_BYTES], both[_shamir.SHARE_BYTES :]
            shares.update({f"self/{owner}": self_mask} if owner in summed else {f"mask/{owner}": mask})
        self._held, self._mask_key, self._self_mask = {}, b"", b""  # nothing more can be given out in this round
        return shares

    def _summed(self, message: Message) -> set[str]:
        """Whose vectors came, as the coordinator says: of those the own mask is given out, of all others the key, never both."""
        try:
            named = json.loads(message.get("summed", b""))
        except ValueError as error:
            raise Refused(f"whose vectors came cannot be read: {error}") from None
        if not isinstance(named, list) or not all(isinstance(owner, str) for owner in named) or len(set(named)) != len(named):
            raise Refused("whose vectors came must be a list of names, each once")
        if strange := sorted(set(named) - set(self._held)):
            raise Refused(f"a vector is said to have come from '{strange[0]}', who dealt no shares in this round")
        self._least(len(named), "vectors came", self.roster)
        return set(named)

    def state(self) -> bytes:
        """Everything, secrets included: it stays at the owner."""
        fields = {
            "phase": self.phase.encode(),
            "nonce": self._nonce,
            "secrets": self._share_key + self._mask_key + self._self_mask,
            "roster": packed(self._roster.keys) if self._roster else b"",
            "held": packed(self._held),
        }
        return packed(fields)

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave.

        Raises:
            Refused: it is damaged.
        """
        fields = unpacked(state)
        if set(fields) != {"phase", "nonce", "secrets", "roster", "held"} or fields["phase"].decode() not in _ORDER:
            raise Refused("the owner's state of secure aggregation is damaged; begin the round anew")
        self.phase, self._nonce, kept = fields["phase"].decode(), fields["nonce"], fields["secrets"]
        self._share_key, self._mask_key, self._self_mask = kept[:32], kept[32:64], kept[64:96]
        settings = self.options.settings + self._nonce
        self._roster = Roster.of(unpacked(fields["roster"]), settings) if fields["roster"] else None
        self._held = unpacked(fields["held"])
