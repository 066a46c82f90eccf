"""A rollout's way through its stages, decided from evidence alone."""

import numpy as np
import pytest

from cellwright.edge.evidence import Counts, Evidence, Pair
from cellwright.errors import UnknownName, WrongUse
from cellwright.lifecycle.rollout.rules import State, advance, armed, begun
from cellwright.params import Rollout

PARAMS = Rollout(stages=(0.1, 0.5), min_requests=100, min_stage_s=10, max_s=1000)


def evidence(instants: int, ratio: float, requests: int = 1000, failed: int = 0, slow: int = 0) -> Evidence:
    """Of one edge: a challenger whose errors are `ratio` times the champion's, with some noise."""
    rng = np.random.default_rng(0)
    errors = tuple(
        Pair(at_ms=600_000 * i, what="traffic", champion=e, challenger=e * ratio * n)
        for i, (e, n) in enumerate(zip(rng.lognormal(0, 0.2, instants), rng.lognormal(0, 0.03, instants), strict=True))
    )
    energy = tuple(Pair(at_ms=1000 * i, champion=1.0, challenger=1.0) for i in range(instants))
    counts = {"1.0.0": Counts(requests=10 * requests), "1.1.0": Counts(requests=requests, failed=failed, slow=slow)}
    return Evidence(
        edge="a", model="m", champion="1.0.0", challenger="1.1.0", since_s=0, counts=counts, errors=errors, energy=energy
    )


def state() -> State:
    return begun("m", "1.0.0", "1.1.0", PARAMS, now_s=0.0)


def run(*seen: Evidence, params: Rollout = PARAMS) -> State:
    now = begun("m", "1.0.0", "1.1.0", params, now_s=0.0)
    for i, each in enumerate(seen, 1):
        now = advance(now, [each], armed(params), params, now_s=20.0 * i)
    return now


def test_an_equal_challenger_is_promoted_through_all_stages() -> None:
    done = run(*(evidence(100 * i, 1.0, requests=1000 * i) for i in range(1, 5)))
    assert done.outcome == "promoted"
    assert [event.weight for event in done.events] == [0.1, 0.5, 1.0]


def test_a_worse_challenger_is_taken_back_at_the_first_proof() -> None:
    done = run(evidence(40, 1.5))
    assert (done.outcome, done.weight) == ("rolled_back", 0.0)
    assert done.events[-1].what.startswith("1.1.0 rolled back: error: error +")


@pytest.mark.parametrize("harm", [{"failed": 100}, {"slow": 200}])
def test_failing_or_late_answers_take_it_back(harm: dict[str, int]) -> None:
    assert run(evidence(0, 1.0, **harm)).outcome == "rolled_back"


def test_a_stage_waits_for_time_and_requests() -> None:
    early = advance(state(), [evidence(10, 1.0)], armed(PARAMS), PARAMS, now_s=9.0)
    few = advance(state(), [evidence(10, 1.0, requests=99)], armed(PARAMS), PARAMS, now_s=20.0)
    assert early == few == state()


def test_nothing_proven_in_time_is_taken_back() -> None:
    done = advance(state(), [evidence(3, 1.0)], armed(PARAMS), PARAMS, now_s=1000.0)
    assert done.outcome == "rolled_back"
    assert "undecided" in done.events[-1].what


def test_an_ended_rollout_stays_as_it_is() -> None:
    done = run(evidence(40, 1.5))
    assert advance(done, [evidence(400, 0.5)], armed(PARAMS), PARAMS, now_s=99.0) is done


def test_evidence_of_several_edges_counts_together() -> None:
    halves = [evidence(0, 1.0, requests=60), evidence(0, 1.0, requests=60)]
    assert advance(state(), halves, armed(PARAMS), PARAMS, now_s=20.0).stage == 1


def test_a_guard_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownName, match="latency"):
        armed(PARAMS.model_copy(update={"guards": {"latencies": {}}}))


def test_no_guards_at_all_is_no_rollout() -> None:
    with pytest.raises(WrongUse, match="nothing would be watched"):
        armed(PARAMS.model_copy(update={"guards": {}}))


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(WrongUse, match=r"rollout\.guards\.error"):
        armed(PARAMS.model_copy(update={"guards": {"error": {"margn": 1}}}))
