"""Choice of algorithm and mechanism (M.3387 9.2, 9.3), and the metrics of classification (9.5)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellwright.federation.quality.choice import Circumstances, algorithm, mechanism
from cellwright.federation.quality.classification import added, classified, histograms

ALIKE = Circumstances(
    task="regression",
    examples=(3000,) * 6,
    seconds_per_step=(0.01,) * 6,
    security=(2,) * 6,
    reliability=(1.0,) * 6,
    memory_bytes=(0,) * 6,
    heterogeneity=0.2,
    seals=False,
    hierarchical=False,
)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, "fedavg"),
        ({"heterogeneity": 2.0}, "fedprox"),
        ({"seals": True}, "fedavg"),
        ({"seals": True, "heterogeneity": 2.0}, "fedprox"),
        ({"seals": True, "reliability": (0.5,) * 6}, "fedavg"),  # trimming needs to see each update
        ({"reliability": (1.0,) * 5 + (0.5,)}, "trimmed_mean"),
        ({"security": (2,) * 5 + (0,)}, "trimmed_mean"),
        ({"seconds_per_step": (0.01,) * 5 + (0.1,)}, "semi_synchronous"),
        ({"seconds_per_step": (0.01,) * 5 + (0.1,), "delay_bound_s": 30.0}, "fedbuff"),
        ({"hierarchical": True}, "hierarchical"),
        ({"closed_form": "ridge"}, "fedgram"),
        ({"closed_form": "trees"}, "bagging"),
    ],
)
def test_mechanism_follows_request_resources_and_data(changed, rule):
    chosen = mechanism(replace(ALIKE, **changed))
    assert chosen.name == rule
    assert chosen.words


@pytest.mark.parametrize(
    ("changed", "model"),
    [
        ({}, "gru"),
        ({"examples": (300,) * 6}, "ridge"),
        ({"memory_bytes": (2**30,) * 5 + (2**26,)}, "dlinear"),
        ({"delay_bound_s": 20.0}, "mlp"),
    ],
)
def test_algorithm_follows_request_resources_and_data(changed, model):
    assert algorithm(replace(ALIKE, **changed)).name == model


def test_what_is_chosen_exists():
    from cellwright.families import members
    from cellwright.federation.key import RULES
    from cellwright.federation.quality import choice

    assert {line[1] for line in choice._MECHANISMS} <= set(members(RULES))
    assert {line[1] for line in choice._ALGORITHMS} <= set(members("models"))


def test_classification_of_four_events_by_hand():
    truth = np.array([9.0, 9.0, 9.0, 9.0, 1.0, 1.0, np.nan])
    forecast = np.array([8.0, 7.0, 6.0, 3.0, 6.5, 2.0, 9.0])  # threshold 5: three events told, one missed, one false alarm
    one = np.ones_like(truth)
    found = classified(*histograms(forecast, truth, 5 * one, one))
    assert found.precision == pytest.approx(3 / 4)
    assert found.recall == pytest.approx(3 / 4)
    # of 8 pairs, 6.5 lies below 8 and 7, 2.0 below all four events: 6 are in order
    assert found.auc == pytest.approx(6 / 8)


def test_classification_of_owners_adds_up():
    rng = np.random.default_rng(0)
    truth, forecast = rng.normal(size=400), rng.normal(size=400)
    one = np.ones(200)
    parts = [histograms(forecast[s], truth[s], 0.5 * one, one) for s in (slice(0, 200), slice(200, 400))]
    together = [added([p[i] for p in parts]) for i in (0, 1)]
    whole = histograms(forecast, truth, np.full(400, 0.5), np.ones(400))
    assert (together[0], together[1]) == whole


def test_classification_without_events_says_so():
    found = classified(*histograms(np.zeros(3), np.zeros(3), np.ones(3), np.ones(3)))
    assert (found.recall, found.auc) == (None, None)
