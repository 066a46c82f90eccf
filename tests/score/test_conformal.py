"""Split conformal prediction: offsets by hand, coverage where errors are exchangeable, and what scoring makes of it."""

import json
import shutil

import numpy as np
import pytest

from cellwright.conformal import (
    COVERAGES,
    LEVELS,
    Conformal,
    Predicted,
    Usual,
    bounds,
    calibrate,
    conformal_quantile,
    cross_fitted,
    restored,
    spread,
)
from cellwright.kpis._spans import Scale, read_arrays
from cellwright.results import Intervals, Leaderboard, Scored
from cellwright.steps.rank import rank
from cellwright.steps.score import score
from cellwright.workspace import Workspace

HEADS = (0.1, 0.5, 0.9)
FREE = bounds([None], [None])
FLAT = Usual(np.ones((1, 1)), np.zeros((1, 1)))  # one site whose scale is always 1


def column(values) -> np.ndarray:
    """(W, 1, 1, 1): a window a value."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1, 1)


def of_errors(errors, heads: tuple[float, ...] = ()) -> Conformal:
    """Calibrated on forecasts of 0 with these errors."""
    truth = column(errors)
    answer = np.zeros((*truth.shape, max(1, len(heads))), np.float32)
    return calibrate(heads, answer, truth, np.ones(truth.shape, bool), FLAT, FREE)


@pytest.mark.parametrize(
    ("level", "wanted"), [(0.025, -np.inf), (0.1, 1), (0.25, 2), (0.5, 5), (0.75, 8), (0.9, 9), (0.975, np.inf)]
)
def test_the_quantile_of_nine_errors_holds_for_a_tenth(level, wanted):
    """Level · 10 is 0.25, 1, 2.5, 5, 7.5, 9, 9.75: rounded down below the median, up above it."""
    assert conformal_quantile(np.random.default_rng(0).permutation(np.arange(1.0, 10.0)), level) == wanted


def test_the_scale_by_hand():
    usual = Usual(np.array([2.0, 2.0, 2.0]), np.array([100.0, 100.0, -80.0]))
    found = spread(np.array([[100.0, -5.0, -90.0]]), usual)
    assert found[0] == pytest.approx([2 * 1.05**0.5, 2 * 0.05**0.5, 2.0])


def test_quantiles_by_hand():
    """Errors 1 … 39 a step of 2 at a load of 100: offsets in units of 2 · √1.05, given back at a quarter of the load."""
    usual = Usual(np.array([[2.0]]), np.array([[100.0]]))
    errors = np.arange(1.0, 40.0)
    answer = np.full((39, 1, 1, 1, 1), 100, np.float32)
    found = calibrate((), answer, column(100 + errors), np.ones((39, 1, 1, 1), bool), usual, bounds([0.0], [50.0]))
    places = np.array([1, 4, 10, 20, 30, 36, 39])  # level · 40
    assert found.offsets.ravel() == pytest.approx(places / (2 * 1.05**0.5))
    quarter = found.quantiles(np.full((1, 1, 1, 1, 1), 25, np.float32))
    assert quarter.ravel() == pytest.approx(np.minimum(25 + places * (0.3 / 1.05) ** 0.5, 50))
    assert found.windows == 39


def test_masked_targets_say_nothing():
    errors = np.arange(1.0, 40.0)
    spoilt = np.concatenate([errors, [np.nan, 1e9]])
    mask = column(np.arange(41) < 39) > 0
    answer = np.zeros((41, 1, 1, 1, 1), np.float32)
    assert calibrate((), answer, column(spoilt), mask, FLAT, FREE).offsets.tolist() == of_errors(errors).offsets.tolist()


@pytest.mark.parametrize("count", [39, 99])
def test_exchangeable_errors_are_covered_as_often_as_the_places_say(count):
    """With n errors the interval from the a-th to the b-th smallest holds the next one with probability (b - a) / (n + 1)."""
    rng = np.random.default_rng(6)
    inside, draws = dict.fromkeys(COVERAGES, 0), 3000
    for _ in range(draws):
        found, new = of_errors(rng.gamma(2.0, 1.0, count)).offsets.ravel(), rng.gamma(2.0, 1.0)
        for share, (low, high) in COVERAGES.items():
            inside[share] += found[low] <= new <= found[high]
    for share, (low, high) in COVERAGES.items():
        wanted = (np.ceil(LEVELS[high] * (count + 1)) - np.floor(LEVELS[low] * (count + 1))) / (count + 1)
        assert inside[share] / draws == pytest.approx(wanted, abs=0.025)
        assert wanted >= share


def test_levels_between_those_of_a_head_are_mixed_and_outer_ones_are_its_outermost():
    answer = np.array([0.0, 10.0, 30.0], np.float32).reshape(1, 1, 1, 1, 3)
    plain = Conformal(HEADS, np.zeros((7, 1, 1), np.float32), FLAT, *FREE, 1)
    assert plain.quantiles(answer).ravel() == pytest.approx([0, 0, 3.75, 10, 22.5, 30, 30])


def test_a_head_that_is_too_sure_of_itself_is_corrected():
    """It says ±1 around the truth's centre, whose noise is a normal one of deviation 3: the 80 % interval becomes ± 3.84."""
    rng = np.random.default_rng(2)
    centre, told = rng.normal(50, 20, 20_000), np.array([-1.0, 0.0, 1.0])
    answer = (centre[:, None] + told).astype(np.float32).reshape(-1, 1, 1, 1, 3)
    truth = column(centre + rng.normal(0, 3, len(centre)))
    found = calibrate(HEADS, answer[:10_000], truth[:10_000], np.ones((10_000, 1, 1, 1), bool), FLAT, FREE)
    levels = found.quantiles(answer[10_000:])[:, 0, 0, 0]
    for share, (low, high) in COVERAGES.items():
        y = truth[10_000:].ravel()
        assert ((levels[:, low] <= y) & (y <= levels[:, high])).mean() == pytest.approx(share, abs=0.015)
    assert (levels[:, 5] - levels[:, 1]).mean() == pytest.approx(2 * 1.2816 * 3, rel=0.03)


def test_quantiles_of_a_head_never_cross():
    offsets = np.array([0, 5, 0, 0, 0, -5, 0], np.float32).reshape(7, 1, 1)
    crossing = Conformal(HEADS, offsets, FLAT, *FREE, 1)
    found = crossing.quantiles(np.array([-1.0, 0.0, 1.0], np.float32).reshape(1, 1, 1, 1, 3)).ravel()
    assert (np.diff(found) >= 0).all()


def test_no_window_calibrates_itself():
    """Errors are +1 in the first half and -1 in the second, and wild where a window's targets reach over the middle."""
    windows, horizon = 120, 3
    origins = np.arange(200, 200 + windows)
    errors = np.repeat(np.where(np.arange(windows) < 60, 1.0, -1.0)[:, None], horizon, axis=1)
    errors[58:60], errors[60:62] = 1e6, -1e6  # 58 and 59 forecast rows of window 60; 60 and 61 rows of window 59
    truth = errors.astype(np.float32).reshape(windows, horizon, 1, 1)
    answer = np.zeros((*truth.shape, 1), np.float32)
    found = cross_fitted((), answer, truth, np.ones(truth.shape, bool), origins, FLAT, FREE)
    assert np.unique(found[0:60]).tolist() == [-1.0]
    assert np.unique(found[60:120]).tolist() == [1.0]
    np.testing.assert_array_equal(found[50:70], np.concatenate([found[50:60], found[60:70]]))
    assert found[0:0].shape == (0, horizon, 1, 1, len(LEVELS))
    assert len(found) == windows


def test_windows_that_are_too_few_leave_intervals_unbounded():
    found = of_errors(np.arange(20.0))
    assert found.coverages == (0.5, 0.8)
    assert of_errors([]).coverages == ()
    one = cross_fitted((), np.zeros((1, 1, 1, 1, 1), np.float32), column([1.0]), column([1.0]) > 0, np.array([5]), FLAT, FREE)
    assert np.isinf(one[0:1]).all()


def test_what_is_stored_is_what_was_calibrated():
    rng = np.random.default_rng(3)
    truth = rng.gamma(2, 5, (60, 2, 3, 2)).astype(np.float32)
    answer = np.sort(rng.gamma(2, 5, (60, 2, 3, 2, 3)).astype(np.float32), axis=-1)
    usual = Usual(rng.random((3, 2)) + 0.1, rng.random((3, 2)))
    mask = np.ones(truth.shape, bool)
    mask[30:, 1, :, 1] = False
    mask[10:, 0, :, 1] = False  # 30 targets: too few for the outermost levels
    made = calibrate(HEADS, answer, truth, mask, usual, bounds([0.0, None], [None, 9.5]))
    kept = Intervals.model_validate_json(json.dumps(made.stored().model_dump(mode="json")))
    assert kept.offsets[0][0][1] is None
    again = restored(kept)
    np.testing.assert_allclose(again.quantiles(answer), made.quantiles(answer), rtol=1e-5, atol=1e-4)
    assert again.coverages == made.coverages == (0.5, 0.8)
    some = made.quantiles(answer[:, :, [2, 0]], [2, 0])
    np.testing.assert_array_equal(some, made.quantiles(answer)[:, :, [2, 0]])


def test_yardsticks_come_from_the_training_rows_alone(small_panel):
    scale = Scale.of(small_panel, ("traffic",), 0, 576, 144)
    values = small_panel.values("traffic")[:576].astype(float)
    assert scale.usual.step[:, 0] == pytest.approx(np.abs(np.diff(values, axis=0)).mean(axis=0), rel=1e-5)
    assert scale.usual.load[:, 0] == pytest.approx(values.mean(axis=0), rel=1e-5)
    assert scale.p90[:, 0] == pytest.approx(np.quantile(values, 0.9, axis=0), rel=1e-5)


def test_every_candidate_is_scored_with_intervals_that_were_calibrated_on_the_validation_span(scored_run):
    truth = read_arrays(scored_run.scores / "truth.npz")
    for key in ("persistence", "ridge", "mlp"):
        found, kept = Scored.read(scored_run.score(key)), read_arrays(scored_run.score(key, ".npz"))
        conformal = restored(found.intervals)
        mask, y = truth["validation_mask"][:, 1, :, 0], truth["validation_truth"][:, 1, :, 0]
        forecast = kept["validation_forecast"][:, 1, :, 0]
        errors = ((y - forecast) / spread(forecast, Usual(conformal.usual.step[:, 0], conformal.usual.load[:, 0])))[mask]
        assert conformal.offsets[5, 1, 0] == pytest.approx(np.sort(errors)[int(np.ceil(0.9 * (len(errors) + 1))) - 1], rel=1e-4)
        levels = Predicted(kept["test_forecast"][..., None], ((70, conformal),))[0:70]
        good, y = truth["test_mask"], truth["test_truth"]
        inside = ((levels[..., 1] <= y) & (y <= levels[..., 5]))[good].mean()
        assert found.test_calibration.coverage["0.8"] == pytest.approx(inside, abs=1e-3)
        assert found.test["coverage_80_error"] == pytest.approx(abs(inside - 0.8), abs=1e-3)
        assert sum(found.validation_calibration.shares) == pytest.approx(1)


@pytest.fixture
def copy(scored_run: Workspace, tmp_path) -> Workspace:
    """A run of its own to score otherwise."""
    shutil.copytree(scored_run.root, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path, scored_run.run)


def test_with_a_stride_every_nth_window_is_scored_and_blocks_are_as_long_as_before(copy, make_params):
    every = {"costs": False, "bootstrap": 200, "replay_s": 0, "stride": 4, "block_h": 4}
    whole = read_arrays(copy.scores / "truth.npz")
    params = make_params(score=every)
    scored = score(params, copy)
    truth = read_arrays(copy.scores / "truth.npz")
    assert truth["test_origins"].tolist() == whole["test_origins"][::4].tolist()
    np.testing.assert_array_equal(truth["test_truth"], whole["test_truth"][::4])
    board = rank(params, copy)
    assert (board.test_windows, board.stride) == (18, 4)
    assert {s.stride for s in scored} == {4}
    # four hours are 24 rows of ten minutes, and so 6 windows of every fourth row
    assert {pair.block_steps for s in scored for pair in s.validation_pairs} == {6}
    assert Leaderboard.read(copy.leaderboard).rows[0].coverage.keys() == {"0.5", "0.8", "0.95"}
