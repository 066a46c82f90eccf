"""Horizontal alignment and the unified form: names, units and cadence by hand; who does not fit is told why (M.3387 10.3, 10.4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment.horizontal import align, require
from cellwright.federation.data.metadata import Disclosure, Metadata, describe
from cellwright.federation.data.normalise import Standard, normalised
from cellwright.federation.data.units import _ALSO, _UNITS, adds_up, conversion
from cellwright.federation.management.records import DataNeeds
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment

MINUTES_10 = 600.0
NAN = np.nan


def telemetry(
    units: dict[str, str],
    rows: int = 6,
    *,
    cadence_s: float = MINUTES_10,
    start_ms: int = 0,
    values: dict[str, list[float]] | None = None,
    clock: str = "utc",
    segments: tuple[Segment, ...] | None = None,
) -> Panel:
    """One site; a feature a unit, the first is the target. Values default to 1, 2, 3, …"""
    schema = PanelSchema(
        dataset="lab",
        sites=("cell",),
        features=tuple(Feature(name=name, unit=unit) for name, unit in units.items()),
        targets=tuple(units)[:1],
        cadence_s=cadence_s,
        clock=clock,  # type: ignore[arg-type]
        start_ms=start_ms,
        rows=rows,
        segments=segments or (Segment(name="all", start=0, stop=rows),),
        licence="CC0",
        attribution="",
    )
    counted = [float(i + 1) for i in range(rows)]
    given_values = values or {}
    return Panel.from_arrays(schema, {n: np.array(given_values.get(n, counted), np.float32)[:, None] for n in units})


def told(owner: str, panel: Panel) -> Metadata:
    return describe(panel, owner, Disclosure())


def column(panel: Panel, feature: str) -> list[float]:
    return panel.values(feature)[:, 0].tolist()


def test_conversions_by_hand():
    assert conversion(source="kbit/s", target="Mbit/s").one(1500) == pytest.approx(1.5)
    assert conversion(source="MB/s", target="Mbit/s").one(2) == pytest.approx(16)
    assert conversion(source="Gbps", target="Mbit/s").one(0.25) == pytest.approx(250)
    assert conversion(source="%", target="1").one(45) == pytest.approx(0.45)
    assert conversion(source="kWh", target="J").one(1) == pytest.approx(3.6e6)
    assert conversion(source="GiB", target="MB").one(1) == pytest.approx(1073.741824)
    assert conversion(source="°F", target="°C").one(212) == pytest.approx(100)
    assert conversion(source="°C", target="K").one(-273.15) == pytest.approx(0)
    assert conversion(source="a.u.", target="a.u.").one(7) == 7  # a unit of one's own stays itself


@given(st.sampled_from(sorted(_UNITS)), st.sampled_from(sorted(_UNITS)), st.floats(-1e6, 1e6))
def test_there_and_back_is_the_same(one, other, value):
    if _UNITS[one][0] != _UNITS[other][0]:
        with pytest.raises(FederationError, match="no conversion"):
            conversion(source=one, target=other)
        return
    there = conversion(source=one, target=other)
    back = conversion(source=other, target=one)
    assert back.one(there.one(value)) == pytest.approx(value, rel=1e-9, abs=1e-6)


def test_other_spellings_are_of_units_in_the_table():
    assert set(_ALSO.values()) <= set(_UNITS)
    with pytest.raises(FederationError, match=r"unit 'furlong' is not known.*units\.py"):
        conversion(source="furlong", target="m")


def test_what_adds_up_over_time():
    assert [adds_up(unit) for unit in ("MB", "kWh", "packets", "Mbit/s", "%", "a.u.")] == [True, True, True, False, False, False]


def test_owners_of_the_same_form_need_nothing():
    offers = {owner: told(owner, telemetry({"traffic": "Mbit/s", "users": "count"})) for owner in "ab"}
    report = align(offers)
    assert report.fit == ("a", "b")
    assert [f.name for f in report.standard.features] == ["traffic", "users"]
    assert report.standard.targets == ("traffic",)
    assert report.partly == {}
    panel = telemetry({"traffic": "Mbit/s", "users": "count"})
    assert normalised(panel, report.plan("a")) is panel


def test_other_names_units_and_more_features_are_mapped():
    offers = {
        "a": told("a", telemetry({"dl_traffic": "Mbit/s", "users": "count", "prb": "1"})),
        "b": told("b", telemetry({"DL Traffic": "kbit/s", "users": "count", "prb": "%"})),
        "c": told("c", telemetry({"thp": "Mbps", "users": "count"})),
        "d": told("d", telemetry({"dl_traffic": "Mbit/s", "users": "count", "prb": "1"})),
    }
    report = align(offers, synonyms={"c": {"thp": "dl_traffic"}})
    assert report.fit == ("a", "b", "c", "d")
    assert [(f.name, f.unit) for f in report.standard.features] == [("dl_traffic", "Mbit/s"), ("users", "count")]
    assert report.partly == {"prb": ("c",)}  # not in the form, since c lacks it
    b, c = report.owners[1], report.owners[2]
    assert b.renamed == ("DL Traffic -> dl_traffic",)
    assert b.converted == ("dl_traffic: kbit/s -> Mbit/s",)
    assert b.unused == ("prb",)
    assert c.renamed == ("thp -> dl_traffic",)

    made = normalised(telemetry({"DL Traffic": "kbit/s", "users": "count", "prb": "%"}), report.plan("b"))
    assert [(f.name, f.unit) for f in made.schema.features] == [("dl_traffic", "Mbit/s"), ("users", "count")]
    assert made.schema.targets == ("dl_traffic",)
    np.testing.assert_allclose(column(made, "dl_traffic"), [0.001, 0.002, 0.003, 0.004, 0.005, 0.006], rtol=1e-6)
    assert column(made, "users") == [1, 2, 3, 4, 5, 6]


def test_who_does_not_fit_is_left_out_with_every_reason():
    form = Standard.of(telemetry({"traffic": "Mbit/s", "users": "count"}).schema)
    offers = {
        "lacks": told("lacks", telemetry({"traffic": "Mbit/s"})),
        "other-unit": told("other-unit", telemetry({"traffic": "W", "users": "count"})),
        "coarse": told("coarse", telemetry({"traffic": "Mbit/s", "users": "count"}, cadence_s=900)),
        "odd": told("odd", telemetry({"traffic": "Mbit/s", "users": "count"}, cadence_s=420)),
        "twice": told("twice", telemetry({"traffic": "Mbit/s", "Traffic": "Mbit/s", "users": "count"})),
        "clock": told("clock", telemetry({"traffic": "Mbit/s", "users": "count"}, clock="relative")),
        "fits": told("fits", telemetry({"traffic": "Mbit/s", "users": "count"}, cadence_s=300)),
    }
    report = align(offers, standard=form)
    assert report.fit == ("fits",)
    reasons = {one.owner: "; ".join(one.reasons) for one in report.owners}
    assert reasons["lacks"] == "it has no feature 'users'"
    assert "W is a unit of power, Mbit/s of rate" in reasons["other-unit"]
    assert reasons["coarse"] == "its cadence of 900 s is coarser than the 600 s of the form"
    assert reasons["odd"] == "its cadence of 420 s does not divide the 600 s of the form"
    assert reasons["twice"] == "several features are 'traffic': traffic, Traffic"
    assert reasons["clock"] == "its clock is relative, expected utc"
    with pytest.raises(
        Refused, match=r"'lacks' cannot take part: it has no feature 'users'\. Expected traffic \[Mbit/s\], users"
    ):
        report.plan("lacks")
    with pytest.raises(Refused, match="was not aligned"):
        report.plan("nobody")
    assert require(offers["fits"], form).every == 2
    with pytest.raises(Refused, match="900 s is coarser"):
        require(offers["coarse"], form)


def test_what_the_request_asks_for_decides():
    offers = {
        "a": told("a", telemetry({"traffic": "Mbit/s", "users": "count"}, cadence_s=300)),
        "b": told("b", telemetry({"users": "count", "traffic": "Mbit/s", "prb": "1"})),
        "c": told("c", telemetry({"traffic": "Mbit/s"}, rows=3)),
    }
    needs = DataNeeds(dataset="lab", targets=("users",), features=("traffic",), cadence_s=600, least_windows=3)
    report = align(offers, needs=needs)
    assert [f.name for f in report.standard.features] == ["users", "traffic"]
    assert report.standard.targets == ("users",)
    assert report.fit == ("a", "b")
    assert align(offers, needs=needs.model_copy(update={"least_windows": 4})).fit == ("b",)
    for wrong in ({"targets": ("latency",)}, {"features": ("latency",)}):
        with pytest.raises(Refused, match="latency"):
            align(offers, needs=needs.model_copy(update=wrong))
    with pytest.raises(Refused, match="no owner offers data"):
        align({})


def plan_to(panel: Panel, units: dict[str, str], cadence_s: float):  # type: ignore[no-untyped-def]
    form = telemetry(units, cadence_s=cadence_s, clock=panel.schema.clock)
    return require(told("a", panel), Standard.of(form.schema))


def test_rates_are_averaged_and_volumes_added_up_by_hand():
    panel = telemetry({"rate": "kbit/s", "volume": "MB"}, cadence_s=300, values={"rate": [1000, 3000, NAN, 5000, NAN, NAN]})
    made = normalised(panel, plan_to(panel, {"rate": "Mbit/s", "volume": "MB"}, 600))
    assert made.schema.cadence_s == 600
    np.testing.assert_allclose(column(made, "rate"), [2, 5, NAN])  # of the measured half; of nothing
    assert made.flags("rate")[:, 0].tolist() == [0, 0, Flag.MISSING]
    assert column(made, "volume") == [3, 7, 11]


def test_a_volume_with_a_part_missing_is_missing():
    panel = telemetry({"volume": "MB"}, cadence_s=300, values={"volume": [1, 2, 3, NAN, 5, 6]})
    made = normalised(panel, plan_to(panel, {"volume": "MB"}, 600))
    np.testing.assert_allclose(column(made, "volume"), [3, NAN, 11])


def test_flags_go_along():
    panel = telemetry({"rate": "Mbit/s"}, cadence_s=300)
    down = int(Flag.MISSING | Flag.OUTAGE)
    panel.flags("rate")[:, 0] = [0, Flag.OUTLIER, down, down, Flag.MISSING | Flag.FILLED, 0]
    made = normalised(panel, plan_to(panel, {"rate": "Mbit/s"}, 600))
    assert made.flags("rate")[:, 0].tolist() == [Flag.OUTLIER, down, 0]
    np.testing.assert_allclose(column(made, "rate"), [1.5, NAN, 6])  # what was filled in does not count as measured


def test_intervals_begin_at_whole_multiples_and_what_is_left_over_is_cut():
    panel = telemetry({"rate": "Mbit/s"}, rows=6, cadence_s=300, start_ms=300_000)  # 00:05 … 00:30
    made = normalised(panel, plan_to(panel, {"rate": "Mbit/s"}, 600))
    assert made.schema.start_ms == 600_000
    assert made.times_ms().tolist() == [600_000, 1_200_000]
    assert column(made, "rate") == [2.5, 4.5]
    shifted = telemetry({"rate": "Mbit/s"}, cadence_s=300, start_ms=60_000)
    with pytest.raises(Refused, match="240000 ms off"):
        normalised(shifted, plan_to(shifted, {"rate": "Mbit/s"}, 600))


def test_no_interval_lies_across_two_segments():
    two = (Segment(name="one", start=0, stop=5), Segment(name="two", start=5, stop=10))
    panel = telemetry({"rate": "Mbit/s"}, rows=10, cadence_s=300, segments=two)
    made = normalised(panel, plan_to(panel, {"rate": "Mbit/s"}, 600))
    assert [(s.name, s.start, s.stop) for s in made.schema.segments] == [("one", 0, 2), ("two", 3, 5)]
    np.testing.assert_allclose(column(made, "rate"), [1.5, 3.5, NAN, 7.5, 9.5])
    with pytest.raises(Refused, match="not one whole interval"):
        normalised(telemetry({"rate": "Mbit/s"}, rows=1, cadence_s=300), plan_to(panel, {"rate": "Mbit/s"}, 600))


def test_a_panel_that_changed_since_it_was_described_is_refused():
    plan = plan_to(telemetry({"rate": "Mbit/s"}), {"rate": "Mbit/s"}, 600)
    with pytest.raises(Refused, match="the panel has it in kbit/s"):
        normalised(telemetry({"rate": "kbit/s"}), plan)
    with pytest.raises(Refused, match="not at all"):
        normalised(telemetry({"other": "Mbit/s"}), plan)
    with pytest.raises(Refused, match="align anew"):
        normalised(telemetry({"rate": "Mbit/s"}, cadence_s=300), plan)


def test_a_form_without_targets_is_none():
    features = (Feature(name="rate", unit="Mbit/s"),)
    for targets in ((), ("volume",)):
        with pytest.raises(ValueError, match="targets must be among the features"):
            Standard(features=features, targets=targets, cadence_s=600)


def test_the_made_panel_can_be_stored_and_read(tmp_path):
    panel = telemetry({"DL-Rate": "kbit/s"}, rows=600, cadence_s=300)
    made = normalised(panel, plan_to(panel, {"dl_rate": "Mbit/s"}, 600))
    made.save(tmp_path / "panel")
    again = Panel.open(tmp_path / "panel")
    assert again.schema == made.schema
    np.testing.assert_array_equal(again.values("dl_rate"), made.values("dl_rate"))
