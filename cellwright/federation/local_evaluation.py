"""How good given weights are on an owner's own span (M.3387 9.5): sums that add up over owners, no forecast leaves."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from cellwright.federation.contract import Arrays, Evaluation
from cellwright.federation.owner_data import OwnerData
from cellwright.federation.shared_network import SharedNetwork
from cellwright.forecaster import point_index
from cellwright.training.batches import scaled
from cellwright.training.losses import forecast_loss

_AT_ONCE = 4096  # windows
_EVENT_QUANTILE = 0.9  # of a site's training values, above which an event lies where the task names no threshold


def evaluate(shared: SharedNetwork, data: OwnerData, arrays: Arrays, span: Literal["validation", "test"]) -> Evaluation:
    """Errors in raw units over the measured targets of every window of a span; of a classification also counts of events.

    Raises:
        Refused: weights of another form, or no window fits the span.
    """
    part = data.validation if span == "validation" else data.test
    sums, counts, forecaster = np.zeros(4), _Counts(data), data.forecaster(shared.network)
    with shared.lock, torch.inference_mode():
        shared.load(data.owner, arrays)
        shared.network.eval()
        for first in range(0, len(part), _AT_ONCE):
            loaded = part.load(np.arange(first, min(first + _AT_ONCE, len(part))))
            batch = scaled(forecaster, loaded)
            forecast = shared.network(batch.x, batch.known)
            loss, count = forecast_loss(data.task.loss, data.problem, forecast, batch)
            point = forecaster.denormalise(forecast, loaded.site)[..., point_index(data.problem)]
            error = torch.where(loaded.mask, point - loaded.target, 0.0).double()
            sums += (float(count), float(error.abs().sum()), float(error.square().sum()), float(loss))
            counts.add(point.numpy(), np.where(loaded.mask, loaded.target, np.nan), loaded.site.numpy())
    return Evaluation(
        owner=data.owner,
        span=span,
        count=int(sums[0]),
        absolute=float(sums[1]),
        squared=float(sums[2]),
        loss=float(sums[3]),
        positive=counts.positive,
        negative=counts.negative,
    )


class _Counts:
    """Events told and not told, by bin of their score; nothing of a regression."""

    def __init__(self, data: OwnerData) -> None:
        self.positive: tuple[int, ...] = ()
        self.negative: tuple[int, ...] = ()
        self._levels = _levels(data) if data.task.kind == "classification" and not data.empty else None

    def add(self, forecast: np.ndarray, truth: np.ndarray, site: np.ndarray) -> None:
        """`forecast`, `truth`: (windows, horizon, 1, targets), raw units, NaN where not measured; `site`: (windows,)."""
        if self._levels is None:
            return
        from cellwright.federation.quality.classification import added, histograms

        threshold, scale = (np.broadcast_to(level[site][:, None, None], truth.shape) for level in self._levels)
        positive, negative = histograms(forecast, truth, threshold, scale)
        self.positive, self.negative = added((self.positive, positive)), added((self.negative, negative))


def _levels(data: OwnerData) -> tuple[np.ndarray, np.ndarray]:
    """Threshold of an event, and standard deviation, of each site and target over the training rows: (sites, targets) each."""
    rows = slice(*data.task.train)
    thresholds, scales = [], []
    for target in data.problem.targets:
        values = np.where(data.panel.good(target)[rows], data.panel.values(target)[rows], np.nan).astype(np.float64)
        seen = ~np.isnan(values).all(axis=0)
        level, spread = np.full(values.shape[1], np.inf), np.ones(values.shape[1])  # a site never measured has no events
        level[seen], spread[seen] = np.nanquantile(values[:, seen], _EVENT_QUANTILE, axis=0), np.nanstd(values[:, seen], axis=0)
        thresholds.append(level if data.task.threshold is None else np.full(len(level), data.task.threshold))
        scales.append(spread)
    return np.stack(thresholds, axis=1), np.stack(scales, axis=1)
