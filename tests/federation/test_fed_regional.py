"""A region as one node of the cloud's coordinator (M.3387 Appendix I, step 5)."""

import numpy as np
import pytest

from cellwright.errors import FederationError
from cellwright.federation import messages, privacy
from cellwright.federation.aggregation import rule
from cellwright.federation.audit.signing import Signer, verify
from cellwright.federation.compression import codec
from cellwright.federation.contract import Instruction, NodeState
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.management.records import Edge, Topology
from cellwright.federation.regional import RegionalCoordinator
from cellwright.federation.runtimes.local import open_channel

REGIONS = {"rsu-1": ("a", "b"), "rsu-2": ("c", "d", "e")}


def hierarchy(toy) -> Topology:
    heads = tuple(Edge(child=head, parent="cloud") for head in REGIONS)
    below = tuple(Edge(child=owner, parent=head) for head, owners in REGIONS.items() for owner in owners)
    owners = tuple(o for owners in REGIONS.values() for o in owners)
    return Topology(
        request=toy.TASK.request, kind="hierarchy", coordinator="cloud", edges=heads + below, owners=owners, regions=REGIONS
    )


def owners(toy, **over):
    return {name: toy.Puller(name, float(i), 5 + i, **over) for i, name in enumerate("abcde")}


def regions(made, **over):
    channels = {head: open_channel({o: made[o] for o in below}) for head, below in REGIONS.items()}
    return {head: RegionalCoordinator(head, channel, codec=codec("none"), **over) for head, channel in channels.items()}


def cloud(toy, heads, name="fedavg", **over):
    settings = over.pop("settings", toy.settings(rounds=3))
    return Coordinator(open_channel(heads), toy.TASK, rule(name), settings, codec=codec("none"), topology=hierarchy(toy), **over)


@pytest.mark.parametrize("name", ["fedavg", "hierarchical"])
def test_one_regional_round_gives_the_weights_of_a_star(toy, name):
    """Means of means, weighted by windows, are the mean."""
    layered = cloud(toy, regions(owners(toy)), name).run(toy.initial())
    flat = Coordinator(
        open_channel(owners(toy)),
        toy.TASK,
        rule("fedavg"),
        toy.settings(rounds=3),
        codec=codec("none"),
        topology=toy.star("abcde"),
    ).run(toy.initial())
    for key, array in flat.arrays.items():
        np.testing.assert_allclose(layered.arrays[key], array, rtol=1e-5)
    assert layered.rounds[-1].mse == pytest.approx(flat.rounds[-1].mse, rel=1e-5)
    first = {o.owner: o for o in layered.rounds[0].owners}
    assert set(first) == set(REGIONS)
    assert (first["rsu-1"].examples, first["rsu-2"].examples) == (11, 24)
    assert first["rsu-1"].energy_j == 2 * 4.0  # two owners that train and judge
    assert first["rsu-1"].cpu_s == 2 * 0.5


def test_a_hierarchy_also_runs_where_the_owners_are_reached_directly(toy):
    made = owners(toy)
    out = Coordinator(
        open_channel(made), toy.TASK, rule("hierarchical"), toy.settings(rounds=1), codec=codec("none"), topology=hierarchy(toy)
    ).run(toy.initial())
    assert {o.owner for o in out.rounds[0].owners} == set("abcde")


def test_regional_rounds_are_numbered_so_that_none_is_like_another(toy):
    made = owners(toy)
    cloud(toy, regions(made, rounds=3), settings=toy.settings(rounds=2)).run(toy.initial())
    assert [round_ for kind, round_ in made["a"].seen if kind == "train"] == [1, 2, 3, 4, 5, 6]


def test_more_regional_rounds_move_further(toy):
    def moved(rounds):
        out = cloud(toy, regions(owners(toy), rounds=rounds), settings=toy.settings(rounds=1, steps=1)).run(toy.initial())
        return np.abs(out.arrays["layer.bias"]).mean()

    assert moved(3) > 1.5 * moved(1)


def test_a_member_that_fails_is_left_out_and_the_region_goes_on(toy):
    made = owners(toy)
    made["c"].failing = {"train"}
    out = cloud(toy, regions(made)).run(toy.initial())
    assert {o.owner: o.examples for o in out.rounds[0].owners} == {"rsu-1": 11, "rsu-2": 17}


def test_a_region_with_too_few_members_says_so_and_the_cloud_goes_on(toy):
    made = owners(toy)
    made["a"].failing = made["b"].failing = {"train"}
    out = cloud(toy, regions(made), settings=toy.settings(rounds=1, least_owners=1)).run(toy.initial())
    head = out.rounds[0].owners[0]
    assert head.outcome == "lost"
    assert "rsu-1: 0 of 2 updates came" in head.reason


def test_a_region_that_vanishes_leaves_the_topology_with_its_owners(toy):
    heads = regions(owners(toy))
    made = cloud(toy, heads, settings=toy.settings(rounds=3, least_owners=1))
    made.on_round = lambda record: made.channel.grid.fail("rsu-1") if record.round == 1 else None
    out = made.run(toy.initial())
    assert out.topology.regions == {"rsu-2": REGIONS["rsu-2"]}
    assert out.topology.owners == REGIONS["rsu-2"]


def test_what_members_remember_survives_the_coordinator(toy, tmp_path):
    class Killed(BaseException):
        pass

    def run(path, last=0):
        def die(record):
            if record.round == last:
                raise Killed

        made = regions(owners(toy, remembers=True), rounds=2)
        return cloud(toy, made, checkpoint=path, on_round=die, settings=toy.settings(rounds=4)).run(toy.initial())

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "c", 2)
    again = run(tmp_path / "c")
    assert all(array.tobytes() == again.arrays[name].tobytes() for name, array in whole.arrays.items())


def test_a_region_may_seal_its_owners_updates_from_itself(toy):
    def seal():
        return (privacy.mechanism("secure_aggregation", {"least": 2}),)

    def run(mechanisms):
        made = {n: toy.Puller(n, float(i), 5 + i, mechanisms=mechanisms()) for i, n in enumerate("abcde")}
        return cloud(toy, regions(made, mechanisms=mechanisms()), settings=toy.settings(rounds=1)).run(toy.initial())

    sealed, plain = run(seal), run(tuple)
    for key, array in plain.arrays.items():
        np.testing.assert_allclose(sealed.arrays[key], array, atol=1e-4)


def test_only_the_clouds_fresh_messages_are_answered_and_its_replies_are_signed(toy):
    cloud_key, own_key, heard = Signer.generate(), Signer.generate(), []

    class Listening(toy.Puller):
        def answer(self, kind, parcel, state):
            verify(parcel, own_key.public)
            heard.append(parcel.values["sequence"])
            return super().answer(kind, parcel, state)

    made = {"a": Listening("a", 0.0), "b": toy.Puller("b", 1.0)}
    region = RegionalCoordinator(
        "rsu-1", open_channel(made), codec=codec("none"), signer=own_key, coordinator_key=cloud_key.public
    )
    state, told = NodeState(), {"sender": "cloud", "request": toy.TASK.request}
    task = messages.deploy(toy.TASK)
    with pytest.raises(FederationError, match="not signed"):
        region.answer("deploy", task, state)
    verify(region.answer("deploy", cloud_key.sign(task, sequence=1, **told), state), own_key.public)
    train = messages.train(Instruction(1, toy.initial(), toy.settings().local))
    signed = cloud_key.sign(train, sequence=2, **told)
    verify(region.answer("train", signed, state), own_key.public)
    with pytest.raises(FederationError, match="replay"):
        region.answer("train", signed, state)
    assert heard == sorted(set(heard))


def test_rules_that_send_more_than_weights_are_refused(toy):
    region = regions(owners(toy))["rsu-1"]
    state = NodeState()
    region.answer("deploy", messages.deploy(toy.TASK), state)
    extra = {"variate/layer.bias": np.zeros(3, np.float32)}
    asked = messages.train(Instruction(1, toy.initial(), toy.settings().local, extra))
    with pytest.raises(FederationError, match="arrays of its own"):
        region.answer("train", asked, state)
    with pytest.raises(FederationError, match="does not answer 'metadata'"):
        region.answer("metadata", asked, state)
