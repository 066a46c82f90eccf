"""The contest of a new candidate against the present champion, on the same windows of the same span.

The verdict falls on the validation span; the test span is only told. It is the rule of the ranking: the alias moves if the new one is
better (paired 95 % interval of the MAE difference wholly below 0), or of similar accuracy and less energy.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellwright.errors import RegistryError
from cellwright.report.words import number
from cellwright.results import Interval, Trained


class CannotCompare(RegistryError):
    """Champion and challenger do not forecast the same; a person must decide."""


@dataclass(frozen=True)
class Cost:
    """What a training took. `energy_j` is None where nothing metered it."""

    energy_j: float | None
    cpu_s: float


@dataclass(frozen=True)
class Contest:
    """A challenger against the champion `version`; differences are challenger minus champion, in the target's unit."""

    version: str
    validation: Interval
    test: Interval
    champion_mae: float  # validation span
    challenger: Cost
    champion: Cost


@dataclass(frozen=True)
class Verdict:
    """Whether the alias moves, and why, in one sentence."""

    wins: bool
    reason: str


def cost(trained: Trained) -> Cost:
    """What a candidate's training took."""
    return Cost(trained.energy.energy_j if trained.energy else None, trained.cpu_s)


def verdict(contest: Contest, similar_accuracy: float, unit: str) -> Verdict:
    """Who serves from now on.

    `similar_accuracy`: relative MAE difference below which two models count as equally accurate.
    """
    pair = contest.validation
    told = f"MAE {number(pair.difference)} {unit} [{number(pair.low)}, {number(pair.high)}] against version {contest.version}"
    if pair.high < 0:
        return Verdict(True, f"more accurate on the validation span: {told}")
    similar = pair.tie or abs(pair.difference) < similar_accuracy * contest.champion_mae
    if not similar:
        return Verdict(False, f"less accurate on the validation span: {told}")
    saves, by = _cheaper(contest.challenger, contest.champion)
    return Verdict(saves, f"of similar accuracy ({told}) and {by}")


def _cheaper(challenger: Cost, champion: Cost) -> tuple[bool, str]:
    if challenger.energy_j is not None and champion.energy_j is not None:
        less = challenger.energy_j < champion.energy_j
        figures = f"{number(challenger.energy_j)} J against {number(champion.energy_j)} J"
        return less, f"{'less' if less else 'no less'} energy to train: {figures}"
    less = challenger.cpu_s < champion.cpu_s
    figures = f"{number(challenger.cpu_s)} against {number(champion.cpu_s)}"
    return less, f"{'less' if less else 'no less'} CPU time to train (energy is not known of both): {figures} CPU-seconds"
