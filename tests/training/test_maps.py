"""Whole maps: a grid is forecast at once, and to the same numbers as patch by patch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cellwright.data.maps import Maps
from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import Windows
from cellwright.errors import DataError
from cellwright.forecaster import answer_panel, build, forecast_panel
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.training.candidates import resolve
from models import histm

GRID, ROWS = (4, 5), 200


@pytest.fixture
def city():
    """4 × 5 sites, three rows of one site missing, an outage of a whole column."""
    rng = np.random.default_rng(3)
    traffic = rng.gamma(4, 10, (ROWS, GRID[0] * GRID[1])).astype(np.float32)
    flags = np.zeros(traffic.shape, np.uint8)
    for rows, sites in ((slice(100, 103), [7]), (slice(140, 150), [3, 8, 13, 18])):
        traffic[rows, sites], flags[rows, sites] = np.nan, 1
    schema = PanelSchema(
        dataset="toy",
        sites=tuple(f"s{i}" for i in range(traffic.shape[1])),
        features=(Feature(name="traffic", unit="Mbit/s", low=0),),
        targets=("traffic",),
        cadence_s=1800,
        clock="utc",
        start_ms=1_383_260_400_000,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        grid=GRID,
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": traffic}, {"traffic": flags})


@pytest.fixture
def make(make_params, city):
    def made(residual="linear", scaler="log", **problem):
        params = make_params(
            problem={"inputs": "patch", "patch": 5, **problem},
            train={
                "models": ["histm"],
                "scaler": scaler,
                "clip": 4.0,
                "settings": {"histm": {"options": {"residual": residual}}},
            },
        )
        candidate = resolve(params, city.schema, "histm")
        torch.manual_seed(0)
        forecaster = build(candidate, fit_scaler(city, candidate.problem, scaler, (0, 120), 4.0)).eval()
        with torch.no_grad():
            for parameter in forecaster.network.parameters():  # fresh heads hardly answer
                parameter.add_(0.1 * torch.randn(parameter.shape))
        return forecaster, Windows(city, candidate.problem)

    return made


def patch_by_patch(forecaster, windows, origins):
    """Each site's patch through `forward`: (origins, horizon, sites, targets, quantiles)."""
    times, sites = np.repeat(origins, windows.sites), np.tile(np.arange(windows.sites), len(origins))
    raw = windows.raw(times, sites)
    with torch.inference_mode():
        y = forecaster(torch.from_numpy(raw.history), torch.from_numpy(raw.known), torch.from_numpy(sites))[:, :, 0].numpy()
    return y.reshape(len(origins), windows.sites, *y.shape[1:]).swapaxes(1, 2)


@pytest.mark.parametrize("residual", ["none", "last", "linear"])
@pytest.mark.parametrize("scaler", ["standard", "log"])
def test_a_whole_grid_is_forecast_as_its_patches(make, residual, scaler):
    forecaster, windows = make(residual, scaler, lags=[48], quantiles=[0.1, 0.5, 0.9])
    origins = np.arange(96, 160, 3)  # over both gaps
    whole = answer_panel(forecaster, windows, origins, batch=100)
    np.testing.assert_allclose(whole, patch_by_patch(forecaster, windows, origins), rtol=1e-4, atol=1e-4)


def test_patches_smaller_than_what_the_layers_see_are_forecast_alike(make):
    forecaster, windows = make(patch=3)
    origins = np.arange(95, 110)
    expected = patch_by_patch(forecaster, windows, origins)[..., 0]
    np.testing.assert_allclose(forecast_panel(forecaster, windows, origins), expected, rtol=1e-4, atol=1e-4)


def test_a_grid_is_forecast_without_a_patch_being_made(make, monkeypatch):
    forecaster, windows = make()
    monkeypatch.setattr(histm.Network, "forward", lambda *_: pytest.fail("a patch was forecast"))
    assert forecast_panel(forecaster, windows, np.arange(60, 70)).shape == (10, 3, 20, 1)


def test_a_site_counts_as_valid_where_its_target_is_there(make):
    _, windows = make()
    history, _ = Maps(windows).gather(np.array([104]))  # rows 98 to 103
    assert history.shape == (1, 6, 20, 2)
    assert history[0, :, 7, 1].tolist() == [1, 1, 0, 0, 0, 1]
    assert np.isnan(history[0, :, 7, 0]).tolist() == [False, False, True, True, True, False]
    assert history[0, :, 6, 1].tolist() == [1] * 6


def test_without_a_grid_there_are_no_maps(make, city):
    _, windows = make()
    gridless = Panel.from_arrays(
        city.schema.model_copy(update={"grid": None}), {"traffic": city.values("traffic")}, {"traffic": city.flags("traffic")}
    )
    alone = Windows(gridless, replace(windows.problem, inputs="site", nodes=1, features=("traffic",)))
    with pytest.raises(DataError, match="this data set has none"):
        Maps(alone)
