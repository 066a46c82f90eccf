"""From KPIs of many units to one score: the weighted share of comparisons that a candidate wins.

For each KPI a candidate is compared with every other one: 1 for a better value, 1/2 for an equal one, 0 for a worse one. The
mean of these is its normalised KPI (1: best of all, 0: worst), whatever the unit and however extreme an outlier. The
score is the mean of the normalised KPIs, weighted with `rank.weights`. This is the Borda count on a scale from 0 to 1.

A value that is absent loses against one that is present: what was not measured earns nothing. A KPI that nobody has is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Values = Mapping[str, float | None]


def scores(table: Sequence[Values], weights: Mapping[str, float], lower_is_better: Mapping[str, bool]) -> list[float]:
    """The score of each candidate, in the order of `table`; 1 is best.

    `table`: KPI -> value, a candidate. `weights`: KPI -> weight; those in no row are left out.
    """
    used = {name: weight for name, weight in weights.items() if weight > 0 and any(row.get(name) is not None for row in table)}
    total = sum(used.values())
    if not total:
        return [0.0] * len(table)
    columns = [weight * won([row.get(name) for row in table], lower=lower_is_better[name]) for name, weight in used.items()]
    return [float(score) for score in np.sum(columns, axis=0) / total]


def won(values: Sequence[float | None], *, lower: bool) -> np.ndarray:
    """(candidates,) share of comparisons with the others that each one wins; 1 for a candidate that is alone."""
    if len(values) < 2:
        return np.ones(len(values))
    worst = np.inf if lower else -np.inf
    filled = np.array([worst if value is None else value for value in values], dtype=np.float64)
    mine, others = filled[:, None], filled[None, :]
    better = (mine < others) if lower else (mine > others)
    equal = (mine == others) & ~np.eye(len(values), dtype=bool)
    return np.asarray((better.sum(axis=1) + equal.sum(axis=1) / 2) / (len(values) - 1))
