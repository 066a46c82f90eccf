"""The deployed runtime: certificates and keys, what goes wrong in words, and real SuperLinks and SuperNodes over TLS (slow)."""

import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import typer
from cryptography import x509
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from cellwright.errors import FederationError, Refused, WorkspaceError, WrongUse
from cellwright.federation.audit.log import verify_log
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.initial import initial, task_for
from cellwright.federation.management.records import NodeProperties
from cellwright.federation.management.topology import star
from cellwright.federation.owner import DataOwner
from cellwright.federation.owner_kit import OwnerKit
from cellwright.federation.rounds import Outcome
from cellwright.federation.runtimes import certificates, deployed, jobs, programs, servers
from cellwright.federation.runtimes.channel import FlowerChannel
from cellwright.federation.runtimes.control import Control
from cellwright.federation.runtimes.door import Door
from cellwright.federation.runtimes.local import LocalGrid, open_channel
from cellwright.federation.runtimes.memory import FolderMemory
from cellwright.federation.runtimes.settings import admission
from cellwright.panel import Panel
from cellwright.params import Params

OWNERS = ("east", "north", "south")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- certificates and keys


def test_private_keys_are_closed_to_others_and_made_once(tmp_path: Path) -> None:
    certificate, key = certificates.server(tmp_path, ["127.0.0.1", "localhost"])
    public = certificates.node_key(tmp_path / "nodes" / "a" / "supernode.key")
    assert {mode(p) for p in (key, tmp_path / "ca.key", tmp_path / "nodes" / "a" / "supernode.key")} == {0o600}
    before = (certificate.read_bytes(), key.read_bytes())
    certificates.server(tmp_path, ["localhost"])
    assert (certificate.read_bytes(), key.read_bytes()) == before
    assert certificates.node_key(tmp_path / "nodes" / "a" / "supernode.key") == public


def test_a_certificate_for_further_hosts_is_made_anew_by_the_same_ca(tmp_path: Path) -> None:
    certificates.server(tmp_path, ["127.0.0.1"])
    ca = (tmp_path / "ca.pem").read_bytes()
    certificate, _ = certificates.server(tmp_path, ["127.0.0.1", "fl.example.org", "::1"])
    made = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    assert (tmp_path / "ca.pem").read_bytes() == ca


def test_a_key_that_others_can_read_or_of_another_kind_is_not_used(tmp_path: Path) -> None:
    key = tmp_path / "supernode.key"
    certificates.node_key(key)
    key.chmod(0o644)
    with pytest.raises(FederationError, match="can be read by others"):
        certificates.node_key(key)
    Signer.generate().save(tmp_path / "other.key")
    with pytest.raises(FederationError, match="OpenSSH"):
        certificates.node_key(tmp_path / "other.key")
    (tmp_path / "admission.json").write_text('{"owner": "a", "supernode": "", "signing": "short"}')
    with pytest.raises(FederationError, match="cellwright federate node"):
        admission(tmp_path / "admission.json")


# -- what goes wrong before anything runs


def test_a_superlink_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    ca = certificates.authority(tmp_path)
    with (
        Control(f"127.0.0.1:{servers.free_port()}", ca) as control,
        pytest.raises(FederationError, match="cellwright federate up"),
    ):
        control.online()
    with pytest.raises(FederationError, match=r"take the SuperLink's ca\.pem"):
        Control("127.0.0.1:1", tmp_path / "none.pem")
    with pytest.raises(FederationError, match="no SuperLink answers"):
        deployed.run(deployed.Files(tmp_path), f"127.0.0.1:{servers.free_port()}", tmp_path, request="r", seconds=5)


@contextmanager
def tls_server(folder: Path, status: int) -> Iterator[str]:
    """A server with a certificate of the CA in `folder` that answers everything with `status`."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard = self.rfile.read(int(self.headers["content-length"])).decode("latin-1")
            self.send_response(status)
            self.send_header("heard", f"{self.path} {heard[:20]!a} {self.headers.get('flwr-signature')}")
            self.end_headers()
            self.wfile.write(b"not from you")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    certificate, key = certificates.server(folder, ["127.0.0.1"])
    server = HTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_superlink_of_another_ca_is_not_talked_to(tmp_path: Path) -> None:
    ours = certificates.authority(tmp_path / "ours")
    with (
        tls_server(tmp_path / "theirs", 200) as address,
        Control(address, ours) as control,
        pytest.raises(FederationError, match="does not show a certificate of this federation's CA"),
    ):
        control.online()


def test_a_refusal_of_the_superlink_is_told_in_its_words(tmp_path: Path) -> None:
    with (
        tls_server(tmp_path, 401) as address,
        Control(address, tmp_path / "ca.pem") as control,
        pytest.raises(Refused, match="401 not from you"),
    ):
        control.online()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with (
        tls_server(tmp_path / "other", 200) as address,
        pytest.raises(WorkspaceError, match=r"federation\.address"),
        deployed.up({}, tmp_path / "own", address=address),
    ):
        pytest.fail("it must not come up")


def test_a_program_that_ends_is_said_with_its_last_words(tmp_path: Path) -> None:
    files = deployed.Files(tmp_path)
    servers.open_folder(files)
    process = servers._start("the SuperNode of 'a'", "flower-nothing", [], files, files.log("a"))
    process.handle.wait(30)
    with pytest.raises(FederationError, match="expected one of flower-superlink, flower-supernode, found 'flower-nothing'"):
        process.check()


# -- the door for other machines


@contextmanager
def opened(folder: Path, superlink: str) -> Iterator[httpx.Client]:
    """A door before a SuperLink of the same CA; calls go to it."""
    certificate, key = certificates.server(folder, ["127.0.0.1"])
    address = f"127.0.0.1:{servers.free_port()}"
    trusted = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    with (
        Door(address, superlink, ca=folder / "ca.pem", certificate=certificate, key=key),
        httpx.Client(base_url=f"https://{address}", verify=trusted, trust_env=False) as client,
    ):
        yield client


def test_the_door_passes_on_what_a_supernode_needs_with_its_signature(tmp_path: Path) -> None:
    with tls_server(tmp_path, 203) as superlink, opened(tmp_path, superlink) as client:
        answer = client.post(
            "/v1/fleet/pull-messages", content=b"body", headers={"flwr-signature": "abc", "accept-encoding": "identity"}
        )
    assert (answer.status_code, answer.content) == (203, b"not from you")
    assert answer.headers["heard"] == "/v1/fleet/pull-messages 'body' abc"


@pytest.mark.parametrize(
    "call",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/fleet/register-node",
        "/v1/runtime/acquire-task",
        "/",
        "/v1/fleet/get-fab?x=1",
    ],
)
def test_the_door_is_closed_to_all_else(tmp_path: Path, call: str) -> None:
    with tls_server(tmp_path, 200) as superlink, opened(tmp_path, superlink) as client:
        assert client.post(call).status_code == 404
        assert client.get("/v1/fleet/pull-messages").status_code == 404


def test_the_door_says_that_the_superlink_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path, f"127.0.0.1:{servers.free_port()}") as client:
        answer = client.post("/v1/fleet/get-run")
    assert (answer.status_code, "the SuperLink does not answer" in answer.text) == (502, True)


def test_a_door_that_cannot_open_is_said(tmp_path: Path) -> None:
    certificate, key = certificates.server(tmp_path, ["127.0.0.1"])
    with tls_server(tmp_path / "other", 200) as taken, pytest.raises(WorkspaceError, match="--door"):
        Door(taken, taken, ca=tmp_path / "ca.pem", certificate=certificate, key=key).__enter__()


@pytest.mark.parametrize("address", ["0.0.0.0:9093", "10.0.0.1:9093", "fl.example.org:9093", "127.0.0.1"])
def test_a_superlink_listens_on_loopback_alone(tmp_path: Path, address: str) -> None:
    with pytest.raises(WrongUse, match="--door"), deployed.up({}, tmp_path, address=address):
        pytest.fail("it must not come up")


# -- what a SuperNode knows and remembers


def context(folder: Path, request: str = "r", run: int = 1) -> Context:
    return Context(run, 5, {"owner": "a", "node": str(folder)}, RecordDict(), {"request": request, "folder": ""})


def test_a_node_remembers_over_runs_and_restarts_by_request(tmp_path: Path) -> None:
    state = NodeState({"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2))}, {"key": b"\0secret"})
    FolderMemory().save(context(tmp_path), state)
    back = FolderMemory().load(context(tmp_path, run=2))
    assert list(back.arrays) == ["b", "a"]
    np.testing.assert_array_equal(back.arrays["b"], [0, 1, 2])
    assert back.blobs == {"key": b"\0secret"}
    assert FolderMemory().load(context(tmp_path, request="another")) == NodeState()
    assert mode(tmp_path / "memory") == 0o700
    (file,) = (tmp_path / "memory").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(FederationError, match="deploy the request again"):
        FolderMemory().load(context(tmp_path))


def test_a_node_without_settings_says_so_to_the_coordinator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = LocalGrid(programs.client, ["a"])
    for peer in grid._peers.values():
        peer.context = context(tmp_path)
    assert FlowerChannel(grid).nodes() == ()
    assert "node.json" in caplog.text


def test_an_owner_starts_from_its_settings_alone(tmp_path: Path, owner_folders: dict[str, Path]) -> None:
    files = deployed.Files(tmp_path)
    settings = deployed.settings_for(files, {o: owner_folders[o] for o in OWNERS})
    assert settings["east"].peers == {o: Signer.from_file(files.node(o) / "signing.pem").public for o in ("north", "south")}
    servers.write(files.node("east"), settings["east"])
    node = programs.owner(context(files.node("east")))
    assert node.name == "east"
    with pytest.raises(Refused, match="of request '', this run of 'r'"):  # nothing is deployed yet
        node.answer("metadata", Parcel(), NodeState())
    with pytest.raises(Refused, match="not signed"):
        programs.owner(context(files.node("east"), request="")).answer("metadata", Parcel(), NodeState())


# -- a job


@pytest.fixture
def job(tmp_path: Path, panel: Panel, make_params: Callable[..., Params], owner_folders: dict[str, Path]) -> Callable[..., Path]:
    """Puts a job for three owners into a folder; keys and nodes are in `tmp_path/deployment`."""

    def write(folder: str, **federation: object) -> Path:
        params = make_params(federation={"rounds": 2, "contribution": False, **federation})
        task, files = task_for(params, panel.schema, "gru", "req-1"), deployed.Files(tmp_path / "deployment")
        settings = deployed.settings_for(files, {o: owner_folders[o] for o in OWNERS})
        keys = {o: Signer.from_file(files.node(o) / "signing.pem").public for o in settings}
        cloud = NodeProperties(name="cloud", roles=("coordinator",))
        topology = star("req-1", cloud, [NodeProperties(name=o, roles=("data_owner",)) for o in OWNERS])
        made = jobs.Job(task=task, federation=params.federation, topology=topology, keys=keys, signing=str(files.coordinator_key))
        jobs.write_job(tmp_path / folder, made, initial(task))
        return tmp_path / folder

    return write


def locally(folder: Path, owner_folders: dict[str, Path]) -> Outcome:
    """The job by owners of this process, with the keys that their SuperNodes would have."""
    files = deployed.Files(folder.parent / "deployment")
    coordinator = Signer.from_file(files.coordinator_key).public
    kits = {o: OwnerKit(signer=Signer.from_file(files.node(o) / "signing.pem"), coordinator_key=coordinator) for o in OWNERS}
    return jobs.coordinate(open_channel({o: DataOwner(o, owner_folders[o], kit) for o, kit in kits.items()}), folder)


def same(a: Outcome, b: Outcome) -> bool:
    return list(a.arrays) == list(b.arrays) and all(np.array_equal(a.arrays[n], b.arrays[n]) for n in a.arrays)


def test_a_job_leaves_its_outcome_in_its_folder(job: Callable[..., Path], owner_folders: dict[str, Path]) -> None:
    folder = job("job")
    outcome = locally(folder, owner_folders)
    read = jobs.read_outcome(folder)
    assert same(read, outcome)
    assert (read.rounds, read.evaluations, read.topology) == (outcome.rounds, outcome.evaluations, outcome.topology)
    assert (read.status, read.lost, read.reliability) == ("rounds", {}, outcome.reliability)
    assert set(read.deployed) == set(OWNERS)
    assert len((folder / jobs.ROUNDS).read_text().splitlines()) == 2
    verdict = verify_log(folder / jobs.AUDIT)
    assert verdict.ok, verdict.reason


def test_a_job_that_is_run_again_resumes_where_it_stood(job: Callable[..., Path], owner_folders: dict[str, Path]) -> None:
    first = locally(job("job"), owner_folders)
    again = locally(job("job"), owner_folders)
    assert again.rounds == first.rounds
    assert same(again, first)


def test_a_folder_without_a_job_or_an_outcome_is_said(tmp_path: Path, job: Callable[..., Path]) -> None:
    with pytest.raises(FederationError, match=r"job\.json"):
        jobs.coordinate(open_channel({}), tmp_path)
    with pytest.raises(FederationError, match=r"outcome\.safetensors is missing or damaged"):
        jobs.read_outcome(job("job"))


# -- the commands


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    from flows._cli import federate_up

    (tmp_path / "params.yaml").write_text("dataset: city\n")
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(tmp_path))
    app = typer.Typer()
    federate_up.add_to(app)
    return app


def test_the_node_command_makes_keys_and_says_what_to_do_with_them(cli: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["node", "east"])
    assert done.exit_code == 0, done.output
    files = deployed.Files(tmp_path / ".cellwright" / "federation")
    assert str(files.node("east")) in done.output.replace("\n", "")
    assert mode(files.node("east") / "supernode.key") == mode(files.node("east") / "signing.pem") == 0o600
    shown = admission(files.node("east") / "admission.json")
    assert shown.signing == servers.signing_public(files, "east") == Signer.from_file(files.node("east") / "signing.pem").public


def test_the_node_command_wants_to_know_whom_to_trust(cli: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["node", "east", "--panel", str(tmp_path)])
    assert done.exit_code != 0
    assert "--coordinator" in str(done.exception)


def test_admitting_without_a_superlink_says_so(cli: typer.Typer, tmp_path: Path) -> None:
    CliRunner().invoke(cli, ["node", "east"])
    certificates.authority(tmp_path / ".cellwright" / "federation")
    shown = tmp_path / ".cellwright" / "federation" / "nodes" / "east" / "admission.json"
    done = CliRunner().invoke(cli, ["admit", str(shown), "--address", f"127.0.0.1:{servers.free_port()}"])
    assert "no SuperLink answers" in str(done.exception)


def test_an_owner_is_not_admitted_with_other_keys_than_before(tmp_path: Path) -> None:
    files, shown = deployed.Files(tmp_path), servers.node_keys(deployed.Files(tmp_path), "east")
    other = shown.model_copy(update={"signing": "ab" * 32})
    with pytest.raises(FederationError, match="admitted with other keys"):
        deployed.admit(files, "127.0.0.1:1", other)


# -- for real


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_superlink_well_and_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("dataset: city\n")
    command = [sys.executable, "-m", "flows.cli", "federate", "up", "--owners", "0", "--address"]
    command += [f"127.0.0.1:{servers.free_port()}"]
    environment = {**os.environ, "CELLWRIGHT_ROOT": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert any(line.startswith("Ctrl-C stops") for line in up.stdout)
        family = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGINT)
        told, complained = up.communicate()
    assert (up.returncode, complained) == (0, "")
    assert told.splitlines()[-1] == "stopped: nothing is left running"
    assert family
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_seed_gives_the_same_model_in_both_runtimes(
    job: Callable[..., Path], tmp_path: Path, owner_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = job("deployed", deadline_s=120)
    with deployed.up({o: owner_folders[o] for o in OWNERS}, tmp_path / "deployment") as running:
        running.run(folder, request="req-1", seconds=600)
    over_tls, here = jobs.read_outcome(folder), locally(job("local", deadline_s=120), owner_folders)
    assert [r.round for r in over_tls.rounds] == [1, 2]
    assert same(over_tls, here)
    assert [(r.mae, r.validation_loss) for r in over_tls.rounds] == [(r.mae, r.validation_loss) for r in here.rounds]
    assert {(o.owner, o.outcome) for r in over_tls.rounds for o in r.owners} == {(o, "counted") for o in OWNERS}
    assert verify_log(folder / jobs.AUDIT).ok
    assert running.superlink.handle.poll() is not None
    assert all(p.handle.poll() is not None for p in running.supernodes.values())


def _when(happened: Callable[[], bool], act: Callable[[], None], done: list[str], what: str) -> threading.Thread:
    """Do something as soon as something has happened, from another thread."""

    def watch() -> None:
        end = time.monotonic() + 600
        while not happened():
            if time.monotonic() > end:
                return
            time.sleep(0.1)
        act()
        done.append(what)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_training_completes_with_a_supernode_killed_mid_round_and_one_restarted(
    job: Callable[..., Path], tmp_path: Path, owner_folders: dict[str, Path]
) -> None:
    folder, done = job("job", rounds=5, deadline_s=75, least_owners=1, patience=9), list[str]()
    with deployed.up({o: owner_folders[o] for o in OWNERS}, tmp_path / "deployment") as running:

        def trains(owner: str) -> bool:
            return "Receiving: train message" in running.files.log(owner).read_text(errors="replace")

        def restart() -> None:
            running.kill("south")
            running.start("south")

        rounds = folder / jobs.ROUNDS
        watching = [
            _when(lambda: trains("east"), lambda: running.kill("east"), done, "killed"),
            _when(lambda: rounds.is_file() and len(rounds.read_text().splitlines()) == 1, restart, done, "restarted"),
        ]
        running.run(folder, request="req-1", seconds=900)
        for thread in watching:
            thread.join(5)
    outcome = jobs.read_outcome(folder)
    fates = {r.round: {o.owner: o.outcome for o in r.owners} for r in outcome.rounds}
    assert done == ["killed", "restarted"]
    assert (outcome.status, sorted(fates)) == ("rounds", [1, 2, 3, 4, 5])
    assert fates[1]["east"] in ("late", "lost")
    assert all(fates[r]["north"] == "counted" for r in fates)
    assert "counted" in {fates[r].get("south") for r in range(2, 6)}  # Flower lets it back once it has missed its heartbeat
    assert any("south came back" in event for r in outcome.rounds for event in r.events)
    verdict = verify_log(folder / jobs.AUDIT, Signer.from_file(running.files.coordinator_key).public)
    assert verdict.ok
    assert verdict.authentic
