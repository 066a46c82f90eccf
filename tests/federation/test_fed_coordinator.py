"""The coordinator's rounds: what is counted and what is not, and why; the three timings; nodes that vanish; budgets; what it decides."""

import itertools

import numpy as np
import pytest

from cellwright.errors import FederationError
from cellwright.federation import privacy
from cellwright.federation.aggregation import rule
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog, verify_log
from cellwright.federation.audit.rules import Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.rounds import Decision, Pause
from cellwright.federation.runtimes.local import open_channel


class Bench:
    """A coordinator and its nodes, on one channel."""

    def __init__(
        self, toy, nodes, *, rule_name="fedavg", options=None, speeds=None, settings=None, topology=None, known=None, **over
    ):
        self.nodes = {node.name: node for node in nodes}
        self.channel = open_channel(self.nodes, speeds=speeds)
        self.coordinator = Coordinator(
            self.channel,
            toy.TASK,
            rule(rule_name, options),
            settings or toy.settings(),
            codec=codec(over.pop("codec", "none")),
            topology=topology or toy.star(sorted(self.nodes)),
            speeds=known,
            **over,
        )
        self.initial = toy.initial()

    def run(self):
        return self.coordinator.run(self.initial)


def fates(round_) -> dict[str, str]:
    return {owner.owner: owner.outcome for owner in round_.owners}


@pytest.fixture
def three(toy):
    return [toy.Puller("a", 1.0, 10), toy.Puller("b", 2.0, 10), toy.Puller("c", 6.0, 20)]


def test_9_4_a_round_is_the_mean_by_windows_worked_out_by_hand(toy, three):
    """Two steps of half the way are 3/4 of it; the mean point by windows is (10·1 + 10·2 + 20·6) / 40 = 3.75."""
    out = Bench(toy, three, settings=toy.settings(rounds=1)).run()
    assert out.status == "rounds"
    for array in out.arrays.values():
        np.testing.assert_allclose(array, 0.75 * 3.75, atol=0.03)  # the nodes' own noise
    record = out.rounds[0]
    assert fates(record) == {"a": "counted", "b": "counted", "c": "counted"}
    assert [o.weight for o in record.owners] == [0.25, 0.25, 0.5]
    assert [o.steps for o in record.owners] == [2, 2, 2]
    assert {n.name: n.seen[0][0] for n in three} == dict.fromkeys("abc", "deploy")


def test_9_5_errors_are_summed_over_all_owners(toy, three):
    out = Bench(toy, three, settings=toy.settings(rounds=1)).run()
    weights = np.concatenate([a.ravel() for a in out.arrays.values()]).astype(np.float64)
    squared = [(weights - p) ** 2 for p in (1.0, 2.0, 6.0)]
    assert out.rounds[0].mse == pytest.approx(np.mean(squared), rel=1e-12)
    assert out.rounds[0].mae == pytest.approx(np.mean([np.abs(weights - p) for p in (1.0, 2.0, 6.0)]), rel=1e-12)
    assert [o.mae for o in out.rounds[0].owners] == pytest.approx([np.mean(np.abs(weights - p)) for p in (1.0, 2.0, 6.0)])
    assert set(out.evaluations) == {"a", "b", "c"}
    assert out.evaluations["a"].mae == pytest.approx(np.mean(np.abs(weights - 2.0)))  # the test span's point is 1 further


def test_what_nodes_spend_and_send_is_counted_exactly(toy, three):
    three[1].energy_j = None
    out = Bench(toy, three, settings=toy.settings(rounds=2)).run()
    for record in out.rounds:
        by = {o.owner: o for o in record.owners}
        assert (by["a"].energy_j, by["a"].cpu_s, by["a"].energy_source) == (4.0, 0.5, "measured")  # training and evaluation
        assert (by["b"].energy_j, by["b"].energy_source) == (None, None)  # unknown is not 0
        assert record.up_bytes == sum(o.up_bytes for o in record.owners)
        assert all(o.up_bytes > 0 and o.down_bytes > o.up_bytes / 10 for o in record.owners)
    assert out.rounds[0].down_bytes == out.rounds[1].down_bytes  # the same messages cost the same


def test_the_same_seed_gives_the_same_model(toy):
    def once():
        nodes = [toy.Puller(f"n{i}", i, 5 + i) for i in range(8)]
        return Bench(toy, nodes, settings=toy.settings(fraction=0.5)).run()

    one, other = once(), once()
    assert all(one.arrays[name].tobytes() == other.arrays[name].tobytes() for name in one.arrays)
    asked = [sorted(o.owner for o in r.owners if o.outcome == "counted") for r in one.rounds]
    assert all(len(a) == 4 for a in asked)
    assert len({tuple(a) for a in asked}) > 1  # another draw each round


def test_owners_asked_for_nothing_still_judge(toy):
    nodes = [toy.Puller(f"n{i}", i) for i in range(4)]
    out = Bench(toy, nodes, settings=toy.settings(fraction=0.5, rounds=1)).run()
    assert sorted(fates(out.rounds[0]).values()) == ["counted", "counted", "evaluated", "evaluated"]
    assert all(o.mae is not None for o in out.rounds[0].owners)


@pytest.mark.parametrize(
    ("poison", "words"), [("nan", "not finite"), ("other", "someone-else"), ("round", "round 2"), ("shape", "layer")]
)
def test_an_update_that_breaks_a_rule_is_refused_and_the_round_goes_on(toy, three, poison, words):
    three[2].poison = poison
    out = Bench(toy, three, settings=toy.settings(rounds=1)).run()
    bad = out.rounds[0].owners[2]
    assert bad.outcome == "refused"
    assert words in bad.reason
    np.testing.assert_allclose(out.arrays["layer.bias"], 0.75 * 1.5, atol=0.03)
    assert out.reliability["c"] < out.reliability["a"] == 1.0


def test_an_owner_without_windows_is_not_asked_again(toy, three):
    three[2].examples = 0
    out = Bench(toy, three).run()
    assert fates(out.rounds[-1]) == {"a": "counted", "b": "counted", "c": "evaluated"}


def test_too_few_updates_in_three_rounds_running_end_it_and_say_why(toy, three):
    three[0].poison = three[1].poison = "nan"
    with pytest.raises(FederationError, match=r"in 3 rounds running.*1 of 3, at least 2.*a: refused.*not finite"):
        Bench(toy, three).run()


def test_one_short_round_is_not_counted_and_the_next_is(toy, three):
    def on_round(record):
        three[0].poison = three[1].poison = "nan" if record.round == 1 else ""

    out = Bench(toy, three, on_round=on_round).run()
    assert out.rounds[1].events[0].startswith("1 of 3 updates came, at least 2")
    assert [fates(r)["a"] for r in out.rounds] == ["counted", "refused", "counted", "counted"]


class TestTopology:
    """M.3387 8.4.1: reconstruction when a node fails, while rounds go on."""

    def test_a_node_that_vanishes_delays_nothing_beyond_the_deadline(self, toy, three):
        bench = Bench(toy, three, speeds={"a": 0.1, "b": 0.1, "c": 1.0})
        began = []

        def on_round(record):
            began.append(bench.channel.now())
            if record.round == 1:
                bench.channel.grid.fail("c", after_s=1.0)  # in the middle of its second round

        bench.coordinator.on_round = on_round
        out = bench.run()
        assert [round(r.seconds, 6) for r in out.rounds] == [2.0, 10.0, 0.2, 0.2]
        assert [fates(r).get("c") for r in out.rounds] == ["counted", "lost", None, None]
        assert [r.topology for r in out.rounds] == [1, 2, 2, 2]
        assert "c cannot be reached" in out.rounds[1].events[0]
        assert out.topology.owners == ("a", "b")
        assert set(out.lost) == {"c"}

    def test_it_comes_back(self, toy, three):
        bench = Bench(toy, three, settings=toy.settings(rounds=5))

        def on_round(record):
            if record.round == 1:
                bench.channel.grid.fail("b")
            if record.round == 3:
                bench.channel.grid.recover("b")

        bench.coordinator.on_round = on_round
        out = bench.run()
        assert [fates(r).get("b") for r in out.rounds] == ["counted", None, None, "counted", "counted"]
        assert out.topology.owners == ("a", "b", "c")
        assert out.topology.version == 3
        assert [kind for kind, _ in three[1].seen].count("deploy") == 2

    def test_too_few_nodes_left_says_how_many_of_how_many(self, toy, three):
        bench = Bench(toy, three)
        bench.coordinator.on_round = lambda record: [bench.channel.grid.fail(n) for n in ("a", "b")]
        with pytest.raises(FederationError, match=r"1 of 3 nodes are left, at least 2.*a: it cannot be reached"):
            bench.run()

    def test_a_node_that_cannot_take_the_task_takes_no_part(self, toy, three):
        three[0].failing = {"deploy"}
        out = Bench(toy, three).run()
        assert set(fates(out.rounds[0])) == {"b", "c"}
        assert "could not be deployed: a cannot deploy" in out.lost["a"]

    def test_a_node_that_fails_again_and_again_is_dropped(self, toy, three):
        three[0].failing = {"train"}
        out = Bench(toy, three, settings=toy.settings(rounds=5)).run()
        assert [fates(r).get("a") for r in out.rounds] == ["lost", "lost", "lost", None, None]
        assert "failed too often" in out.lost["a"]

    def test_every_node_is_sent_its_own_part_of_the_topology(self, toy, three):
        seen = {}

        class Listening(toy.Puller):
            def answer(self, kind, parcel, state):
                if kind == "deploy":
                    seen[self.name] = (parcel.values["role"], parcel.values["topology"])
                return super().answer(kind, parcel, state)

        Bench(toy, [Listening("a", 1.0), *three[1:]]).run()
        role, topology = seen["a"]
        assert role == "data_owner"
        assert '"child":"a","parent":"cloud"' in topology
        assert '"b"' not in topology

    def test_the_fmlms_can_change_it_between_rounds(self, toy, three):
        change = Pause("topology", "c is needed elsewhere", toy.star(["a", "b"]).model_copy(update={"version": 9}))
        out = Bench(toy, three, between=lambda done: change if done == 2 else None).run()
        assert [r.topology for r in out.rounds] == [1, 1, 9, 9]
        assert "c" not in fates(out.rounds[2])


class TestTimings:
    """M.3387 9.3: synchronous, semi-synchronous, asynchronous."""

    def test_synchronous_leaves_late_updates_out(self, toy, three):
        out = Bench(toy, three, speeds={"a": 0.5, "b": 0.5, "c": 9.0}).run()
        assert fates(out.rounds[0])["c"] == "late"
        np.testing.assert_allclose(out.arrays["layer.bias"], 1.5, atol=0.1)

    def test_a_straggler_is_told_fewer_steps_rather_than_dropped(self, toy, three):
        out = Bench(toy, three, speeds={"a": 0.5, "b": 0.5, "c": 3.2}, settings=toy.settings(steps=4, rounds=5)).run()
        assert [local.steps for local in three[2].told] == [4, 2, 2]  # 12.8 s were too long; 6.4 s are not
        assert [fates(r)["c"] for r in out.rounds] == ["late", "late", "late", "counted", "counted"]

    def test_a_straggler_that_is_known_is_told_fewer_steps_at_once(self, toy, three):
        speeds = {"a": 0.5, "b": 0.5, "c": 4.0}
        out = Bench(toy, three, speeds=speeds, known=speeds, settings=toy.settings(steps=4, rounds=1)).run()
        assert fates(out.rounds[0])["c"] == "counted"
        assert [node.told[0].steps for node in three] == [4, 4, 2]

    def test_semi_synchronous_counts_late_updates_in_the_round_they_come_in(self, toy, three):
        out = Bench(toy, three, rule_name="semi_synchronous", speeds={"a": 4.0, "b": 4.0, "c": 7.0}).run()
        stale = [{o.owner: o.staleness for o in r.owners if o.outcome == "counted"} for r in out.rounds]
        assert stale[0] == {"a": 0, "b": 0}
        assert stale[1]["c"] == 1
        assert fates(out.rounds[0])["c"] == "late"

    def test_asynchronous_aggregates_when_the_buffer_is_full(self, toy, three):
        speeds = {"a": 0.5, "b": 1.0, "c": 3.25}
        out = Bench(toy, three, rule_name="fedbuff", options={"buffer": 2}, speeds=speeds, settings=toy.settings(rounds=6)).run()
        counted = [{o.owner: o.staleness for o in r.owners if o.outcome == "counted"} for r in out.rounds]
        # a and b start at 0 and end at 1 and 2: versions at 2, 4, 6; c ends at 6.5, three versions later
        assert counted[:3] == [{"a": 0, "b": 0}] * 3
        assert counted[3] == {"a": 0, "c": 3}
        assert [r.seconds for r in out.rounds[:4]] == [2.0, 2.0, 2.0, 1.0]
        assert out.rounds[-1].mae is not None


class TestEnds:
    """When training ends, and on which weights."""

    def test_patience_keeps_the_best(self, toy):
        nodes = [toy.Puller("a", 0.0), toy.Puller("b", 1.0)]
        seen = []
        settings = toy.settings(rounds=50, patience=3, learning_rate=0.9)
        out = Bench(toy, nodes, settings=settings, on_round=seen.append).run()
        assert out.status == "converged"
        assert "no better validation loss for 3 rounds" in out.reason
        losses = [r.validation_loss for r in seen]
        weights = np.concatenate([a.ravel() for a in out.arrays.values()]).astype(np.float64)
        assert np.mean([(weights**2).mean(), ((weights - 1) ** 2).mean()]) == pytest.approx(min(losses))

    def test_the_rate_is_halved_on_a_plateau(self, toy, three):
        out = Bench(toy, three, settings=toy.settings(rounds=9, lr_patience=2, learning_rate=0.9)).run()
        rates = [r.learning_rate for r in out.rounds]
        assert rates[0] == 0.9
        assert rates[-1] < 0.9
        assert all(later in (earlier, earlier / 2) for earlier, later in itertools.pairwise(rates))
        assert any("learning rate halved" in r.decision for r in out.rounds)

    def test_target(self, toy, three):
        out = Bench(toy, three, settings=toy.settings(target_mse=100.0)).run()
        assert (out.status, len(out.rounds)) == ("target", 1)

    def test_budget_of_time_and_energy(self, toy, three):
        slow = Bench(toy, three, speeds={"a": 2.0}, settings=toy.settings(budget_s=7.0)).run()
        assert (slow.status, len(slow.rounds)) == ("budget", 2)
        hungry = Bench(toy, three, settings=toy.settings(budget_j=20.0)).run()  # 3 nodes × 4 J a round
        assert (hungry.status, len(hungry.rounds)) == ("budget", 2)
        assert "20 J were allowed" in hungry.reason

    def test_a_budget_that_nobody_meters_is_an_error(self, toy, three):
        for node in three:
            node.energy_j = None
        with pytest.raises(FederationError, match=r"budget_j.*no owner says"):
            Bench(toy, three, settings=toy.settings(budget_j=20.0)).run()

    def test_pre_emption_and_cancelling_at_a_rounds_end(self, toy, three):
        paused = Bench(toy, three, between=lambda done: Pause("pause", "a dearer request") if done == 2 else None).run()
        assert (paused.status, paused.reason, len(paused.rounds), paused.evaluations) == ("paused", "a dearer request", 2, {})
        cancelled = Bench(toy, three, between=lambda done: Pause("cancel", "by the client") if done == 1 else None).run()
        assert (cancelled.status, len(cancelled.rounds)) == ("stopped", 1)
        assert set(cancelled.evaluations) == {"a", "b", "c"}

    def test_quality_management_steers_it(self, toy, three):
        class Quality:
            def decide(self, rounds):
                return {
                    1: Decision("too fast", rate_factor=0.5),
                    2: Decision("c harms", drop=("c",)),
                    4: Decision("not there yet", more_rounds=2),
                    5: Decision("good enough", stop="stopped"),
                }.get(len(rounds), Decision())

        out = Bench(toy, three, quality=Quality()).run()
        assert [r.learning_rate for r in out.rounds] == [0.5, 0.25, 0.25, 0.25, 0.25]
        assert "c" not in fates(out.rounds[2])
        assert (out.status, out.reason, len(out.rounds)) == ("stopped", "good enough", 5)
        assert "c dropped: c harms" in out.rounds[1].decision


class TestPrivacy:
    """M.3387 10.5, as far as the coordinator sees to it."""

    def test_it_stops_before_the_round_that_would_go_over_the_budget(self, toy, three):
        options = {"noise_multiplier": 20.0, "epsilon": 1.0, "clip_norm": 1.0}
        mechanism = privacy.mechanism("central_dp", options)
        out = Bench(toy, three, mechanisms=(mechanism,), settings=toy.settings(rounds=400)).run()
        assert out.status == "privacy_budget"
        assert out.rounds[-1].epsilon <= 1.0
        assert 2 < len(out.rounds) < 400
        assert [r.epsilon for r in out.rounds] == sorted(r.epsilon for r in out.rounds)

    def test_central_noise_is_on_the_average_of_bounded_updates_that_count_alike(self, toy, three):
        options = {"noise_multiplier": 1e-3, "epsilon": 1e9, "clip_norm": 0.5, "seeded_noise": True}
        out = Bench(toy, three, mechanisms=(privacy.mechanism("central_dp", options),), settings=toy.settings(rounds=1)).run()
        norm = np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in out.arrays.values()))
        assert norm == pytest.approx(0.5, abs=0.01)  # all three point the same way, and each is clipped to 0.5
        assert [o.weight for o in out.rounds[0].owners] == pytest.approx([1 / 3] * 3)

    def test_noise_on_an_average_needs_a_rule_that_averages(self, toy, three):
        with pytest.raises(FederationError, match="FedMedian makes none"):
            Bench(toy, three, rule_name="fedmedian", mechanisms=(privacy.mechanism("central_dp", {}),))

    def test_sealed_sums_need_a_rule_that_works_with_sums(self, toy, three):
        with pytest.raises(FederationError, match=r"FedMedian needs each owner's update.*fedavg"):
            Bench(toy, three, rule_name="fedmedian", mechanisms=(privacy.mechanism("secure_aggregation", {}),))

    @pytest.mark.parametrize("gone", [None, "stage_advertise", "stage_share", "train", "stage_unmask"])
    def test_a_sealed_sum_is_fedavg_of_those_who_sent_theirs(self, toy, gone):
        def nodes(*mechanisms):
            return [toy.Puller(f"n{i}", i, 5 + i, mechanisms=mechanisms) for i in range(6)]

        def seal():
            return privacy.mechanism("secure_aggregation", {})

        failing = nodes(seal())
        if gone:
            assert gone in ("train", *(f"stage_{s}" for s in (*seal().before, *seal().after)))
            failing[2].failing = {gone}
        settings = toy.settings(rounds=2)
        sealed = Bench(toy, failing, mechanisms=(seal(),), settings=settings).run()
        plain_nodes = nodes()
        if gone and gone != "stage_unmask":  # by then its update has come
            plain_nodes[2].failing = {"train"}
        plain = Bench(toy, plain_nodes, settings=settings).run()
        for name, array in plain.arrays.items():
            np.testing.assert_allclose(sealed.arrays[name], array, atol=1e-4)

    def test_what_a_sealing_node_sends_in_the_clear_is_refused(self, toy):
        nodes = [toy.Puller(f"n{i}", i, mechanisms=(privacy.mechanism("secure_aggregation", {}),)) for i in range(5)]
        nodes[1]._sent = lambda update, state: toy.Puller("x", 0.0)._sent(update, state)
        out = Bench(toy, nodes, mechanisms=(privacy.mechanism("secure_aggregation", {}),), settings=toy.settings(rounds=1)).run()
        assert "in the clear" in out.rounds[0].owners[1].reason


def test_9_4_every_message_is_audited_and_logged(toy, three, tmp_path):
    log = AuditLog.open(tmp_path / "audit.jsonl")
    auditor = Auditor(Rules(norm_ratio=None), None, log, request=toy.TASK.request)
    three[2].poison = "nan"
    out = Bench(toy, three, auditor=auditor, signer=Signer.generate(), settings=toy.settings(rounds=2)).run()
    auditor.close()
    assert fates(out.rounds[0])["c"] == "refused"
    assert out.reliability["c"] < 1
    assert verify_log(tmp_path / "audit.jsonl").ok


def test_messages_of_the_coordinator_are_signed_in_rising_order(toy, three):
    sequences = []

    class Checking(toy.Puller):
        def answer(self, kind, parcel, state):
            from cellwright.federation.audit.signing import verify

            verify(parcel, signer.public)
            sequences.append(parcel.values["sequence"])
            return super().answer(kind, parcel, state)

    signer = Signer.generate()
    Bench(toy, [Checking("a", 1.0), *three[1:]], signer=signer).run()
    assert sequences == sorted(set(sequences))
    assert len(sequences) == 1 + 2 * 4 + 1  # deploy, four rounds, test


def test_two_mechanisms_that_seal_are_refused(toy, three):
    both = (privacy.mechanism("secure_aggregation", {}), privacy.mechanism("ckks", {}))
    with pytest.raises(FederationError, match="both seal"):
        Bench(toy, three, mechanisms=both)


def test_dismissed_nodes_forget(toy, three):
    bench = Bench(toy, three, settings=toy.settings(rounds=1))
    bench.run()
    bench.coordinator.dismiss()
    assert three[0].seen[-1][0] == "finish"
