"""Every guard of a rollout keeps the family's contract."""

import pytest

from cellwright.edge.evidence import Counts, Evidence, Pair
from cellwright.lifecycle.rollout import guards
from cellwright.lifecycle.rollout.guards._contract import Guard, GuardOptions

ALPHA = 0.01


@pytest.fixture(params=guards.names())
def guard(request: pytest.FixtureRequest) -> Guard:
    return guards.guard(request.param)


def evidence(n: int, harm: float) -> Evidence:
    """`n` instants of both, ten times as many requests; the challenger's every quantity is `harm` times the champion's."""
    pairs = tuple(Pair(at_ms=1000 * i, what="x", champion=1.0, challenger=harm) for i in range(n))
    requests, bad = 10 * n, int(0.1 * n)
    counts = {
        "1.0.0": Counts(requests=requests, failed=bad, slow=bad),
        "2.0.0": Counts(requests=requests, failed=int(bad * harm), slow=int(bad * harm)),
    }
    return Evidence(
        edge="a", model="m", champion="1.0.0", challenger="2.0.0", since_s=0, counts=counts, errors=pairs, energy=pairs
    )


def options(guard: Guard) -> GuardOptions:
    made = guard.module.Options()
    assert isinstance(made, GuardOptions)
    return made


def test_it_has_a_title_and_explained_options(guard: Guard) -> None:
    assert guard.title
    assert guard.module.__doc__
    assert set(guard.module.Options.model_fields) == {"margin"}


def test_without_evidence_it_is_undecided(guard: Guard) -> None:
    assert guard.judge([], options(guard), ALPHA).verdict == "undecided"
    assert guard.judge([evidence(0, 1.0)], options(guard), ALPHA).verdict == "undecided"


def test_a_much_worse_challenger_is_worse(guard: Guard) -> None:
    found = guard.judge([evidence(2000, 10.0)], options(guard), ALPHA)
    assert found.verdict == "worse"
    assert found.samples >= 1000
    assert "proven" in found.reason


def test_an_equal_challenger_is_as_good(guard: Guard) -> None:
    assert guard.judge([evidence(2000, 1.0)], options(guard), ALPHA).verdict == "as_good"


def test_two_edges_count_together(guard: Guard) -> None:
    half = evidence(1000, 10.0)
    assert guard.judge([half, half.model_copy(update={"edge": "b"})], options(guard), ALPHA).verdict == "worse"
