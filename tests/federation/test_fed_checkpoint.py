"""A coordinator that is killed at any moment resumes, and ends with the very weights of one that never was."""

import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

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
from cellwright.federation.rounds import Pause
from cellwright.federation.runtimes.local import open_channel

SPEEDS = {"a": 0.5, "b": 1.0, "c": 3.25, "d": 7.125}  # in binary fractions, so that times add up exactly
SEED = {"noise_multiplier": 0.01, "epsilon": 1e9, "clip_norm": 1.0, "seeded_noise": True}
WAYS = {
    "fedavg": {},
    "fedadam": {},
    "clustered": {"warm_up": 0, "relative_mean": 1.0},
    "semi_synchronous": {},
    "fedbuff": {"buffer": 2},
}


class Killed(BaseException):
    """Nothing in the code catches it."""


def nodes(toy, **over):
    return {n: toy.Puller(n, float(i), 5 + i, remembers=True, **over) for i, n in enumerate(SPEEDS)}


def coordinator(toy, made, path, name="fedavg", **over):
    settings = toy.settings(
        rounds=5, **({"deadline_s": 4.0, "fraction": 0.75} if name == "semi_synchronous" else {"fraction": 0.75})
    )
    return Coordinator(
        open_channel(made, speeds=SPEEDS),
        toy.TASK,
        rule(name, WAYS[name]),
        settings,
        codec=codec("none"),
        topology=toy.star(sorted(made)),
        checkpoint=path,
        **over,
    )


def same(one, other) -> None:
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        assert array.tobytes() == other.arrays[name].tobytes(), name
    assert one.own.keys() == other.own.keys()
    assert all(a.tobytes() == other.own[o][n].tobytes() for o, arrays in one.own.items() for n, a in arrays.items())
    assert one.rounds == other.rounds
    assert one.evaluations == other.evaluations
    assert (one.status, one.reliability, one.lost) == (other.status, other.reliability, other.lost)


@pytest.mark.parametrize("name", sorted(WAYS))
def test_killed_after_any_round_it_ends_with_the_same_model(toy, tmp_path, name):
    whole = coordinator(toy, nodes(toy), tmp_path / "whole", name).run(toy.initial())
    assert len({r.validation_loss for r in whole.rounds}) > 1
    for last in range(1, 6):
        path = tmp_path / f"{last}.safetensors"

        def die(record, last=last):
            if record.round == last:
                raise Killed

        with pytest.raises(Killed):
            coordinator(toy, nodes(toy), path, name, on_round=die).run(toy.initial())
        same(coordinator(toy, nodes(toy), path, name).run(toy.initial()), whole)


@pytest.mark.parametrize("kind", ["deploy", "train", "evaluate"])
def test_killed_while_messages_are_under_way_it_redoes_the_round(toy, tmp_path, kind):
    whole = coordinator(toy, nodes(toy), tmp_path / "whole").run(toy.initial())
    for nth in (1, 2, 3):
        path, asked = tmp_path / f"{nth}.safetensors", count(1)

        class Deadly(toy.Puller):
            def answer(self, asked_kind, parcel, state, asked=asked, nth=nth):
                if asked_kind == kind and next(asked) == nth:
                    raise Killed
                return super().answer(asked_kind, parcel, state)

        made = nodes(toy) | {"b": Deadly("b", 1.0, 6, remembers=True)}
        if kind == "deploy" and nth > 1:
            continue
        with pytest.raises(Killed):
            coordinator(toy, made, path).run(toy.initial())
        same(coordinator(toy, nodes(toy), path).run(toy.initial()), whole)


def test_killed_twice(toy, tmp_path):
    def die_after(last):
        def die(record):
            if record.round == last:
                raise Killed

        return die

    whole = coordinator(toy, nodes(toy), tmp_path / "whole", "semi_synchronous").run(toy.initial())
    for last in (2, 3):
        with pytest.raises(Killed):
            coordinator(toy, nodes(toy), tmp_path / "c", "semi_synchronous", on_round=die_after(last)).run(toy.initial())
    same(coordinator(toy, nodes(toy), tmp_path / "c", "semi_synchronous").run(toy.initial()), whole)


def test_a_privacy_budget_is_not_counted_anew(toy, tmp_path):
    def seal():
        return (privacy.mechanism("central_dp", SEED | {"epsilon": 1e7}),)

    whole = coordinator(toy, nodes(toy), tmp_path / "whole", mechanisms=seal()).run(toy.initial())

    def die(record):
        if record.round == 3:
            raise Killed

    with pytest.raises(Killed):
        coordinator(toy, nodes(toy), tmp_path / "c", mechanisms=seal(), on_round=die).run(toy.initial())
    again = coordinator(toy, nodes(toy), tmp_path / "c", mechanisms=seal()).run(toy.initial())
    assert again.rounds[-1].epsilon == whole.rounds[-1].epsilon > again.rounds[2].epsilon
    same(again, whole)


def test_a_paused_training_goes_on_and_ends_alike(toy, tmp_path):
    whole = coordinator(toy, nodes(toy), tmp_path / "whole").run(toy.initial())
    paused = coordinator(toy, nodes(toy), tmp_path / "c", between=lambda done: Pause("pause", "wait") if done == 2 else None)
    assert paused.run(toy.initial()).status == "paused"
    same(coordinator(toy, nodes(toy), tmp_path / "c").run(toy.initial()), whole)


def test_a_training_that_ended_is_not_trained_again(toy, tmp_path):
    whole = coordinator(toy, nodes(toy), tmp_path / "c").run(toy.initial())
    made = nodes(toy)
    same(coordinator(toy, made, tmp_path / "c").run(toy.initial()), whole)
    assert "train" not in {kind for node in made.values() for kind, _ in node.seen}


def test_a_topology_that_was_rebuilt_and_who_is_gone_are_remembered(toy, tmp_path):
    def run(path, stop):
        made = coordinator(toy, nodes(toy), path)

        def on_round(record):
            if record.round == 1:
                made.channel.grid.fail("b")
            if record.round == stop:
                raise Killed

        made.on_round = on_round
        return made.run(toy.initial())

    whole = run(tmp_path / "whole", 0)
    with pytest.raises(Killed):
        run(tmp_path / "c", 3)
    again = coordinator(toy, nodes(toy), tmp_path / "c")
    again.channel.grid.fail("b")
    ended = again.run(toy.initial())
    assert [r.topology for r in ended.rounds] == [r.topology for r in whole.rounds] == [1, 2, 2, 2, 2]
    assert all(a.tobytes() == whole.arrays[n].tobytes() for n, a in ended.arrays.items())


def test_sequences_rise_over_attempts_and_the_log_goes_on(toy, tmp_path):
    signer, seen = Signer.generate(), []

    class Noting(toy.Puller):
        def answer(self, kind, parcel, state):
            seen.append(parcel.values["sequence"])
            return super().answer(kind, parcel, state)

    def run(on_round=None):
        auditor = Auditor(Rules(), None, AuditLog.open(tmp_path / "log"), request=toy.TASK.request)
        made = nodes(toy) | {"a": Noting("a", 0.0, 5, remembers=True)}
        try:
            return coordinator(toy, made, tmp_path / "c", auditor=auditor, signer=signer, on_round=on_round).run(toy.initial())
        finally:
            auditor.close()

    def die(record):
        if record.round == 2:
            raise Killed

    with pytest.raises(Killed):
        run(die)
    ended = run()
    assert seen == sorted(set(seen))  # by the clock: above whatever the killed attempt may have sent and not told of
    assert ended.status == "rounds"
    assert verify_log(tmp_path / "log").ok


def test_a_checkpoint_of_another_training_is_refused(toy, tmp_path):
    coordinator(toy, nodes(toy), tmp_path / "c").run(toy.initial())
    with pytest.raises(FederationError, match="of another training"):
        coordinator(toy, nodes(toy), tmp_path / "c", "fedadam").run(toy.initial())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04\x95"])
def test_a_damaged_checkpoint_says_what_to_do(toy, tmp_path, content):
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(FederationError, match=r"is damaged.*delete it to start anew"):
        coordinator(toy, nodes(toy), path).run(toy.initial())


def test_a_torn_checkpoint_says_what_to_do(toy, tmp_path):
    coordinator(toy, nodes(toy), tmp_path / "c").run(toy.initial())
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FederationError, match="is damaged"):
        coordinator(toy, nodes(toy), tmp_path / "c").run(toy.initial())


PROGRAM = """
import importlib.util, sys, time
from pathlib import Path

def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

here = Path(sys.argv[1])
toy, test = load(here / "toy_nodes.py", "toy_nodes"), load(here / "test_fed_checkpoint.py", "test_fed_checkpoint")

class Slow(toy.Puller):
    def answer(self, kind, parcel, state):
        time.sleep(0.02)
        return super().answer(kind, parcel, state)

made = {n: Slow(n, float(i), 5 + i, remembers=True) for i, n in enumerate(test.SPEEDS)}
test.coordinator(toy, made, Path(sys.argv[2]), sys.argv[3]).run(toy.initial())
"""


@pytest.mark.parametrize("name", ["fedadam", pytest.param("semi_synchronous", marks=pytest.mark.slow)])
def test_a_process_killed_at_a_random_moment_resumes(toy, tmp_path, name):
    """SIGKILL wherever it happens to be, in a round or between two."""
    path = tmp_path / "c"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(path), name])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(float(np.random.default_rng([len(name)]).uniform(0, 0.8)))  # where that falls is chance: the machine's pace
    finally:
        process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    assert path.is_file()
    whole = coordinator(toy, nodes(toy), tmp_path / "whole", name).run(toy.initial())
    same(coordinator(toy, nodes(toy), path, name).run(toy.initial()), whole)


class TestRealOwners:
    """Data owners on panels of their own, with rules and codecs whose state lies at the owner."""

    @pytest.fixture
    def made(self, owner_folders, params, panel):
        from cellwright.federation.initial import initial, task_for
        from cellwright.federation.owner import DataOwner, OwnerKit

        task = task_for(params, panel.schema, "fedavg:gru", "req-1")

        def make(path, name, options=None, codec_name="none", codec_options=None, between=None, **over):
            packed = codec(codec_name, codec_options)
            owners = {n: DataOwner(n, folder, OwnerKit(codec=packed)) for n, folder in owner_folders.items()}
            from cellwright.federation.contract import Local
            from cellwright.federation.management.records import Edge, Topology
            from cellwright.federation.rounds import Rounds

            edges = tuple(Edge(child=n, parent="cloud") for n in owners)
            topology = Topology(request="req-1", kind="star", coordinator="cloud", edges=edges, owners=tuple(owners))
            settings = Rounds(4, Local(2, 16, 0.01), patience=9, lr_patience=None, seed=3)
            channel = over.pop("channel", None) or open_channel(owners)
            trainer = Coordinator(
                channel, task, rule(name, options), settings, codec=packed, topology=topology, checkpoint=path, **over
            )  # fmt: skip
            return trainer, initial(task)

        return make

    @pytest.mark.parametrize(
        ("name", "options", "codec_name", "codec_options"),
        [
            ("scaffold", None, "none", None),
            ("personalised", None, "none", None),
            ("fedavg", None, "topk", {"share": 0.1}),
        ],
    )
    def test_state_at_the_owners_is_part_of_it(self, made, tmp_path, name, options, codec_name, codec_options):
        def run(path, last=0):
            def die(record):
                if record.round == last:
                    raise Killed

            trainer, first = made(path, name, options, codec_name, codec_options, on_round=die)
            return trainer.run(first)

        whole = run(tmp_path / "whole")
        assert whole.rounds[-1].validation_loss < whole.rounds[0].validation_loss
        with pytest.raises(Killed):
            run(tmp_path / "c", 2)
        again = run(tmp_path / "c")
        for key, array in whole.arrays.items():
            assert array.tobytes() == again.arrays[key].tobytes(), key
        assert {o: e.absolute for o, e in whole.evaluations.items()} == {o: e.absolute for o, e in again.evaluations.items()}

    def test_owners_that_outlive_their_coordinator_redo_the_round_it_was_in(self, made, tmp_path):
        """As on SuperNodes: the owners keep their state themselves, and have gone on when the coordinator resumes."""
        whole_trainer, first = made(tmp_path / "whole", "scaffold")
        whole = whole_trainer.run(first)

        class Own:
            """A channel that says nothing of its nodes' states."""

            def __init__(self, inner):
                self.inner, self.sends = inner, 0
                self.nodes, self.now, self.receive = inner.nodes, inner.now, inner.receive

            def send(self, kind, parcels):
                tickets = self.inner.send(kind, parcels)
                self.sends += kind == "train"
                if self.sends == 3:  # the third round's instructions are out, and answered
                    self.sends = 9
                    raise Killed
                return tickets

        trainer, first = made(tmp_path / "c", "scaffold")
        channel = Own(trainer.channel)
        killed, first = made(tmp_path / "c", "scaffold", channel=channel)
        with pytest.raises(Killed):
            killed.run(first)
        resumed, first = made(tmp_path / "c", "scaffold", channel=channel)
        again = resumed.run(first)
        assert len(again.rounds) == len(whole.rounds)
        for key, array in whole.arrays.items():
            assert array.tobytes() == again.arrays[key].tobytes(), key
