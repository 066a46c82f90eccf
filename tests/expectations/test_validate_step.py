"""validate: what holds passes and is remembered, what does not stops the job and says which sites."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cellwright.data import accepted
from cellwright.data.summary import by_day, by_site, silent_share, summarise
from cellwright.errors import ExpectationFailed, FormatError
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment
from cellwright.params import Params, Validate
from cellwright.results import Validated
from cellwright.steps.validate import validate
from cellwright.workspace import Workspace

ROWS, SITES = 3 * 144, 8
START_MS = 1_767_571_200_000  # 2026-01-05T00:00Z
END = datetime(2026, 1, 8, tzinfo=UTC)


def panel(values: dict[str, np.ndarray] | None = None, *, rows: int = ROWS, clock: str = "utc", flags=None) -> Panel:
    given = values or usual(rows)
    features = {
        "traffic": Feature(name="traffic", unit="Mbit/s", low=0),
        "prb": Feature(name="prb", unit="1", low=0, high=1),
    }
    schema = PanelSchema(
        dataset="small",
        sites=tuple(f"s{i}" for i in range(SITES)),
        features=tuple(features[name] for name in given),
        targets=("traffic",),
        cadence_s=600,
        clock=clock,
        start_ms=START_MS if clock == "utc" else 0,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        licence="none",
        attribution="none",
    )
    return Panel.from_arrays(schema, given, flags)


def usual(rows: int = ROWS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    traffic = 50 + 30 * np.sin(np.arange(rows) / 144 * 6.28)[:, None] + rng.normal(0, 3, (rows, SITES))
    return {"traffic": traffic.astype(np.float32), "prb": (traffic / 120).astype(np.float32)}


def changed(feature: str, site: int, rows: slice, value: float) -> dict[str, np.ndarray]:
    values = usual()
    values[feature][rows, site] = value
    return values


@pytest.fixture
def ws(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def run(ws: Workspace, given: Panel, now: datetime = END, **rules) -> Validated:
    given.save(ws.panel("small"))
    return validate(Params(dataset="small", validate=Validate(**rules)), ws, now)


def failed(ws: Workspace, given: Panel, now: datetime = END, **rules) -> tuple[str, Validated]:
    with pytest.raises(ExpectationFailed) as stopped:
        run(ws, given, now, **rules)
    return str(stopped.value), Validated.read(ws.validation("small") / "results.json")


def test_a_good_panel_passes_and_is_written_down(ws):
    found = run(ws, panel())
    assert found.passed
    assert Validated.read(ws.validation("small") / "results.json") == found
    assert {c.expectation for c in found.checks} == {
        "expect_table_columns_to_match_set",
        "expect_table_row_count_to_be_between",
        "expect_column_values_to_be_of_type",
        "expect_column_values_to_be_between",
        "expect_column_pair_values_to_be_equal",
    }
    assert str(found) == f"small: {len(found.checks)} of {len(found.checks)} expectations held on 432 rows × 8 sites"
    html = (ws.validation("small") / "index.html").read_text()
    assert "Accepted" in html
    assert "http" not in html.replace("http-equiv", "")


def test_the_sites_the_expectation_and_the_count_are_named(ws):
    values = usual()
    values["traffic"][5, 2] = values["traffic"][9, 6] = -1
    message, found = failed(ws, panel(values))
    assert "expect_column_values_to_be_between [Lowest value of traffic] for 2 of 8 sites (s2, s6)" in message
    assert "expected ≥ 0 Mbit/s, found -1" in message
    assert "Nothing was trained" in message
    (broken,) = [c for c in found.checks if not c.passed]
    assert (broken.count, broken.of, broken.examples) == (2, 8, ["s2", "s6"])
    assert "Refused" in (ws.validation("small") / "index.html").read_text()


def test_a_share_above_one_breaks_its_range(ws):
    message, _ = failed(ws, panel(changed("prb", 4, slice(0, 1), 1.01)))
    assert "Highest value of prb" in message
    assert "(s4)" in message


def test_missing_share_a_site(ws):
    values = changed("traffic", 1, slice(0, 44), np.nan)  # 44 of 432: over a tenth
    message, _ = failed(ws, panel(values))
    assert "Missing share of traffic" in message
    assert "for 1 of 8 sites (s1)" in message
    assert "found 0.101852" in message
    assert run(ws, panel(values), max_missing_share=0.11).passed


def test_a_site_that_never_measured_anything(ws):
    message, _ = failed(ws, panel(changed("traffic", 7, slice(None), np.nan)))
    assert "for 1 of 8 sites (s7)" in message


def test_filled_values_still_count_as_missing(ws):
    flags = {"traffic": np.zeros((ROWS, SITES), np.uint8)}
    flags["traffic"][:100, 3] = Flag.MISSING | Flag.FILLED
    message, _ = failed(ws, panel(flags=flags))
    assert "(s3)" in message


def test_rows_in_which_nobody_measured_anything(ws):
    values = usual()
    for array in values.values():
        array[:60] = np.nan
    message, _ = failed(ws, panel(values), max_missing_share=0.1)
    assert "Rows in which no site measured anything" in message


def test_freshness_counts_from_the_end_of_the_last_interval(ws):
    assert run(ws, panel(), now=datetime(2026, 1, 8, 2, tzinfo=UTC), max_age_h=2).passed
    message, _ = failed(ws, panel(), now=datetime(2026, 1, 8, 3, tzinfo=UTC), max_age_h=2)
    assert "Age of the last row" in message
    assert "found 3" in message


def test_what_is_not_checked_is_said(ws):
    found = run(ws, panel())
    assert [line.split(":")[0] for line in found.not_checked] == ["freshness", "shift"]
    relative = run(ws, panel(clock="relative"), max_age_h=1)
    assert "freshness: the data set has a relative clock" in relative.not_checked


def test_a_shift_against_the_last_accepted_version_stops_and_is_not_accepted(ws):
    run(ws, panel())
    values = usual()
    values["traffic"] += 40  # 40 Mbit/s are most of its interquartile range
    message, found = failed(ws, panel(values))
    assert "Shift of the median" in message
    assert "for 1 of 2 features (traffic)" in message
    assert found.compared_with == "2026-01-07T23:50:00+00:00"
    assert accepted.Accepted.read(accepted.path(ws, "small")).previous is None
    assert run(ws, panel(values), max_shift=2).passed


def test_a_feature_that_went_missing_since_the_last_version(ws):
    run(ws, panel())
    message, _ = failed(ws, panel({"traffic": usual()["traffic"]}))
    assert "expect_table_columns_to_match_set" in message
    assert "time_ms, site, traffic, prb" in message


def test_the_same_panel_again_gives_the_same_files(ws):
    values = usual()
    values["traffic"] += 1
    for given in (panel(), panel(values)):
        run(ws, given)
        first = (ws.validation("small") / "results.json").read_bytes()
        state = accepted.path(ws, "small").read_bytes()
        run(ws, given, now=datetime(2030, 1, 1, tzinfo=UTC))
        assert (ws.validation("small") / "results.json").read_bytes() == first
        assert accepted.path(ws, "small").read_bytes() == state


def test_without_a_panel_it_says_what_to_run(ws):
    with pytest.raises(FormatError, match="normalise"):
        validate(Params(dataset="small"), ws)


def test_a_damaged_day_is_a_clear_error(ws):
    panel().save(ws.panel("small"))
    day = sorted(ws.panel("small").glob("*.arrow"))[1]
    day.write_bytes(day.read_bytes()[:100])
    with pytest.raises(FormatError, match=day.name):
        validate(Params(dataset="small"), ws)


def test_it_says_nothing_on_the_terminal(ws, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        run(ws, panel())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_names_are_escaped_on_the_page(ws):
    given = panel()
    hostile = given.schema.model_copy(update={"sites": ("<script>alert(1)</script>", *given.schema.sites[1:])})
    values = {name: given.values(name).copy() for name in ("traffic", "prb")}
    values["traffic"][0, 0] = -5
    failed(ws, Panel.from_arrays(hostile, values))
    assert "<script>" not in (ws.validation("small") / "index.html").read_text()


def test_summaries_by_hand():
    values = {"traffic": np.array([[1, 2], [3, np.nan], [5, np.nan]], np.float32)}
    schema = panel().schema.model_copy(
        update={"sites": ("a", "b"), "features": panel().schema.features[:1], "rows": 3,
                "segments": (Segment(name="all", start=0, stop=3),)}
    )  # fmt: skip
    small = Panel.from_arrays(schema, values)
    found = by_site(small, "traffic")
    assert found.minimum.tolist() == [1, 2]
    assert found.maximum.tolist() == [5, 2]
    assert found.missing_share.tolist() == [0, pytest.approx(2 / 3)]
    assert silent_share(small) == 0
    assert by_day(small).rows.tolist() == [3]
    assert summarise(small).features["traffic"].q50 == 2.5


def test_state_is_outside_of_what_dvc_tracks(ws):
    assert accepted.path(ws, "small").is_relative_to(ws.state)
    assert not accepted.path(ws, "small").is_relative_to(Path(ws.root / "data"))
