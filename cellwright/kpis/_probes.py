"""What the step `scorecard` finds out about one finalist, and the probes that find it out.

A probe is a file `_probe_<name>.py` beside this one. It declares

    FEEDS          the KPIs that rest on what it finds
    probe(bed)     what it found (`Found`); an error it raises becomes the reason why its KPIs have no value

and is run by itself, so that a run that was interrupted goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from pydantic import Field

from cellwright.results import Importance, Result

if TYPE_CHECKING:
    from cellwright.kpis._bed import Bed

PROBES = ("robustness", "importance", "gradients", "capacity", "transfer", "retraining")


class Probes(Result):
    """The evidence of the dear KPIs. None, or empty: not found out. Errors are MAE in the targets' unit, over the probed windows.

    All but `seed_maes` and `fold_maes` are of the test span; those two are of rows before it.
    """

    key: str = ""  # the finalist
    mae: float | None = None  # undisturbed
    noise_mae: float | None = None
    missing_mae: float | None = None
    outage_mae: float | None = None
    units_mae: float | None = None
    units_noticed: float | None = None  # share of the features whose change of unit `validate` refuses
    shift_mae: float | None = None
    load_shift: float | None = None  # relative rise of the level that `shift_mae` was met at
    seed_maes: tuple[float, ...] = ()  # one a seed, validation span
    fold_maes: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # finalist -> one a fold
    area_mae: float | None = None  # on half of the sites, trained on the other half
    area_whole_mae: float | None = None  # on the same half, trained on all
    transfer_mae: float | None = None  # on another data set
    transfer_naive_mae: float | None = None  # of the last value, on the same windows
    attribution: tuple[float, ...] = ()  # mean share of a forecast's absolute attribution by its greatest input, its second …
    static_capacity: float | None = None  # mean of a site, in the first target's unit: what stands ready without a forecast
    forecast_capacity: float | None = None  # what stands ready with it
    capacity_price_h: float | None = None  # money a unit and hour
    forecasts_per_day: float | None = None  # of one site
    forecast_price: float | None = None  # money a forecast


class Found(Result):
    """What one probe found: its part of the evidence, why parts are not there, and what they rest on, in words."""

    digest: str = ""  # of what was probed and how: an equal one is not probed again
    evidence: Probes = Probes()
    reasons: dict[str, str] = Field(default_factory=dict)  # KPI -> why there is no evidence for it
    notes: dict[str, str] = Field(default_factory=dict)  # KPI -> what its value rests on
    importance: tuple[Importance, ...] = ()


class Probe(Protocol):
    """A file `_probe_<name>.py`."""

    FEEDS: tuple[str, ...]

    def probe(self, bed: Bed) -> Found: ...


def probe_of(name: str) -> Probe:
    """The probe of that name, one of `PROBES`."""
    return cast(Probe, import_module(f"cellwright.kpis._probe_{name}"))


def merged(key: str, found: Sequence[Found], fold_maes: dict[str, tuple[float, ...]]) -> Probes:
    """All the evidence of one finalist; `fold_maes` is every finalist's."""
    parts = {k: v for f in found for k, v in f.evidence.model_dump(exclude_defaults=True).items()}
    return Probes(**{**parts, "key": key, "fold_maes": fold_maes})


def growth(mae: float | None, base: float | None) -> float | None:
    """Relative growth of an error: 0 where it stayed the same; None where one is not known, or the first is 0."""
    return None if mae is None or not base else mae / base - 1
