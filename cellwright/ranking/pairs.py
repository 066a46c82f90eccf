"""Paired differences between the candidates of a run, from the forecasts that scoring kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cellwright.kpis._spans import read_arrays
from cellwright.params import Params
from cellwright.ranking.bootstrap import WindowErrors, block_steps, paired
from cellwright.ranking.sentence import REFERENCE
from cellwright.results import Interval
from cellwright.workspace import Workspace


class Pairs:
    """Pairs of candidates on one span. Every pair is resampled with the same blocks, so no order can matter."""

    def __init__(self, errors: dict[str, WindowErrors], *, block: int, samples: int, seed: int) -> None:
        self._errors, self._block, self._samples, self._seed = errors, block, samples, seed
        self._known: dict[tuple[str, str], Interval] = {}

    @classmethod
    def of_run(cls, params: Params, ws: Workspace, keys: Iterable[str], span: str, cadence_s: float) -> Pairs:
        """From the scores of a run; `span` is "validation" or "test"."""
        truth = read_arrays(ws.scores / "truth.npz")
        values, mask = truth[f"{span}_truth"], truth[f"{span}_mask"]
        errors = {key: WindowErrors.of(read_arrays(ws.score(key, ".npz"))[f"{span}_forecast"], values, mask) for key in keys}
        block = block_steps(params.score.block_h, cadence_s * params.score.stride, len(values))
        return cls(errors, block=block, samples=params.score.bootstrap, seed=params.train.seed)

    def __call__(self, this: str, other: str) -> Interval:
        """MAE of `this` minus MAE of `other`."""
        if (this, other) not in self._known:
            rng = np.random.default_rng(self._seed)
            self._known[this, other] = paired(
                self._errors[this], self._errors[other], name=other, block=self._block, samples=self._samples, rng=rng
            )
        return self._known[this, other]

    def mae(self, key: str) -> float:
        """Mean absolute error of one candidate."""
        return self._errors[key].mae

    @property
    def best(self) -> str:
        """The candidate of the lowest MAE."""
        return min(self._errors, key=lambda key: (self.mae(key), key))

    def against(self, key: str, *others: str) -> list[Interval]:
        """`key` against ridge, if it is there, and against `others`; never against itself, each one once."""
        wanted = dict.fromkeys(o for o in (REFERENCE, *others) if o in self._errors and o != key)
        return [self(key, other) for other in wanted]
