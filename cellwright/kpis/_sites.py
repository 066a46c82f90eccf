"""Errors site by site, in shares of each site's own load, so that small and large sites compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cellwright.kpis._contract import Forecasts


def relative_errors(evidence: Forecasts) -> np.ndarray:
    """(sites that count,) sum |forecast - truth| / sum |truth| of each site, averaged over its targets.

    A site counts where a target of it was measured, and was not always 0.
    """
    mask = evidence.mask
    error = np.where(mask, np.abs(evidence.forecast.astype(np.float64) - evidence.truth), 0.0).sum(axis=(0, 1))
    load = np.where(mask, np.abs(evidence.truth), 0.0).sum(axis=(0, 1), dtype=np.float64)
    loaded = load > 0
    share = np.divide(error, load, out=np.zeros_like(error), where=loaded)
    counts = loaded.sum(axis=1)
    return np.asarray(share.sum(axis=1)[counts > 0] / counts[counts > 0])
