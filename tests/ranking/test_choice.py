"""Which model is chosen, and the sentence that says why."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.ranking.choose import choose, finalists
from cellwright.ranking.normalise import scores, won
from cellwright.ranking.pareto import front
from cellwright.ranking.sentence import Contender
from cellwright.results import Interval


def contender(key: str, mae: float, energy_j: float | None = 1.0, cpu_s: float = 1.0) -> Contender:
    return Contender(key, key.upper(), mae, energy_j, "modelled", cpu_s)


def pairs(contenders, half_width: float | dict[str, float] = 0.1):
    """Intervals whose half-width the test chooses, one for all or one a candidate (the wider of the two counts)."""
    mae = {c.key: c.mae for c in contenders}

    def paired(this: str, other: str) -> Interval:
        width = half_width if isinstance(half_width, float) else max(half_width[this], half_width[other])
        difference = mae[this] - mae[other]
        return Interval(
            other=other, difference=difference, low=difference - width, high=difference + width, block_steps=144, samples=1000
        )

    return paired


def decide(contenders, half_width=0.1, similar_accuracy=0.01):
    return choose(contenders, pairs(contenders, half_width), similar_accuracy=similar_accuracy, unit="Mbit/s").choice


RIDGE = contender("ridge", 21.6, 0.5, 0.1)


def test_of_two_models_of_similar_accuracy_the_one_with_less_energy_wins():
    choice = decide([RIDGE, contender("gru", 20.05, 18), contender("tcn", 20.0, 230), contender("mlp", 21.0, 2)])
    assert (choice.key, choice.similar, choice.decided_by) == ("gru", ["tcn"], "energy")
    assert choice.block_steps == 144
    assert choice.sentence == (
        "GRU wins: its validation MAE of 20.05 Mbit/s is 7.2 % below ridge's 21.6; its accuracy is similar to that of TCN, the "
        "most accurate (paired difference +0.05, 95 % interval -0.05 to +0.15), and of the models of similar accuracy (TCN), "
        "it took the least energy to train, 18 J (modelled) against 230 J (modelled) of TCN."
    )


def test_a_clear_difference_is_decided_by_accuracy_whatever_the_energy():
    choice = decide([RIDGE, contender("gru", 20.5, 18), contender("tcn", 20.0, 230)])
    assert (choice.key, choice.similar, choice.decided_by) == ("tcn", [], "accuracy")
    assert "GRU, next, is less accurate (paired difference +0.5" in choice.sentence


def test_a_small_relative_difference_is_similar_even_if_it_is_certain():
    close = [RIDGE, contender("gru", 20.15, 18), contender("tcn", 20.0, 230)]
    assert decide(close, half_width=0.01, similar_accuracy=0.01).key == "gru"
    assert decide(close, half_width=0.01, similar_accuracy=0.005).key == "tcn"


def test_the_rule_applies_only_among_those_that_beat_ridge():
    """Persistence would be the thriftiest of all, and its interval to the best contains 0, but not beyond ridge."""
    choice = decide([RIDGE, contender("persistence", 21.55, 0.0), contender("tcn", 20.0, 230)], half_width=1.58)
    assert choice.key == "tcn"


def test_if_nobody_beats_ridge_the_sentence_says_so():
    choice = decide([RIDGE, contender("tcn", 21.58, 230)])
    assert choice.key == "ridge"
    assert "is beaten by no other model beyond chance" in choice.sentence
    dear_ridge = [contender("ridge", 21.6, 500), contender("tcn", 21.58, 230)]
    assert "does not beat ridge's 21.6 beyond chance, and no other model does" in decide(dear_ridge).sentence


def test_without_ridge_the_sentence_says_so():
    choice = decide([contender("gru", 20.05, 18), contender("tcn", 20.0, 230)])
    assert choice.key == "gru"
    assert "could not be held against ridge, which is not among the candidates" in choice.sentence


def test_where_any_energy_is_not_known_cpu_seconds_decide_and_the_sentence_says_so():
    choice = decide([RIDGE, contender("gru", 20.05, None, cpu_s=40), contender("tcn", 20.0, 1, cpu_s=90)])
    assert (choice.key, choice.decided_by) == ("gru", "cpu seconds")
    assert "energy is not all known, it took the fewest CPU-seconds to train, 40 against 90 of TCN" in choice.sentence


def test_a_certain_model_does_not_lose_to_a_less_accurate_one_with_a_wide_interval():
    """`wide` ties with the best; `narrow` lies between them and would not: it is more accurate and thriftier than `wide`."""
    three = [contender("ridge", 22.6), contender("best", 20.0, 90), contender("narrow", 20.5, 10), contender("wide", 20.9, 20)]
    widths = {"ridge": 0.1, "best": 0.1, "narrow": 0.1, "wide": 1.0}
    assert decide(three, half_width=widths).key == "narrow"


def test_a_single_candidate_is_the_champion():
    assert decide([contender("lstm", 3.0)]).sentence.endswith("there is no candidate of similar accuracy.")
    with pytest.raises(ValueError, match="no candidate"):
        decide([])


CONTENDERS = st.lists(
    st.tuples(st.floats(1, 100), st.one_of(st.none(), st.floats(0, 1000)), st.floats(0, 100)), min_size=1, max_size=8
)


@settings(deadline=None)
@given(raw=CONTENDERS, ridge=st.booleans(), width=st.floats(0.01, 30), order=st.randoms())
def test_the_choice_is_never_dominated_and_does_not_depend_on_the_order(raw, ridge, width, order):
    made = [contender("ridge" if ridge and i == 0 else f"m{i}", *values) for i, values in enumerate(raw)]
    choice = decide(made, half_width=width)
    shuffled = list(made)
    order.shuffle(shuffled)
    assert decide(shuffled, half_width=width) == choice
    paired = pairs(made, width)
    beats = [c for c in made if c.key != "ridge" and paired(c.key, "ridge").high < 0] if ridge else []
    final = finalists(made, paired, similar_accuracy=0.01)
    assert set(final) == {choice.key, *choice.similar}
    champion = next(c for c in made if c.key == choice.key)
    for rival in beats or made:
        cost, its = (
            (champion.cpu_s, rival.cpu_s)
            if choice.decided_by == "cpu seconds"
            else (champion.energy_j or 0.0, rival.energy_j if rival.energy_j is not None else float("inf"))
        )
        if choice.decided_by == "accuracy":
            assert champion.mae <= rival.mae
        else:
            assert not (rival.mae <= champion.mae and its <= cost and (rival.mae < champion.mae or its < cost))


def test_the_score_is_the_weighted_share_of_comparisons_won():
    table = [{"mae": 1.0, "size": 9.0}, {"mae": 2.0, "size": 1.0}, {"mae": 2.0, "size": None}]
    # mae: 1, 1/4, 1/4 (two equal ones share a win of two); size: 1/2, 1, 0 (absent loses)
    assert won([1.0, 2.0, 2.0], lower=True).tolist() == [1.0, 0.25, 0.25]
    found = scores(table, {"mae": 3.0, "size": 1.0, "unknown to all": 7.0}, {"mae": True, "size": True})
    assert found == pytest.approx([(3 + 0.5) / 4, (0.75 + 1) / 4, 0.75 / 4])


def test_higher_is_better_where_the_kpi_says_so():
    assert won([0.9, 0.5], lower=False).tolist() == [1.0, 0.0]
    assert scores([{"r2": 0.9}], {"r2": 1.0}, {"r2": False}) == [1.0]
    assert scores([{"r2": 0.9}], {}, {}) == [0.0]


@given(values=st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=2, max_size=10), order=st.randoms())
def test_shares_of_wins_add_up_and_do_not_depend_on_the_order(values, order):
    shares = won(values, lower=True)
    assert shares.sum() == pytest.approx(len(values) / 2)
    places = list(range(len(values)))
    order.shuffle(places)
    assert won([values[i] for i in places], lower=True) == pytest.approx(shares[places])


def test_the_front_by_hand():
    costs = np.array([[1.0, 9.0], [2.0, 2.0], [2.0, 3.0], [9.0, 1.0], [2.0, 2.0], [9.0, np.nan], [0.5, np.nan]])
    assert front(costs).tolist() == [True, True, False, True, True, False, True]


@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=1, max_size=12))
def test_nobody_dominates_the_front_and_everyone_else_is_dominated_by_it(rows):
    costs = np.array(rows, dtype=float)
    kept = front(costs)
    assert kept.any()
    for i, cost in enumerate(costs):
        beaten = [(o <= cost).all() and (o < cost).any() for o in costs[kept]]
        assert any(beaten) == (not kept[i])
