"""The sequential tests: they decide what they should, and err as seldom as they say at every look."""

from math import log

import numpy as np
import pytest

from cellwright.lifecycle.rollout.betting import evidence_above, evidence_below
from cellwright.lifecycle.rollout.proportions import interval


def test_one_value_is_worth_what_was_bet_on_it() -> None:
    # Nothing was seen before the first value, so nothing is bet on it. Before the second: mean (0 + 0.4)/2 = 0.2, mean square
    # (0.05 + 0.16)/2 = 0.105, Kelly 1.9, cut to 0.75: the capital becomes 1 + 0.75 * 0.4.
    assert evidence_above(np.array([0.4]), 0.0) == 0.0
    assert evidence_above(np.array([0.4, 0.4]), 0.0) == pytest.approx(log(1.3))


def test_below_is_above_mirrored() -> None:
    values = np.random.default_rng(0).uniform(-1, 0.5, 50)
    assert evidence_below(values, 0.1) == evidence_above(-values, -0.1)


@pytest.mark.parametrize("spread", [0.02, 0.2, 1.0])
def test_betting_errs_no_more_than_it_says(spread: float) -> None:
    rng, alpha, runs = np.random.default_rng(1), 0.05, 1000
    wrong = sum(evidence_above(spread * rng.choice([-1.0, 1.0], 400), 0.0) >= log(1 / alpha) for _ in range(runs))
    assert wrong <= runs * alpha  # over all 400 looks of each run


def test_a_true_difference_is_found_soon() -> None:
    values = np.random.default_rng(2).normal(0.2, 0.4, 400).clip(-1, 1)
    needed = next(n for n in range(1, 400) if evidence_above(values[:n], 0.04) >= log(1 / 0.01))
    assert needed < 120


def test_values_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="expected values in"):
        evidence_above(np.array([1.5]), 0.0)


def test_an_interval_of_nothing_is_everything() -> None:
    assert interval(0, 0, 0.05) == (0.0, 1.0)


def test_the_interval_holds_at_every_look() -> None:
    rng, alpha, runs, truth = np.random.default_rng(3), 0.05, 300, 0.1
    wrong = 0
    for _ in range(runs):
        events = np.cumsum(rng.random(300) < truth)
        looks = [interval(int(e), n, alpha) for n, e in list(enumerate(events, 1))[::10]]
        wrong += any(not low <= truth <= high for low, high in looks)
    assert wrong <= runs * alpha


def test_the_interval_narrows_around_what_was_seen() -> None:
    low, high = interval(100, 1000, 0.05)
    wide_low, wide_high = interval(10, 100, 0.05)
    assert wide_low < low < 0.1 < high < wide_high
