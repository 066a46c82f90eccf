"""The dear KPIs, worked out by hand, and the arithmetic of the probes that they rest on."""

import numpy as np
import pytest
import torch
from torch import nn

from cellwright.data.split import Span, Spans
from cellwright.errors import TrainingError
from cellwright.kpis import (
    generalisation_area,
    generalisation_transfer,
    inputs_for_90,
    rank_stability,
    return_per_site_day,
    robustness_missing,
    robustness_noise,
    robustness_outage,
    robustness_shift,
    robustness_units,
    seed_spread,
    units_noticed,
)
from cellwright.kpis._bed import Sample
from cellwright.kpis._halves import halves
from cellwright.kpis._probe_capacity import Load, margin, provided
from cellwright.kpis._probe_gradients import integrated, profile, shares
from cellwright.kpis._probe_importance import Scaled, _around
from cellwright.kpis._probe_retraining import rolling
from cellwright.kpis._probe_robustness import refused
from cellwright.kpis._probe_transfer import last_value
from cellwright.kpis._probes import Probes
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from models._contract import Problem


@pytest.mark.parametrize(
    ("kpi", "field"),
    [
        (robustness_noise, "noise_mae"),
        (robustness_missing, "missing_mae"),
        (robustness_outage, "outage_mae"),
        (robustness_units, "units_mae"),
    ],
)
def test_robustness_is_the_relative_growth_of_the_error(kpi, field):
    assert kpi.compute(Probes(mae=4.0, **{field: 5.0})) == pytest.approx(0.25)
    assert kpi.compute(Probes(mae=4.0, **{field: 4.0})) == 0
    assert kpi.compute(Probes(mae=0.0, **{field: 4.0})) is None
    assert kpi.compute(Probes(**{field: 4.0})) is None


def test_a_shift_counts_beyond_the_growth_of_the_load():
    assert robustness_shift.compute(Probes(mae=4.0, shift_mae=5.0, load_shift=0.25)) == pytest.approx(0)
    assert robustness_shift.compute(Probes(mae=4.0, shift_mae=6.0, load_shift=0.2)) == pytest.approx(0.25)


def test_the_share_of_features_whose_change_of_unit_is_noticed_is_told_as_it_was_found():
    assert units_noticed.compute(Probes(units_noticed=0.5)) == 0.5


def test_validate_refuses_what_leaves_its_bounds_or_moves_too_far():
    accepted = np.arange(101.0)  # quartiles 25, 50, 75
    plain, bounded = Feature(name="x", unit="1"), Feature(name="x", unit="1", low=0, high=100)
    assert not refused(accepted, accepted + 25, plain, 0.5)  # half an interquartile range, and no more
    assert refused(accepted, accepted + 26, plain, 0.5)
    assert refused(accepted, accepted + 1, bounded, 0.5)
    assert not refused(accepted, accepted, bounded, 0.5)
    assert not refused(accepted, accepted[:0], bounded, 0.5)  # nothing arrived


def test_the_spread_over_seeds_is_relative_to_their_mean():
    assert seed_spread.compute(Probes(seed_maes=(9.0, 11.0))) == pytest.approx(2**0.5 / 10)
    assert seed_spread.compute(Probes(seed_maes=(3.0, 3.0, 3.0))) == 0
    assert seed_spread.compute(Probes(seed_maes=(3.0,))) is None


def test_rank_is_stable_where_every_pair_keeps_its_order_on_all_folds():
    folds = {"a": (1.0, 1.0, 3.0), "b": (2.0, 2.0, 2.0), "c": (3.0, 3.0, 4.0)}
    # a against b: folds 1, 2 agree, 1 with 3 and 2 with 3 do not: (1 - 1 - 1) / 3; a against c: 3 / 3
    assert rank_stability.compute(Probes(key="a", fold_maes=folds)) == pytest.approx((-1 + 3) / 6)
    assert rank_stability.compute(Probes(key="b", fold_maes=folds)) == pytest.approx((-1 + 3) / 6)
    assert rank_stability.compute(Probes(key="c", fold_maes=folds)) == 1
    assert rank_stability.compute(Probes(key="a", fold_maes={"a": (1.0, 2.0)})) is None


def test_the_mean_of_rank_stability_is_kendalls_tau():
    from itertools import combinations

    from scipy.stats import kendalltau

    maes = np.random.default_rng(4).random((5, 3))  # finalists, folds
    folds = {str(i): tuple(row) for i, row in enumerate(maes)}
    mean = np.mean([rank_stability.compute(Probes(key=key, fold_maes=folds)) for key in folds])
    taus = [kendalltau(maes[:, i], maes[:, j]).statistic for i, j in combinations(range(3), 2)]
    assert mean == pytest.approx(np.mean(taus))


def test_folds_roll_towards_the_test_span_and_never_into_it():
    spans = Spans(Span(0, 80), Span(80, 90), Span(90, 100))
    assert rolling(spans, 2) == [
        Spans(Span(0, 60), Span(60, 70), Span(70, 80)),
        Spans(Span(0, 70), Span(70, 80), Span(80, 90)),
    ]
    assert rolling(Spans(Span(0, 30), Span(30, 60), Span(60, 90)), 2)[0].train == Span(0, 30)  # stretches of 10, not of 30
    with pytest.raises(TrainingError, match=r"lower scorecard\.folds"):
        rolling(Spans(Span(0, 3), Span(3, 4), Span(4, 5)), 3)


def test_another_area_is_compared_with_a_training_that_saw_it():
    assert generalisation_area.compute(Probes(area_mae=6.0, area_whole_mae=5.0)) == pytest.approx(0.2)
    assert generalisation_area.compute(Probes(area_mae=6.0)) is None


def test_another_data_set_is_compared_with_the_last_value():
    assert generalisation_transfer.compute(Probes(transfer_mae=6.0, transfer_naive_mae=8.0)) == pytest.approx(0.75)
    assert generalisation_transfer.compute(Probes(transfer_mae=6.0)) is None


def test_the_last_value_is_the_newest_that_was_measured():
    problem = Problem(3, 2, 600.0, "patch", 9, 1, ("traffic", "valid"), ("traffic",), grid=(3, 3))
    history = np.zeros((2, 3, 9, 2), np.float32)
    history[0, :, 4, 0] = [5, 6, 7]
    history[1, :, 4, 0] = [5, 9, np.nan]
    empty = np.zeros((2, 2, 1, 1), np.float32)
    found = last_value(Sample(history, empty, np.zeros(2, np.int64), empty, empty > 0), problem)
    assert found[:, :, 0, 0].tolist() == [[7, 7], [9, 9]]


def test_ninety_per_cent_of_the_attribution_by_the_fewest_inputs():
    assert inputs_for_90.compute(Probes(attribution=(0.5, 0.3, 0.1, 0.1))) == 3 / 4
    assert inputs_for_90.compute(Probes(attribution=(0.5, 0.3, 0.09, 0.11))) == 1
    assert inputs_for_90.compute(Probes(attribution=(1.0, 0.0, 0.0, 0.0))) == 1 / 4
    assert inputs_for_90.compute(Probes(attribution=(0.25,) * 4)) == 1


def test_the_profile_orders_each_window_by_itself():
    attribution = torch.tensor([[3.0, -1.0], [0.0, 2.0], [0.0, 0.0]])[:, None, None]  # the last window says nothing
    share = shares(attribution)
    assert share[:, 0, 0].tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert profile(share).tolist() == [(0.75 + 1) / 2, (0.25 + 0) / 2]
    with pytest.raises(TrainingError, match="nothing is attributed"):
        shares(torch.zeros(2, 1, 1, 3))


class Made(nn.Module):
    """A forecaster's network whose gradients are known: one step, one site, one target."""

    def __init__(self, formula) -> None:
        super().__init__()
        self.formula, self.network = formula, self
        self.problem = Problem(2, 1, 600.0, "site", 1, 1, ("traffic", "users"), ("traffic",))

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.formula(x)[:, None, None, None, None]


def attributed(formula, x: torch.Tensor, points: int = 32):
    scaled = Scaled(x, torch.zeros(len(x), 3, 0), torch.zeros(len(x), dtype=torch.int64))
    return integrated(Made(formula), scaled, [], points=points)


def test_integrated_gradients_of_a_linear_forecast_are_its_terms():
    weight = torch.tensor([[[1.0, -2.0]], [[0.5, 0.0]]])  # (history, nodes, features)
    x = torch.randn(5, 2, 1, 2, generator=torch.Generator().manual_seed(1))
    found = attributed(lambda x: (weight * x).sum(dim=(1, 2, 3)), x, points=1)
    assert torch.allclose(found.attribution, weight * x)
    assert found.gap == pytest.approx(0, abs=1e-6)


def test_integrated_gradients_are_complete_where_the_forecast_is_curved():
    x = torch.tensor([[[[2.0, 3.0]], [[0.0, 0.0]]]])
    found = attributed(lambda x: x[:, 0, 0, 0] * x[:, 0, 0, 1], x)
    assert found.attribution[0, 0, 0].tolist() == pytest.approx([3.0, 3.0])  # of a product from 0 each factor earns half
    assert found.gap < 1e-6
    rough = attributed(lambda x: torch.tanh(3 * x.sum(dim=(1, 2, 3))), x)
    assert rough.gap < 0.02


def test_a_forecast_by_steps_is_not_explained_by_gradients():
    x = torch.tensor([[[[2.0, 3.0]], [[0.0, 0.0]]]])
    assert attributed(lambda x: (x[:, 0, 0, 0] > 1).float() + 0 * x.sum(dim=(1, 2, 3)), x).gap == pytest.approx(1)
    with pytest.raises(TrainingError, match="has no gradient"):
        attributed(lambda x: (x[:, 0, 0, 0] > 1).float(), x)


def test_nodes_of_a_large_patch_are_taken_together_by_distance():
    assert [name for name, _ in _around(3)] == [
        "-1, -1",
        "-1, +0",
        "-1, +1",
        "+0, -1",
        "itself",
        "+0, +1",
        "+1, -1",
        "+1, +0",
        "+1, +1",
    ]
    rings = dict(_around(9))
    assert {name: len(nodes) for name, nodes in rings.items()} == {
        "itself": 1,
        "ring 1": 8,
        "ring 2": 16,
        "ring 3": 24,
        "ring 4": 32,
    }
    assert rings["itself"] == [40]


def load(forecast: list[float], truth: list[float]) -> Load:
    shape = (len(truth), 1, 1)
    return Load(np.reshape(forecast, shape), np.reshape(truth, shape), np.ones(shape, bool))


def test_the_margin_is_the_smallest_that_keeps_violations_below_their_share():
    found = load([10, 10, 10, 10], [9, 11, 13, 16])
    peak = np.array([20.0])
    assert margin(found, peak, 0.0) == pytest.approx(6 / 20)
    assert margin(found, peak, 0.25) == pytest.approx(3 / 20)
    assert found.violated(provided(found.forecast, peak, 3 / 20)) == 0.25
    assert margin(found, peak, 0.75) == 0  # never below the forecast itself
    assert provided(np.array([[[-5.0]]]), peak, 0.1) == pytest.approx(0)


def test_a_site_that_never_had_load_has_no_part_in_the_margin():
    found = Load(np.full((2, 1, 2), 10.0), np.array([[[12.0, 11.0]], [[13.0, 15.0]]]), np.ones((2, 1, 2), bool))
    assert margin(found, np.array([20.0, 0.0]), 0.0) == pytest.approx(3 / 20)
    with pytest.raises(TrainingError, match="no measured target of a site with a peak above 0"):
        margin(found, np.zeros(2), 0.0)


def test_the_return_is_the_capacity_saved_less_the_forecasts_price():
    parts = {"static_capacity": 100.0, "forecast_capacity": 70.0, "capacity_price_h": 0.001, "forecasts_per_day": 144.0}
    assert return_per_site_day.compute(Probes(**parts, forecast_price=0.0005)) == pytest.approx(30 * 24 * 0.001 - 144 * 0.0005)
    assert return_per_site_day.compute(Probes(**parts)) is None


def town(grid: tuple[int, int] | None) -> Panel:
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    schema = PanelSchema(
        dataset="town",
        sites=tuple("abcdef"),
        features=(Feature(name="traffic", unit="Mbit/s"),),
        targets=("traffic",),
        cadence_s=600,
        clock="relative",
        start_ms=0,
        rows=2,
        segments=(Segment(name="all", start=0, stop=2),),
        grid=grid,
        licence="CC0",
        attribution="made for a test",
        adjacency=((0, 1, 0.5), (1, 2, 0.7), (4, 5, 0.9)),
    )
    return Panel.from_arrays(schema, {"traffic": values})


def test_a_grid_is_halved_by_its_columns():
    left, right = halves(town((2, 3)))
    assert (left.schema.sites, left.schema.grid) == (("a", "b", "d", "e"), (2, 2))
    assert (right.schema.sites, right.schema.grid) == (("c", "f"), (2, 1))
    assert right.values("traffic").tolist() == [[2, 5], [8, 11]]
    assert left.schema.adjacency == ((0, 1, 0.5),)


def test_without_a_grid_the_first_sites_are_one_half():
    first, second = halves(town(None))
    assert (first.schema.sites, second.schema.sites) == (tuple("abc"), tuple("def"))
    assert second.schema.adjacency == ((1, 2, 0.9),)
