"""Service topology (M.3387 8.4.1, Appendix I.2): generated from roles, links and resources, and rebuilt with few changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.errors import FederationError
from cellwright.federation.management.links import Network
from cellwright.federation.management.permissions import SecurityRules, broken
from cellwright.federation.management.reconstruction import rebuilt
from cellwright.federation.management.records import Capacity, Link, NodeProperties, NodeStatus
from cellwright.federation.management.topology import children_of, hierarchy, parent_of, star


def node(name, role="data_owner", **more):
    layer = {"coordinator": "cloud"}.get(role, "terminal")
    return NodeProperties(**{"name": name, "roles": (role,), "layer": layer, "security": 3} | more)


def edge(name, **more):
    return node(name, "coordinator", **{"layer": "edge"} | more)


def alive(*nodes, **changed):
    """Statuses of nodes: all alive, with what `changed` says of some."""
    return {n.name: NodeStatus(node=n.name, **changed.get(n.name, {})) for n in nodes}


def link(source, target, mbps=100.0, **more):
    return Link(source=source, target=target, bandwidth_bps=mbps * 1e6, **more)


HUB, STANDBY, AUDITOR = node("hub", "coordinator"), node("standby", "coordinator"), node("auditor", "auditor")
NORTH, SOUTH, EAST = edge("north"), edge("south"), edge("east")
OWNERS = [node(f"car{i}", region="north" if i < 3 else "south") for i in range(5)]
ALL = [HUB, STANDBY, AUDITOR, NORTH, SOUTH, EAST, *OWNERS]


def parents(topology):
    return {owner: parent_of(topology, owner) for owner in topology.owners}


def test_star_connects_every_owner_with_the_coordinator():
    made = star("r", HUB, OWNERS, auditor="auditor")
    assert parents(made) == {f"car{i}": "hub" for i in range(5)}
    assert (made.version, made.regions, made.auditor, made.reason) == (1, {}, "auditor", "")
    assert parent_of(made, "hub") is None


def test_hierarchy_puts_owners_below_the_edge_of_their_region_and_edges_below_the_cloud():
    made = hierarchy("r", HUB, [NORTH, SOUTH, EAST], OWNERS)
    assert made.regions == {"north": ("car0", "car1", "car2"), "south": ("car3", "car4")}
    assert {e: parent_of(made, e) for e in made.regions} == {"north": "hub", "south": "hub"}
    assert children_of(made, "north") == ("car0", "car1", "car2")


def test_an_owner_without_a_region_takes_the_fastest_link_and_equal_edges_share_by_cpus():
    lone = node("lone")
    made = hierarchy("r", HUB, [NORTH, SOUTH], [lone], links=[link("lone", "north", 10), link("lone", "south", 20)])
    assert parents(made) == {"lone": "south"}
    big = edge("big", capacity=Capacity(cpus=3))
    small = edge("small", capacity=Capacity(cpus=1))
    shared = hierarchy("r", HUB, [big, small], [node(f"o{i}") for i in range(8)])
    assert {head: len(owners) for head, owners in shared.regions.items()} == {"big": 6, "small": 2}


def test_a_link_that_loses_packets_counts_as_slower():
    lossy, sound = link("lone", "north", 30, loss=0.5), link("lone", "south", 20)
    made = hierarchy("r", HUB, [NORTH, SOUTH], [node("lone")], links=[lossy, sound])
    assert parents(made) == {"lone": "south"}
    assert Network([lossy]).seconds("north", "lone") == pytest.approx(2 * 8e6 / 30e6)


def test_an_edge_that_does_not_reach_the_cloud_is_not_used():
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS, links=[link("hub", "north", up=False)])
    assert set(made.regions) == {"south"}
    with pytest.raises(FederationError, match="an edge that reaches hub; found north"):
        hierarchy("r", HUB, [NORTH], OWNERS, links=[link("hub", "north", up=False)])


def test_owners_that_nobody_can_reach_are_named():
    with pytest.raises(FederationError, match="car1 can reach neither an edge nor hub"):
        star("r", HUB, OWNERS, links=[link("car1", "hub", up=False)])


def test_a_node_plays_one_role_and_only_one_that_it_may():
    with pytest.raises(FederationError, match="car0 may be data_owner; a coordinator is needed"):
        star("r", OWNERS[0], OWNERS[1:])
    with pytest.raises(FederationError, match="north: a node plays one role"):
        hierarchy("r", HUB, [NORTH], [node("north")])


def test_nothing_changes_where_nothing_happened():
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS, auditor="auditor")
    assert rebuilt(made, ALL, alive(*ALL), reason="looked") is made


def test_owners_of_a_failed_edge_move_to_the_best_other_and_all_else_stays():
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS)
    links = [link("car0", "south", 10), link("car0", "east", 50), link("car1", "south", 50), link("car1", "east", 10)]
    new = rebuilt(made, ALL, alive(*ALL, north={"alive": False, "reason": "no answer"}), links, "north failed")
    assert parents(new) == {"car0": "east", "car1": "south", "car2": "east", "car3": "south", "car4": "south"}
    assert new.version == 2
    assert new.reason.startswith("north failed: north left (it is not alive (no answer))")
    assert "car0 moved to east" in new.reason
    assert "car3" not in new.reason


def test_a_failed_coordinator_gives_its_role_to_the_best_standby():
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS)
    new = rebuilt(made, ALL, alive(*ALL, hub={"alive": False}))
    assert new.coordinator == "standby"
    assert parents(new) == parents(made)
    assert {e: parent_of(new, e) for e in new.regions} == {"north": "standby", "south": "standby"}


def test_without_a_standby_an_edge_is_promoted_and_without_any_it_cannot_go_on():
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS)
    some = [HUB, NORTH, SOUTH, *OWNERS]
    new = rebuilt(made, some, alive(*some, hub={"alive": False}))
    assert (new.coordinator, set(new.regions)) == ("north", {"south"})
    assert parents(new)["car0"] == "north"
    few = [HUB, *OWNERS]
    with pytest.raises(FederationError, match="lost its coordinator and there is no standby: hub left"):
        rebuilt(star("r", HUB, OWNERS), few, alive(*few, hub={"alive": False}))


def test_an_owner_whose_resources_are_exhausted_leaves_and_can_come_back():
    made = star("r", HUB, OWNERS)
    need = Capacity(cpus=1, memory_bytes=100)
    rich = {o.name: {"free": Capacity(cpus=1, memory_bytes=200)} for o in OWNERS}
    poor = rich | {"car4": {"free": Capacity(cpus=1, memory_bytes=50)}}
    new = rebuilt(made, ALL, alive(*ALL, **poor), need=need)
    assert new.owners == ("car0", "car1", "car2", "car3")
    assert "50 bytes of memory free, 100 needed" in new.reason
    again = rebuilt(new, ALL, alive(*ALL, **rich), need=need, owners=made.owners)
    assert (again.version, again.owners, again.reason) == (3, made.owners, "car4 joined to hub")


@pytest.mark.parametrize(("mbps", "parent"), [(60, "north"), (40, "south")])
def test_a_link_that_degrades_moves_an_owner_only_if_another_is_twice_as_fast(mbps, parent):
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS, links=[link("car0", "north", 100)])
    now = [link("car0", "north", mbps), link("car0", "south", 100)]
    assert parents(rebuilt(made, ALL, alive(*ALL), now))["car0"] == parent


def test_an_owner_whose_link_is_down_moves():
    made = hierarchy("r", HUB, [NORTH, SOUTH], OWNERS)
    new = rebuilt(made, ALL, alive(*ALL), [link("car0", "north", up=False)], "link down")
    assert parents(new) == parents(made) | {"car0": "south"} or parents(new) == parents(made) | {"car0": "east"}


def test_an_auditor_that_fails_is_replaced():
    other = node("other", "auditor")
    made = star("r", HUB, OWNERS, auditor="auditor")
    new = rebuilt(made, [*ALL, other], alive(*ALL, other, auditor={"alive": False}))
    assert new.auditor == "other"


def test_too_few_owners_left_is_an_error_that_says_what_became_of_each():
    made = star("r", HUB, OWNERS[:2])
    with pytest.raises(FederationError, match=r"1 data owners are left, at least 2 are needed. car0 left"):
        rebuilt(made, ALL, alive(*ALL, car0={"alive": False}), least=2)


def test_a_node_that_falls_below_the_rules_leaves():
    made = star("r", HUB, OWNERS)
    new = rebuilt(made, ALL, alive(*ALL, car0={"reliability": 0.2}))
    assert "car0" not in new.owners
    assert "reliability 0.20" in new.reason


# ---- properties: whatever happens to nodes and links -------------------------------------------------------------------------


@st.composite
def networks(draw):
    heads = [edge(f"e{i}", region=f"r{i}") for i in range(draw(st.integers(1, 4)))]
    clouds = [node(f"c{i}", "coordinator") for i in range(draw(st.integers(1, 3)))]
    owners = [node(f"o{i}", region=draw(st.sampled_from(["", "r0", "r1", "e2"]))) for i in range(draw(st.integers(1, 8)))]
    auditors = [node(f"a{i}", "auditor") for i in range(draw(st.integers(0, 2)))]
    return clouds, heads, owners, auditors


def draw_links(data, nodes):
    pairs = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)).filter(lambda p: p[0] != p[1])
    speeds = st.sampled_from([0.0, 1e6, 2.5e6, 1e7, 1e8])
    return [
        Link(source=a.name, target=b.name, up=data.draw(st.booleans()), bandwidth_bps=data.draw(speeds))
        for a, b in data.draw(st.lists(pairs, max_size=12))
    ]


def draw_statuses(data, nodes):
    return {
        n.name: NodeStatus(
            node=n.name,
            alive=data.draw(st.sampled_from([True, True, True, False])),
            free=Capacity(cpus=data.draw(st.sampled_from([1.0, 1.0, 0.0]))),
            reliability=data.draw(st.sampled_from([1.0, 0.9, 0.1])),
        )
        for n in nodes
    }


def check(topology, nodes, statuses, links):
    """One chain to the coordinator for every owner, over links that are up, with fit nodes in roles that they may play."""
    net, known = Network(links), {n.name: n for n in nodes}
    assert len({e.child for e in topology.edges}) == len(topology.edges)
    assert all(net.up(e.child, e.parent) for e in topology.edges)
    heads = (topology.coordinator, *topology.regions)
    for owner in topology.owners:
        chain = [owner]
        while (parent := parent_of(topology, chain[-1])) is not None:
            chain.append(parent)
            assert len(chain) <= 3
        assert chain[-1] == topology.coordinator
        assert all(name in heads for name in chain[1:])
    assert all(not broken(known[n], statuses[n], "coordinator", SecurityRules()) for n in heads)
    assert all(not broken(known[n], statuses[n], "data_owner", SecurityRules()) for n in topology.owners)
    assert all(children_of(topology, head) == owners for head, owners in topology.regions.items())
    roles = [*heads, *topology.owners, *([topology.auditor] if topology.auditor else [])]
    assert len(set(roles)) == len(roles)


@settings(max_examples=150, deadline=None)
@given(networks(), st.data())
def test_any_rebuilt_topology_holds_and_changes_no_more_than_it_must(network, data):
    clouds, heads, owners, auditors = network
    everyone = [*clouds, *heads, *owners, *auditors]
    auditor = auditors[0].name if auditors else None
    made = (
        hierarchy("r", clouds[0], heads, owners, auditor=auditor)
        if data.draw(st.booleans())
        else star("r", clouds[0], owners, auditor=auditor)
    )
    check(made, everyone, alive(*everyone), [])
    statuses, links = draw_statuses(data, everyone), draw_links(data, everyone)
    try:
        new = rebuilt(made, everyone, statuses, links, "something happened")
    except FederationError:
        fit = [c for c in (*clouds, *heads) if not broken(c, statuses[c.name], "coordinator", SecurityRules())]
        lost = [o for o in owners if broken(o, statuses[o.name], "data_owner", SecurityRules())]
        assert len(lost) == len(owners) or not [c for c in fit if statuses[c.name].free.cpus] or links
        return
    check(new, everyone, statuses, links)
    assert new.version == (made.version if new is made else made.version + 1)
    assert rebuilt(new, everyone, statuses, links, "again") is new
    net = Network(links)
    for owner in new.owners:
        before, after = parent_of(made, owner), parent_of(new, owner)
        if before != after and before != made.coordinator:
            unfit = before not in {e.name for e in heads} or broken(
                next(h for h in heads if h.name == before), statuses[before], "coordinator", SecurityRules()
            )
            exhausted = statuses[before].free.cpus == 0
            cut = not net.up(owner, before) or not net.up(before, new.coordinator)
            better = net.worse(owner, before, [h.name for h in heads])
            assert unfit or exhausted or cut or better


@settings(max_examples=50, deadline=None)
@given(networks(), st.data())
def test_any_generated_hierarchy_holds(network, data):
    clouds, heads, owners, _auditors = network
    everyone = [*clouds, *heads, *owners]
    links = draw_links(data, everyone)
    try:
        made = hierarchy("r", clouds[0], heads, owners, links=links)
    except FederationError:
        assert any(not one.up for one in links)
        return
    check(made, everyone, alive(*everyone), links)
    assert set(made.owners) == {o.name for o in owners}
