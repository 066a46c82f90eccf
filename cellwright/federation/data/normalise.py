"""An owner's telemetry in the unified form (M.3387 10.3): a row a sample, a column a feature, the same names, units and cadence everywhere.

The form is a `Standard`; a `Plan` says how one owner's columns become it, and is found by alignment/horizontal.py. It is carried out
where the data lie. IEEE 3652.1 calls the columns X and Y: here `features`, of which `targets` are Y.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from cellwright.errors import Refused
from cellwright.federation.contract import Spec
from cellwright.federation.data.units import Conversion, adds_up
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment

_LEAST_SHARE = 0.5  # of an interval's parts that must be measured for a mean; a sum needs all


class Standard(Spec):
    """The unified form of all owners' data."""

    features: tuple[Feature, ...]  # X, the targets among them
    targets: tuple[str, ...]  # Y
    cadence_s: Annotated[float, Field(gt=0)]
    clock: str = "utc"

    @model_validator(mode="after")
    def _targets_are_features(self) -> Self:
        strange = set(self.targets) - {f.name for f in self.features}
        if strange or not self.targets:
            raise ValueError(f"targets must be among the features; not there: {', '.join(sorted(strange)) or 'any target'}")
        return self

    @classmethod
    def of(cls, schema: PanelSchema) -> Standard:
        """The form of a panel."""
        return cls(features=schema.features, targets=schema.targets, cadence_s=schema.cadence_s, clock=schema.clock)


class Column(Spec):
    """How one unified feature is made at an owner: value · factor + offset."""

    feature: str
    unit: str
    source: str  # the owner's own name of it
    source_unit: str
    factor: float
    offset: float

    @property
    def unchanged(self) -> bool:
        """Whether it is the owner's own column as it stands."""
        return self.feature == self.source and self.unit == self.source_unit


class Plan(Spec):
    """How an owner's telemetry becomes the unified form."""

    owner: str
    standard: Standard
    columns: tuple[Column, ...]
    every: Annotated[int, Field(ge=1)]  # of the owner's intervals that make one unified interval

    @property
    def unchanged(self) -> bool:
        """Whether the owner's data are in the unified form already."""
        return self.every == 1 and all(column.unchanged for column in self.columns)


def normalised(panel: Panel, plan: Plan) -> Panel:
    """The owner's panel in the unified form: columns renamed, converted, and aggregated to the unified cadence.

    Rates and shares are averaged over an interval, volumes and counts added up (see units.py). An interval of which too little was
    measured is missing; so is one that lies across the edge of two segments. Features that the form lacks are left out.

    Raises:
        Refused: the panel is not what the plan was made for, or holds not one whole interval.
    """
    schema = panel.schema
    _check(schema, plan)
    if plan.unchanged and schema.features == plan.standard.features and schema.targets == plan.standard.targets:
        return panel
    lead = _lead(schema, plan)
    rows = (schema.rows - lead) // plan.every
    if not rows:
        raise Refused(f"owner '{plan.owner}' has {schema.rows} rows, not one whole interval of {plan.standard.cadence_s:g} s")
    edges = _across(schema, lead, rows, plan.every)
    values, flags = {}, {}
    for column in plan.columns:
        values[column.feature], flags[column.feature] = _column(panel, column, lead, rows, plan.every, edges)
    return Panel.from_arrays(_unified(schema, plan, lead, rows), values, flags)


def _check(schema: PanelSchema, plan: Plan) -> None:
    units = {f.name: f.unit for f in schema.features}
    for column in plan.columns:
        if units.get(column.source) != column.source_unit:
            found = units.get(column.source)
            raise Refused(
                f"owner '{plan.owner}': the plan takes '{column.source}' in {column.source_unit}, the panel has it "
                f"{'in ' + found if found is not None else 'not at all'}; describe the panel again and align anew"
            )
    if schema.cadence_s * plan.every != plan.standard.cadence_s or schema.clock != plan.standard.clock:
        raise Refused(
            f"owner '{plan.owner}': {plan.every} × {schema.cadence_s:g} s on a {schema.clock} clock are not the "
            f"{plan.standard.cadence_s:g} s on a {plan.standard.clock} clock of the unified form; align anew"
        )


def _lead(schema: PanelSchema, plan: Plan) -> int:
    """Rows before the first whole interval: unified intervals begin at whole multiples of their length since 1970."""
    if schema.clock == "relative" or plan.every == 1:
        return 0
    cadence_ms, unified_ms = round(schema.cadence_s * 1000), round(plan.standard.cadence_s * 1000)
    late_ms = -schema.start_ms % unified_ms
    if late_ms % cadence_ms:
        raise Refused(
            f"owner '{plan.owner}': rows start {late_ms % cadence_ms} ms off the unified intervals of {unified_ms} ms; its clock differs"
        )
    return late_ms // cadence_ms


def _column(panel: Panel, column: Column, lead: int, rows: int, every: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values, flags) of a unified feature, both (rows, sites)."""
    stop = lead + rows * every
    raw, marks = panel.values(column.source, lead, stop), panel.flags(column.source, lead, stop)
    converted = Conversion(column.factor, column.offset)(raw) if column.unit != column.source_unit else raw
    if every == 1:
        return converted, marks
    shape = (rows, every, raw.shape[1])
    return _aggregated(converted.reshape(shape), marks.reshape(shape), edges, total=adds_up(column.unit))


def _aggregated(values: np.ndarray, flags: np.ndarray, edges: np.ndarray, *, total: bool) -> tuple[np.ndarray, np.ndarray]:
    """(rows, every, sites) -> (rows, sites): the sum of all parts, or the mean of the measured ones; NaN and MISSING otherwise."""
    good = (flags & int(Flag.BAD)) == 0
    count = good.sum(axis=1)
    enough = (count == values.shape[1]) if total else (count >= _LEAST_SHARE * values.shape[1])
    enough &= ~edges[:, None]
    sums = np.where(good, values, 0).sum(axis=1, dtype=np.float64)
    result = sums if total else sums / np.maximum(count, 1)
    marks = np.bitwise_or.reduce(np.where(good, flags, np.uint8(0)), axis=1)  # an outlier among the parts stays one
    down = ((flags & int(Flag.OUTAGE)) != 0).all(axis=1)
    bad = np.where(down, np.uint8(Flag.MISSING | Flag.OUTAGE), np.uint8(Flag.MISSING))
    return np.where(enough, result, np.nan).astype(np.float32), np.where(enough, marks, bad).astype(np.uint8)


def _across(schema: PanelSchema, lead: int, rows: int, every: int) -> np.ndarray:
    """(rows,) bool: intervals that hold the edge of a segment inside them."""
    inside = np.zeros(rows, dtype=bool)
    for edge in {e - lead for s in schema.segments for e in (s.start, s.stop)}:
        if edge % every and 0 < edge < rows * every:
            inside[edge // every] = True
    return inside


def _unified(schema: PanelSchema, plan: Plan, lead: int, rows: int) -> PanelSchema:
    changes: dict[str, object] = {
        "features": plan.standard.features,
        "targets": plan.standard.targets,
        "cadence_s": plan.standard.cadence_s,
        "start_ms": schema.start_ms + round(lead * schema.cadence_s * 1000),
        "rows": rows,
        "segments": _segments(schema, lead, rows, plan.every),
        "noise_floor": None,  # was stated in the owner's own units and cadence
    }
    return schema.model_copy(update=changes)


def _segments(schema: PanelSchema, lead: int, rows: int, every: int) -> tuple[Segment, ...]:
    """The whole unified intervals of each segment; one that holds none is gone."""
    cut = [(s.name, max(0, -((lead - s.start) // every)), min(rows, (s.stop - lead) // every)) for s in schema.segments]
    kept = tuple(Segment(name=name, start=start, stop=stop) for name, start, stop in cut if start < stop)
    if not kept:
        raise Refused(f"no segment of {schema.dataset} holds a whole interval of {every} × {schema.cadence_s:g} s")
    return kept
