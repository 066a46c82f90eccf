"""What a panel must be before anything is trained on it, as a Great Expectations suite a data set.

The suite is made from the panel's schema and the `validate` section: columns and types, the range of each feature in its unit,
missing share a site, regularity, freshness, and shift against the last accepted version. Great Expectations sees small frames
(a row a site, a row a day), which keeps 400 sites × 8,640 rows within a second beside its import.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.data.accepted import Version
from cellwright.data.summary import by_day, by_site, silent_share
from cellwright.panel import Panel
from cellwright.params import Validate
from cellwright.results import Check

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 12  # sites named in a result
_NO_SPREAD = 1e9  # shift of a feature that never moved before and does now, in interquartile ranges


@dataclass(frozen=True)
class Frame:
    """A small frame and what is expected of it. `key` is the column that names a row, `what` what a row is."""

    name: str
    data: pd.DataFrame
    key: str | None
    what: str
    expectations: list[tuple[str, dict[str, Any], dict[str, Any]]]  # (GE's type, arguments, title/feature/limit)


def check(panel: Panel, rules: Validate, before: Version | None, version: Version, now: datetime) -> list[Check]:
    """Hold a panel against its suite; one `Check` an expectation, those that failed included.

    version: the panel's own summary. before: the last accepted version, or None. now: what `max_age_h` is counted from.
    """
    with _quietly():
        frames = _frames(panel, rules, before, version, now)
        return [result for frame in frames for result in _run(panel.schema.dataset, frame)]


def _frames(panel: Panel, rules: Validate, before: Version | None, version: Version, now: datetime) -> Iterator[Frame]:
    yield _columns(panel, before)
    for feature in panel.schema.features:
        yield _sites(panel, feature.name, rules)
    yield _days(panel)
    yield _whole(panel, rules, now)
    if before is not None:
        yield _shifts(rules, before, version)


def _columns(panel: Panel, before: Version | None) -> Frame:
    """The first rows in the long form: names and types."""
    import pandas as pd

    schema, rows = panel.schema, min(panel.schema.rows, 10)
    data = pd.DataFrame({"time_ms": np.repeat(panel.times_ms()[:rows], len(schema.sites)), "site": list(schema.sites) * rows})
    for feature in schema.features:
        data[feature.name] = panel.values(feature.name)[:rows].reshape(-1)
    wanted = [f.name for f in schema.features] if before is None else list(before.features)
    names = ["time_ms", "site", *wanted]
    asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("ExpectTableColumnsToMatchSet", {"column_set": names}, {"title": "Columns", "limit": ", ".join(names)}),
        ("ExpectTableRowCountToBeBetween", {"min_value": 1}, {"title": "Rows there at all", "limit": "≥ 1"}),
    ]
    types = {"time_ms": "int64"} | {f.name: "float32" for f in schema.features}
    asked += [("ExpectColumnValuesToBeOfType", {"column": n, "type_": t}, _about("Type", n, t)) for n, t in types.items()]
    return Frame("columns", data, None, "rules", asked)


def _sites(panel: Panel, name: str, rules: Validate) -> Frame:
    """A row a site: range and missing share of one feature."""
    import pandas as pd

    feature = next(f for f in panel.schema.features if f.name == name)
    found = by_site(panel, name)
    data = pd.DataFrame(
        {"site": panel.schema.sites, "minimum": found.minimum, "maximum": found.maximum, "missing_share": found.missing_share}
    )
    most, unit = rules.max_missing_share, "" if feature.unit == "1" else f" {feature.unit}"
    asked = [_between("missing_share", None, most, _about("Missing share", name, f"≤ {most:g}"))]
    if feature.low is not None:
        asked.append(_between("minimum", feature.low, None, _about("Lowest value", name, f"≥ {feature.low:g}{unit}")))
    if feature.high is not None:
        asked.append(_between("maximum", None, feature.high, _about("Highest value", name, f"≤ {feature.high:g}{unit}")))
    return Frame(f"sites-{name}", data, "site", "sites", asked)


def _days(panel: Panel) -> Frame:
    """A row a day: whether the cadence is kept."""
    import pandas as pd

    found = by_day(panel)
    data = pd.DataFrame({"day": found.name, "rows": found.rows, "expected": found.expected})
    title = {"title": "Rows a day", "limit": f"one every {panel.schema.cadence_s:g} s"}
    return Frame(
        "days", data, "day", "days", [("ExpectColumnPairValuesToBeEqual", {"column_A": "rows", "column_B": "expected"}, title)]
    )


def _whole(panel: Panel, rules: Validate, now: datetime) -> Frame:
    """One row: silence and age."""
    import pandas as pd

    data = pd.DataFrame({"panel": [panel.schema.dataset], "silent_share": [silent_share(panel)]})
    most = rules.max_missing_share
    asked = [_between("silent_share", None, most, {"title": "Rows in which no site measured anything", "limit": f"≤ {most:g}"})]
    if rules.max_age_h is not None and panel.schema.clock == "utc":
        end_ms = int(panel.times_ms()[-1]) + panel.schema.cadence_s * 1000
        data["age_h"] = [round((now.timestamp() * 1000 - end_ms) / 3_600_000, 2)]
        asked.append(
            _between("age_h", None, rules.max_age_h, {"title": "Age of the last row", "limit": f"≤ {rules.max_age_h:g} h"})
        )
    return Frame("panel", data, "panel", "data sets", asked)


def _shifts(rules: Validate, before: Version, version: Version) -> Frame:
    """A row a feature: how far the median moved since the last accepted version, in its interquartile ranges."""
    import pandas as pd

    names = [name for name in version.features if name in before.features]
    moved = [_shift(before.features[name], version.features[name]) for name in names]
    data = pd.DataFrame({"feature": names, "shift": np.array(moved, dtype=float)})
    title = {
        "title": "Shift of the median since the last accepted version",
        "limit": f"≤ {rules.max_shift:g} interquartile ranges",
    }
    return Frame("shift", data, "feature", "features", [_between("shift", None, rules.max_shift, title)])


def _shift(old: Any, new: Any) -> float:
    if old.q50 is None or new.q50 is None:
        return 0.0 if old.q50 == new.q50 else _NO_SPREAD
    spread, moved = old.q75 - old.q25, abs(new.q50 - old.q50)
    return float(moved / spread) if spread > 0 else (0.0 if moved == 0 else _NO_SPREAD)


def _about(title: str, feature: str, limit: str) -> dict[str, Any]:
    return {"title": title, "feature": feature, "limit": limit}


def _between(
    column: str, low: float | None, high: float | None, about: dict[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "ExpectColumnValuesToBeBetween", {"column": column, "min_value": low, "max_value": high}, about


def _run(dataset: str, frame: Frame) -> list[Check]:
    """Let Great Expectations judge a frame."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("panel").add_dataframe_asset(frame.name)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame.data})
    expectations = [getattr(gxe, kind)(**arguments, meta=about) for kind, arguments, about in frame.expectations]
    suite = gx.ExpectationSuite(name=f"{dataset} · {frame.name}", expectations=expectations)
    detail: dict[str, Any] = {"result_format": "COMPLETE"}
    if frame.key is not None:
        detail["unexpected_index_column_names"] = [frame.key]
    return [_as_check(frame, result) for result in batch.validate(suite, result_format=detail).results]


def _as_check(frame: Frame, result: Any) -> Check:
    config, found = result.expectation_config, result.result
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"Great Expectations could not evaluate {config.type}: {result.exception_info['exception_message']}")
    column = config.kwargs.get("column")
    index = found.get("unexpected_index_list") or []
    named = [str(row[frame.key]) for row in index] if frame.key else []
    return Check(
        expectation=config.type,
        title=config.meta["title"],
        feature=config.meta.get("feature"),
        limit=config.meta["limit"],
        passed=bool(result.success),
        what=frame.what,
        count=int(found.get("unexpected_count") or (0 if result.success else 1)),
        of=int(found.get("element_count") or 1),
        examples=named[:_SHOWN],
        observed=_observed(frame, column, config.kwargs, found),
    )


def _observed(frame: Frame, column: str | None, asked: dict[str, Any], found: dict[str, Any]) -> str:
    """The value that comes closest to the limit, or passes it most."""
    if column in ("missing_share", "minimum", "maximum", "silent_share", "age_h", "shift"):
        values = frame.data[column].dropna()
        if values.empty:
            return "nothing measured"
        worst = float(values.min() if asked.get("min_value") is not None else values.max())
        return "constant before" if math.isclose(worst, _NO_SPREAD) else f"{worst:.6g}"
    if "column_A" in asked:
        wrong = frame.data[frame.data["rows"] != frame.data["expected"]]
        return "as promised" if wrong.empty else f"{wrong['rows'].iloc[0]} of {wrong['expected'].iloc[0]}"
    seen = found.get("observed_value")
    return ", ".join(map(str, seen)) if isinstance(seen, list | set | tuple) else str(seen)


class _quietly:
    """Great Expectations logs and warns about things that a user can do nothing about."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("great_expectations")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        self._logger.setLevel(self._level)


def utc_now() -> datetime:
    """The present."""
    return datetime.now(UTC)
