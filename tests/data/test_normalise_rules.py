"""What normalise does to telemetry: worked out by hand, and as properties."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.data.flagging import Grid, flag
from cellwright.data.gaps import fill_short, run_lengths
from cellwright.data.usual import usual, weeks
from cellwright.errors import FormatError, WorkspaceError
from cellwright.panel import Flag
from cellwright.params import Normalise

NAN = np.nan
DAY = 144


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def lively(rows: int, sites: int = 2, seed: int = 0) -> np.ndarray:
    """Telemetry with a daily course, well above zero."""
    rng = np.random.default_rng(seed)
    course = 100 + 50 * np.sin(2 * np.pi * np.arange(rows) / DAY)
    return (course[:, None] + rng.normal(0, 5, (rows, sites))).astype(np.float32)


# gaps


def test_short_gaps_are_filled_with_the_last_value_and_long_ones_are_masked(project, telemetry):
    own = project()
    own.write(telemetry(np.array([[1, 9], [NAN, 9], [NAN, 9], [4, 9], [NAN, 9], [NAN, 9], [NAN, 9], [8, 9]])))
    panel, report = own.normalised(max_gap=2)
    np.testing.assert_array_equal(panel.values("mbps")[:, 0], np.array([1, 1, 1, 4, NAN, NAN, NAN, 8], np.float32))
    filled = Flag.MISSING | Flag.FILLED
    assert panel.flags("mbps")[:, 0].tolist() == [0, filled, filled, 0, 1, 1, 1, 0]
    assert panel.good("mbps")[:, 0].tolist() == [True, False, False, True, False, False, False, True]
    assert (report.features["mbps"].filled, report.features["mbps"].masked) == (2, 3)


def test_nothing_is_filled_from_the_future_or_across_a_segment():
    values = column(NAN, 2, NAN, NAN, 5, NAN)
    filled = fill_short(values, edges=(0, 3, 6), max_gap=3)
    np.testing.assert_array_equal(values[:, 0], [NAN, 2, 2, NAN, 5, 5])
    assert filled[:, 0].tolist() == [False, False, True, False, False, True]


@given(mask=st.lists(st.booleans(), min_size=1, max_size=40), cut=st.integers(1, 39))
def test_run_lengths_count_each_run_within_its_segment(mask, cut):
    edges = (0, cut, len(mask)) if cut < len(mask) else (0, len(mask))
    expected = []
    for start, stop in pairwise(edges):
        text = "".join("x" if m else " " for m in mask[start:stop])
        runs = [len(run) for run in text.split()]
        position = [sum(1 for j in range(1, i + 1) if text[j] == "x" and text[j - 1] == " ") for i in range(len(text))]
        lead = 0 if text[0] == "x" else -1
        expected += [runs[position[i] + lead] if text[i] == "x" else 0 for i in range(len(text))]
    assert run_lengths(np.array(mask)[:, None], edges)[:, 0].tolist() == expected


# repeated and unsorted rows


def test_equal_repeats_are_dropped_and_of_conflicting_ones_the_last_counts(project):
    own = project()
    frame = pl.DataFrame({
        "time": [f"2026-01-05 00:{minute}" for minute in ("10", "00", "00", "10", "20", "10")],
        "cell": ["a", "a", "a", "a", "a", "a"],
        "mbps": [2.0, 1.0, 1.0, 7.0, 3.0, 5.0],
    })  # fmt: skip
    own.write(frame)
    panel, report = own.normalised()
    assert panel.values("mbps")[:, 0].tolist() == [1, 5, 3]
    assert (report.duplicates_equal, report.duplicates_conflicting) == (1, 2)


def test_repeats_across_files_count_too(project, telemetry):
    own = project()
    own.write(telemetry(np.array([[1.0], [2.0], [3.0]])), "a.csv")
    own.write(telemetry(np.array([[1.0], [9.0]])), "b.csv")
    panel, report = own.normalised()
    assert panel.values("mbps")[:, 0].tolist() == [1, 9, 3]
    assert (report.duplicates_equal, report.duplicates_conflicting) == (1, 1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(seed, tmp_path_factory):
    from cellwright.catalogue import Entry
    from cellwright.data.normalise import build

    rng = np.random.default_rng(seed)
    values = lively(30, 3, seed)
    values[rng.random(values.shape) < 0.1] = NAN
    values[0, 0] = 1
    frame = pl.DataFrame({
        "time_ms": np.repeat(np.arange(30) * 600_000, 3),
        "cell": ["c0", "c1", "c2"] * 30,
        "mbps": values.reshape(-1),
    })  # fmt: skip
    entry = Entry.model_validate({
        "name": "x", "title": "x", "files": "x.parquet", "reader": "long", "cadence_s": 600, "targets": ["mbps"],
        "options": {"time": "time_ms", "site": "cell", "format": "epoch_ms"}, "features": {"mbps": {"unit": "1"}},
    })  # fmt: skip
    folder = tmp_path_factory.mktemp("shuffled")
    built = []
    for name, rows in (("a", frame), ("b", frame[rng.permutation(90)])):
        rows.write_parquet(folder / f"{name}.parquet")
        built.append(build(entry, [folder / f"{name}.parquet"], Normalise()).panel)
    np.testing.assert_array_equal(built[0].values("mbps"), built[1].values("mbps"))
    np.testing.assert_array_equal(built[0].flags("mbps"), built[1].flags("mbps"))


def test_infinities_are_missing_and_counted(project):
    own = project()
    own.write(pl.DataFrame({"time": ["2026-01-05 00:00", "2026-01-05 00:10"], "cell": ["a", "a"], "mbps": ["1", "inf"]}))
    panel, report = own.normalised(max_gap=0)
    assert report.not_finite == 1
    assert panel.flags("mbps")[1, 0] == Flag.MISSING


# outages and outliers


def test_a_run_of_zeros_is_an_outage_only_where_zeros_are_unusual(project, telemetry):
    values = np.c_[lively(8 * DAY, 1), np.zeros((8 * DAY, 1))].astype(np.float32)
    values[::5, 1] = 3  # a site that is mostly idle
    values[1000:1006, 0] = 0  # down for an hour
    values[1100:1102, 0] = 0  # two zeros only
    own = project()
    own.write(telemetry(values))
    panel, report = own.normalised(outage_min=3)
    down = panel.flags("mbps") & Flag.OUTAGE > 0
    assert np.flatnonzero(down[:, 0]).tolist() == list(range(1000, 1006))
    assert not down[:, 1].any()
    assert panel.values("mbps")[1003, 0] == 0  # the value stays
    assert not panel.good("mbps")[1003, 0]
    assert report.features["mbps"].outage == 6


def test_zeros_can_be_declared_normal(project, telemetry):
    values = lively(8 * DAY, 1)
    values[1000:1006] = 0
    own = project(features={"mbps": {"unit": "1", "zero_is_outage": False}})
    own.write(telemetry(values))
    assert own.normalised()[1].features["mbps"].outage == 0


def test_outliers_are_flagged_and_left_in_place(project, telemetry):
    values = lively(10 * DAY)
    values[9 * DAY + 5, 1] = 5000
    values[5, 0] = 4000  # in the first week, which is judged by itself
    own = project()
    own.write(telemetry(values))
    panel, report = own.normalised()
    assert np.argwhere(panel.flags("mbps") & Flag.OUTLIER).tolist() == [[5, 0], [9 * DAY + 5, 1]]
    assert panel.values("mbps")[9 * DAY + 5, 1] == 5000
    assert panel.good("mbps")[9 * DAY + 5, 1]  # really measured
    assert report.features["mbps"].outlier == 2


def test_the_usual_value_worked_out():
    hours = np.zeros(6, np.int8)
    found = usual(column(1, 2, 3, 4, 100, NAN), hours)
    assert found.median[0, 0] == 3  # of 1 2 3 4 100
    assert found.spread[0, 0] == pytest.approx(1.4826)  # deviations 2 1 0 1 97: median 1
    assert found.quartile[0, 0] == 2
    assert np.isnan(found.median[1:]).all()


def test_too_few_values_say_nothing():
    assert np.isnan(usual(column(1, 2, 3, 4, NAN), np.zeros(5, np.int8)).median).all()


def test_weeks_are_judged_by_what_lies_before_them():
    got = [(w.start, w.stop, p.start, p.stop) for w, p in weeks(25, 86_400)]
    assert got == [(0, 7, 0, 7), (7, 14, 0, 7), (14, 21, 0, 14), (21, 25, 7, 21)]


# growth


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), short=st.integers(7 * 24, 16 * 24), max_gap=st.integers(0, 4), outage_min=st.integers(1, 5))
def test_later_rows_change_only_what_was_open_at_the_end(seed, short, max_gap, outage_min):
    """Hourly telemetry with gaps, zeros and spikes; the first `short` rows are flagged alone and with what follows."""
    rng = np.random.default_rng(seed)
    values = np.repeat(lively(20 * 24, 2, seed), 1, axis=0)
    values[rng.random(values.shape) < 0.15] = NAN
    values[rng.random(values.shape) < 0.05] = 0
    values[rng.random(values.shape) < 0.01] = 9000
    rules = Normalise(max_gap=max_gap, outage_min=outage_min)

    def flagged(rows: int) -> tuple[np.ndarray, np.ndarray]:
        some = values[:rows].copy()
        grid = Grid((0, rows), (np.arange(rows) % 24).astype(np.int8), 3600)
        return some, flag(some, grid, rules, zero_is_outage=True)

    settled = short - max(max_gap, outage_min - 1)
    (alone, marks), (whole, all_marks) = flagged(short), flagged(20 * 24)
    np.testing.assert_array_equal(alone[:settled], whole[:settled])
    np.testing.assert_array_equal(marks[:settled], all_marks[:settled])


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.arrow")}


def test_a_source_that_grows_leaves_the_files_of_earlier_days(project, telemetry):
    own, values = project(), lively(12 * DAY)
    values[1::17] = NAN
    for day in range(10):
        own.write(telemetry(values[day * DAY : (day + 1) * DAY], start=np.datetime64("2026-01-05") + day), f"{day:02d}.csv")
    own.normalised()
    before = digests(own.ws.panel("own"))
    for day in (10, 11):
        own.write(telemetry(values[day * DAY : (day + 1) * DAY], start=np.datetime64("2026-01-05") + day), f"{day:02d}.csv")
    panel, _ = own.normalised()
    after = digests(own.ws.panel("own"))
    assert len(before) == 10
    assert panel.schema.rows == 12 * DAY
    assert {name: after[name] for name in before} == before


def test_the_same_input_gives_the_same_bytes(project, telemetry):
    own = project()
    own.write(telemetry(lively(2 * DAY)))
    own.normalised()
    first = {p.name: p.read_bytes() for p in own.ws.panel("own").iterdir()}
    own.normalised()
    assert {p.name: p.read_bytes() for p in own.ws.panel("own").iterdir()} == first
    assert "report.json" in first


# cadence and time


def test_a_site_that_reports_less_often_is_named(project, telemetry):
    values = lively(2 * DAY, 3)
    values[np.arange(2 * DAY) % 3 != 0, 1] = NAN
    own = project()
    own.write(telemetry(values))
    with pytest.raises(
        FormatError, match=r"mixed cadence: site c1 reports every 1800 s from 2026-01-05T00:00:00\+00:00 on.*says 600 s"
    ):
        own.normalised()


def test_a_cadence_that_changes_midway_is_found(project, telemetry):
    values = lively(4 * DAY, 2)
    late = np.arange(4 * DAY)
    values[(late >= 2 * DAY) & (late % 6 != 0), 0] = NAN
    own = project()
    own.write(telemetry(values))
    with pytest.raises(FormatError, match=r"site c0 reports every 3600 s from 2026-01-07T00:00:00\+00:00 on"):
        own.normalised()


def test_a_site_that_reports_more_often_is_named(project, telemetry):
    own = project()
    own.write(telemetry(lively(DAY, 3)), "a.csv")
    own.write(telemetry(lively(288, 1), cadence_s=300).with_columns(cell=pl.lit("fast")), "b.csv")
    with pytest.raises(FormatError, match=r"site fast has 2026-01-05T00:05:00\+00:00 in b\.csv, which is off the 600 s grid"):
        own.normalised()


def test_scattered_gaps_are_not_another_cadence(project, telemetry):
    values = lively(2 * DAY, 2)
    values[np.random.default_rng(3).random(values.shape) < 0.7] = NAN
    own = project()
    own.write(telemetry(values))
    own.normalised()


def test_a_jittering_clock_is_snapped_as_far_as_allowed(project):
    times = [0, 600_400, 1_199_900, 1_800_000]
    frame = pl.DataFrame({"t": times, "cell": ["a"] * 4, "mbps": [1.0, 2.0, 3.0, 4.0]})
    own = project(options={"time": "t", "site": "cell", "format": "epoch_ms"}, snap_s=0.5)
    own.write(frame)
    assert own.normalised()[0].values("mbps")[:, 0].tolist() == [1, 2, 3, 4]
    own = project(options={"time": "t", "site": "cell", "format": "epoch_ms"}, snap_s=0.3)
    with pytest.raises(FormatError, match=r"0\.4 s from its interval's start, at most 0\.3 s allowed \(snap_s\)"):
        own.normalised()


@pytest.mark.parametrize(
    ("form", "times"),
    [
        (None, ["2026-03-01 00:00", "2026-03-01 00:10"]),
        (None, ["2026-03-01T00:00:00", "2026-03-01T00:10:00"]),
        (None, ["2026-02-28T23:00:00Z", "2026-02-28T23:10:00Z"]),
        (None, ["2026-03-01T02:00:00+03:00", "2026-03-01T02:10:00+03:00"]),
        ("%d.%m.%Y %H:%M", ["01.03.2026 00:00", "01.03.2026 00:10"]),
        ("%d.%m.%Y %H:%M %z", ["01.03.2026 00:00 +0100", "01.03.2026 00:10 +0100"]),
        ("epoch_s", [1772319600, 1772320200]),
        ("epoch_ms", [1772319600000, 1772320200000]),
        ("epoch_us", [1772319600000000, 1772320200000000]),
    ],
)
def test_time_stamps_of_many_forms(project, form, times):
    own = project(options={"time": "time", "site": "cell", "format": form}, timezone="Europe/Rome")
    own.write(pl.DataFrame({"time": times, "cell": ["a", "a"], "mbps": [1.0, 2.0]}))
    schema = own.normalised()[0].schema
    assert (schema.start_ms, schema.rows) == (1772319600000, 2)  # 2026-03-01 00:00 in Rome


def test_summer_time_begins_and_ends(project):
    """Rome 2025: 02:00-03:00 does not exist on 30 March, and exists twice on 26 October."""
    hours = ["01:30", "03:00", "03:30"]
    own = project(timezone="Europe/Rome", cadence_s=1800)
    own.write(pl.DataFrame({"time": [f"2025-03-30 {h}" for h in hours], "cell": ["a"] * 3, "mbps": [1.0, 2.0, 3.0]}))
    assert own.normalised()[0].schema.rows == 3  # no gap: 01:30 CET, then 03:00 CEST

    hours = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
    own.write(
        pl.DataFrame({"time": [f"2025-10-26 {h}" for h in hours], "cell": ["a"] * 6, "mbps": [1.0, 2, 3, 4, 5, 6]}), "b.csv"
    )
    (own.ws.root / "in" / "a.csv").unlink()
    own = project(timezone="Europe/Rome", cadence_s=1800, files="in/b.csv")
    (own.ws.raw("own") / "a.csv").unlink()
    (own.ws.raw("own") / "ingested.json").unlink()
    panel, report = own.normalised()
    assert panel.values("mbps")[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert report.duplicates_conflicting == 0


def test_a_time_that_the_zone_skips_is_refused(project):
    own = project(timezone="Europe/Rome")
    own.write(pl.DataFrame({"time": ["2025-03-30 02:10", "2025-03-30 03:00"], "cell": ["a", "a"], "mbps": [1.0, 2.0]}))
    with pytest.raises(FormatError, match=r"2025-03-30 02:10:00 does not exist in Europe/Rome.*is `timezone`"):
        own.normalised()


def test_daily_telemetry_stays_on_its_calendar_days(project):
    own = project(timezone="Europe/Rome", cadence_s=86_400)
    days = pl.date_range(pl.date(2025, 3, 28), pl.date(2025, 4, 2), eager=True)
    own.write(pl.DataFrame({"time": days, "cell": ["a"] * 6, "mbps": [1.0, 2, 3, 4, 5, 6]}), "a.parquet")
    assert own.normalised()[0].values("mbps")[:, 0].tolist() == [1, 2, 3, 4, 5, 6]


# bad input


def test_an_empty_file_is_said(project):
    own = project()
    (own.ws.root / "in" / "a.csv").write_text("")
    with pytest.raises(FormatError, match=r"a\.csv is empty"):
        own.normalised()


def test_a_header_without_rows_is_said(project):
    own = project()
    (own.ws.root / "in" / "a.csv").write_text("time,cell,mbps\n")
    with pytest.raises(FormatError, match="hold no rows"):
        own.normalised()


def test_a_wrong_column_names_the_nearest(project, telemetry):
    own = project()
    own.write(telemetry(lively(5)).rename({"mbps": "mbpss"}))
    with pytest.raises(FormatError, match=r"a\.csv has no column 'mbps'; it has time, cell, mbpss\. Did you mean 'mbpss'\?"):
        own.normalised()


def test_text_among_numbers_is_said(project, telemetry):
    own = project()
    own.write(
        telemetry(lively(5)).with_columns(pl.when(pl.int_range(10) == 7).then(pl.lit("many")).otherwise("mbps").alias("mbps"))
    )
    with pytest.raises(FormatError, match=r"a\.csv cannot be read as the catalogue describes it: .*many"):
        own.normalised()


@pytest.mark.parametrize("content", [b"PAR1nonsense", b"", b"time,cell\n"])
def test_a_corrupt_parquet_is_said(project, content):
    own = project()
    (own.ws.root / "in" / "a.parquet").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.parquet (is empty|cannot be read)"):
        own.normalised()


def test_a_parquet_cut_in_the_middle_is_said(project, telemetry):
    own = project()
    path = own.write(telemetry(lively(500)), "a.parquet")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FormatError, match=r"a\.parquet cannot be read"):
        own.normalised()


def test_rows_without_a_time_or_site_are_said(project):
    own = project()
    own.write(pl.DataFrame({"time": ["2026-01-05 00:00", "2026-01-05 00:10"], "cell": ["a", None], "mbps": [1.0, 2.0]}))
    with pytest.raises(FormatError, match="1 rows have no time or no site"):
        own.normalised()


def test_a_site_without_any_value_is_named_and_can_be_left_out(project):
    frame = pl.DataFrame({
        "time": ["2026-01-05 00:00", "2026-01-05 00:00", "2026-01-05 00:10", "2026-01-05 00:10"],
        "cell": ["a", "dead", "a", "dead"],
        "mbps": [1.0, None, 2.0, None],
    })  # fmt: skip
    own = project()
    own.write(frame)
    with pytest.raises(FormatError, match=r"1 of 2 sites have no value of the target 'mbps' in all 2 intervals: dead\."):
        own.normalised()
    own = project(drop_sites=["dead"])
    assert own.normalised()[0].schema.sites == ("a",)


def test_a_failure_leaves_the_older_panel(project, telemetry):
    own = project()
    own.write(telemetry(lively(5)))
    own.normalised()
    own.write(telemetry(lively(5)).with_columns(mbps=pl.lit("x")), "b.csv")
    with pytest.raises(FormatError):
        own.normalised()
    from cellwright.panel import Panel

    assert Panel.open(own.ws.panel("own")).schema.rows == 5


def test_a_panel_that_cannot_be_written_is_said(project, telemetry):
    own = project()
    own.write(telemetry(lively(5)))
    (own.ws.root / "data" / "panels").write_text("in the way")
    with pytest.raises(WorkspaceError, match="a file lies where a folder is needed"):
        own.normalised()
