"""Probe: what happens to the error when inputs are noisy, missing, lost, in another unit, or on another level.

Legend: B windows, H history, N nodes, C channels, S sites.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import VALID
from cellwright.kpis._bed import Bed, Sample, channels, mae_of, with_history
from cellwright.kpis._probes import Found, Probes
from cellwright.panel import Feature

FEEDS = (
    "robustness_noise",
    "robustness_missing",
    "robustness_outage",
    "robustness_units",
    "units_noticed",
    "robustness_shift",
)
_QUARTILES = (0.25, 0.5, 0.75)
_ENOUGH = 1_000_000  # values of a feature, for its quartiles


def probe(bed: Bed) -> Found:
    """Disturb the same windows in each of the ways, and forecast them again."""
    card, sample = bed.params.scorecard, bed.test
    outages = {name: mae_of(bed.forecaster, lost) for name, lost in outage(bed, sample).items()}
    worst = max(outages, key=lambda name: outages[name])
    seen = [bed.forecaster.problem.features[c] for c in channels(bed)["measured"]]
    evidence = Probes(
        mae=mae_of(bed.forecaster, sample),
        noise_mae=mae_of(bed.forecaster, noisy(bed, sample, bed.rng)),
        missing_mae=mae_of(bed.forecaster, gappy(bed, sample, bed.rng)),
        outage_mae=outages[worst],
        units_mae=mae_of(bed.forecaster, in_other_units(bed, sample)),
        units_noticed=float(np.mean([noticed(bed, name) for name in seen])),
        shift_mae=mae_of(bed.forecaster, shifted(bed, sample)),
        load_shift=card.load_shift,
    )
    notes = {
        "robustness_noise": f"noise of {card.noise_share:g} standard deviations",
        "robustness_missing": f"{card.missing_share:.0%} of the values missing",
        "robustness_outage": f"worst of {len(outages)} outages of {card.outage_h:g} h: {worst}",
        "robustness_units": f"targets × {card.unit_factor:g}",
        "robustness_shift": f"load {card.load_shift:+.0%}",
        "units_noticed": f"{', '.join(seen)}; median may move by {bed.params.validate_.max_shift:g} interquartile ranges",
    }
    return Found(evidence=evidence, notes=notes)


def noisy(bed: Bed, sample: Sample, rng: np.random.Generator) -> Sample:
    """Normal noise of `noise_share` standard deviations of each site and channel; what is missing stays missing."""
    forecaster = bed.forecaster
    scaler = fit_scaler(bed.panel, forecaster.problem, "standard", bed.spans.train)
    deviation = scaler.scale * [name != VALID for name in forecaster.problem.features]  # (S, C)
    noise = rng.standard_normal(sample.history.shape, dtype=np.float32)
    noise *= _per_node(bed, deviation.astype(np.float32), sample.site) * np.float32(bed.params.scorecard.noise_share)
    return replace(sample, history=sample.history + noise)


def gappy(bed: Bed, sample: Sample, rng: np.random.Generator) -> Sample:
    """Each value is missing with probability `missing_share`."""
    gone = rng.random(sample.history.shape, dtype=np.float32) < bed.params.scorecard.missing_share
    gone[..., channels(bed)["valid"]] = False
    return with_history(sample, np.where(gone, np.float32(np.nan), sample.history), bed)


def outage(bed: Bed, sample: Sample) -> dict[str, Sample]:
    """The sample with the newest `outage_h` lost, by whose is lost and what is seen instead. Lags are older, and stay."""
    problem = bed.forecaster.problem
    last = min(problem.history, max(1, round(bed.params.scorecard.outage_h * 3600 / problem.cadence_s)))
    found = {}
    for whose, cells in _cells(bed).items():
        for words, value in (("0 is read", np.float32(0)), ("nothing is read", np.float32(np.nan))):
            history = sample.history.copy()
            newest = history[:, -last:]
            newest[...] = np.where(cells & ~np.isnan(newest), value, newest)
            found[f"{words} of {whose}"] = with_history(sample, history, bed)
    return found


def _cells(bed: Bed) -> dict[str, np.ndarray]:
    """(N, C) bool each: the values that an outage of the site, or of its neighbours, takes away."""
    problem, kinds = bed.forecaster.problem, channels(bed)
    measured, means = (np.isin(np.arange(len(problem.features)), kinds[kind]) for kind in ("measured", "mean"))
    everywhere = np.ones((problem.nodes, 1), bool)
    if problem.inputs == "all":
        return {"every site": everywhere & (measured | means)}
    here = np.arange(problem.nodes)[:, None] == problem.nodes // 2
    cells = {"the site": here & measured, "its neighbours": (~here & measured) | (everywhere & means)}
    return {whose: lost for whose, lost in cells.items() if lost.any()}


def in_other_units(bed: Bed, sample: Sample) -> Sample:
    """The targets, their lags and their neighbours' means times `unit_factor`; the truth stays in the old unit."""
    return replace(sample, history=_scaled(bed, sample.history, bed.params.scorecard.unit_factor))


def shifted(bed: Bed, sample: Sample) -> Sample:
    """The targets on a level that is `load_shift` higher, in history and truth."""
    factor = 1 + bed.params.scorecard.load_shift
    return replace(sample, history=_scaled(bed, sample.history, factor), target=sample.target * np.float32(factor))


def _scaled(bed: Bed, history: np.ndarray, factor: float) -> np.ndarray:
    problem = bed.forecaster.problem
    of_target = [name.partition("@")[0].partition("~")[0] in problem.targets for name in problem.features]
    return history * np.where(of_target, np.float32(factor), np.float32(1))


def _per_node(bed: Bed, table: np.ndarray, site: np.ndarray) -> np.ndarray:
    """(B or 1, 1, N, C) of a table (S, C), as each window's nodes have it."""
    problem = bed.forecaster.problem
    if problem.inputs == "all":
        return table[None, None]
    if problem.inputs == "site":
        return table[site][:, None, None]
    return table[np.maximum(bed.forecaster.neighbours.numpy()[site], 0)][:, None]


def noticed(bed: Bed, name: str) -> bool:
    """Whether `validate` would refuse the test span's rows of a feature in another unit, after the training rows."""
    feature = next(f for f in bed.panel.schema.features if f.name == name)
    accepted = _measured(bed, name, *bed.spans.train)
    return refused(
        accepted,
        _measured(bed, name, *bed.spans.test) * bed.params.scorecard.unit_factor,
        feature,
        bed.params.validate_.max_shift,
    )


def refused(accepted: np.ndarray, new: np.ndarray, feature: Feature, max_shift: float) -> bool:
    """Whether values leave the feature's physical bounds, or their median moves by over `max_shift` interquartile ranges."""
    if not len(accepted) or not len(new):
        return False
    low, high = feature.low, feature.high
    if (low is not None and new.min() < low) or (high is not None and new.max() > high):
        return True
    lower, middle, upper = np.quantile(accepted, _QUARTILES)
    return bool(abs(np.median(new) - middle) > max_shift * (upper - lower))


def _measured(bed: Bed, name: str, start: int, stop: int) -> np.ndarray:
    """Measured values of rows [start, stop), thinned out evenly where there are very many."""
    values = bed.panel.values(name)[start:stop][bed.panel.good(name)[start:stop]]
    return values[:: max(1, len(values) // _ENOUGH)].astype(np.float64)
