"""Gradient-boosted trees: forests walked by hand, equal to scikit-learn's own answers, and fitted within a budget."""

import numpy as np
import pytest
import torch

from cellwright.errors import TrainingError
from cellwright.training.fit import fit_closed_form
from models import trees
from models._contract import Batch, Problem
from models._layers.trees import Forest, Tree


def tree(column, number, left, right) -> Tree:
    return Tree(torch.tensor(column), torch.tensor(number), torch.tensor(left), torch.tensor(right))


# feature 1 at most 0.5 ? -1 : (feature 0 at most 2 ? 10 : 20)
DEEP = tree([1, 0, 0, 0, 0], [0.5, -1.0, 2.0, 10.0, 20.0], [1, -1, 3, -1, -1], [2, -1, 4, -1, -1])
STUMP = tree([0, 0, 0], [0.0, 100.0, 200.0], [1, -1, -1], [2, -1, -1])
LEAF = tree([0], [7.0], [-1], [-1])


def test_a_forest_by_hand():
    forest = Forest(features=2, ensembles=3, depth=3)
    forest.plant([[DEEP, STUMP], [LEAF], []], torch.tensor([1000.0, 0.0, 5.0]))
    h = torch.tensor([[-1.0, 0.5], [2.0, 0.6], [2.1, 9.0]])
    expected = [[1000 - 1 + 100, 7, 5], [1000 + 10 + 200, 7, 5], [1000 + 20 + 200, 7, 5]]
    torch.testing.assert_close(forest(h), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0)


def test_what_was_fitted_is_what_is_counted():
    """Two thresholds and three leaves, one and two, a leaf; a leaf of 0 fills up the shorter ensembles; a start each."""
    forest = Forest(features=2, ensembles=3, depth=3)
    forest.plant([[DEEP, STUMP], [LEAF], []], torch.zeros(3))
    assert sum(p.numel() for p in forest.parameters()) == (2 + 3) + (1 + 2) + 1 + 1 + 3
    assert not any(p.requires_grad for p in forest.parameters())


def test_a_forest_comes_back_from_its_tensors_whatever_its_size():
    grown, fresh = (Forest(features=2, ensembles=1, depth=2) for _ in range(2))
    grown.plant([[DEEP, STUMP, STUMP]], torch.zeros(1))
    fresh.load_state_dict(grown.state_dict())
    h = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fresh(h), grown(h), rtol=0, atol=0)


def test_a_tree_that_is_deeper_than_the_walk_is_refused():
    with pytest.raises(ValueError, match="more than 1 levels"):
        Forest(features=2, ensembles=1, depth=1).plant([[DEEP]], torch.zeros(1))


def problem(**over) -> Problem:
    base = {
        "history": 4, "horizon": 2, "cadence_s": 600.0, "inputs": "site", "nodes": 1, "outputs": 1,
        "features": ("traffic",), "targets": ("traffic",),
    }  # fmt: skip
    return Problem(**{**base, **over})


def windows(p: Problem, rows: int, seed: int = 0) -> Batch:
    """The first step rises by 1 where the last value is above 0, else it falls; the second by 3 where the oldest is above the last."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, p.history, p.nodes, len(p.features), generator=rng)
    last, oldest = x[:, -1, p.nodes // 2, 0], x[:, 0, p.nodes // 2, 0]
    noise = 0.02 * torch.randn(rows, 2, generator=rng)
    y = (torch.stack((last + last.sign(), last + 3 * (oldest - last).sign()), 1) + noise)[:, :, None, None]
    return Batch(x, torch.zeros(rows, p.history + p.horizon, 0), y, torch.ones_like(y))


def test_a_fitted_network_says_what_scikit_learn_says():
    """On float32 values exactly at thresholds too: the walk compares as scikit-learn does in float64."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    p = problem(horizon=1)
    options = trees.Options(trees=12, min_rows=5, feature_share=1.0, loss="squared", penalty=0.0)
    batch = windows(p, 400)
    batch = Batch((batch.x * 4).round() / 4, batch.known, batch.y[:, :1], batch.mask[:, :1])
    network = trees.Network(p, options).eval()
    fit_closed_form(network, [batch], seed=3)
    state = network.blocks.embed({"x": batch.x, "known": batch.known})
    correction = (batch.y - state["base"].squeeze(-1)).flatten()
    reference = HistGradientBoostingRegressor(
        max_iter=12, max_leaf_nodes=31, max_depth=6, min_samples_leaf=5, early_stopping=False, random_state=3
    ).fit(state["h"], correction)
    expected = reference.predict(state["h"]) + state["base"].flatten().numpy()
    np.testing.assert_allclose(network(batch.x, batch.known).flatten(), expected, rtol=0, atol=1e-5)


def test_it_finds_steps_that_no_linear_map_can():
    p = problem()
    network = trees.Network(p, trees.Options(min_rows=5)).eval()
    ended = fit_closed_form(network, [windows(p, 3000)], seed=0)
    new = windows(p, 500, seed=1)
    assert (network(new.x, new.known)[..., 0] - new.y).abs().mean() < 0.1
    assert ended.status in ("converged", "max_epochs")
    assert "2 ensembles" in ended.reason


def test_the_same_seed_grows_the_same_trees_and_another_seed_others():
    p = problem()
    options = trees.Options(trees=10, min_rows=5, feature_share=0.4)

    def grown(seed: int) -> torch.Tensor:
        network = trees.Network(p, options).eval()
        fit_closed_form(network, [windows(p, 500)], seed=seed)
        return network.blocks.core.forest.numbers

    first, again, other = grown(1), grown(1), grown(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_budget_ends_the_growth_and_is_told():
    p = problem()
    network = trees.Network(p, trees.Options(trees=5000, learning_rate=1e-3, min_rows=5)).eval()
    ended = fit_closed_form(network, [windows(p, 2000)], seed=0, budget_s=0.0)
    assert ended.status == "budget"
    assert "ended the growth of 2 of 2 ensembles; 2 trees" in ended.reason
    assert network.blocks.core.forest.roots.shape == (2, 1)


def test_fewer_windows_are_taken_where_the_budget_is_short():
    p = problem()
    network = trees.Network(p, trees.Options(rows=50_000))
    assert network.most_windows(3600) == 50_000
    assert 1000 < network.most_windows(0.05) < network.most_windows(0.1) < 50_000
    assert network.most_windows(0.0) == 1000


def test_an_output_without_a_measured_target_is_an_error():
    p = problem()
    batch = windows(p, 50)
    with pytest.raises(TrainingError, match="at least one measured target"):
        fit_closed_form(trees.Network(p, trees.Options()), [batch._replace(mask=torch.zeros_like(batch.mask))], seed=0)


def test_quantiles_cover_what_they_say():
    """Noise of a spread that the last value tells: of 1 below 0, of 3 above it."""
    p = problem(horizon=1, quantiles=(0.1, 0.5, 0.9))

    def noisy(rows: int, seed: int) -> Batch:
        batch = windows(p, rows, seed)
        last = batch.x[:, -1:, :, :1]
        noise = torch.randn(last.shape, generator=torch.Generator().manual_seed(seed + 100))
        return batch._replace(y=last + noise * torch.where(last > 0, 3.0, 1.0), mask=torch.ones_like(last))

    network = trees.Network(p, trees.Options(min_rows=50)).eval()
    fit_closed_form(network, [noisy(6000, 0)], seed=0)
    new = noisy(3000, 1)
    y = network(new.x, new.known)
    for position, level in enumerate(p.quantiles):
        below = (new.y < y[..., position]).float()
        for side in (new.x[:, -1, 0, 0] > 0, new.x[:, -1, 0, 0] <= 0):
            assert below[side].mean() == pytest.approx(level, abs=0.04)


def test_long_histories_are_thinned():
    """Of ten steps with the newest four kept: means of the two oldest, then of four, then steps 6 to 9 as they are."""
    thin = trees.Thin(10, 4)
    x = torch.arange(10.0)[None, :, None]
    assert thin(x)[0, :, 0].tolist() == [0.5, 3.5, 6.0, 7.0, 8.0, 9.0]
    assert trees.Thin(4, 4)(x[:, :4]) is not None
    assert trees.Thin(4, 4).count == 4


def test_ring_means_leave_out_what_lies_over_the_edge():
    """A 3×3 patch in a corner: three neighbours of 3, 6 and 9 are there, the others are 0 with `valid` 0."""
    p = problem(history=1, inputs="patch", nodes=9, features=("traffic", "valid"), grid=(3, 3))
    x = torch.zeros(1, 1, 9, 2)
    for node, value in ((4, 1.0), (5, 3.0), (7, 6.0), (8, 9.0)):
        x[0, 0, node] = torch.tensor([value, 1.0])
    design = trees.Design(p, trees.Options(near=0))
    h = design({"x": x, "known": torch.zeros(1, 3, 0)})["h"]
    assert h.tolist() == [[1.0, 5.0]]  # the last value; the ring's mean of 6 above it
