"""Ridge against regression written out, with masks, and against the reference error on real data."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import ridge
from models._contract import Batch, Problem
from models._layers.least_squares import Sums, solve

MIRROR = Path(os.environ.get("CELLWRIGHT_MIRROR", Path(__file__).parents[2] / ".." / "shared" / "data"))


def written_out(x: np.ndarray, y: np.ndarray, penalty: float, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients for raw features and intercept of one output, by the normal equations with an unpenalised intercept."""
    z = np.column_stack(((x - mean) / scale, np.ones(len(x))))
    penalties = np.diag([penalty] * x.shape[1] + [0.0])
    b = np.linalg.solve(z.T @ z + penalties, z.T @ y)
    return b[:-1] / scale, b[-1] - (b[:-1] / scale) @ mean


def fitted(x: np.ndarray, y: np.ndarray, mask: np.ndarray, penalty: float, batch: int):
    sums = Sums.empty(x.shape[1], y.shape[1])
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        sums.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]), torch.from_numpy(mask[part]))
    return solve(sums, penalty)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([0.1, 1.0, 100.0]), missing=st.sampled_from([0.0, 0.05, 0.4]))
def test_each_output_is_fitted_on_its_own_measured_targets(seed, penalty, missing):
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 2.0, (80, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 3)) + rng.normal(size=(80, 3)) + 10).astype(np.float32)
    mask = rng.random((80, 3)) >= missing
    mask[0] = True
    mask[1] = False  # a window without any measured target
    fit = fitted(x, np.where(mask, y, 1e6).astype(np.float32), mask, penalty, batch=17)
    kept = x[mask.any(1)].astype(np.float64)
    for output in range(3):
        rows = mask[:, output]
        weight, bias = written_out(x[rows].astype(np.float64), y[rows, output], penalty, kept.mean(0), kept.std(0))
        np.testing.assert_allclose(fit.weight_PC[:, output], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fit.bias_C[output], bias, rtol=1e-5, atol=1e-5)
        left = y[rows, output] - x[rows] @ weight - bias
        np.testing.assert_allclose(fit.sigma_C[output], np.sqrt(np.mean(left**2)), rtol=1e-4)


def test_what_does_not_settle_is_refused_with_its_residual():
    rng = np.random.default_rng(0)
    x, y, mask = rng.normal(size=(60, 4)), rng.normal(size=(60, 2)), rng.random((60, 2)) > 0.5
    sums = Sums.empty(4, 2)
    sums.add(*(torch.from_numpy(part) for part in (x, y, mask)))
    with pytest.raises(ValueError, match=r"after 1 steps of conjugate gradients the residual is \d.*raise the option penalty"):
        solve(sums, 1.0, max_steps=1)
    assert torch.isfinite(solve(sums, 1.0).weight_PC).all()


def test_an_output_that_was_hardly_measured_settles():
    """Three of 400 windows measured, 20 features: nearly all of the system that all outputs share is taken away."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(400, columns)).astype(np.float32) for columns in (20, 2))
    mask = np.ones((400, 2), bool)
    mask[3:, 1] = False
    fit, exact = fitted(x, y, mask, 100.0, batch=400), x.astype(np.float64)
    weight, bias = written_out(exact[:3], y[:3, 1], 100.0, exact.mean(0), exact.std(0))
    np.testing.assert_allclose(fit.weight_PC[:, 1], weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fit.bias_C[1], bias, rtol=1e-4)


def test_a_constant_feature_gets_no_weight():
    rng = np.random.default_rng(0)
    x = np.column_stack((np.full(50, 7.0), rng.normal(size=50))).astype(np.float32)
    fit = fitted(x, x[:, 1:] * 2, np.ones((50, 1), bool), 1e-6, batch=50)
    np.testing.assert_allclose(fit.weight_PC[:, 0], [0.0, 2.0], atol=1e-5)


def test_says_when_an_output_was_never_measured():
    with pytest.raises(ValueError, match="at least one measured target of each output"):
        fitted(np.ones((4, 2), np.float32), np.ones((4, 2), np.float32), np.array([[True, False]] * 4), 1.0, batch=4)


def test_hour_of_the_first_target_step_is_one_hot(problem):
    design = ridge.Design(problem(known=("weekend", "hour")), ridge.Options())
    known = torch.zeros(144, 9, 2)
    known[:, 6, 1] = torch.arange(144) / 144  # every ten minutes of a day
    hours = design({"x": torch.zeros(144, 6, 1, 1), "known": known})["h"][:, 6:]
    assert hours.sum(1).eq(1).all()
    assert hours.argmax(1).tolist() == [step // 6 for step in range(144)]


def test_quantiles_spread_by_the_residuals(problem):
    p = problem(quantiles=(0.1, 0.5, 0.9))
    network = ridge.Network(p, ridge.Options(penalty=1.0))
    x = torch.randn(4000, 6, 1, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4000, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 0.5
    y = x[:, -1:] + noise
    network.fit_closed_form([Batch(x, torch.zeros(4000, 9, 0), y, torch.ones_like(y))])
    below = (y.unsqueeze(-1) <= network(x, torch.zeros(4000, 9, 0))).float().mean((0, 1, 2, 3))
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=0.02)


def test_takes_patches_where_all_sites_are_too_many(problem):
    assert ridge.Network.preferred_inputs(400, on_grid=True, values_per_site=6) == "all"
    assert ridge.Network.preferred_inputs(400, on_grid=True, values_per_site=24) == "patch"
    assert ridge.Network.preferred_inputs(10_000, on_grid=False) == "site"
    with pytest.raises(ValueError, match="10000 nodes × 6 steps has 60000 features"):
        ridge.Network(problem(inputs="all", nodes=10_000, outputs=10_000), ridge.Options())


@pytest.mark.shared
def test_reference_errors_on_the_milan_grid():
    """6 steps in, 3 out, 430 test windows: MAE 21.60, RMSE 32.68 (the protocol of the data mirror's README)."""
    source = MIRROR / "milan-5x5" / "milan_grid_data.csv.gz"
    if not source.exists():
        pytest.skip(f"{source} is missing; set CELLWRIGHT_MIRROR to the data mirror")
    with gzip.open(source, "rt") as file:
        raw = np.loadtxt(file, delimiter=",").astype(np.float32)
    mean, scale = raw[:3456].mean(0), raw[:3456].std(0)
    train, test = (milan_windows((raw - mean) / scale, *rows) for rows in ((6, 3454), (3888, 4318)))
    network = ridge.Network(milan_problem(), ridge.Options())
    network.fit_closed_form([Batch(*(t[i : i + 512] for t in train)) for i in range(0, 3448, 512)])
    error = (network(test.x, test.known)[..., 0] - test.y) * torch.from_numpy(scale)[:, None]
    assert len(error) == 430
    assert round(error.abs().mean().item(), 2) == 21.60
    assert round(error.square().mean().sqrt().item(), 2) == 32.68


def milan_problem() -> Problem:
    return Problem(6, 3, 600.0, "all", 25, 25, ("traffic",), ("traffic",), ("hour",))


def milan_windows(values: np.ndarray, first: int, stop: int) -> Batch:
    """Windows of the origins first…stop-1; row 0 is midnight."""
    hour = (np.arange(len(values)) % 144 / 144).astype(np.float32)
    origins = np.arange(first, stop)[:, None]
    window = torch.from_numpy(values[origins + np.arange(-6, 3)])[..., None]
    known = torch.from_numpy(hour[origins + np.arange(-6, 3)])[..., None]
    return Batch(window[:, :6], known, window[:, 6:], torch.ones_like(window[:, 6:]))
