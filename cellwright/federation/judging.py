"""How good the weights are at every owner, and over all of them: sums that the owners make on their own data (M.3387 9.5).

A node that is at work cannot judge as well. In a synchronous or semi-synchronous round all idle owners judge the new weights; under
an asynchronous rule each owner first judges the weights that it is then sent to train from. Where an owner has not judged the newest
weights, its latest judgement stands, so that an error over all owners is always one over all owners.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cellwright.errors import Refused
from cellwright.federation import messages
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays, Evaluation, Parcel, Usage
from cellwright.federation.ledger import Ledger
from cellwright.federation.post import Post
from cellwright.federation.quality.classification import Classified, added, classified

Span = Literal["validation", "test"]
_LARGEST_SUM = 1e200  # no sum of errors is larger, and no sum of these over owners leaves float64
NOTHING_TOLD = Classified(None, None, None)


@dataclass(frozen=True)
class Total:
    """Errors over all owners; None: nothing was measured."""

    loss: float | None  # the training loss, normalised
    mae: float | None  # raw units
    mse: float | None  # raw units squared
    told: Classified  # of a classification: how well events are told


def total(evaluations: Iterable[Evaluation]) -> Total:
    """The owners' sums, added up exactly rounded, whatever their order."""
    given = list(evaluations)
    count = sum(e.count for e in given)
    if not count:
        return Total(None, None, None, NOTHING_TOLD)
    sums = (math.fsum(getattr(e, name) for e in given) for name in ("loss", "absolute", "squared"))
    loss, mae, mse = (value / count for value in sums)
    told = classified(added([e.positive for e in given]), added([e.negative for e in given]))
    return Total(loss, mae, mse, told)


@dataclass(frozen=True)
class _Asked:
    ticket: str
    span: Span
    round: int


class Judge:
    """Asks owners how good weights are."""

    def __init__(self, post: Post, rule: Rule) -> None:
        self.post, self.rule = post, rule
        self._asked: dict[str, _Asked] = {}

    def ask(self, starts: Mapping[str, Arrays], round_: int, span: Span = "validation") -> None:
        """Send each owner the weights it is to judge; equal ones share a parcel."""
        shared: dict[tuple[int, ...], Parcel] = {}
        parcels = {}
        for owner, start in starts.items():
            key = tuple(map(id, start.values()))
            parcels[owner] = shared.get(key) or shared.setdefault(key, messages.evaluate(start, span, round_))
        for owner, ticket in self.post.send("evaluate", parcels, round_=round_).items():
            self._asked[owner] = _Asked(ticket, span, round_)

    def asked(self) -> tuple[str, ...]:
        """Who has not answered yet."""
        return tuple(self._asked)

    def heard(self, owners: Iterable[str], round_: int, ledger: Ledger, *, until: float) -> dict[str, Evaluation]:
        """What those say who were asked, as far as it has come by `until`."""
        asked = {owner: self._asked[owner] for owner in owners if owner in self._asked}
        replies = self.post.fetch({owner: a.ticket for owner, a in asked.items()}, until=until)
        answers = self.post.opened("evaluate", replies, ledger, round_=round_)
        heard = {}
        for owner, parcel in answers.parcels.items():
            try:
                evaluation, usage = _opened(parcel, owner, asked[owner])
            except Refused as refusal:
                ledger.unjudged(owner, "refused", str(refusal))
                continue
            ledger.judged(evaluation, usage)
            heard[owner] = evaluation
        for owner, why in (*answers.refused.items(), *answers.failed.items()):
            ledger.unjudged(owner, "refused" if owner in answers.refused else "lost", why)
        for owner in (*answers.parcels, *answers.refused, *answers.failed):
            del self._asked[owner]
        return heard

    def judged(
        self, owners: Iterable[str], current: Arrays, round_: int, ledger: Ledger, *, wait_s: float, span: Span = "validation"
    ) -> dict[str, Evaluation]:
        """Ask owners about the weights that they start from, and wait for them."""
        owners = sorted(owners)
        self.ask({owner: self.rule.start_for(owner, current) for owner in owners}, round_, span)
        heard = self.heard(owners, round_, ledger, until=self.post.channel.now() + wait_s)
        late = [owner for owner in owners if self._asked.pop(owner, None) is not None]
        for owner in late:
            ledger.unjudged(owner, "late", f"no word within {wait_s:g} s")
        self.post.late("evaluate", late)
        return heard


def _opened(parcel: Parcel, owner: str, asked: _Asked) -> tuple[Evaluation, Usage]:
    """What a reply says.

    Raises:
        Refused: of another owner, span or round, or with numbers that cannot be.
    """
    evaluation, usage = messages.evaluation_of(parcel)
    if (evaluation.owner, evaluation.span) != (owner, asked.span):
        raise Refused(
            f"'{owner}' was asked about its {asked.span} span and answered for '{evaluation.owner[:64]}', {str(evaluation.span)[:20]}"
        )
    if (told := parcel.values.get("round")) != asked.round or isinstance(told, bool):
        raise Refused(f"'{owner}' was asked about the weights of round {asked.round} and answered for round {str(told)[:20]}")
    sums = (evaluation.absolute, evaluation.squared, evaluation.loss)
    if evaluation.count < 0 or not all(abs(s) <= _LARGEST_SUM for s in sums) or min(sums[:2]) < 0:
        raise Refused(f"its errors over {evaluation.count} targets are no finite sums: {', '.join(f'{s:g}' for s in sums)}")
    return evaluation, usage
