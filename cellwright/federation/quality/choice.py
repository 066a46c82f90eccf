"""Which learning algorithm, which aggregation mechanism, with which parameters (M.3387 9.2 and 9.3): by rules that say why.

The rules are tables: the first line that applies decides. What they decide can be overruled in params.yaml (`federation.rule`,
`federation.model`), and `federation.search_trials` tries parameters out (federation/search.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

_UNTRUSTED_SECURITY = 1  # nodes below it may send anything
_UNTRUSTED_RELIABILITY = 0.8
_SLOW = 4.0  # times the median: a node that others would wait for
_MIXED = 1.0  # spread of the owners' levels, in their own scale, above which their optima differ much
_FEW_WINDOWS = 1000  # of the median owner: too few for a network of many parameters
_SMALL_MEMORY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Circumstances:
    """What is known of request, nodes and data before training begins."""

    task: Literal["regression", "classification"]
    examples: tuple[int, ...]  # training windows of each owner
    seconds_per_step: tuple[float, ...]
    security: tuple[int, ...]  # assurance level of each owner
    reliability: tuple[float, ...]
    memory_bytes: tuple[int, ...]  # free, of each owner; 0: not known
    heterogeneity: float  # standard deviation of the owners' mean target over their mean scale
    seals: bool  # a privacy mechanism lets the coordinator see sums alone
    hierarchical: bool
    delay_bound_s: float | None = None
    rounds: int = 40
    steps: int = 20
    closed_form: str = ""  # the model's, where it has one: "ridge", "trees"
    private: bool = False  # there is a privacy mechanism: they protect updates by gradient descent, no closed form
    averages: bool = False  # one works on the average of all updates: it seals their sum, or puts noise on it


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why, in words."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    words: str = ""


_Line = tuple[Callable[[Circumstances], bool], str, dict[str, Any], str]

_MECHANISMS: tuple[_Line, ...] = (
    (
        lambda c: c.closed_form == "ridge" and not c.private,
        "fedgram",
        {},
        "a ridge regression is solved from summed statistics, in one round",
    ),
    (
        lambda c: c.closed_form == "trees" and not c.private,
        "bagging",
        {},
        "trees cannot be averaged: each owner's are kept, and voted on by size",
    ),
    (lambda c: c.hierarchical and not c.averages, "hierarchical", {}, "the topology has regions: their edges aggregate first"),
    (
        lambda c: c.seals and c.heterogeneity > _MIXED,
        "fedprox",
        {},
        "only sums can be read, and the owners' levels differ: a proximal term keeps their training near each other",
    ),
    (lambda c: c.seals, "fedavg", {}, "only sums can be read, so the rule must be a weighted sum"),
    (
        lambda c: _untrusted(c) and len(c.examples) >= 5 and not c.averages,
        "trimmed_mean",
        {},
        "some nodes are of low security or reliability: the extremes of every parameter are left out",
    ),
    (
        lambda c: _spread(c) > _SLOW and _late(c),
        "fedbuff",
        {},
        "some nodes are slow and waiting for them would miss the delay bound: updates are counted as they come",
    ),
    (
        lambda c: _spread(c) > _SLOW,
        "semi_synchronous",
        {},
        "some nodes are slow: a round ends at its deadline, and what is late counts in the next",
    ),
    (
        lambda c: c.heterogeneity > _MIXED,
        "fedprox",
        {},
        "the owners' levels differ: a proximal term keeps their training near each other",
    ),
    (lambda c: True, "fedavg", {}, "the nodes are alike and trusted, so the plain weighted average serves"),
)

_ALGORITHMS: tuple[_Line, ...] = (
    (
        lambda c: median(c.examples) < _FEW_WINDOWS and not c.private,
        "ridge",
        {},
        "the owners hold few windows each: a linear model is solved exactly from their sums",
    ),
    (
        lambda c: 0 < min(c.memory_bytes, default=0) < _SMALL_MEMORY_BYTES,
        "dlinear",
        {},
        "a node has little memory free: a linear network needs the least",
    ),
    (
        lambda c: c.delay_bound_s is not None and c.delay_bound_s < 60,
        "mlp",
        {},
        "the delay bound is short: an MLP trains fastest",
    ),
    (lambda c: True, "gru", {}, "a small recurrent network, the best of the small ones on telemetry of single sites"),
)


def mechanism(circumstances: Circumstances) -> Choice:
    """The aggregation mechanism (9.3), by request, resources and data features."""
    return _first(_MECHANISMS, circumstances)


def algorithm(circumstances: Circumstances) -> Choice:
    """The learning algorithm (9.2), by request, resources and data."""
    return _first(_ALGORITHMS, circumstances)


def _first(lines: tuple[_Line, ...], circumstances: Circumstances) -> Choice:
    _, name, options, words = next(line for line in lines if line[0](circumstances))
    return Choice(name, dict(options), words)


def _untrusted(c: Circumstances) -> bool:
    return min(c.security, default=5) < _UNTRUSTED_SECURITY or min(c.reliability, default=1.0) < _UNTRUSTED_RELIABILITY


def _spread(c: Circumstances) -> float:
    """How much slower the slowest node is than the middle one."""
    return max(c.seconds_per_step, default=1.0) / max(median(c.seconds_per_step or (1.0,)), 1e-12)


def _late(c: Circumstances) -> bool:
    """Whether waiting for the slowest in every round would miss the delay bound."""
    return c.delay_bound_s is not None and max(c.seconds_per_step, default=0.0) * c.steps * c.rounds > c.delay_bound_s
