"""What is done about quality after a round (M.3387 9.5): stop, lower the rate, drop, ask for more."""

from __future__ import annotations

import pytest

from cellwright.errors import ParamsError
from cellwright.federation.quality.evaluation import Policy, metric
from cellwright.federation.results import OwnerRound, Round


def a_round(
    number: int, loss: float, *, rate: float = 0.01, told: dict[str, float] | None = None, refused: str = "", **quality
) -> Round:
    owners = [OwnerRound(owner=name, outcome="counted", train_loss=value) for name, value in (told or {}).items()]
    owners += [OwnerRound(owner=refused, outcome="refused", reason="a replay")] if refused else []
    figures = {"mae": loss, "mse": loss**2, **quality}
    return Round(
        round=number,
        topology=1,
        owners=owners,
        validation_loss=loss,
        learning_rate=rate,
        up_bytes=0,
        down_bytes=0,
        seconds=1.0,
        **figures,
    )


def test_it_stops_when_every_target_is_reached():
    policy = Policy({"mse": 4.0, "mae": 2.0}, rounds=10)
    assert policy.decide([a_round(1, 2.5)]).stop is None
    found = policy.decide([a_round(1, 2.5), a_round(2, 2.0)])
    assert found.stop == "target"
    assert "mse 4 (asked 4)" in found.words


@pytest.mark.parametrize(
    ("reached", "stop"),
    [({"precision": 0.9, "recall": 0.8, "auc": 0.95}, "target"), ({"precision": 0.9, "recall": 0.7, "auc": 0.95}, None)],
)
def test_a_classification_is_judged_by_precision_recall_and_auc(reached, stop):
    policy = Policy({"precision": 0.85, "recall": 0.75, "auc": 0.9}, rounds=10)
    assert policy.decide([a_round(1, 1.0, **reached)]).stop == stop


def test_f1_and_rmse_follow_from_what_is_measured():
    told = a_round(1, 3.0, precision=0.5, recall=1.0)
    assert metric(told, "f1") == pytest.approx(2 / 3)
    assert metric(told, "rmse") == 3.0
    assert metric(a_round(1, 3.0), "f1") is None


def test_the_rate_is_halved_when_the_error_rises_and_not_again_at_once():
    policy = Policy({}, rounds=100, rising=2)
    rising = [a_round(i, loss) for i, loss in enumerate((1.0, 1.1, 1.2), 1)]
    assert policy.decide(rising).rate_factor == 0.5
    assert policy.decide([*rising, a_round(4, 1.3, rate=0.005)]).rate_factor == 1.0
    decaying = [a_round(i, loss, rate=0.01 * 0.96**i) for i, loss in enumerate((1.0, 1.1, 1.2), 1)]
    assert policy.decide(decaying).rate_factor == 0.5  # a rate that only decays was not lowered yet


def test_a_node_that_trains_far_worse_than_the_others_for_some_rounds_is_dropped():
    policy = Policy({}, rounds=100, harmful_ratio=5, harmful_rounds=3)
    bad = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 9.0}
    rounds = [a_round(i, 1.0, told=bad) for i in (1, 2, 3)]
    assert policy.decide(rounds[:2]).drop == ()
    assert policy.decide(rounds).drop == ("d",)
    healed = [*rounds[:2], a_round(3, 1.0, told={**bad, "d": 1.0})]
    assert policy.decide(healed).drop == ()


def test_a_node_that_is_refused_again_and_again_is_dropped_with_the_reason():
    policy = Policy({}, rounds=100, harmful_rounds=3)
    found = policy.decide([a_round(i, 1.0, told={"a": 1.0, "b": 1.0}, refused="c") for i in (1, 2, 3)])
    assert found.drop == ("c",)
    assert "a replay" in found.words


def test_nobody_is_dropped_below_the_fewest_owners():
    policy = Policy({}, rounds=100, harmful_rounds=1, least_owners=2)
    assert policy.decide([a_round(1, 1.0, told={"a": 1.0, "b": 99.0})]).drop == ()


def test_more_rounds_are_asked_for_once_while_the_error_falls():
    policy = Policy({}, rounds=8, more_share=0.5)
    falling = [a_round(i, 10.0 - i) for i in range(1, 9)]
    assert policy.decide(falling[:7]).more_rounds == 0
    assert policy.decide(falling).more_rounds == 4
    assert policy.decide([*falling, a_round(9, 0.5)]).more_rounds == 0
    flat = [a_round(i, 5.0) for i in range(1, 9)]
    assert policy.decide(flat).more_rounds == 0


def test_an_unknown_metric_is_told():
    with pytest.raises(ParamsError, match="'speed' is no metric"):
        Policy({"speed": 1.0}, rounds=3)
