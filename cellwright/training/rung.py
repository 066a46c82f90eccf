"""Where a training pauses so that candidates can be compared, and how good its network is by then.

Candidates may have scalers and losses of their own, so they are compared by the validation MAE in raw units, all of them on the
same windows: every site at origins that are spread evenly over the validation span.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cellwright.errors import TrainingError
from cellwright.forecaster import Forecaster, point_index
from cellwright.training.batches import Loaded, Pool

_LEAST_ORIGINS = 8  # however many sites there are


class Paused(Exception):
    """The training stopped at a rung; its checkpoint has all that it takes to go on."""


@dataclass(frozen=True)
class Compared:
    """The windows on which candidates are compared."""

    validation: Pool
    windows: int  # of one site, about
    batch: int

    def mae(self, forecaster: Forecaster) -> float:
        """Mean absolute error of the point forecast over measured targets, raw units.

        Raises:
            TrainingError: it is no number, or there is no measured target.
        """
        total, count, point = 0.0, 0, point_index(forecaster.problem)
        was_training = forecaster.training
        forecaster.eval()
        with torch.inference_mode():
            for loaded in self._batches(forecaster.center.device):
                forecast = forecaster(loaded.history, loaded.known, loaded.site)[..., point]
                error = torch.where(loaded.mask, (forecast - loaded.target).abs(), 0.0)
                total, count = total + float(error.sum(dtype=torch.float64)), count + int(loaded.mask.sum())
        forecaster.train(was_training)
        if not count or not math.isfinite(total):
            raise TrainingError(
                f"the validation error is {total} over {count} measured targets; "
                + ("lower learning_rate, or set gradient_clip" if count else "choose another split or other targets")
            )
        return total / count

    def _batches(self, device: torch.device) -> Iterator[Loaded]:
        index, size = self._index(), self.validation.count(self.batch)
        for first in range(0, len(index), size):
            yield Loaded(*(tensor.to(device) for tensor in self.validation.load(index[first : first + size])))

    def _index(self) -> np.ndarray:
        """Numbers of the pool's windows: a network of one site and one of all sites are asked about the same."""
        pool = self.validation
        origins = min(len(pool.origins), max(_LEAST_ORIGINS, self.windows // pool.windows.sites))
        chosen = np.linspace(0, len(pool.origins) - 1, origins).round().astype(np.int64)
        return (chosen[:, None] * pool.sites + np.arange(pool.sites)).ravel()


@dataclass(frozen=True)
class Pause:
    """Stop for now after `after_s` seconds of training, at the rung of this number."""

    number: int
    after_s: float
    compared: Compared


def figure_at(rungs: list[dict[str, float]], number: int) -> dict[str, float] | None:
    """The line of a rung, if the training came to it."""
    return next((line for line in rungs if line["rung"] == number), None)
