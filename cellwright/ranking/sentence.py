"""The choice in one sentence that a network engineer understands, with its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cellwright.results import Interval

REFERENCE = "ridge"
DecidedBy = Literal["accuracy", "energy", "cpu seconds"]
Paired = Callable[[str, str], Interval]  # (this, other) -> MAE of this minus other, on the validation span


@dataclass(frozen=True)
class Contender:
    """What the choice looks at, all of it from the validation span and from training."""

    key: str
    title: str
    mae: float  # validation span
    energy_j: float | None  # of training
    energy_words: str  # where that figure is from: "measured", "modelled"
    cpu_s: float  # of training
    dropped: bool = False  # before its training ended (halving)


def explain(
    champion: Contender,
    similar: Sequence[Contender],
    ordered: Sequence[Contender],
    paired: Paired,
    *,
    decided_by: DecidedBy,
    beats: bool | None,
    unit: str,
) -> str:
    """Why `champion` was chosen.

    `similar`: the best one and those similar to it, most accurate first. `ordered`: all candidates, most accurate first. `beats`:
    whether the champion beats the reference; None where there is none, or it is the champion.
    """
    error = f"{champion.title} wins: its validation MAE of {figure(champion.mae)}{_unit(unit)}"
    return f"{error} {_against_reference(champion, ordered, beats)}; {_why(champion, similar, ordered, paired, decided_by)}."


def _against_reference(champion: Contender, ordered: Sequence[Contender], beats: bool | None) -> str:
    reference = next((c for c in ordered if c.key == REFERENCE), None)
    if reference is None:
        return "could not be held against ridge, which is not among the candidates"
    if champion is reference:
        return "is beaten by no other model beyond chance"
    if beats:
        return f"is {100 * (1 - champion.mae / reference.mae):.1f} % below ridge's {figure(reference.mae)}"
    return f"does not beat ridge's {figure(reference.mae)} beyond chance, and no other model does"


def _why(
    champion: Contender, similar: Sequence[Contender], ordered: Sequence[Contender], paired: Paired, decided_by: DecidedBy
) -> str:
    rivals = [c for c in similar if c is not champion]
    if rivals:
        best = similar[0]
        return f"{_as_accurate(champion, best, rivals, paired)}, {_thrift(champion, rivals, decided_by)}"
    runner_up = next((c for c in ordered if c is not champion and c.mae >= champion.mae), None)
    if runner_up is None:
        return "there is no candidate of similar accuracy"
    return f"{runner_up.title}, next, is less accurate{_difference(paired(runner_up.key, champion.key))}"


def _as_accurate(champion: Contender, best: Contender, rivals: Sequence[Contender], paired: Paired) -> str:
    names = listed([c.title for c in rivals])
    if champion is best:
        return f"of the models of similar accuracy ({names})"
    return (
        f"its accuracy is similar to that of {best.title}, the most accurate{_difference(paired(champion.key, best.key))}, "
        f"and of the models of similar accuracy ({names})"
    )


def _difference(interval: Interval) -> str:
    return f" (paired difference {interval.difference:+.3g}, 95 % interval {interval.low:+.3g} to {interval.high:+.3g})"


def _thrift(champion: Contender, rivals: Sequence[Contender], decided_by: DecidedBy) -> str:
    if decided_by == "cpu seconds":
        least = min(rivals, key=lambda c: c.cpu_s)
        return (
            f"whose energy is not all known, it took the fewest CPU-seconds to train, {figure(champion.cpu_s)} "
            f"against {figure(least.cpu_s)} of {least.title}"
        )
    least = min(rivals, key=lambda c: c.energy_j or 0.0)
    return f"it took the least energy to train, {_joules(champion)} against {_joules(least)} of {least.title}"


def _joules(contender: Contender) -> str:
    words = f" ({contender.energy_words})" if contender.energy_words != "measured" else ""
    return f"{figure(contender.energy_j or 0.0)} J{words}"


def listed(names: Sequence[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def figure(value: float) -> str:
    """Three significant digits, without an exponent where it can be."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit and unit != "1" else ""
