"""The ways of a round's updates to the coordinator: all together, as they come, or sealed. See gathering.py for the timings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, Evaluation, Local, Update
from cellwright.federation.crew import Crew
from cellwright.federation.gathering import Gatherer, public
from cellwright.federation.judging import Judge
from cellwright.federation.ledger import Ledger
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.rounds import Rounds
from cellwright.federation.sealed_sum import SealedRound

_SEALS = 3  # of the seeds that derive from (seed, round, purpose)
_REPEATS = 3  # of a sealed round that failed, each without those whose doing it was
_LEAST_SHARE = 0.25  # of a round's deadline that must be left for another try


@dataclass
class Collected:
    """What a round brought."""

    asked: tuple[str, ...] = ()
    updates: tuple[Update, ...] = ()  # sorted by owner; of a sealed sum without their deltas
    total: np.ndarray | None = None  # the sealed sum
    like: Arrays | None = None  # names and shapes of what was sealed
    why: str = ""  # there are no updates
    culprits: dict[str, str] = field(default_factory=dict)  # whose doing it was that a sealed sum failed, and what they did
    gone: dict[str, str] = field(default_factory=dict)  # who fell silent in a sealed sum that failed
    events: list[str] = field(default_factory=list)  # what was done about it


@dataclass
class Turn:
    """One round, while it is under way."""

    round: int
    current: Arrays
    local: Local
    deadline_s: float
    ledger: Ledger
    latest: dict[str, Evaluation]  # each owner's last word on the validation span


class Collector:
    """Brings a round's updates together."""

    def __init__(self, gatherer: Gatherer, judge: Judge, crew: Crew, settings: Rounds) -> None:
        self.gatherer, self.judge, self.crew, self.settings = gatherer, judge, crew, settings
        self.post = gatherer.post

    def together(self, turn: Turn) -> Collected:
        """Ask those who are idle and wait for all, until the deadline; late updates count where the rule says so."""
        late_counts = self.gatherer.rule.timing == "semi_synchronous"
        if not late_counts:
            self._drain(turn)
        asked = self._chosen(turn)
        until = self.post.channel.now() + turn.deadline_s
        self.gatherer.instruct(asked, turn.current, turn.local, turn.round, deadline_s=turn.deadline_s)
        waiting = sorted(self.gatherer.flight) if late_counts else asked
        replies = self.gatherer.listen(waiting, until=until, least=self.gatherer.rule.wanted(len(waiting)))
        updates = self.gatherer.taken(replies, turn.round, turn.ledger, late_counts=late_counts)
        return Collected(asked, updates)

    def as_they_come(self, turn: Turn) -> Collected:
        """Until the buffer is full; who has answered judges and trains from the newest weights, unless it has done so already."""
        gatherer, until = self.gatherer, self.post.channel.now() + turn.deadline_s
        able = [node for node in self.crew.peers() if node not in self.crew.empty]
        wanted, started, updates = gatherer.rule.wanted(len(able)), set[str](), list[Update]()
        while len(updates) < wanted:
            idle = [node for node in able if node not in gatherer.flight and node not in started]
            started.update(idle)
            self.judge.ask({node: gatherer.rule.start_for(node, turn.current) for node in idle}, turn.round)
            gatherer.instruct(idle, turn.current, turn.local, turn.round, deadline_s=turn.deadline_s)
            replies = gatherer.listen(gatherer.flight, until=until, least=1)
            if not replies:
                break
            self._hear(turn, tuple(replies))
            updates += gatherer.taken(replies, turn.round, turn.ledger, late_counts=True)
            self._mark_empty(turn)
        self._hear(turn, self.judge.asked())
        return Collected(tuple(sorted(started)), tuple(sorted(updates, key=lambda u: u.owner)))

    def sealed(self, turn: Turn, mechanism: Mechanism, again: Callable[[Collected], bool] = lambda _: True) -> Collected:
        """Through a sealed sum; who drops out at any stage is left out.

        One that fails is begun anew without those whose doing it was, a few times, while time is left of the round's deadline.

        Args:
            again: told of each try that failed, before the next; whether there may be one.
        """
        self._drain(turn)
        until, culprits, events = self.post.channel.now() + turn.deadline_s, dict[str, str](), list[str]()
        collected = self._tried(turn, mechanism, self._chosen(turn), 0)
        for number in range(1, _REPEATS + 1):
            culprits |= collected.culprits
            rest_s, left = until - self.post.channel.now(), self._left(collected)
            if not left or rest_s < _LEAST_SHARE * turn.deadline_s or not again(collected):
                break
            without = sorted(set(collected.asked) - set(left))
            events.append(f"the sealed sum is begun anew without {', '.join(without)}: {collected.why}")
            collected = self._tried(replace(turn, deadline_s=rest_s), mechanism, left, number)
        collected.culprits, collected.events = culprits | collected.culprits, events
        return collected

    def _left(self, failed: Collected) -> tuple[str, ...]:
        """Whom another try of a sealed sum asks: none where it did not fail, nobody is to blame, or too few would be left."""
        out = {*failed.culprits, *failed.gone}
        left = tuple(owner for owner in failed.asked if owner not in out and owner not in self.gatherer.flight)
        enough = len(left) >= max(self.settings.least_owners, self.gatherer.rule.least)
        return left if failed.total is None and out & {*failed.asked} and enough else ()

    def _tried(self, turn: Turn, mechanism: Mechanism, asked: tuple[str, ...], number: int) -> Collected:
        collected = Collected(asked, like=public(turn.current, self.gatherer.local(turn.local, turn.round)))
        purpose = [_SEALS, number] if number else [_SEALS]
        seed = int(np.random.default_rng([self.settings.seed, turn.round, *purpose]).integers(2**31))
        ask = partial(self.post.ask, ledger=turn.ledger, round_=turn.round)
        sealed: SealedRound | None = None
        try:
            sealed = SealedRound(mechanism, collected.asked, turn.round, seed, turn.deadline_s, ask)
            self._seal(turn, sealed, collected)
        except FederationError as error:  # fewer than the threshold are left, or the sum cannot be had
            collected.updates, collected.total, collected.why = (), None, str(error)
            if sealed is not None:
                self._blame(turn, sealed, collected, error)
        return collected

    def _blame(self, turn: Turn, sealed: SealedRound, collected: Collected, error: FederationError) -> None:
        """Who spoilt a sealed sum, and who fell silent in it."""
        refused = {o: e.reason for o, e in turn.ledger.entries.items() if e.fate == "refused" and o in collected.asked}
        collected.culprits = {o: why for o, why in (refused | sealed.culprits(error)).items() if o in collected.asked}
        collected.gone = {o: why for o, why in sealed.gone.items() if o not in collected.culprits}
        for owner, why in collected.culprits.items():
            turn.ledger.left_out(owner, "refused", why)

    def _seal(self, turn: Turn, sealed: SealedRound, collected: Collected) -> None:
        owners, gatherer = sealed.before(), self.gatherer
        for owner in set(collected.asked) - set(owners):
            turn.ledger.left_out(owner, "lost", "it did not answer a stage before the updates")
        wait_s = turn.deadline_s * (1 - sealed.stages_share)  # of the round's time; a slow node's steps are to fit into it
        until = self.post.channel.now() + wait_s
        gatherer.instruct(owners, turn.current, turn.local, turn.round, deadline_s=wait_s)
        replies = gatherer.listen(owners, until=until)
        collected.updates = gatherer.taken(replies, turn.round, turn.ledger, late_counts=False)
        parcels = {u.owner: parcel for u in collected.updates if (parcel := replies[u.owner].parcel) is not None}
        assert collected.like is not None
        unfit = sealed.unfit(parcels, collected.like)
        for owner, why in unfit.items():
            turn.ledger.left_out(owner, "refused", why)
        collected.updates = tuple(u for u in collected.updates if u.owner not in unfit)
        collected.total = sealed.after({o: parcel for o, parcel in parcels.items() if o not in unfit}, collected.like)

    def _chosen(self, turn: Turn) -> tuple[str, ...]:
        s, rule = self.settings, self.gatherer.rule
        idle = [node for node in self.crew.peers() if node not in self.gatherer.flight]
        least = max(s.least_owners, rule.least)
        return self.crew.chosen(idle, fraction=s.fraction, least=least, seed=s.seed, round_=turn.round)

    def _drain(self, turn: Turn) -> None:
        """Take what came too late for its round: its bytes and energy count, it does not."""
        replies = self.gatherer.listen(sorted(self.gatherer.flight), until=self.post.channel.now())
        self.gatherer.taken(replies, turn.round, turn.ledger, late_counts=False)

    def _hear(self, turn: Turn, owners: Sequence[str]) -> None:
        turn.latest |= self.judge.heard(owners, turn.round, turn.ledger, until=self.post.channel.now())

    def _mark_empty(self, turn: Turn) -> None:
        self.crew.empty |= {owner for owner, entry in turn.ledger.entries.items() if entry.fate == "empty"}
