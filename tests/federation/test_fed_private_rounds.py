"""What a coordinator must not give away between the rounds that its accountant counts."""

import json

import pytest

from cellwright.errors import Refused
from cellwright.federation import messages, privacy
from cellwright.federation.aggregation import rule
from cellwright.federation.compression import codec
from cellwright.federation.contract import NodeState
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.privacy._contract import Participation
from cellwright.federation.regional import RegionalCoordinator
from cellwright.federation.rounds import Pause
from cellwright.federation.runtimes.local import open_channel

NOISE = {"noise_multiplier": 2.0, "epsilon": 1e6, "clip_norm": 1.0}


class Killed(BaseException):
    """Nothing in the code catches it."""


def noisy(name="central_dp", **over):
    return (privacy.mechanism(name, NOISE | over),)


def coordinator(toy, path=None, mechanisms=(), rounds=4, **over):
    nodes = {n: toy.Puller(n, float(i), mechanisms=mechanisms) for i, n in enumerate("abc")}
    return Coordinator(
        open_channel(nodes),
        toy.TASK,
        rule("fedavg"),
        toy.settings(rounds=rounds),
        mechanisms=mechanisms,
        codec=codec("none"),
        topology=toy.star("abc"),
        checkpoint=path,
        **over,
    )


def epsilon_of(rounds, name="central_dp"):
    (counted,) = noisy(name)
    for number in range(rounds):
        counted.account(Participation(number + 1, 3, 3, 2, 1, 10))
    return counted.spent.epsilon


def killed_after(last):
    def die(record):
        if record.round == last:
            raise Killed

    return die


@pytest.mark.parametrize(("mechanisms", "seen"), [(noisy(), 0), (noisy("local_dp"), 4), ((), 4)])
def test_updates_that_noise_goes_on_later_are_not_kept_for_models_of_groups(toy, mechanisms, seen):
    """Contribution is measured by sending models of single owners and groups to all owners: central noise would not be in them."""
    kept = []
    coordinator(toy, mechanisms=mechanisms, observe=lambda *round_: kept.append(round_)).run(toy.initial())
    assert len(kept) == seen


@pytest.mark.parametrize("name", ["central_dp", "local_dp"])
def test_a_round_that_is_done_anew_with_other_noise_counts_twice(toy, tmp_path, name):
    with pytest.raises(Killed):
        coordinator(toy, tmp_path / "c", noisy(name), on_round=killed_after(2)).run(toy.initial())
    ended = coordinator(toy, tmp_path / "c", noisy(name)).run(toy.initial())
    assert [r.epsilon for r in ended.rounds] == pytest.approx([epsilon_of(n, name) for n in (1, 2, 4, 5)])


def test_killed_twice_it_counts_twice_more(toy, tmp_path):
    for last in (1, 2):
        with pytest.raises(Killed):
            coordinator(toy, tmp_path / "c", noisy(), on_round=killed_after(last)).run(toy.initial())
    ended = coordinator(toy, tmp_path / "c", noisy()).run(toy.initial())
    assert ended.rounds[-1].epsilon == pytest.approx(epsilon_of(6))


def test_after_a_pause_nothing_counts_twice(toy, tmp_path):
    paused = coordinator(toy, tmp_path / "c", noisy(), between=lambda done: Pause("pause", "wait") if done == 2 else None)
    assert paused.run(toy.initial()).status == "paused"
    ended = coordinator(toy, tmp_path / "c", noisy()).run(toy.initial())
    assert ended.rounds[-1].epsilon == pytest.approx(epsilon_of(4))


def test_a_training_that_ended_counts_nothing_more_when_it_is_run_again(toy, tmp_path):
    tight = noisy(epsilon=epsilon_of(3) + 1e-3)
    for _ in range(3):
        ended = coordinator(toy, tmp_path / "c", tight, rounds=9).run(toy.initial())
        assert (ended.status, len(ended.rounds)) == ("privacy_budget", 3)
        assert tight[0].spent.epsilon == pytest.approx(epsilon_of(3))


@pytest.mark.parametrize(
    ("asked", "rounds", "why"),
    [
        ({"local_dp": {}}, 2, "counted once for 2 rounds"),
        ({"dp_sgd": {}}, 1, "windows of single owners"),
        ({"rot13": {}}, 1, "cannot be meant"),
        ({"local_dp": {}}, 1, ""),
    ],
)
def test_a_region_takes_no_task_whose_budget_would_be_understated(toy, asked, rounds, why):
    members = {n: toy.Puller(n, 1.0) for n in "ab"}
    region = RegionalCoordinator("rsu", open_channel(members), codec=codec("none"), rounds=rounds)
    task = messages.deploy(toy.TASK, privacy=json.dumps(asked))
    if not why:
        assert region.answer("deploy", task, NodeState()).values["members"] == 2
        return
    with pytest.raises(Refused, match=why):
        region.answer("deploy", task, NodeState())
    assert members["a"].seen == []
