"""Node selection and permissions (M.3387 8.2): enough resources, the right data and role, security, reliability, reward; in words."""

import pytest

from cellwright.errors import FederationError, ParamsError
from cellwright.federation.management.permissions import SecurityRules, authorise, rules_from
from cellwright.federation.management.records import Capacity, DataNeeds, Holding, NodeProperties, NodeStatus, ServiceRequest
from cellwright.federation.management.refusals import NotAllowed
from cellwright.federation.management.selection import Weights, best, choose, names

NEED = Capacity(cpus=1, memory_bytes=100)


def owner(name, **more):
    return NodeProperties(**{"name": name, "roles": ("data_owner",), "seconds_per_step": 0.1} | more)


def status(name, **more):
    return NodeStatus(**{"node": name, "free": Capacity(cpus=2, memory_bytes=400)} | more)


def asked(**more):
    return ServiceRequest(**{"name": "load", "data": DataNeeds(dataset="city"), "per_node": NEED, "least_owners": 1} | more)


def chosen(request, nodes, changed=None, **more):
    statuses = {n.name: status(n.name, **(changed or {}).get(n.name, {})) for n in nodes}
    return {c.node: c for c in choose(request, nodes, statuses, **more)}


def test_the_score_is_the_weighted_sum_that_the_reasons_tell():
    fast, slow = owner("fast"), owner("slow", seconds_per_step=0.4)
    found = chosen(asked(), [slow, fast], {"fast": {"reward": 2.0}, "slow": {"reward": 1.0, "reliability": 0.8}})
    # headroom: 1 of 2 CPUs and 300 of 400 bytes stay free, hence (0.5 + 0.75) / 2
    assert found["fast"].score == pytest.approx(0.35 * 1 + 0.25 * 0.625 + 0.15 * 1 + 0.25 * 1)
    assert found["slow"].score == pytest.approx(0.35 * 0.8 + 0.25 * 0.625 + 0.15 * 0.25 + 0.25 * 0.5)
    assert list(found) == ["fast", "slow"]
    assert found["slow"].reasons == (
        "reliability 0.80 adds 0.280",
        "62% of the needed resources stay free, which adds 0.156",
        "0.4 s a step adds 0.037",
        "reward 1 adds 0.125",
    )


def test_a_reward_changes_who_is_chosen():
    nodes = [owner("a"), owner("b")]
    assert names(tuple(chosen(asked(), nodes, most=1).values())) == ("a",)
    found = chosen(asked(), nodes, {"b": {"reward": 0.3}}, most=1)
    assert names(tuple(found.values())) == ("b",)
    assert found["a"].reasons[0] == "rank 2, and 1 are wanted"
    without = chosen(asked(), nodes, {"b": {"reward": 0.3}}, most=1, weights=Weights(reward=0))
    assert names(tuple(without.values())) == ("a",)


@pytest.mark.parametrize(
    ("node", "changed", "reason"),
    [
        (owner("x", roles=("auditor",)), {}, "rule 'role': it may be an auditor, not a data owner"),
        (owner("x", security=0), {}, "rule 'security': security level 0, at least 1 for a data owner"),
        (owner("x"), {"reliability": 0.4}, "rule 'reliability': reliability 0.40, at least 0.5 for a data owner"),
        (owner("x"), {"alive": False, "reason": "lost"}, "rule 'alive': it is not alive (lost)"),
        (owner("x"), {"free": Capacity(cpus=0.5, memory_bytes=400)}, "resources: 0.5 CPUs free, 1 needed"),
        (owner("x"), {"free": Capacity(cpus=1, memory_bytes=99)}, "resources: 99 bytes of memory free, 100 needed"),
    ],
)
def test_whoever_is_left_out_is_told_why(node, changed, reason):
    found = chosen(asked(), [owner("good"), node], {"x": changed})
    assert not found["x"].chosen
    assert found["x"].reasons == (reason,)


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ({"dataset": "milan"}, "data: it holds no 'milan' (it holds city)"),
        ({"dataset": "city", "targets": ("load", "users")}, "data: no target 'users'"),
        ({"dataset": "city", "features": ("rain",)}, "data: no feature 'rain'"),
        ({"dataset": "city", "cadence_s": 60}, "data: cadence 600 s, 60 s needed"),
        ({"dataset": "city", "least_windows": 51}, "data: 50 windows, at least 51 needed"),
    ],
)
def test_only_owners_of_the_right_data_are_chosen(needs, reason):
    held = {"x": [Holding(node="x", dataset="city", targets=("load",), features=("load",), cadence_s=600, windows=50)]}
    assert chosen(asked(), [owner("x")], holdings=held)["x"].chosen
    with pytest.raises(FederationError, match=r"found 0 that are fit. Left out: x: ") as error:
        chosen(asked(data=DataNeeds(**needs)), [owner("x")], holdings=held)
    assert reason in str(error.value)


def test_what_running_tasks_have_reserved_is_not_free():
    found = chosen(asked(), [owner("a"), owner("b")], reserved={"a": Capacity(cpus=1.5)})
    assert names(tuple(found.values())) == ("b",)
    assert found["a"].reasons == ("resources: 0.5 CPUs free, 1 needed",)


def test_owners_that_are_asked_for_by_name():
    found = chosen(asked(owners=("b", "ghost")), [owner("a"), owner("b")])
    assert names(tuple(found.values())) == ("b",)
    assert "by name" in found["a"].reasons[0]
    assert "no such node is registered" in found["ghost"].reasons[0]


def test_too_few_nodes_is_an_error_that_tells_of_the_first_few():
    nodes = [owner(f"n{i}", security=0) for i in range(12)]
    with pytest.raises(FederationError) as error:
        chosen(asked(least_owners=3), [*nodes, owner("fit")])
    text = str(error.value)
    assert "needs at least 3 data owners, found 1 that are fit" in text
    assert "n0: rule 'security'" in text
    assert "n4: " in text
    assert "n5: " not in text
    assert "and 7 more" in text


def test_coordinators_are_ranked_by_layer_security_and_reliability():
    nodes = [
        NodeProperties(name=name, roles=("coordinator",), layer=layer, security=level)
        for name, layer, level in (("edge", "edge", 5), ("cloud", "cloud", 2), ("vault", "cloud", 4), ("open", "cloud", 1))
    ]
    found = best("coordinator", nodes, {n.name: status(n.name) for n in nodes})
    assert [n.name for n in found] == ["vault", "cloud", "edge"]  # "open" is below the level that the rules ask


# ---- permissions --------------------------------------------------------------------------------------------------------------

GOOD = {"coordinator": owner("n", roles=("coordinator",), security=2), "auditor": owner("n", roles=("auditor",), security=2)}
GOOD["data_owner"] = owner("n")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("coordinator", {"aggregate", "read_metadata"}), ("auditor", {"audit", "read_metadata"}), ("data_owner", {"train"})],
)
def test_each_role_may_do_its_own_operations_and_no_others(role, allowed):
    for operation in ("train", "aggregate", "read_metadata", "audit"):
        if operation in allowed:
            assert operation in authorise(GOOD[role], status("n"), role, operation, "r", SecurityRules()).operations
        else:
            with pytest.raises(NotAllowed, match="rule 'operation'"):
                authorise(GOOD[role], status("n"), role, operation, "r", SecurityRules())


@pytest.mark.parametrize(
    ("node", "changed", "rules", "rule"),
    [
        (owner("n", security=0), {}, {}, "security"),
        (owner("n"), {"reliability": 0.1}, {}, "reliability"),
        (owner("n"), {"alive": False}, {}, "alive"),
        (owner("n", roles=("auditor",)), {}, {}, "role"),
        (owner("n"), {}, {"blocked": ["n"]}, "blocked"),
        (owner("n"), {}, {"need_key": True}, "key"),
        (owner("n"), {}, {"data_owner": {"security": 3, "reliability": 0, "operations": ["train"]}}, "security"),
    ],
)
def test_a_refusal_names_the_rule(node, changed, rules, rule):
    with pytest.raises(NotAllowed, match=f"^rule '{rule}': n"):
        authorise(node, status("n", **changed), "data_owner", "train", "r", rules_from(rules))


def test_a_node_that_never_reported_is_not_trusted():
    with pytest.raises(NotAllowed, match="rule 'alive': n: it has never reported its status"):
        authorise(owner("n"), None, "data_owner", "train", "r", SecurityRules())


def test_rules_come_from_a_file_and_unknown_ones_are_refused(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("coordinator: {security: 4, reliability: 0.9, operations: [aggregate]}\nneed_key: true\n")
    rules = rules_from(path)
    assert (rules.coordinator.security, rules.need_key, rules.data_owner.security) == (4, True, 1)
    assert rules_from(None) == SecurityRules()
    path.write_text("coordinators: {}\n")
    with pytest.raises(ParamsError, match="coordinators"):
        rules_from(path)
    with pytest.raises(ParamsError, match="cannot read the security rules"):
        rules_from(tmp_path / "none.yaml")
