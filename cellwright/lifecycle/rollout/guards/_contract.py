"""What a guard is: one file with `title`, `Options` and `judge(evidence, options, alpha) -> Opinion`.

It sees the evidence of all edges and says whether the challenger is proven worse than the margin, proven not to be, or neither yet.
A guard errs with probability `alpha` at most, over the whole rollout and however often it is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from types import ModuleType
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from cellwright.edge.evidence import Evidence, Pair
from cellwright.lifecycle.rollout.betting import evidence_above, evidence_below
from cellwright.lifecycle.rollout.proportions import interval

_LARGEST = 0.25
Verdict = Literal["worse", "as_good", "undecided"]


class GuardOptions(BaseModel):
    """Base of every guard's Options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Opinion:
    """What a guard says now, and why in one sentence."""

    verdict: Verdict
    reason: str
    samples: int  # pairs or requests behind it


@dataclass(frozen=True)
class Guard:
    """A member of the family."""

    name: str
    module: ModuleType

    @property
    def title(self) -> str:
        """For people."""
        return str(self.module.title)

    def judge(self, evidence: Sequence[Evidence], options: GuardOptions, alpha: float) -> Opinion:
        """The guard's opinion of what all edges have seen."""
        found = self.module.judge(evidence, options, alpha)
        assert isinstance(found, Opinion)
        return found


def paired(pairs: Iterable[Pair], margin: float, alpha: float, unit: str) -> Opinion:
    """Whether the challenger's quantity exceeds the champion's by more than `margin` (relative), pair by pair.

    Each pair becomes its symmetric relative difference (c - b) / (c + b), which lies in [-1, 1]; pairs of one instant are one
    value, because what disturbs all sites at once is one piece of news. Differences beyond a quarter count as a quarter (one
    quantity is then 1.7 times the other): one wild instant decides nothing, and bets on small differences may be larger.
    """
    differences = _differences(pairs)
    threshold = margin / (2 + margin)  # c = (1 + margin) b
    if not len(differences):
        return Opinion("undecided", f"no {unit} of both versions yet", 0)
    bound = min(1.0, max(_LARGEST, 2 * threshold))
    values = differences.clip(-bound, bound)
    worse = evidence_above(values / bound, threshold / bound)
    good = evidence_below(values / bound, threshold / bound)
    mean = float(values.mean())
    seen = f"{unit} {2 * mean / (1 - mean):+.1%} over {len(values)} instants"
    needed = log(1 / (alpha / 2))  # either of the two tests may err
    if worse >= needed:
        return Opinion("worse", f"{seen}: more than {margin:+.0%}, proven", len(values))
    if good >= needed:
        return Opinion("as_good", f"{seen}: at most {margin:+.0%}, proven", len(values))
    return Opinion("undecided", f"{seen}; evidence {max(worse, good):.1f} of {needed:.1f}", len(values))


def compared(champion: tuple[int, int], challenger: tuple[int, int], margin: float, alpha: float, what: str) -> Opinion:
    """Whether the challenger's share of events exceeds the champion's by more than `margin` (absolute). Each: (events, trials)."""
    low_0, high_0 = interval(*champion, alpha / 2)
    low_1, high_1 = interval(*challenger, alpha / 2)
    trials = challenger[1]
    if trials == 0:
        return Opinion("undecided", "no request answered by the challenger yet", 0)
    seen = f"{what} {challenger[0] / trials:.2%} of {trials} requests (champion {champion[0] / max(1, champion[1]):.2%} of {champion[1]})"
    if low_1 > high_0 + margin:
        return Opinion("worse", f"{seen}: more than {margin:.1%} above, proven", trials)
    if high_1 <= low_0 + margin:
        return Opinion("as_good", f"{seen}: at most {margin:.1%} above, proven", trials)
    return Opinion("undecided", f"{seen}; at most {max(0.0, high_1 - low_0):.2%} above so far", trials)


def _differences(pairs: Iterable[Pair]) -> np.ndarray:
    """(instants,), oldest first."""
    at: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for pair in pairs:
        total = pair.challenger + pair.champion
        at[pair.at_ms].append((pair.weight, (pair.challenger - pair.champion) / total if total > 0 else 0.0))
    return np.array([np.average([d for _, d in rows], weights=[w for w, _ in rows]) for _, rows in sorted(at.items())])
