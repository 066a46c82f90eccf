"""Every drift detector: catches a change of the error, is quiet without one, and is restored by replay."""

import math

import numpy as np
import pytest

from cellwright.errors import ParamsError, UnknownName
from cellwright.families import member, members
from cellwright.lifecycle.drift._contract import dated, make

NAMES = members("cellwright.lifecycle.drift")
DAY = 144


def residuals(seed: int, steps: int, change: float = 0.0, at: int | None = None) -> np.ndarray:
    """Absolute errors with a mean of 1 and the spread of half-normal noise; `change` more of it from `at` on."""
    found = np.abs(np.random.default_rng(seed).standard_normal(steps)) * math.sqrt(math.pi / 2)
    if at is not None:
        found[at:] *= 1 + change
    return found


def alarms(name: str, values: np.ndarray) -> list[tuple[int, float, int]]:
    detector = make(name, {})
    return [(i, a.mean, a.ago) for i, v in enumerate(values) if (a := detector.update(float(v))) is not None]


def test_there_is_more_than_one():
    assert {"adwin", "page_hinkley"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_title_and_documented_options(name):
    module = member("cellwright.lifecycle.drift", name, what="drift detector")
    assert module.title
    assert all(field.description for field in module.Options.model_fields.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_quiet_weeks_raise_at_most_one_alarm(name):
    assert sum(len(alarms(name, residuals(seed, 10 * 7 * DAY))) for seed in range(10)) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_rise_by_eighty_percent_is_caught_within_two_days_at_every_site(name):
    for seed in range(20):
        found = alarms(name, residuals(seed, 16 * DAY, 0.8, at=14 * DAY))
        assert found, f"site {seed} was missed"
        assert found[0][0] >= 14 * DAY


@pytest.mark.parametrize("name", NAMES)
def test_the_alarm_says_when_it_began_and_the_new_mean(name):
    when, size = [], []
    for seed in range(20):
        row, mean, ago = alarms(name, residuals(seed, 16 * DAY, 1.0, at=14 * DAY))[0]
        assert ago >= 1
        when.append(row + 1 - ago - 14 * DAY)
        size.append(mean)
    assert abs(np.median(when)) <= 12
    assert 1.7 < np.mean(size) < 2.4


@pytest.mark.parametrize("name", NAMES)
def test_replaying_what_it_saw_restores_it(name):
    values = residuals(4, 20 * DAY, 1.0, at=15 * DAY)
    whole = alarms(name, values)
    assert whole
    for stop in (10 * DAY, 15 * DAY + 20, whole[0][0]):
        replayed = make(name, {})
        for value in values[:stop]:
            replayed.update(float(value))
        later = [stop + i for i, v in enumerate(values[stop:]) if replayed.update(float(v)) is not None]
        assert later == [row for row, _, _ in whole if row >= stop]


@pytest.mark.parametrize("name", NAMES)
def test_options_that_it_does_not_know_are_refused(name):
    with pytest.raises(ParamsError, match="detector_options"):
        make(name, {"sensitivity": 3})
    with pytest.raises(ParamsError):
        make(name, {"grace": 0})


def test_an_unknown_detector_says_which_there_are():
    with pytest.raises(UnknownName, match="adwin"):
        make("adwinn", {})


def test_adwin_also_sees_that_the_error_fell():
    row, mean, _ = alarms("adwin", residuals(1, 20 * DAY, -0.5, at=14 * DAY))[0]
    assert row >= 14 * DAY
    assert mean < 0.7


def test_a_change_is_dated_where_the_means_differ_most():
    found = dated([1.0] * 10 + [3.0] * 8, least=4)
    assert (found.mean, found.before, found.ago, found.size) == (3.0, 1.0, 8, 2.0)


def test_too_few_values_cannot_be_dated():
    with pytest.raises(ValueError, match="12 are needed"):
        dated([1.0] * 11)
