"""The paired block bootstrap, on differences whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.errors import DataError
from cellwright.ranking.bootstrap import WindowErrors, _block_sums, block_steps, paired


def errors(total, count=None) -> WindowErrors:
    total = np.asarray(total, dtype=float)
    return WindowErrors(total, np.ones(len(total), int) if count is None else np.asarray(count))


def pair(this: WindowErrors, other: WindowErrors, block: int = 2, samples: int = 400, seed: int = 1):
    return paired(this, other, name="other", block=block, samples=samples, rng=np.random.default_rng(seed))


def test_window_errors_sum_only_what_counts():
    forecast = np.array([[1.0, 5.0], [2.0, 9.0]]).reshape(2, 1, 2, 1)
    truth = np.array([[0.0, 0.0], [4.0, 7.0]]).reshape(2, 1, 2, 1)
    mask = np.array([[True, False], [True, True]]).reshape(2, 1, 2, 1)
    found = WindowErrors.of(forecast, truth, mask)
    assert found.total.tolist() == [1.0, 4.0]
    assert found.count.tolist() == [1, 2]
    assert found.mae == pytest.approx(5 / 3)


def test_block_sums_run_round_the_end():
    assert _block_sums(np.array([1.0, 2.0, 4.0, 8.0]), 3).tolist() == [7.0, 14.0, 13.0, 11.0]
    assert _block_sums(np.array([1.0, 2.0]), 0).tolist() == [0.0, 0.0]


def test_a_constant_difference_has_no_width():
    found = pair(errors([3, 4, 5, 6, 7]), errors([2, 3, 4, 5, 6]))
    assert (found.difference, found.low, found.high) == (1.0, 1.0, 1.0)
    assert not found.tie


def test_the_pairing_removes_what_is_hard_for_both():
    """Hours differ by a thousand, the models by one: unpaired intervals overlap, the paired one does not contain 0."""
    rng = np.random.default_rng(4)
    hard = rng.gamma(1.0, 1000.0, 400)
    found = pair(errors(hard + 1 + rng.normal(0, 0.5, 400)), errors(hard), block=20)
    assert 0.9 < found.low < found.difference < found.high < 1.1


def test_noise_around_zero_is_a_tie():
    rng = np.random.default_rng(5)
    base = rng.gamma(2.0, 10.0, 300)
    assert pair(errors(base + rng.normal(0, 1, 300)), errors(base), block=10).tie


def test_the_interval_is_as_wide_as_theory_says():
    """Independent differences of variance 1 and blocks of one: mean ± 1.96 / sqrt(n)."""
    difference = np.random.default_rng(6).normal(0.0, 1.0, 900)
    found = pair(errors(difference), errors(np.zeros(900)), block=1, samples=8000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * difference.std() / 30, rel=0.05)


def test_longer_blocks_widen_the_interval_of_errors_that_follow_each_other():
    noise = np.random.default_rng(7).normal(0, 1, 1000)
    slow = errors(np.convolve(noise, np.ones(25) / 5, mode="same"))
    short, long = (pair(slow, errors(np.zeros(1000)), block=b, samples=2000) for b in (1, 100))
    assert long.high - long.low > 2 * (short.high - short.low)


def test_windows_with_more_targets_weigh_more():
    found = pair(errors([9, 0], [3, 1]), errors([0, 0], [3, 1]), block=1)
    assert found.difference == pytest.approx(9 / 4)
    assert (found.low, found.high) == (0.0, 3.0)


def test_a_resample_that_counts_nothing_says_nothing():
    """One window in ten was measured: a third of the resamples miss it, and they must not pull the interval to 0."""
    count = [1] + [0] * 9
    found = pair(errors([5] + [0] * 9, count), errors([2] + [0] * 9, count), block=1)
    assert (found.difference, found.low, found.high) == (3.0, 3.0, 3.0)


def test_windows_without_a_measured_target_are_refused():
    with pytest.raises(DataError, match="of 0 measured targets in 4 windows"):
        pair(errors([0] * 4, [0] * 4), errors([0] * 4, [0] * 4))


def test_models_scored_on_other_targets_are_no_pair():
    with pytest.raises(ValueError, match="same windows"):
        pair(errors([1, 2], [1, 1]), errors([1, 2], [1, 2]))


@pytest.mark.parametrize(("hours", "cadence_s", "windows", "steps"), [(24, 600, 430, 144), (24, 600, 100, 50), (1, 3600, 9, 1)])
def test_a_block_is_a_day_but_at_most_half_of_the_windows(hours, cadence_s, windows, steps):
    assert block_steps(hours, cadence_s, windows) == steps


@settings(deadline=None, max_examples=40)
@given(
    data=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=4, max_size=40),
    block=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_it_is_seeded_and_antisymmetric_in_the_difference(data, block, seed):
    this, other = (errors([d[i] for d in data]) for i in (0, 1))
    there, again, back = (
        pair(this, other, block, 50, seed),
        pair(this, other, block, 50, seed),
        pair(other, this, block, 50, seed),
    )
    assert there == again
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert pair(this, this, block, 50, seed).tie
