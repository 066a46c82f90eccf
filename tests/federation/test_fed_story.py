"""M.3387, Appendix I, as examples/road_anomalies tells it; and what the story asks of regions, sealed sums and simulated time."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cellwright.federation.aggregation import rule
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.contract import Local
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.initial import initial, task_for
from cellwright.federation.management.records import Edge, Topology
from cellwright.federation.owner import DataOwner, OwnerKit
from cellwright.federation.privacy import mechanism
from cellwright.federation.regional import RegionalCoordinator
from cellwright.federation.rounds import Rounds
from cellwright.federation.runtimes.local import open_channel

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "regions": 3,
    "per_region": 2,
    "spare": 1,
    "rows": 700,
    "auc": 0.87,
    "rounds": 30,
    "buffer": 1,
    "fails_after": 3,
    "seed": 1,
}


@pytest.fixture(scope="module")
def stories():
    """The example's package, as the script that runs it sees it."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from road_anomalies import story

        yield story
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in [name for name in sys.modules if name.partition(".")[0] == "road_anomalies"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def told(stories, tmp_path_factory):
    """The story on fewer vehicles and shorter drives, with what it printed."""
    lines = []
    found = stories.tell(stories.Sizes(**SMALL), say=lines.append, folder=tmp_path_factory.mktemp("story"))
    return found, "\n".join(lines)


def test_every_condition_of_the_six_steps_holds(told):
    found, text = told
    assert found.broken == ()
    assert [f"Step {n}" in text for n in range(1, 7)] == [True] * 6


def test_the_auc_asked_for_ends_the_training(told):
    found, _ = told
    assert found.outcome.status == "target"
    assert found.outcome.rounds[-1].auc >= SMALL["auc"]


def test_a_roadside_unit_fails_and_its_vehicles_move_to_the_others(told):
    found, _ = told
    first, last = found.decided.topology, found.outcome.topology
    assert last.version > 1
    assert set(first.regions) - set(last.regions) == {"rsu-2"}
    assert set(last.owners) == set(first.owners)
    at = {(edge, line.owner) for edge, _, members in found.regional for line in members if line.outcome == "counted"}
    for owner in first.regions["rsu-2"]:
        assert any((edge, owner) in at for edge in last.regions)


def test_the_slow_vehicle_is_told_fewer_steps_and_counts(told):
    found, _ = told
    slow = found.place.vehicles[5]
    counted = [m for _, _, members in found.regional for m in members if m.owner == slow.name and m.outcome == "counted"]
    assert {m.steps for m in counted} == {4}  # 90 % of half of 3 s (the other half is for the stages), at 0.3 s a step
    late = [m for _, _, members in found.regional for m in members if m.outcome not in ("counted", "evaluated")]
    assert late == []


def test_rewards_share_the_pot_and_change_who_is_next(told):
    found, _ = told
    assert sum(found.paid.rewards.values()) == pytest.approx(100)  # all reliable, so all of the pot
    assert set(found.paid.rewards) == set(found.decided.topology.owners)
    assert set(found.paid.before) != set(found.paid.after)
    best = max(found.paid.rewards, key=found.paid.rewards.__getitem__)
    assert best in found.paid.after


def test_the_delivered_model_loads_and_foresees_anomalies(told):
    found, _ = told
    from road_anomalies.ending import tried

    again, last_label = tried(found.received.folder, found.place, found.decided)
    assert again == found.received.told
    assert again.auc >= SMALL["auc"] - 0.02
    assert again.auc > last_label.auc


def test_every_coordinator_has_a_log_of_its_own(told):
    found, _ = told
    assert set(found.records) == {"cloud", "rsu-1", "rsu-2", "rsu-3"}
    assert min(found.records.values()) > 20


def test_no_roadside_unit_took_an_update_in_the_clear(told):
    """The logs say what each vehicle sent; a sealed update is accepted only if it holds no array of its own."""
    found, _ = told
    log = found.received.folder.parent / "rsu-1.jsonl"
    kinds = {json.loads(line)["kind"] for line in log.read_text().splitlines()}
    assert {"stage_advertise", "stage_share", "stage_deal", "train", "stage_unmask", "evaluate"} <= kinds


def test_a_story_that_breaks_its_word_does_not_end_with_0(stories, tmp_path):
    """An AUC that two aggregations cannot reach."""
    lines = []
    sizes = stories.Sizes(**{**SMALL, "rows": 500, "auc": 0.999, "rounds": 2, "fails_after": 9})
    assert stories.main(sizes, say=lines.append, folder=tmp_path) == 1
    assert any("[FAILED] the training ended" in line for line in lines)


@pytest.mark.parametrize("name", ["secure_aggregation", "ckks"])
def test_owners_that_sign_and_check_their_peers_keys_seal_a_sum(name, owner_folders, panel, params):
    """The signature over the keys must not be lost to the one over the message that carries them."""
    signers = {owner: Signer.generate() for owner in owner_folders}
    hub, keys = Signer.generate(), {owner: signer.public for owner, signer in signers.items()}
    task = task_for(params, panel.schema, "fedavg:gru", "r")

    def run(names):
        mechanisms = tuple(mechanism(n, {}) for n in names)
        nodes = {
            owner: DataOwner(
                owner,
                folder,
                OwnerKit(
                    mechanisms,
                    signer=signers[owner],
                    coordinator_key=hub.public,
                    peers={o: k for o, k in keys.items() if o != owner},
                ),
            )
            for owner, folder in owner_folders.items()
        }
        edges = tuple(Edge(child=owner, parent="hub") for owner in nodes)
        star = Topology(request="r", kind="star", coordinator="hub", edges=edges, owners=tuple(nodes))
        settings = Rounds(1, Local(steps=2, batch=16, learning_rate=1e-2), patience=9, lr_patience=None)
        made = Coordinator(
            open_channel(nodes, clock="wall"), task, rule("fedavg"), settings, mechanisms=mechanisms, codec=codec("none"),
            topology=star, signer=hub,
        )  # fmt: skip
        return made.run(initial(task))

    plain, sealed = run(()), run((name,))
    assert [o.outcome for o in sealed.rounds[0].owners] == ["counted"] * len(owner_folders)
    for key, array in plain.arrays.items():
        np.testing.assert_allclose(sealed.arrays[key], array, atol=1e-5)


def test_what_goes_by_in_a_region_is_time_that_it_takes_in_the_cloud(toy):
    """Two steps of 3 s each at the slower member, then judging, which takes no time here."""
    below = open_channel({"a": toy.Puller("a", 0.0), "b": toy.Puller("b", 1.0)}, speeds={"a": 3.0, "b": 1.0})
    head = RegionalCoordinator("rsu", below, codec=codec("none"))
    edges = (Edge(child="rsu", parent="cloud"), Edge(child="a", parent="rsu"), Edge(child="b", parent="rsu"))
    topology = Topology(
        request=toy.TASK.request,
        kind="hierarchy",
        coordinator="cloud",
        edges=edges,
        owners=("a", "b"),
        regions={"rsu": ("a", "b")},
    )
    above = open_channel({"rsu": head}, clocks={"rsu": below.now})
    settings = toy.settings(rounds=2, least_owners=1)
    out = Coordinator(above, toy.TASK, rule("fedavg"), settings, codec=codec("none"), topology=topology).run(toy.initial())
    assert [r.seconds for r in out.rounds] == [6.0, 6.0]


def test_a_region_tells_what_became_of_its_members_and_spares_slow_ones(toy):
    """Of 10 s, 9 may be planned with: 3 steps of 3 s."""
    heard = []
    below = open_channel({"a": toy.Puller("a", 0.0), "b": toy.Puller("b", 1.0)}, speeds={"a": 3.0, "b": 1.0})
    head = RegionalCoordinator(
        "rsu",
        below,
        codec=codec("none"),
        deadline_s=10.0,
        speeds={"a": 3.0, "b": 1.0},
        on_round=lambda n, m: heard.append((n, m)),
    )
    edges = (Edge(child="rsu", parent="cloud"), Edge(child="a", parent="rsu"), Edge(child="b", parent="rsu"))
    topology = Topology(
        request=toy.TASK.request,
        kind="hierarchy",
        coordinator="cloud",
        edges=edges,
        owners=("a", "b"),
        regions={"rsu": ("a", "b")},
    )
    settings = toy.settings(rounds=1, least_owners=1, steps=5)
    Coordinator(open_channel({"rsu": head}), toy.TASK, rule("fedavg"), settings, codec=codec("none"), topology=topology).run(
        toy.initial()
    )
    assert [(n, [(m.owner, m.outcome, m.steps) for m in members]) for n, members in heard] == [
        (1, [("a", "counted", 3), ("b", "counted", 5)])
    ]
