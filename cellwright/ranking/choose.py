"""The choice: of two models whose accuracy is similar, the one with less energy wins.

On the validation span, among the candidates that beat ridge:

    beats ridge   the paired 95 % interval of its MAE minus ridge's lies below 0
    best          the lowest MAE
    similar       the paired interval of its MAE minus the best one's contains 0, or their relative difference is below
                  `rank.similar_accuracy`; and whoever is at least as accurate as one that is similar is similar too
                  (a model with a narrow interval must not lose to a less accurate one with a wide interval)
    champion      of the best and the similar ones that with the least training energy; where the energy of any of them is not
                  known, CPU-seconds decide. The more accurate one wins a tie.

If there is no ridge, or nobody beats it, the same rule applies among all candidates, and the sentence says so. A candidate that
halving dropped is no choice while one is left that trained to its end: what it saved of energy it did not earn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellwright.ranking.sentence import REFERENCE, Contender, DecidedBy, Paired, explain
from cellwright.results import Choice


@dataclass(frozen=True)
class Verdict:
    """A choice, with what led to it."""

    choice: Choice
    beats_reference: dict[str, bool | None]  # None: there is no reference, or it is the reference itself


def choose(contenders: Sequence[Contender], paired: Paired, *, similar_accuracy: float, unit: str) -> Verdict:
    """Choose the champion. The order of `contenders` does not matter.

    Raises:
        ValueError: there are none.
    """
    ordered, beats, similar = _similar_to_best(contenders, paired, similar_accuracy)
    champion, decided_by = _thriftiest(similar)
    choice = Choice(
        key=champion.key,
        sentence=explain(champion, similar, ordered, paired, decided_by=decided_by, beats=beats[champion.key], unit=unit),
        similar=[c.key for c in similar if c is not champion],
        decided_by=decided_by,
        block_steps=paired(champion.key, champion.key).block_steps,
    )
    return Verdict(choice, beats)


def finalists(contenders: Sequence[Contender], paired: Paired, *, similar_accuracy: float) -> list[str]:
    """Keys of those among whom energy decides: the best one and the similar ones.

    Raises:
        ValueError: there is no contender.
    """
    return [c.key for c in _similar_to_best(contenders, paired, similar_accuracy)[2]]


Beats = dict[str, bool | None]


def _similar_to_best(
    contenders: Sequence[Contender], paired: Paired, limit: float
) -> tuple[list[Contender], Beats, list[Contender]]:
    """All of them by accuracy, who beats the reference, and the best one with those similar to it."""
    if not contenders:
        raise ValueError("there is no candidate to choose from")
    ordered = sorted(contenders, key=lambda c: (c.mae, c.key))
    beats = _beats_reference(ordered, paired)
    whole = [c for c in ordered if not c.dropped] or ordered
    eligible = [c for c in whole if beats[c.key]] or whole
    return ordered, beats, _similar(eligible[0], eligible, paired, limit)


def _beats_reference(ordered: Sequence[Contender], paired: Paired) -> Beats:
    if REFERENCE not in {c.key for c in ordered}:
        return {c.key: None for c in ordered}
    return {c.key: None if c.key == REFERENCE else paired(c.key, REFERENCE).high < 0 for c in ordered}


def _similar(best: Contender, eligible: Sequence[Contender], paired: Paired, limit: float) -> list[Contender]:
    """The best one and those similar to it, most accurate first."""

    def close(other: Contender) -> bool:
        return paired(other.key, best.key).tie or (best.mae > 0 and (other.mae - best.mae) / best.mae < limit)

    last = max(i for i, other in enumerate(eligible) if other is best or close(other))
    return [c for c in eligible if c.mae <= eligible[last].mae]


def _thriftiest(similar: Sequence[Contender]) -> tuple[Contender, DecidedBy]:
    if len(similar) == 1:
        return similar[0], "accuracy"
    if any(c.energy_j is None for c in similar):
        return min(similar, key=lambda c: (c.cpu_s, c.mae, c.key)), "cpu seconds"
    return min(similar, key=lambda c: (c.energy_j or 0.0, c.mae, c.key)), "energy"
