"""Every privacy mechanism: says against whom it protects and what it leaves, keeps its budget through a restart, sums rightly."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pytest

from cellwright.errors import FederationError, ParamsError
from cellwright.families import member
from cellwright.federation import privacy
from cellwright.federation.contract import Local
from cellwright.federation.privacy._contract import Mechanism, Participation

NAMES = privacy.names()
SEALING = [name for name in NAMES if privacy.mechanism(name).seals]
OPEN = [name for name in NAMES if name not in SEALING]
COUNTED = [name for name in NAMES if privacy.mechanism(name).spent is not None]
LOCAL = Local(steps=2, batch=4, learning_rate=0.1)
DONE = Participation(round=1, owners=3, of=3, steps=2, batch=4, examples=100)
THREE = {"a": np.array([1.0, -2.5]), "b": np.array([0.5, 2.5]), "c": np.array([10.0, 0.0])}


def summed(made: Mechanism, vectors: Mapping[str, np.ndarray], *, lost: str = "") -> np.ndarray:
    """All stages among these owners; `lost` takes part up to its vector and never sends it."""
    owners = {name: made.owner_side(name, seed=1) for name in vectors}
    side = made.coordinator_side(tuple(sorted(vectors)), seed=1)
    for stage in made.before:
        side.take(stage, {o: owners[o].answer(stage, asked) for o, asked in side.ask(stage, tuple(sorted(owners))).items()})
    owners.pop(lost, None)
    side.collect({o: owner.seal(vectors[o]) for o, owner in owners.items()}, len(next(iter(vectors.values()))))
    for stage in made.after:
        side.take(stage, {o: owners[o].answer(stage, asked) for o, asked in side.ask(stage, tuple(sorted(owners))).items()})
    return side.total()


def test_the_three_technologies_that_the_recommendation_names_are_there():
    """M.3387 10.5: secure multi-party computing, homomorphic encryption, differential privacy."""
    assert {"secure_aggregation", "ckks", "local_dp", "central_dp", "dp_sgd"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_against_whom_it_protects_and_what_it_leaves(name):
    made = privacy.mechanism(name)
    assert made.title
    assert made.paper
    for sentence in (made.threat, made.leaves):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert len(sentence) > 40


@pytest.mark.parametrize("name", NAMES)
def test_its_options_are_described_and_those_it_does_not_know_are_refused(name):
    options = member("cellwright.federation.privacy", name, what="privacy mechanism").Options
    assert [f.name for f in fields(options) if not f.metadata.get("doc")] == []
    with pytest.raises(ParamsError, match=f"federation.privacy_options.{name}: unknown option 'strength'"):
        privacy.mechanism(name, {"strength": 9})


@pytest.mark.parametrize("name", NAMES)
def test_its_state_is_bytes_that_give_the_same_state_back(name):
    one, two = privacy.mechanism(name), privacy.mechanism(name)
    assert one.state() == two.state()
    one.account(DONE)
    two.restore(one.state())
    assert isinstance(one.state(), bytes)
    assert two.state() == one.state()
    assert not one.state().startswith(b"\x80")  # no pickle
    assert two.spent == one.spent


@pytest.mark.parametrize("name", COUNTED)
def test_epsilon_grows_with_every_round_until_the_budget_stops_it(name):
    made = privacy.mechanism(name, {"epsilon": 6.0})
    assert made.spent is not None
    assert made.spent.epsilon == 0
    told = []
    while made.fits(DONE) and len(told) < 500:
        made.account(DONE)
        told.append(made.spent.epsilon)
    assert told == sorted(set(told))
    assert told[-1] <= 6.0
    assert made.exhausted
    assert made.spent.unit.startswith(("an owner", "a window"))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in COUNTED])
def test_a_mechanism_without_a_budget_never_exhausts_one(name):
    made = privacy.mechanism(name)
    made.account(DONE)
    assert not made.exhausted
    assert made.fits(DONE)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_keeps_its_names_shapes_and_type(name):
    made, rng = privacy.mechanism(name), np.random.default_rng(0)
    delta = {"w": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    for after in (made.protect(delta, rng), made.bounded(delta), made.finish(delta, 3, rng)):
        assert {n: (a.shape, a.dtype) for n, a in after.items()} == {n: (a.shape, a.dtype) for n, a in delta.items()}
    assert made.local(LOCAL).steps == LOCAL.steps


@pytest.mark.parametrize("name", OPEN)
def test_a_mechanism_that_seals_nothing_has_no_sides(name):
    made = privacy.mechanism(name)
    assert made.before == made.after == ()
    with pytest.raises(TypeError, match="does not seal"):
        made.owner_side("a", 0)
    with pytest.raises(TypeError, match="does not seal"):
        made.coordinator_side(("a",), 0)


@pytest.mark.parametrize("name", SEALING)
def test_three_owners_sum_as_by_hand(name):
    np.testing.assert_array_equal(summed(privacy.mechanism(name), THREE), [11.5, 0.0])


@pytest.mark.parametrize("name", SEALING)
def test_the_sum_of_those_that_stay_is_right_when_one_is_lost(name):
    np.testing.assert_array_equal(summed(privacy.mechanism(name), THREE, lost="a"), [10.5, 2.5])


@pytest.mark.parametrize("name", SEALING)
def test_an_owners_vector_cannot_be_seen_in_what_it_sends(name):
    made, vector = privacy.mechanism(name), np.arange(1.0, 9.0)
    owners = {o: made.owner_side(o, seed=1) for o in "abc"}
    side = made.coordinator_side(("a", "b", "c"), seed=1)
    for stage in made.before:
        side.take(stage, {o: owners[o].answer(stage, asked) for o, asked in side.ask(stage, ("a", "b", "c")).items()})
    sent = owners["a"].seal(vector)
    clear = made.options.grid.integers(vector).astype("<i8").tobytes()
    assert all(clear[i : i + 8] not in blob for blob in sent.values() for i in range(0, len(clear), 8))
    assert owners["b"].seal(vector) != sent


@pytest.mark.parametrize("name", SEALING)
def test_an_owners_state_goes_on_where_it_stood(name):
    made = privacy.mechanism(name)
    one, two = made.owner_side("a", seed=1), made.owner_side("a", seed=1)
    one.answer("advertise", {"nonce": bytes(16)})
    two.restore(one.state())
    assert two.state() == one.state() == one.state()
    assert not one.state().startswith(b"\x80")


@pytest.mark.parametrize("name", SEALING)
def test_a_value_out_of_range_is_refused_by_the_owner(name):
    with pytest.raises(FederationError, match="the option `range` allows"):
        summed(privacy.mechanism(name, {"range": 5.0}), THREE)
