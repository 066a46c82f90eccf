"""Every aggregation rule by hand: two weights, few owners, results that can be worked out on paper."""

import numpy as np
import pytest
import torch

from cellwright.errors import FederationError, ParamsError, UnknownName
from cellwright.federation import aggregation
from cellwright.federation.aggregation._closed_form import statistics
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.aggregation.clustered import bipartition, cosines
from cellwright.federation.contract import Arrays, Local, Task, Update, Usage
from cellwright.training.fit import fit_closed_form
from models import mlp, ridge, trees
from models._contract import Batch, Problem

START = {"w": np.array([10.0, 20.0], np.float32)}
LOCAL = Local(steps=5, batch=8, learning_rate=0.01)


def update(
    owner: str, delta: list[float], examples: int = 1, *, staleness: int = 0, variate: list[float] | None = None
) -> Update:
    extra = {"dc/w": np.array(variate, np.float32)} if variate is not None else {}
    arrays = {"w": np.array(delta, np.float32)}
    return Update(owner, 1, arrays, examples, 5, {}, Usage(1.0, 1.0, None, None), extra=extra, staleness=staleness)


A, B = update("a", [1, 0], 1), update("b", [5, 4], 3)  # by windows their mean is (4, 3)


def after(rule: Rule, *updates: Update, start: Arrays = START) -> np.ndarray:
    return rule.aggregate(start, updates)["w"]


def test_an_unknown_rule_says_which_there_are():
    with pytest.raises(UnknownName, match=r"aggregation rule 'fedavrg'.*bagging.*krum.*trimmed_mean.*Did you mean 'fedavg'"):
        aggregation.rule("fedavrg", {})


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(ParamsError, match=r"federation\.rule_options: unknown option 'share_'; did you mean 'share'"):
        aggregation.rule("krum", {"share_": 0.2})
    with pytest.raises(ParamsError, match=r"share must be at most 0\.49"):
        aggregation.rule("trimmed_mean", {"share": 0.5})


def test_each_rule_of_a_benchmark_has_options_of_its_own():
    given = {"krum": {"share": 0.1}, "trimmed_mean": {"share": 0.3}}
    shares = [aggregation.rule(name, given).options.share for name in ("krum", "trimmed_mean")]
    assert shares == [0.1, 0.3]
    assert aggregation.options_of("fedavg", given) == {}
    aggregation.rule("fedavg", given)
    with pytest.raises(ParamsError, match=r"federation\.rule_options\.krum: unknown option 'share_'"):
        aggregation.rule("fedavg", {"fedavg": {}, "krum": {"share_": 0.2}})  # found whichever trains first
    with pytest.raises(ParamsError, match=r"'share' stands beside options by rule \(krum\)"):
        aggregation.rule("krum", {"krum": {"share": 0.2}, "share": 0.1})
    with pytest.raises(ParamsError, match=r"'krumm' stands beside"):
        aggregation.rule("fedavg", {"fedavg": {}, "krumm": {}})


def test_fedavg_weighs_by_windows():
    rule = aggregation.rule("fedavg", {})
    np.testing.assert_array_equal(after(rule, A, B), [14, 23])
    np.testing.assert_array_equal(rule.weights([A, B]), [0.25, 0.75])


def test_updates_without_any_window_are_refused():
    with pytest.raises(FederationError, match="none of the updates rests on any training window"):
        after(aggregation.rule("fedavg", {}), update("a", [1, 0], 0))


def test_an_update_of_another_model_is_refused_by_name():
    other = Update("b", 1, {"v": np.zeros(2, np.float32)}, 1, 5, {}, Usage(1.0, 1.0, None, None))
    for name in ("fedavg", "semi_synchronous"):
        with pytest.raises(FederationError, match="'b'"):
            aggregation.rule(name, {}).aggregate(START, [A, other])


def test_fedprox_averages_as_fedavg_and_keeps_owners_near():
    rule = aggregation.rule("fedprox", {"mu": 0.3})
    np.testing.assert_array_equal(after(rule, A, B), [14, 23])
    assert rule.local(LOCAL, 1).proximal == 0.3


def test_fedadam_one_step_without_memory():
    """lr 1, b1 = b2 = 0, tau 1: m = d, v = d², so each weight moves by d / (|d| + 1)."""
    rule = aggregation.rule("fedadam", {"learning_rate": 1.0, "beta_1": 0.0, "beta_2": 0.0, "tau": 1.0})
    np.testing.assert_allclose(after(rule, A, B), [10 + 4 / 5, 20 + 3 / 4], rtol=1e-6)


def test_fedadam_two_steps():
    """d = (4, 3) twice. m: (2, 1.5), (3, 2.25); v: (4, 2.25), (7, 3.9375); lr': √0.4375 / 0.75, √0.578125 / 0.875."""
    rule = aggregation.rule("fedadam", {"learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0})
    first = rule.aggregate(START, [A, B])
    np.testing.assert_allclose(first["w"] - START["w"], [0.881917 * 2 / 3, 0.881917 * 1.5 / 2.5], rtol=1e-5)
    second = rule.aggregate(first, [A, B])
    np.testing.assert_allclose(second["w"] - first["w"], [0.868966 * 3 / 3.645751, 0.868966 * 2.25 / 2.984313], rtol=1e-5)


def test_fedyogi_two_steps():
    """d = (4, 3) twice. m as FedAdam's; v grows by d² / 4 each time, (4, 2.25), (8, 4.5), as it stays below d²."""
    rule = aggregation.rule("fedyogi", {"learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0})
    first = rule.aggregate(START, [A, B])
    np.testing.assert_allclose(first["w"] - START["w"], [2 / 3, 1.5 / 2.5], rtol=1e-5)
    second = rule.aggregate(first, [A, B])
    np.testing.assert_allclose(second["w"] - first["w"], [3 / 3.828427, 2.25 / 3.121320], rtol=1e-5)


def test_fedmedian_by_weight_whatever_the_windows():
    np.testing.assert_array_equal(after(aggregation.rule("fedmedian", {}), A, B, update("c", [6, -8], 100)), [15, 20])


def test_trimmed_mean_leaves_out_the_ends():
    some = [update(o, [d, -d]) for o, d in (("a", 1), ("b", 5), ("c", 6), ("d", 100))]
    np.testing.assert_array_equal(after(aggregation.rule("trimmed_mean", {"share": 0.25}), *some), [15.5, 14.5])


def test_trimmed_mean_cuts_the_whole_number_that_is_meant():
    """0.29 · 100 is a little less than 29 in floating point; 29 poisoned updates must be cut all the same."""
    some = [update(f"{n:03}", [1e6, 0] if n < 29 else [1, 0]) for n in range(100)]
    np.testing.assert_array_equal(after(aggregation.rule("trimmed_mean", {"share": 0.29}), *some), [11, 20])


LINE = [update(o, [d, 0]) for o, d in (("a", 0), ("b", 1), ("c", 2.5), ("d", 4.5), ("e", 50))]


def test_krum_takes_the_one_nearest_to_its_neighbours():
    """One of five may be poisoned: two nearest count. Scores: 7.25, 3.25, 6.25, 16.25, and thousands."""
    np.testing.assert_array_equal(after(aggregation.rule("krum", {"share": 0.2}), *LINE), [11, 20])


def test_multi_krum_averages_all_but_the_poisoned():
    np.testing.assert_array_equal(after(aggregation.rule("krum", {"share": 0.2, "select": 0}), *LINE), [12, 20])


def test_krum_expects_no_more_poison_than_the_paper_allows():
    krum = aggregation.rule("krum", {"share": 0.49})
    assert [krum.arguments(n)["num_malicious_nodes"] for n in (3, 5, 9, 10)] == [0, 1, 3, 3]


def test_scaffold_averages_owners_alike_and_their_variates():
    rule = aggregation.rule("scaffold", {})
    np.testing.assert_array_equal(rule.extra("a", START)["c/w"], [0, 0])
    some = [update("a", [2, 0], 1, variate=[-4, 0]), update("b", [4, 2], 9, variate=[2, 1])]
    np.testing.assert_array_equal(after(rule, *some), [13, 21])
    np.testing.assert_array_equal(rule.extra("a", START)["c/w"], [-1, 0.5])  # (-4 + 2) / 2, (0 + 1) / 2
    after(rule, update("c", [0, 0], variate=[5, 5]))
    np.testing.assert_array_equal(rule.extra("b", START)["c/w"], [1, 2])  # (-2 + 5) / 3, (1 + 5) / 3
    assert rule.extra("b", START)["c/w"].dtype == np.float32


def test_scaffold_wants_every_variate_and_trains_by_gradient_descent_if_asked():
    assert aggregation.rule("scaffold").local(LOCAL, 1) == LOCAL
    rule = aggregation.rule("scaffold", {"optimizer": "sgd", "rate_factor": 10.0})
    assert rule.local(LOCAL, 1).optimizer == "sgd"
    assert rule.local(LOCAL, 1).learning_rate == pytest.approx(0.1)
    with pytest.raises(FederationError, match="'a' sent no control variate"):
        after(rule, A)


def test_fedbuff_takes_stale_updates_at_a_discount():
    """Half of 4, and half of 8 halved again, as (1 + 3)^-½ = ½; the buffer waits for no more than there are."""
    rule = aggregation.rule("fedbuff", {"buffer": 3})
    np.testing.assert_array_equal(after(rule, update("a", [4, 0]), update("b", [8, 0], staleness=3)), [14, 20])
    assert (rule.wanted(10), rule.wanted(2)) == (3, 2)
    assert [aggregation.rule("fedbuff").wanted(n) for n in (1, 2, 4, 25, 100)] == [1, 1, 2, 9, 10]


def test_semi_synchronous_shares_add_up_to_one():
    rule = aggregation.rule("semi_synchronous", {"deadline_s": 5.0})
    some = [update("a", [3, 0]), update("b", [9, 0], staleness=3)]
    np.testing.assert_allclose(rule.weights(some), [2 / 3, 1 / 3])
    np.testing.assert_allclose(after(rule, *some), [15, 20])
    assert rule.deadline_s(600.0) == 5.0
    assert aggregation.rule("semi_synchronous", {}).deadline_s(600.0) == 600.0


def test_clustered_parts_owners_that_pull_apart():
    """Their mean is 0 and they are not at rest: two clusters, each with a model that goes its own way from then on."""
    rule = aggregation.rule("clustered", {"warm_up": 0})
    some = [update("a", [1, 0]), update("b", [1, 0]), update("c", [-1, 0]), update("d", [-1, 0])]
    np.testing.assert_array_equal(after(rule, *some), START["w"])
    assert rule.clusters == {"a": 0, "b": 0, "c": 1, "d": 1}
    np.testing.assert_array_equal(after(rule, *some), START["w"])  # mean of 11 and 9
    assert [float(rule.start_for(o, START)["w"][0]) for o in "abcd"] == [11, 11, 9, 9]
    np.testing.assert_array_equal(rule.start_for("new", START)["w"], START["w"])


def test_clustered_stays_one_where_owners_agree_or_are_too_few():
    agree = [update(o, [1, d]) for o, d in zip("abcd", (0, 0.1, 0.2, 0), strict=True)]
    apart = [update("a", [1, 0]), update("b", [1, 0]), update("c", [-2, 0])]
    for some in (agree, apart):
        rule = aggregation.rule("clustered", {"warm_up": 0})
        after(rule, *some)
        assert set(rule.clusters.values()) == {0}


def test_a_partition_keeps_what_is_similar_together():
    similar = cosines(np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.1], [0.1, 2.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(bipartition(similar[:4, :4]), [False, True, False, True])
    assert similar[0, 4] == 0


def test_hierarchical_is_the_mean_of_regions():
    """Region e: (1·1 + 3·5) / 4 = 4 of 4 windows; region f: 0 of 12. By windows 1, alike 2."""
    some = [A, B, update("c", [0, 0], 12)]
    for alike, expected in ((False, 11.0), (True, 12.0)):
        rule = aggregation.rule("hierarchical", {"regions_alike": alike})
        rule.place({"e": ("a", "b"), "f": ("c",)})
        assert after(rule, *some)[0] == expected
        edges = [update("e", [4, 3], 4), update("f", [0, 0], 12)]  # as the edges aggregate them
        assert after(rule, *edges)[0] == expected


def test_hierarchical_wants_regions():
    rule = aggregation.rule("hierarchical", {"regions_alike": True})
    with pytest.raises(FederationError, match=r"needs regions; set federation\.topology"):
        after(rule, A)
    rule.place({"e": ("a",)})
    with pytest.raises(FederationError, match=r"'b' lies in no region of the topology \(e\)"):
        after(rule, A, B)


def test_personalised_shares_the_body_alone():
    rule = aggregation.rule("personalised", {})
    start = {"blocks.core.w": np.zeros(1, np.float32), "blocks.head.w": np.full(1, 7, np.float32)}
    body = [Update(u.owner, 1, {"blocks.core.w": u.delta["w"][:1]}, u.examples, 5, {}, u.usage) for u in (A, B)]
    found = rule.aggregate(start, body)
    assert (found["blocks.core.w"][0], found["blocks.head.w"][0]) == (4, 7)
    told = [Update(u.owner, 1, {**u.delta, "blocks.head.w": np.ones(1, np.float32)}, 1, 5, {}, u.usage) for u in body]
    assert rule.aggregate(start, told)["blocks.head.w"][0] == 7  # a head that came all the same is not looked at
    assert rule.local(LOCAL, 1).private == ("blocks.head",)


# closed forms ------------------------------------------------------------------------------------------------------------------

PROBLEM = Problem(6, 2, 3600.0, "site", 1, 1, ("traffic",), ("traffic",))


def windows(count: int, seed: int, *, gaps: bool) -> Batch:
    """Sums of the history with noise; with gaps, every owner lacks some targets, and has some windows without any."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, 1, 1, generator=rng) + seed % 3
    y = torch.stack((x.sum(1), x[:, -1] - x[:, 0]), 1) + 0.1 * torch.randn(count, 2, 1, 1, generator=rng)
    mask = (torch.rand(y.shape, generator=rng) > 0.2).float() if gaps else torch.ones_like(y)
    return Batch(x, torch.zeros(count, 8, 0), torch.where(mask > 0, y, 1e9), mask)


def task(model: str) -> Task:
    problem = {"history": 6, "horizon": 2, "cadence_s": 3600.0, "inputs": "site", "nodes": 1, "outputs": 1}
    names = {"features": ["traffic"], "targets": ["traffic"]}
    spans = {"train": (0, 1), "validation": (1, 2), "test": (2, 3)}
    rest = {"options": {}, "scaler": "standard", "clip": None, "loss": "mae", "seed": 0}
    return Task(request="r", dataset="d", model=model, problem={**problem, **names}, **spans, **rest)


def arrays(network: torch.nn.Module) -> Arrays:
    return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}


def sent(network, owner: str, batch: Batch) -> Update:
    found = statistics(network, [batch], seed=3)
    return Update(owner, 1, found, len(batch.x), 0, {}, Usage(1.0, 1.0, None, None))


@pytest.mark.parametrize("gaps", [False, True])
def test_fedgram_is_the_ridge_of_all_rows_together(gaps):
    """Owners of 40, 300 and 25 windows; the forecasts of both ways of solving agree to float32."""
    owned = {owner: windows(count, seed, gaps=gaps) for seed, (owner, count) in enumerate((("a", 40), ("b", 300), ("c", 25)))}
    central = ridge.Network(PROBLEM, ridge.Options())
    central.fit_closed_form(list(owned.values()))
    rule = aggregation.rule("fedgram", {})
    rule.bind(task("ridge"))
    fresh = ridge.Network(PROBLEM, ridge.Options())
    found = rule.aggregate(arrays(fresh), [sent(fresh, owner, batch) for owner, batch in owned.items()])
    assert list(found) == list(central.state_dict())
    for name, tensor in central.state_dict().items():
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    assert float(central.blocks.core.weight.abs().max()) > 0.5  # something was learnt


def test_what_ridge_owners_send_holds_no_window():
    """As many numbers for forty windows as for three hundred, and none of them a value of a window."""
    network = ridge.Network(PROBLEM, ridge.Options())
    few, many = (statistics(network, [windows(count, 1, gaps=True)], seed=0) for count in (40, 300))
    assert {n: a.shape for n, a in few.items()} == {n: a.shape for n, a in many.items()}
    assert all(a.dtype == np.float64 for a in few.values())
    assert not np.isin(
        windows(40, 1, gaps=True).x.numpy().astype(np.float64), np.concatenate([a.ravel() for a in few.values()])
    ).any()


def test_fedgram_says_what_it_cannot_do():
    rule = aggregation.rule("fedgram", {})
    with pytest.raises(FederationError, match="'mlp' does not have; use it with 'ridge'"):
        rule.bind(task("mlp"))
    with pytest.raises(FederationError, match="bind"):
        rule.aggregate({}, [A])
    rule.bind(task("ridge"))
    network = ridge.Network(PROBLEM, ridge.Options())
    unmeasured = windows(40, 1, gaps=False)
    unmeasured = unmeasured._replace(mask=torch.zeros_like(unmeasured.mask))
    with pytest.raises(FederationError, match="at least one measured target"):
        rule.aggregate(arrays(network), [sent(network, "a", unmeasured)])


def test_bagging_says_the_weighted_mean_of_what_its_owners_say():
    options = trees.Options(trees=6, depth=3, min_rows=5)
    owned = {owner: windows(count, seed, gaps=True) for seed, (owner, count) in enumerate((("a", 100), ("b", 300)))}
    x, known = windows(50, 9, gaps=False)[:2]
    alone, updates = [], []
    for owner, batch in owned.items():
        network = trees.Network(PROBLEM, options)
        updates.append(sent(network, owner, batch))
        alone.append(network(x, known))
    rule = aggregation.rule("bagging", {})
    joined = trees.Network(PROBLEM, options)
    found = rule.aggregate(arrays(joined), updates)
    joined.load_state_dict({name: torch.from_numpy(a) for name, a in found.items()})
    torch.testing.assert_close(joined(x, known), 0.25 * alone[0] + 0.75 * alone[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=0.05)


def test_bagging_refuses_what_is_no_forest():
    with pytest.raises(FederationError, match="this network has none; federate 'trees'"):
        aggregation.rule("bagging", {}).aggregate(START, [A])
    with pytest.raises(FederationError, match="trained by gradient descent"):
        statistics(mlp.Network(PROBLEM, mlp.Options()), [], seed=0)
    with pytest.raises(TypeError, match="not fitted from sums"):
        mlp.Network(PROBLEM, mlp.Options()).statistics([])


def test_trees_of_an_owner_are_those_it_would_have_alone():
    batch, options = windows(120, 4, gaps=False), trees.Options(trees=4, depth=3, min_rows=5)
    alone, federated = trees.Network(PROBLEM, options), trees.Network(PROBLEM, options)
    fit_closed_form(alone, [batch], seed=3)
    for name, array in sent(federated, "a", batch).delta.items():
        np.testing.assert_array_equal(array, alone.state_dict()[name].numpy())
