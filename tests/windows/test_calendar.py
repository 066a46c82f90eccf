"""Calendar features, with daylight saving and without a known start."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.data.calendar import NAMES, calendar

HOUR_MS = 3_600_000


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def column(times, name, timezone="Europe/Rome", clock="utc"):
    return calendar(np.array(times), timezone, clock)[:, NAMES.index(name)]


def test_hours_are_local():
    times = [at("2013-11-01T00:00:00+01:00"), at("2013-11-01T06:00:00+01:00"), at("2013-11-01T23:50:00+01:00")]
    assert column(times, "hour") == pytest.approx([0, 0.25, 23 / 24 + 50 / 1440])
    assert column(times, "hour_sin")[:2] == pytest.approx([0, 1], abs=1e-6)
    assert column(times, "hour_cos")[:2] == pytest.approx([1, 0], abs=1e-6)


def test_clocks_go_back_on_the_hour():
    """On 27 October 2013 in Rome 03:00 CEST became 02:00 CET, at 01:00 UTC."""
    times = [at("2013-10-27T00:50:00+00:00"), at("2013-10-27T01:00:00+00:00")]
    assert column(times, "hour") * 24 == pytest.approx([2 + 50 / 60, 2.0])


def test_a_weekend_is_saturday_and_sunday_local():
    friday = at("2013-11-01T00:00:00+01:00")
    days = friday + 24 * HOUR_MS * np.arange(7)
    assert column(days, "weekend").tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert column([friday + 24 * HOUR_MS - 1, friday + 24 * HOUR_MS], "weekend").tolist() == [0, 1]


def test_a_week_starts_on_monday():
    monday = at("2013-11-04T00:00:00+01:00")
    assert column([monday], "week_sin") == pytest.approx([0], abs=1e-6)
    assert column([monday], "week_cos") == pytest.approx([1])
    assert column([monday + round(1.75 * 24 * HOUR_MS)], "week_sin") == pytest.approx([1])  # a quarter of a week later


def test_a_relative_clock_counts_from_the_first_row_and_knows_no_weekend():
    times = HOUR_MS * np.arange(0, 24 * 14, 6)
    assert column(times, "hour", clock="relative")[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 0])
    assert not column(times, "weekend", clock="relative").any()
    assert column(times[28:29], "week_cos", clock="relative") == pytest.approx([1])


@given(st.integers(0, 2_000_000_000), st.sampled_from(["UTC", "Europe/Rome", "Australia/Lord_Howe", "Asia/Kathmandu"]))
def test_every_hour_is_the_wall_clock_s(second, zone):
    from zoneinfo import ZoneInfo

    wall = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone))
    expected = (wall.hour * 3600 + wall.minute * 60 + wall.second) / 86_400
    assert column([second * 1000], "hour", zone)[0] == pytest.approx(expected, abs=1e-6)
    assert column([second * 1000], "weekend", zone)[0] == (wall.weekday() >= 5)
