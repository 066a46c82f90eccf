"""Every aggregation rule keeps to the contract of its family; a new file is tested the day it lands."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from cellwright.errors import FederationError
from cellwright.families import member
from cellwright.federation import aggregation
from cellwright.federation.aggregation._closed_form import statistics
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays, Local, Task, Update, Usage

NAMES = aggregation.names()
ITERATIVE = tuple(n for n in NAMES if not aggregation.rule(n).closed_form)
CLOSED = {"fedgram": "ridge", "bagging": "trees"}  # what each closed form is tried on
OWNERS = tuple("abcdefghij")
SHAPES = {"blocks.embed.weight": (3, 2), "blocks.core.weight": (4,), "blocks.core.bias": ()}


def ready(name: str) -> Rule:
    """The rule as it is when a training begins."""
    rule = aggregation.rule(name)
    rule.place({"west": OWNERS[:5], "east": OWNERS[5:]})
    if rule.closed_form:
        rule.bind(task(CLOSED[name]))
    return rule


def drawn(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(0, scale, shape), np.float32) for name, shape in SHAPES.items()}


def updates(seed: int, *, count: int = len(OWNERS), alike: bool = False) -> list[Update]:
    rng = np.random.default_rng(seed)
    return [
        Update(
            owner=owner,
            round=1,
            delta=drawn(seed if alike else seed + 1 + n),
            examples=int(rng.integers(1, 100)),
            steps=4,
            metrics={"train_loss": 1.0},
            usage=Usage(1.0, 1.0, None, None),
            extra={f"dc/{name}": array for name, array in drawn(100 + seed + n).items()},
        )
        for n, owner in enumerate(OWNERS[:count])
    ]


def task(model: str) -> Task:
    problem = {"history": 6, "horizon": 2, "cadence_s": 3600.0, "inputs": "site", "nodes": 1, "outputs": 1}
    names = {"features": ["traffic"], "targets": ["traffic"]}
    spans = {"train": (0, 1), "validation": (1, 2), "test": (2, 3)}
    options = {"trees": 4, "depth": 3} if model == "trees" else {}
    rest = {"options": options, "scaler": "standard", "clip": None, "loss": "mae", "seed": 0}
    return Task(request="r", dataset="d", model=model, problem={**problem, **names}, **spans, **rest)


def closed_form_of(name: str) -> tuple[Arrays, list[Update]]:
    """Fresh arrays of the network, and what three owners send."""
    import torch

    from cellwright.forecaster import network_of
    from models._contract import Batch

    told = task(CLOSED[name])
    found = []
    for n, owner in enumerate(OWNERS[:3]):
        rng = torch.Generator().manual_seed(n)
        x = torch.randn(60, 6, 1, 1, generator=rng)
        y = torch.stack((x.sum(1), x[:, -1]), 1)
        network = network_of({"model": told.model, "options": told.options, "problem": told.problem})
        fresh = {k: v.detach().numpy().copy() for k, v in network.state_dict().items()}
        sums = statistics(network, [Batch(x, torch.zeros(60, 8, 0), y, torch.ones_like(y))], seed=n)
        found.append(Update(owner, 1, sums, 60, 0, {}, Usage(1.0, 1.0, None, None)))
    return fresh, found


def begun(name: str) -> tuple[Arrays, list[Update]]:
    return closed_form_of(name) if name in CLOSED else (drawn(0, 10.0), updates(3))


def same(found: Arrays, expected: Arrays, tolerance: float = 1e-5) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    rule = aggregation.rule(name)
    assert rule.title
    assert rule.paper
    assert rule.timing in ("synchronous", "semi_synchronous", "asynchronous")
    doc = member(aggregation.__name__, name, what="rule").__doc__
    assert rule.title.split()[0].lower() in doc.lower()
    assert not (rule.robust and rule.linear)  # one owner of enough weight moves any weighted sum as far as it likes
    assert rule.closed_form == (name in CLOSED), "a closed form needs a model to be tried on, in CLOSED above"


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_types_stay(name):
    current, some = begun(name)
    found = ready(name).aggregate(current, some)
    assert list(found) == list(current)
    for key, array in current.items():
        assert found[key].dtype == array.dtype, key
        assert name == "bagging" or found[key].shape == array.shape, key  # a joined forest is larger than an owner's
        assert np.isfinite(found[key]).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_what_it_is_given_is_not_changed(name):
    current, some = begun(name)
    before = [
        {k: a.copy() for k, a in arrays.items()} for arrays in (current, *(u.delta for u in some), *(u.extra for u in some))
    ]
    rule = ready(name)
    after = rule.aggregate(rule.aggregate(current, some), some) if name not in CLOSED else rule.aggregate(current, some)
    for array in after.values():
        array[...] = array + 1
    for was, arrays in zip(before, (current, *(u.delta for u in some), *(u.extra for u in some)), strict=True):
        for key, array in was.items():
            np.testing.assert_array_equal(arrays[key], array)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_updates_does_not_matter(name):
    current, some = begun(name)
    same(ready(name).aggregate(current, some), ready(name).aggregate(current, some), 0)
    shuffled = [some[i] for i in np.random.default_rng(1).permutation(len(some))]
    if name != "bagging":  # the trees of a joined forest lie in the order of their owners; see test_fed_rules for what they say
        same(ready(name).aggregate(current, shuffled), ready(name).aggregate(current, some))


@pytest.mark.parametrize("name", ITERATIVE)
def test_owners_that_agree_are_followed(name):
    """The next weights are theirs; an adaptive rule takes a step of its own length their way, in every weight."""
    current, some = drawn(0, 10.0), updates(5, alike=True)
    rule = ready(name)
    found = rule.aggregate(current, some)
    for key, delta in some[0].delta.items():
        if rule.adaptive:
            np.testing.assert_array_equal(np.sign(found[key] - current[key]), np.sign(delta), err_msg=key)
        else:
            np.testing.assert_allclose(found[key], current[key] + delta, rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_state_carries_it_over_a_restart(name):
    """Three rounds, the last by a rule that was begun anew from the state's bytes: the same to the last bit."""
    if name in CLOSED:
        current, some = closed_form_of(name)
        rounds: Sequence[list[Update]] = [some, some, some]
    else:
        current, rounds = drawn(0, 10.0), [updates(7), updates(8, count=8), updates(9)]
    rule = ready(name)
    weights = current
    for some in rounds[:2]:
        weights = rule.aggregate(weights if name not in CLOSED else current, some)
    other = ready(name)
    other.restore(load(save(rule.state())))
    for owner in OWNERS:
        same(other.start_for(owner, weights), rule.start_for(owner, weights), 0)
        same(other.extra(owner, weights), rule.extra(owner, weights), 0)
    start = weights if name not in CLOSED else current
    same(other.aggregate(start, rounds[2]), rule.aggregate(start, rounds[2]), 0)
    assert rule.state().keys() == other.state().keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_no_rounds_is_a_beginning(name):
    rule, (current, some) = ready(name), begun(name)
    rule.restore(load(save(ready(name).state())))
    same(rule.aggregate(current, some), ready(name).aggregate(current, some), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_its_own_way(name):
    """Contribution asks copies what would have been without an owner: the rule itself must not notice."""
    rule, other, (current, some) = ready(name), ready(name), begun(name)
    copy.copy(rule).aggregate(current, some[:-1])
    same(rule.aggregate(current, some), other.aggregate(current, some), 0)
    copy.copy(rule).aggregate(current, some[:-1])
    same(rule.state(), other.state(), 0)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_updates_are_an_error_that_says_so(name):
    rule, (current, some) = ready(name), begun(name)
    with pytest.raises(FederationError, match=f"needs at least {rule.least} updates a round, {rule.least - 1} came"):
        rule.aggregate(current, some[: rule.least - 1])


@pytest.mark.parametrize("name", ITERATIVE)
def test_weights_are_shares(name):
    weights = ready(name).weights(updates(4))
    if weights is None:
        assert not aggregation.rule(name).linear
        return
    assert weights.shape == (len(OWNERS),)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_linear_rule_asks_for_the_weighted_mean_alone(name):
    """What secure aggregation lets it see, one update that is the mean by windows, leads to the same weights; else it does not."""
    rule, current, some = ready(name), drawn(0, 10.0), updates(6)
    shares = np.array([u.examples for u in some]) / sum(u.examples for u in some)
    mean = {k: sum(s * u.delta[k] for s, u in zip(shares, some, strict=True)).astype(np.float32) for k in SHAPES}
    summed = replace(some[0], delta=mean, examples=sum(u.examples for u in some))
    if rule.linear:
        same(rule.aggregate(current, [summed]), ready(name).aggregate(current, some))
    elif rule.robust:
        found, averaged = rule.aggregate(current, some), ready(name).aggregate(current, [summed] * rule.least)
        assert any(not np.allclose(found[k], averaged[k], atol=1e-3) for k in SHAPES)


@pytest.mark.parametrize("name", [n for n in ITERATIVE if aggregation.rule(n).robust])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(10, 1e6))
def test_a_robust_rule_stays_among_the_honest(name, seed, size):
    """Three of ten may send anything, with as many windows as they like: every weight stays within what the others sent."""
    honest, current = updates(seed, count=7), drawn(0, 10.0)
    rng = np.random.default_rng(seed)
    poisoned = [
        replace(
            honest[0],
            owner=owner,
            examples=10**6,
            delta={k: np.asarray(rng.normal(0, size, s), np.float32) for k, s in SHAPES.items()},
        )
        for owner in OWNERS[7:]
    ]
    found = ready(name).aggregate(current, [*honest, *poisoned])
    for key in SHAPES:
        sent = np.stack([current[key] + u.delta[key] for u in honest])
        assert (found[key] <= sent.max(0) + 1e-3).all(), key
        assert (found[key] >= sent.min(0) - 1e-3).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_how_owners_train_stays_possible(name):
    rule = ready(name)
    local = rule.local(Local(steps=5, batch=8, learning_rate=0.01), 1)
    assert (local.steps, local.batch) == (5, 8)
    assert local.learning_rate > 0
    assert 1 <= rule.wanted(10) <= 10
    assert rule.deadline_s(60.0) > 0
