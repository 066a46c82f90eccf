"""Contribution and reward (M.3387 8.4.2, 9.4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.federation.aggregation import rule
from cellwright.federation.contract import Update, Usage
from cellwright.federation.gain import Observer, gains
from cellwright.federation.quality.incentive import Incentive, Spending, contributions

# A game of three whose Shapley values are known: error 10 without anybody; a takes 4 off, b 2; a and b together 1 more; c nothing.
ERRORS = {"": 10.0, "a": 6.0, "b": 8.0, "c": 10.0, "ab": 3.0, "ac": 6.0, "bc": 8.0, "abc": 3.0}


def known(group: frozenset[str]) -> float:
    return ERRORS["".join(sorted(group))]


def test_contribution_is_the_shapley_value():
    found = contributions(("a", "b", "c"), known, rng=np.random.default_rng(0), permutations=600, tolerance=0.0, converged=-1.0)
    # the 1 that a and b bring together is shared between them
    assert {n: round(c.shapley, 1) for n, c in found.items()} == {"a": 4.5, "b": 2.5, "c": 0.0}
    assert {n: c.leave_one_out for n, c in found.items()} == {"a": 5.0, "b": 3.0, "c": 0.0}


def test_shapley_values_add_up_to_the_whole_gain_without_truncation():
    found = contributions(("a", "b", "c"), known, rng=np.random.default_rng(1), permutations=7, tolerance=0.0, converged=-1.0)
    assert sum(c.shapley for c in found.values()) == pytest.approx(ERRORS[""] - ERRORS["abc"])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_an_additive_game_is_told_exactly(gains):
    nodes = [f"n{i}" for i in range(len(gains))]

    def utility(group: frozenset[str]) -> float:
        return 100.0 - sum(gain for node, gain in zip(nodes, gains, strict=True) if node in group)

    found = contributions(nodes, utility, rng=np.random.default_rng(0), tolerance=0.0)
    for node, gain in zip(nodes, gains, strict=True):
        assert found[node].shapley == pytest.approx(gain, abs=1e-9)
        assert found[node].leave_one_out == pytest.approx(gain, abs=1e-9)


def test_who_comes_first_is_drawn_so_that_no_name_is_favoured():
    nodes = [f"n{i}" for i in range(12)]

    def only_the_first_gains(group: frozenset[str]) -> float:
        return 1.0 if group else 10.0

    found = [contributions(nodes, only_the_first_gains, rng=np.random.default_rng(seed), permutations=3) for seed in range(40)]
    often = {node: sum(each[node].shapley > 0 for each in found) for node in nodes}
    assert sum(often.values()) == 3 * 40  # three orders, three different first ones
    assert max(often.values()) < 3 * min(often.values()) + 3


def test_truncation_saves_evaluations():
    nodes = [f"n{i}" for i in range(8)]

    def first_brings_all(group: frozenset[str]) -> float:
        return 1.0 if group else 10.0

    cut = contributions(nodes, first_brings_all, rng=np.random.default_rng(0), permutations=16)["n0"].evaluations
    whole = contributions(nodes, first_brings_all, rng=np.random.default_rng(0), permutations=16, tolerance=-1.0)[
        "n0"
    ].evaluations
    assert cut < whole / 3


def test_reward_follows_contribution_resources_and_reliability():
    spent = {"a": Spending(3.0, None, 10), "b": Spending(1.0, None, 10), "c": Spending(0.0, None, 0)}
    rewards = Incentive(pot=100, quality_share=0.5).rewards({"a": 3.0, "b": 1.0, "c": -2.0}, spent, {"b": 0.5})
    # a: half of the pot × 3/4 for the model, × 3/4 for the work; b: a quarter of each, at half reliability; c harmed, and did nothing
    assert rewards == {"a": pytest.approx(75.0), "b": pytest.approx(12.5), "c": 0.0}
    assert sum(rewards.values()) <= 100


def test_reward_of_a_round_in_which_nothing_was_gained_is_shared_alike():
    rewards = Incentive(pot=1, quality_share=1.0).rewards({"a": 0.0, "b": -1.0}, {n: Spending(1, None, 0) for n in "ab"}, {})
    assert rewards == {"a": 0.5, "b": 0.5}


def test_the_gains_of_the_rounds_kept_add_up_to_what_the_error_fell_in_them():
    """FedAvg of two owners that pull a weight of 0 to 4 and to 8: their mean is 6; the error is the distance to 100."""
    made, weights = rule("fedavg", {}), {"w": np.zeros(1, np.float32)}
    observer = Observer(made, most=2)
    fallen = 0.0
    for number in (1, 2):
        updates = [an_update(name, number, pull) for name, pull in (("a", 4.0), ("b", 8.0))]
        observer(number, weights, updates)
        after = made.aggregate(weights, updates)
        fallen += distance(weights) - distance(after)
        weights = after
    found = gains(observer, distance, orders=50, seed=0)
    assert sum(c.shapley for c in found.values()) == pytest.approx(fallen, rel=1e-5)
    # a round: alone they bring 4 and 8, together 6; so 1 = (4 - 2) / 2 is due to a, 5 = (8 + 2) / 2 to b
    assert {owner: round(c.shapley, 4) for owner, c in found.items()} == {"a": 2.0, "b": 10.0}


def distance(arrays: dict[str, np.ndarray]) -> float:
    return abs(100.0 - float(arrays["w"][0]))


def an_update(owner: str, round_: int, pull: float) -> Update:
    delta = {"w": np.array([pull], np.float32)}
    return Update(owner, round_, delta, 10, 1, {}, Usage(0.0, 0.0, None, None))
