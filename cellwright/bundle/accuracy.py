"""What an exported model's errors are, measured with ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.bundle.export import Sample, run_session
from cellwright.errors import BundleError

if TYPE_CHECKING:
    from cellwright.data.windows import Raw, Windows

MOST_WINDOWS = 20_000  # windows (origin, site) that are measured; more are thinned out evenly
_BATCH = 512


@dataclass(frozen=True)
class Accuracy:
    """Mean absolute error in the targets' unit (over windows, sites, steps and targets really measured)."""

    mae: float
    windows: int


def pick(windows: Windows, start: int, stop: int, most: int = MOST_WINDOWS) -> tuple[np.ndarray, np.ndarray]:
    """Origins and sites, paired, of at most `most` windows in rows [start, stop), evenly spread."""
    origins = windows.origins(start, stop)
    sites = 1 if windows.neighbours is None else windows.sites
    count = len(origins) * sites
    chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
    return origins[chosen // sites], chosen % sites


def samples(windows: Windows, origins: np.ndarray, sites: np.ndarray, batch: int = _BATCH) -> Iterator[tuple[Sample, Raw]]:
    """The windows in batches, as a model takes them, with their truth."""
    for at in range(0, len(origins), batch):
        raw = windows.raw(origins[at : at + batch], sites[at : at + batch])
        yield (raw.history, raw.known, sites[at : at + batch]), raw


def mae(session: Any, windows: Windows, origins: np.ndarray, sites: np.ndarray) -> Accuracy:
    """Error of the point forecast over the windows.

    Raises:
        BundleError: none of their targets was measured.
    """
    total, count = 0.0, 0
    for sample, raw in samples(windows, origins, sites):
        forecast = point(run_session(session, *sample), windows.problem.quantiles)
        good = raw.mask & np.isfinite(raw.target)
        total += float(np.abs(forecast - raw.target)[good].sum(dtype=np.float64))
        count += int(good.sum())
    if not count:
        raise BundleError("the accuracy cannot be measured: no target of the span was measured; choose another split")
    return Accuracy(total / count, len(origins))


def point(forecast: np.ndarray, quantiles: tuple[float, ...]) -> np.ndarray:
    """(…, quantiles) -> (…): the median, or the quantile nearest to it; the only value of a point model."""
    return forecast[..., int(np.argmin(np.abs(np.array(quantiles) - 0.5))) if quantiles else 0]
