"""Persistence and seasonal naive say exactly what they promise."""

from __future__ import annotations

import pytest
import torch

from models import persistence, seasonal_naive


def ramp(nodes: int, features: int) -> torch.Tensor:
    """x whose value tells its step, node and feature: 100·step + 10·node + feature."""
    steps, nodes_, channels = torch.arange(6.0)[:, None, None], torch.arange(float(nodes))[:, None], torch.arange(float(features))
    return (100 * steps + 10 * nodes_ + channels)[None]


def test_persistence_repeats_the_centre_of_a_patch(problem):
    p = problem(inputs="patch", nodes=9, features=("traffic", "valid"))
    y = persistence.Network(p, persistence.Options())(ramp(9, 2), torch.zeros(1, 9, 0))
    assert y.flatten().tolist() == [540.0, 540.0, 540.0]  # step 5, node 4


def test_persistence_repeats_every_site_and_quantile(problem):
    p = problem(inputs="all", nodes=2, outputs=2, quantiles=(0.1, 0.9))
    y = persistence.Network(p, persistence.Options())(ramp(2, 1), torch.zeros(1, 9, 0))
    assert y[0, :, :, 0, :].tolist() == [[[500.0, 500.0], [510.0, 510.0]]] * 3


def test_seasonal_naive_reads_the_last_steps_of_the_seasons_lag(problem):
    features = ("traffic", "users", "traffic@144", "users@144", "traffic@1008", "users@1008")
    p = problem(features=features, targets=("traffic", "users"), lags=(144, 1008))
    y = seasonal_naive.Network(p, seasonal_naive.Options())(ramp(1, 6), torch.zeros(1, 9, 0))
    assert y[0, :, 0, :, 0].tolist() == [[302.0, 303.0], [402.0, 403.0], [502.0, 503.0]]  # steps 3, 4, 5; channels 2, 3


def test_seasonal_naive_asks_for_one_season(problem):
    assert seasonal_naive.Network.lags(problem(season=24, lags=(7,))) == (24,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lags": ()}, "needs a lag of 144 steps"),
        ({"lags": (144,), "horizon": 7}, "longer than history 6"),
        ({"lags": (2,), "season": 2}, "past one season"),
    ],
)
def test_seasonal_naive_says_why_it_cannot(problem, given, said):
    p = problem(features=("traffic", f"traffic@{given.get('season', 144)}"), **given)
    with pytest.raises(ValueError, match=said):
        seasonal_naive.Network(p, seasonal_naive.Options())


@pytest.mark.parametrize("module", [persistence, seasonal_naive])
def test_they_have_no_parameters_and_read_no_batch_to_fit(problem, module):
    p = problem(features=("traffic", "traffic@144"), lags=(144,))
    network = module.Network(p, module.Options())

    def unread():
        raise AssertionError("a batch was read")
        yield

    network.fit_closed_form(unread())
    assert sum(t.numel() for t in network.parameters()) == 0
