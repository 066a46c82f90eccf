"""From instructions to updates: what is under way at which node, and what is taken of that which comes back (M.3387 9.4).

The three timings differ only in how long the coordinator listens, and in what it does about a node whose update is not there yet:

    synchronous        until all have answered, or the deadline; what is late is left out
    semi-synchronous   likewise; what is late counts in the round in which it comes, with its staleness
    asynchronous       until the rule's buffer is full; who has answered is sent the newest weights at once
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellwright.errors import FederationError, Refused
from cellwright.federation import messages
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.compression._contract import Codec
from cellwright.federation.contract import Arrays, Instruction, Local, NodeState, Parcel, Reply, Update
from cellwright.federation.ledger import Ledger
from cellwright.federation.pacing import Pacing
from cellwright.federation.post import Answers, Post
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.rounds import Stateful

_FORGOTTEN = 3.0  # deadlines after which an update that never came is waited for no longer


@dataclass(frozen=True)
class Sent:
    """An instruction under way."""

    round: int
    local: Local
    start: Arrays  # the weights that were sent
    extra: Arrays  # the rule's own beside them
    ticket: str = ""
    at: float = 0.0  # channel's clock


class Gatherer:
    """Instructs owners and takes their updates."""

    def __init__(self, post: Post, rule: Rule, codec: Codec, mechanisms: Sequence[Mechanism], pacing: Pacing) -> None:
        self.post, self.rule, self.codec, self.pacing = post, rule, codec, pacing
        self.mechanisms = tuple(mechanisms)
        self.sealed = any(m.seals for m in self.mechanisms)
        self.flight: dict[str, Sent] = {}
        self._early: dict[str, Reply] = {}  # replies that came while nobody listened
        self.remember = False  # whether the states of nodes are kept, for a checkpoint
        self.before: dict[str, NodeState] = {}  # of an asynchronous rule: the state that a node had when it was last instructed

    def instruct(self, owners: Iterable[str], current: Arrays, local: Local, round_: int, *, deadline_s: float) -> None:
        """Send each owner the weights it starts from; equal instructions share one parcel."""
        wanted = self.local(local, round_)
        shared: dict[tuple, tuple[Parcel, Arrays]] = {}
        parcels, sent = {}, {}
        for owner in owners:
            start, extra = self.rule.start_for(owner, current), self.rule.extra(owner, current)  # noqa: S610 - no Django
            own = replace(wanted, steps=self.pacing.steps(owner, wanted.steps, deadline_s))
            key = (own.steps, *map(id, start.values()), *map(id, extra.values()))
            if key not in shared:
                shared[key] = messages.train(Instruction(round_, public(start, own), own, extra)), start
            parcels[owner] = shared[key][0]
            sent[owner] = (own, shared[key][1], extra)
        self._send(parcels, {owner: Sent(round_, own, start, rule) for owner, (own, start, rule) in sent.items()}, round_)

    def again(self, under_way: Mapping[str, Sent], round_: int) -> None:
        """Send instructions once more, as they were."""
        parcels = {
            o: messages.train(Instruction(s.round, public(s.start, s.local), s.local, s.extra)) for o, s in under_way.items()
        }
        self._send(parcels, under_way, round_)

    def listen(self, owners: Iterable[str], *, until: float, least: int | None = None) -> dict[str, Reply]:
        """Replies of some of those under way, unread."""
        owners = list(owners)
        got = {owner: self._early.pop(owner) for owner in owners if owner in self._early}
        wanted = len(owners) if least is None else min(least, len(owners))
        if len(got) < wanted:
            rest = {owner: self.flight[owner].ticket for owner in owners if owner not in got}
            got |= self.post.fetch(rest, until=until, least=wanted - len(got))
        return dict(sorted(got.items()))

    def wait(self, until: float) -> None:
        """Let time pass; what comes is kept."""
        waiting = {owner: sent.ticket for owner, sent in self.flight.items() if owner not in self._early}
        self._early |= self.post.fetch(waiting, until=until)

    def taken(self, replies: Mapping[str, Reply], round_: int, ledger: Ledger, *, late_counts: bool) -> tuple[Update, ...]:
        """The updates among replies: checked, decoded, bounded; who answered is idle again. What is refused is told to the ledger."""
        answers = self.post.opened("train", replies, ledger, round_=round_)
        updates = []
        for owner, parcel in answers.parcels.items():
            sent = self.flight.pop(owner)
            try:
                update = self.opened(owner, sent, parcel)
            except (Refused, FederationError) as error:
                ledger.left_out(owner, "refused", str(error))
                continue
            self.pacing.took(owner, update.steps, answers.seconds[owner])
            if sent.round < round_ and not late_counts:
                ledger.of(owner).spend(update.usage)
                continue
            if not update.examples and not self.sealed:  # a sealed sum needs what all sealed, be its weight 0
                ledger.left_out(owner, "empty", "it holds no window of the training span")
                continue
            ledger.counted(update := replace(update, staleness=round_ - sent.round), answers.seconds[owner])
            updates.append(update)
        self._told(answers, ledger)
        return tuple(updates)

    def late(self, ledger: Ledger, round_: int) -> None:
        """Tell the ledger who is still at work, and forget those that were waited for long enough."""
        now = self.post.channel.now()
        for owner, sent in self.flight.items():
            ledger.left_out(
                owner, "late", f"its update of round {sent.round} has not come {now - sent.at:.3g} s after it was asked for"
            )
            if sent.round == round_:
                self.pacing.missed(owner, sent.local.steps, now - sent.at)
        self.post.late("train", (owner for owner, sent in self.flight.items() if sent.round == round_))

    def forget(self, deadline_s: float) -> None:
        """Those whose update is overdue by far are asked again as if they had never been."""
        now = self.post.channel.now()
        for owner in [o for o, sent in self.flight.items() if now - sent.at > _FORGOTTEN * deadline_s]:
            del self.flight[owner]

    def opened(self, owner: str, sent: Sent, parcel: Parcel) -> Update:
        """The update that a reply holds.

        Raises:
            Refused: it is not one of this owner, of the round it was asked for, or holds what is no number.
        """
        update = messages.update_of(parcel, self._delta(messages.under(parcel, messages.DELTA), sent))
        check(update, owner, sent)
        for mechanism in self.mechanisms:
            update = replace(update, delta=mechanism.bounded(update.delta))
        return update

    def _delta(self, encoded: Arrays, sent: Sent) -> Arrays:
        if self.sealed:
            if encoded:
                raise Refused("an update in the clear, where only sealed ones are taken; the node runs without the mechanism")
            return {}
        return encoded if self.rule.closed_form else self.codec.decode(encoded, public(sent.start, sent.local))

    def _send(self, parcels: Mapping[str, Parcel], sent: Mapping[str, Sent], round_: int) -> None:
        if self.remember and self.rule.timing == "asynchronous" and isinstance(self.post.channel, Stateful):
            self.before |= dict.fromkeys(parcels, NodeState()) | self.post.channel.states(parcels)
        tickets, now = self.post.send("train", parcels, round_=round_), self.post.channel.now()
        self.flight |= {owner: replace(sent[owner], ticket=ticket, at=now) for owner, ticket in tickets.items()}

    def _told(self, answers: Answers, ledger: Ledger) -> None:
        for owner, why in answers.refused.items():
            self.flight.pop(owner, None)
            ledger.left_out(owner, "refused", why)
        for owner, why in answers.failed.items():
            self.flight.pop(owner, None)
            ledger.left_out(owner, "lost", why)

    def local(self, local: Local, round_: int) -> Local:
        """How owners train in this round, under the rule and the mechanisms."""
        local = self.rule.local(local, round_)
        for mechanism in self.mechanisms:
            local = mechanism.local(local)
        return local


def public(start: Arrays, local: Local) -> Arrays:
    """The arrays that travel: all but those that are each owner's own."""
    return {name: array for name, array in start.items() if not name.startswith(local.private)} if local.private else start


def check(update: Update, owner: str, sent: Sent) -> None:
    """What can be said of an update by looking at it alone.

    Raises:
        Refused: another owner's, of another round, with negative counts, or with values that are not finite.
    """
    if update.owner != owner:
        raise Refused(f"the reply of '{owner}' holds an update of '{update.owner[:64]}'; nobody answers for another node")
    if update.round != sent.round:
        raise Refused(f"the update is of round {update.round}, asked for was round {sent.round}")
    if update.examples < 0 or update.steps < 0:
        raise Refused(f"the update claims {update.examples} windows and {update.steps} steps; neither can be below 0")
    if update.steps > max(1, sent.local.steps):  # of a closed form: 1; privacy is accounted by it
        raise Refused(f"the update claims {update.steps} steps, asked for were {sent.local.steps}")
    for name, array in (*update.delta.items(), *update.extra.items()):
        if not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise Refused(f"'{name[:80]}' of the update holds {bad} values that are not finite (of {array.size})")
    if wrong := [name for name, value in update.metrics.items() if not math.isfinite(value)]:
        raise Refused(f"the update's metric '{wrong[0][:80]}' is not finite")
