"""A coordinator of another process under the FMLMS: it is asked at every boundary of rounds; killed coordinators; claimed names."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from flwr.app import Message

from cellwright.errors import FederationError
from cellwright.federation.audit.log import records, verify_log
from cellwright.federation.audit.signing import Signer
from cellwright.federation.initial import initial, task_for
from cellwright.federation.management.records import NodeProperties, Topology
from cellwright.federation.management.topology import star
from cellwright.federation.owner import DataOwner
from cellwright.federation.owner_kit import OwnerKit
from cellwright.federation.rounds import Outcome, Pause
from cellwright.federation.runtimes import between, deployed, jobs, pulse, servers
from cellwright.federation.runtimes.apps import client_app
from cellwright.federation.runtimes.between import Answering, Asking
from cellwright.federation.runtimes.channel import FlowerChannel
from cellwright.federation.runtimes.local import LocalGrid, open_channel
from cellwright.panel import Panel
from cellwright.params import Params

OWNERS = ("east", "north", "south")
IMPOSTER = "west"  # is admitted under this name, and says that it is east
CLAIM = "it claims to be 'east' and does not hold that owner's signing key"
CANCEL = Pause("cancel", "taken back")
STAR = star(
    "req-1", NodeProperties(name="cloud", roles=("coordinator",)), [NodeProperties(name=o, roles=("data_owner",)) for o in OWNERS]
)


def kept(topology: Topology, out: frozenset[str], reason: str) -> Topology:
    """A reconstruction without the nodes that are out."""
    owners = tuple(o for o in topology.owners if o not in out)
    edges = tuple(e for e in topology.edges if e.child not in out)
    return topology.model_copy(update={"owners": owners, "edges": edges, "version": topology.version + 1, "reason": reason})


class Desk:
    """The FMLMS's side of a folder, in a thread, until the block ends: says `words` by number of rounds, and notes what was asked."""

    def __init__(self, folder: Path, signer: Signer, words: dict[int, Pause] | None = None) -> None:
        self.asked: list[int] = []
        self.end = Answering.by(folder, signer, {"between": self.between, "rebuild": kept})
        self.words = dict(words or {})
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def between(self, rounds: int) -> Pause | None:
        self.asked.append(rounds)
        return self.words.pop(rounds, None)

    def _work(self) -> None:
        while not self._over.wait(0.01):
            self.end.look()

    def __enter__(self) -> "Desk":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# -- question and word


def test_the_word_of_the_fmlms_reaches_the_coordinator(tmp_path: Path) -> None:
    signer = Signer.generate()
    words = {
        1: Pause("pause", "another request comes first"),
        2: Pause("cancel", "taken back"),
        3: Pause("topology", "new", STAR),
    }
    with Desk(tmp_path, signer, words) as desk:
        asking = Asking(tmp_path, signer, 30)
        assert asking.between(0) is None
        assert [asking.between(n) for n in (1, 2, 3)] == list(words.values())
        rebuilt = asking.rebuild(STAR, frozenset({"east"}), "east vanished")
    assert (rebuilt.owners, rebuilt.version, rebuilt.reason) == (("north", "south"), STAR.version + 1, "east vanished")
    assert desk.asked == [0, 1, 2, 3]
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in (between.ASKED, between.TOLD)} == {0o600}


def test_what_the_fmlms_cannot_do_is_said_to_the_coordinator(tmp_path: Path) -> None:
    signer = Signer.generate()

    def refuse(*_: object) -> Topology:
        raise FederationError("no node is left that can be coordinator")

    with Desk(tmp_path, signer) as desk:
        desk.end.rebuild = refuse
        with pytest.raises(FederationError, match="can be coordinator"):
            Asking(tmp_path, signer, 30).rebuild(STAR, frozenset(), "")


def test_where_nobody_answers_the_training_pauses(tmp_path: Path) -> None:
    asking = Asking(tmp_path, Signer.generate(), 0.1)
    pause = asking.between(2)
    assert pause is not None
    assert (pause.kind, "did not answer within 0.1 s" in pause.reason) == ("pause", True)
    with pytest.raises(FederationError, match="run the same command again"):
        asking.rebuild(STAR, frozenset({"east"}), "east vanished")


def test_words_of_other_questions_and_other_hands_are_not_taken(tmp_path: Path) -> None:
    signer = Signer.generate()
    with Desk(tmp_path, signer, {0: Pause("cancel", "an old word")}):
        assert Asking(tmp_path, signer, 30).between(0) is not None
    old = (tmp_path / between.TOLD).read_bytes()
    pause = Asking(tmp_path, signer, 0.1).between(1)
    assert pause is not None
    assert "did not answer" in pause.reason  # the old word was there all the time
    (tmp_path / between.TOLD).write_bytes(old.replace(b"cancel", b"paused"))
    with pytest.raises(FederationError, match="not signed with the coordinator's key"):
        Asking(tmp_path, signer, 30).between(1)
    (tmp_path / between.TOLD).write_bytes((tmp_path / between.ASKED).read_bytes())
    with pytest.raises(FederationError, match="not signed with the coordinator's key"):  # a question is no word
        Asking(tmp_path, signer, 30).between(1)


def test_one_coordinator_a_job_and_its_end_is_seen(tmp_path: Path) -> None:
    watch = pulse.Pulse(tmp_path)
    watch.look()
    with pulse.alone(tmp_path):
        watch.look()
        with pytest.raises(FederationError, match="another coordinator works on the job"), pulse.alone(tmp_path, wait_s=0.05):
            pytest.fail("there is one")
    watch.look()  # it ended by itself
    with pulse.alone(tmp_path):
        watch.look()
    (tmp_path / pulse.ENDED).unlink()  # as a kill leaves it
    with pytest.raises(FederationError, match="goes on from the round it was in"):
        watch.look()


# -- a job


@pytest.fixture
def job(tmp_path: Path, panel: Panel, make_params: Callable[..., Params], owner_folders: dict[str, Path]) -> Callable[..., Path]:
    """Puts a managed job for three owners into a folder; keys and nodes are in `tmp_path/deployment`."""

    def write(folder: str, *, managed_s: float | None = 120.0, **federation: object) -> Path:
        params = make_params(federation={"rounds": 3, "contribution": False, "moments": True, "deadline_s": 400, **federation})
        files = deployed.Files(tmp_path / "deployment")
        settings = deployed.settings_for(files, {o: owner_folders[o] for o in OWNERS})
        made = jobs.Job(
            task=task_for(params, panel.schema, "gru", "req-1"),
            federation=params.federation,
            topology=STAR,
            keys={o: Signer.from_file(files.node(o) / "signing.pem").public for o in settings},
            signing=str(files.coordinator_key),
            managed_s=managed_s,
        )
        jobs.write_job(tmp_path / folder, made, initial(made.task))
        return tmp_path / folder

    return write


def kit(files: deployed.Files, owner: str) -> OwnerKit:
    coordinator = Signer.from_file(files.coordinator_key).public
    return OwnerKit(signer=Signer.from_file(files.node(owner) / "signing.pem"), coordinator_key=coordinator)


def locally(folder: Path, owner_folders: dict[str, Path], *, managed: bool = False) -> Outcome:
    """The job by owners of this process, with the keys that their SuperNodes would have."""
    files = deployed.Files(folder.parent / "deployment")
    nodes = {o: DataOwner(o, owner_folders[o], kit(files, o)) for o in OWNERS}
    return jobs.coordinate(open_channel(nodes), folder, hooks=jobs.managed(folder) if managed else None)


def same(a: Outcome, b: Outcome) -> bool:
    return list(a.arrays) == list(b.arrays) and all(a.arrays[n].tobytes() == b.arrays[n].tobytes() for n in a.arrays)


def signer_of(folder: Path) -> Signer:
    return Signer.from_file(deployed.Files(folder.parent / "deployment").coordinator_key)


def test_a_managed_job_pauses_and_goes_on_as_if_nothing_had_been(
    job: Callable[..., Path], owner_folders: dict[str, Path]
) -> None:
    whole, folder = locally(job("whole", managed_s=None), owner_folders), job("paused")
    with Desk(folder, signer_of(folder), {2: Pause("pause", "another comes first")}) as desk:
        paused = locally(folder, owner_folders, managed=True)
        assert (paused.status, paused.reason, len(paused.rounds)) == ("paused", "another comes first", 2)
        ended = locally(folder, owner_folders, managed=True)
    assert desk.asked == [0, 1, 2, 2]
    assert [r.round for r in ended.rounds] == [1, 2, 3]
    assert same(ended, whole)


def test_a_managed_job_is_cancelled_and_its_topology_changed(job: Callable[..., Path], owner_folders: dict[str, Path]) -> None:
    folder = job("cancelled")
    smaller = kept(STAR, frozenset({"south"}), "south has no resources left")
    with Desk(folder, signer_of(folder), {1: Pause("topology", smaller.reason, smaller), 2: Pause("cancel", "taken back")}):
        ended = locally(folder, owner_folders, managed=True)
    assert (ended.status, ended.reason) == ("stopped", "taken back")
    assert [r.topology for r in ended.rounds] == [1, 2]
    assert [sorted(o.owner for o in r.owners if o.outcome == "counted") for r in ended.rounds] == [
        sorted(OWNERS),
        ["east", "north"],
    ]
    assert (folder / jobs.CHECKPOINT).is_file()


def test_who_claims_anothers_name_is_turned_away_and_the_rest_go_on(
    job: Callable[..., Path], owner_folders: dict[str, Path]
) -> None:
    folder = job("job", managed_s=None)
    files = deployed.Files(folder.parent / "deployment")
    nodes = {o: DataOwner(o, owner_folders[o], kit(files, o)) for o in OWNERS}
    nodes["a-" + IMPOSTER] = DataOwner(
        "east", owner_folders[IMPOSTER], OwnerKit(signer=Signer.generate())
    )  # the first to be asked
    channel = FlowerChannel(LocalGrid(client_app(lambda c: nodes[str(c.node_config["name"])]), list(nodes)))
    outcome = jobs.coordinate(channel, folder)
    assert {o.owner: o.outcome for o in outcome.rounds[0].owners} == dict.fromkeys(OWNERS, "counted")
    refused = [r for r in records(folder / jobs.AUDIT) if r.get("rule") == "identity"]
    assert [r["reason"] for r in refused] == [e for e in outcome.rounds[0].events if "turned away" in e]
    assert len(refused) == 1
    assert any("claims to be 'east'" in event for event in outcome.rounds[0].events)


class Withholding(LocalGrid):
    """Replies of the node that was made first do not come while `withheld`."""

    withheld, greeted = True, 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        tickets = list(super().push_messages(sent))
        first = min(self._peers)
        self.late = {
            *getattr(self, "late", ()),
            *(t for t, m in zip(tickets, sent, strict=True) if m.metadata.dst_node_id == first),
        }
        self.greeted = len(self.late)
        return tickets

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([t for t in message_ids if not (self.withheld and t in self.late)])


def test_a_node_that_keeps_silent_is_waited_for_once_and_joins_when_it_speaks(
    tmp_path: Path, owner_folders: dict[str, Path]
) -> None:
    nodes = {o: DataOwner(o, owner_folders[o], OwnerKit(signer=Signer.generate())) for o in OWNERS}
    grid = Withholding(client_app(lambda c: nodes[str(c.node_config["name"])]), list(nodes))
    channel = FlowerChannel(grid)
    assert channel.nodes() == channel.nodes() == ("north", "south")
    assert grid.greeted == 1  # its answer is awaited, it is not asked again
    grid.withheld = False
    assert channel.nodes() == OWNERS


# -- for real


@contextmanager
def with_an_imposter(folder: Path, owner_folders: dict[str, Path]) -> Iterator[deployed.Deployed]:
    """Three owners' SuperNodes, and a fourth that was admitted as west and says that it is east."""
    with deployed.up({o: owner_folders[o] for o in (*OWNERS, IMPOSTER)}, folder.parent / "deployment") as running:
        west = running.owners[IMPOSTER]
        servers.write(running.files.node(IMPOSTER), west.model_copy(update={"owner": "east"}))
        yield running


def run(running: deployed.Deployed, folder: Path, desk: Answering, on_look: Callable[[], None] = lambda: None) -> Outcome:
    """Submit the job as `cellwright federate` does."""

    def look() -> None:
        desk.look()
        on_look()

    deployed.end_earlier(running.files, folder)
    deployed.run(running.files, running.address, folder, request="req-1", seconds=1800, on_look=look)
    return jobs.read_outcome(folder)


def coordinators(running: deployed.Deployed) -> list[psutil.Process]:
    """Processes of this deployment's ServerApp; Flower starts them apart from the SuperLink's own family."""
    home, found = str(running.files.root / "flwr"), []
    for process in psutil.process_iter():
        try:
            if "flwr-serverapp" in " ".join(process.cmdline()) and process.environ().get("FLWR_HOME") == home:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended meanwhile, or another user's
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_killed_coordinator_resumes_and_a_managed_one_pauses_and_is_cancelled(
    job: Callable[..., Path], tmp_path: Path, owner_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, folder = locally(job("whole", managed_s=None), owner_folders), job("job")
    signer, asked, words = signer_of(folder), list[int](), dict[int, Pause]()

    def word(rounds: int) -> Pause | None:
        asked.append(rounds)
        return words.get(rounds)

    def kill_in_round_two() -> None:
        if asked and asked[-1] == 1:
            for process in coordinators(running):
                process.kill()

    def again(**hooks: Callable[[], None]) -> Outcome:
        return run(running, folder, Answering.by(folder, signer, {"between": word, "rebuild": kept}), **hooks)

    with with_an_imposter(folder, owner_folders) as running:
        with pytest.raises(FederationError, match="the same command goes on"):
            again(on_look=kill_in_round_two)
        assert asked == [0, 1]
        words[2] = Pause("pause", "another request comes first")
        paused = again()
        assert (paused.status, [r.round for r in paused.rounds]) == ("paused", [1, 2])
        words[2] = Pause("topology", "as it was", paused.topology.model_copy(update={"version": 2}))
        ended = again()
        assert (ended.status, [(r.round, r.topology) for r in ended.rounds]) == ("rounds", [(1, 1), (2, 1), (3, 2)])
        assert same(ended, whole)
        other = job("other")
        cancelled = run(
            running, other, Answering.by(other, signer, {"between": lambda n: CANCEL if n else None, "rebuild": kept})
        )
    assert asked == [0, 1, 1, 2, 2]
    assert (cancelled.status, cancelled.reason, len(cancelled.rounds)) == ("stopped", CANCEL.reason, 1)
    assert (other / jobs.CHECKPOINT).is_file()
    assert all({o.owner for o in r.owners if o.outcome == "counted"} == set(OWNERS) for r in ended.rounds)
    assert [r["reason"].partition(": ")[2] for r in records(folder / jobs.AUDIT) if r["rule"] == "identity"] == [CLAIM] * 3
    assert verify_log(folder / jobs.AUDIT, signer.public).ok
