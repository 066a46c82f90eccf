"""The deployed runtime: Flower's SuperLink and a SuperNode for each data owner, as processes, over TLS.

A SuperNode joins with an EC key that was registered before (SuperNode authentication); everything it needs beyond that key, the CA's
certificate and its own panel comes with the messages. Nothing is downloaded: the apps are those of the installed package.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cellwright import QUIET, __version__
from cellwright.errors import CellwrightError, FederationError, UnknownName, WorkspaceError
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import Value
from cellwright.federation.runtimes import certificates
from cellwright.federation.runtimes.control import Control, write_app
from cellwright.files import explained
from cellwright.processes import PARENT

LOOPBACK = "127.0.0.1"
CLIENT, SERVER = "cellwright.federation.runtimes.programs:client", "cellwright.federation.runtimes.programs:server"
_START_S = 60.0
_STOP_S = 15.0
_TAIL = 12  # lines of a log that an error shows


@dataclass(frozen=True)
class Files:
    """Where a deployment keeps its keys, state and logs; nothing of it is ever committed or sent."""

    root: Path

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def app(self) -> Path:
        """What Flower runs."""
        return self.root / "cellwright-app"

    @property
    def coordinator_key(self) -> Path:
        """Its Ed25519 signing key."""
        return self.root / "coordinator" / "signing.pem"

    def node(self, owner: str) -> Path:
        return self.root / "nodes" / owner

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"


@dataclass
class Process:
    """One of Flower's programs."""

    name: str
    handle: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises FederationError if it has ended."""
        if (code := self.handle.poll()) is not None:
            raise FederationError(f"{self.name} ended with exit code {code}; {self.log} says:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL:])

    def stop(self) -> None:
        """End it and the processes it started; kindly first."""
        self._signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # then it is ended unkindly
            self.handle.wait(_STOP_S)
        self.kill()

    def kill(self) -> None:
        """End it and the processes it started at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        self.handle.wait(_STOP_S)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.handle.pid, number)
        except ProcessLookupError:  # the whole group has ended
            return


@dataclass
class Deployed:
    """A SuperLink and its SuperNodes on this machine."""

    address: str
    files: Files
    superlink: Process
    owners: Mapping[str, Path]  # panel folder of each
    supernodes: dict[str, Process] = field(default_factory=dict)

    def control(self) -> Control:
        """A connection to the SuperLink."""
        return Control(self.address, self.files.ca)

    def start(self, owner: str) -> None:
        """Start an owner's SuperNode, again or for the first time.

        Raises:
            UnknownName: no such owner.
        """
        self._known(owner)
        self.supernodes[owner] = start_supernode(self.files, owner, self.owners[owner], self.address, ca=self.files.ca)

    def kill(self, owner: str) -> None:
        """End an owner's SuperNode as a power cut would."""
        self._known(owner)
        self.supernodes[owner].kill()

    def check(self) -> None:
        """Raises FederationError if the SuperLink has ended."""
        self.superlink.check()

    def wait_online(self, owners: Sequence[str], *, seconds: float = _START_S) -> None:
        """Wait until the SuperNodes of these owners are connected.

        Raises:
            FederationError: one ended, or is not connected in time.
        """
        end = time.monotonic() + seconds
        with self.control() as control:
            while missing := sorted(set(owners) - set(control.online())):
                for process in (self.superlink, *(self.supernodes[owner] for owner in missing)):
                    process.check()
                if time.monotonic() > end:
                    raise FederationError(
                        f"the SuperNode of '{missing[0]}' is not connected after {seconds:g} s; see {self.files.log(missing[0])}"
                    )
                time.sleep(0.3)

    def run(self, folder: Path, *, request: str, seconds: float, config: Mapping[str, Value] | None = None) -> None:
        """Run the app: its coordinator reads what to do in `folder`, and leaves there what comes of it.

        Raises:
            FederationError: it failed or did not end in time.
        """
        with self.control() as control:
            run = control.submit(self.files.app, {"folder": str(folder.resolve()), "request": request, **(config or {})})
            control.wait(run, until=time.monotonic() + seconds, on_look=self.check)

    def stop(self) -> None:
        """Stop all of it; nothing is left running."""
        for process in (*self.supernodes.values(), self.superlink):
            process.stop()

    def _known(self, owner: str) -> None:
        if owner not in self.owners:
            raise UnknownName("owner", owner, self.owners)


@contextmanager
def up(
    owners: Mapping[str, Path],
    root: Path,
    *,
    address: str | None = None,
    hosts: Sequence[str] = (),
    app: Path | None = None,
) -> Iterator[Deployed]:
    """A SuperLink and one SuperNode a data owner, on this machine, until the block ends.

    Args:
        owners: panel folder of each owner.
        root: where certificates, keys, node states and logs are kept (`.cellwright/federation`).
        address: host:port that the SuperLink listens on; none: a free port of loopback.
        hosts: further names and addresses by which other machines know this one.
        app: folder of another Flower app than this package's own.

    Raises:
        FederationError: a program could not be started, or a SuperNode could not join.
        WorkspaceError: the port is taken, or `root` is not writable.
    """
    files, at = Files(root.resolve()), address or f"{LOOPBACK}:{free_port()}"
    prepare(files, at, hosts=hosts, app=app)
    deployed = Deployed(at, files, start_superlink(files, at), dict(owners))
    try:
        _await_superlink(deployed)
        admit(deployed.control(), {owner: certificates.node_key(files.node(owner) / "supernode.key") for owner in owners})
        for owner in owners:
            deployed.start(owner)
        deployed.wait_online(list(owners))
        yield deployed
    finally:
        deployed.stop()


def prepare(files: Files, address: str, *, hosts: Sequence[str] = (), app: Path | None = None) -> None:
    """Certificates, valid for the address and for `hosts`, the coordinator's key and the app's folder."""
    host = address.rpartition(":")[0].strip("[]")
    with explained(files.root):
        files.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.root.chmod(0o700)
        files.log("superlink").parent.mkdir(exist_ok=True)
        (files.root / "flwr").mkdir(exist_ok=True)
    certificates.server(files.root, sorted({LOOPBACK, "localhost", *hosts, *_named(host)}))
    signing_key(files.coordinator_key)
    target = write_app(files.app, server=SERVER, client=CLIENT, version=__version__)
    if app is not None:
        for path in app.iterdir():
            (target / path.name).write_bytes(path.read_bytes())


def _named(host: str) -> list[str]:
    """The host, unless it means all of this machine's addresses."""
    try:
        return [] if ipaddress.ip_address(host).is_unspecified else [host]
    except ValueError:
        return [host]


def signing_key(path: Path) -> Signer:
    """The Ed25519 key at `path`, made where there is none."""
    if not path.is_file():
        Signer.generate().save(path)
    return Signer.from_file(path)


def admit(control: Control, keys: Mapping[str, bytes]) -> None:
    """Register the SuperNodes' public keys, by owner."""
    with control:
        for owner, key in keys.items():
            control.register(key, owner)


def start_superlink(files: Files, address: str) -> Process:
    """Start a SuperLink; see `prepare` for what it needs.

    Raises:
        WorkspaceError: its port is taken.
    """
    host, _, port = address.rpartition(":")
    _check_free(host.strip("[]"), int(port))
    arguments = [
        "--host",
        host.strip("[]"),
        "--port",
        port,
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]
    arguments += ["--ssl-ca-certfile", str(files.ca), "--ssl-certfile", str(files.root / "superlink.pem")]
    arguments += ["--ssl-keyfile", str(files.root / "superlink.key")]
    return _start("the SuperLink", "flower-superlink", arguments, files, files.log("superlink"))


def start_supernode(files: Files, owner: str, panel: Path, address: str, *, ca: Path, coordinator: str | None = None) -> Process:
    """Start the SuperNode of an owner whose panel lies in `panel`; `coordinator`: its public key, else this machine's.

    Its own keys are made where there are none: `supernode.key`, which the SuperLink must know, and `signing.pem`.
    """
    folder = files.node(owner)
    certificates.node_key(folder / "supernode.key")
    signer = signing_key(folder / "signing.pem")
    config = {
        "owner": owner,
        "panel": str(panel.resolve()),
        "signing": str(folder / "signing.pem"),
        "memory": str(folder / "memory"),
        "coordinator": coordinator or signing_key(files.coordinator_key).public,
        "public": signer.public,
    }
    arguments = [
        "--superlink",
        address,
        "--root-certificates",
        str(ca),
        "--auth-supernode-private-key",
        str(folder / "supernode.key"),
    ]
    arguments += ["--host", LOOPBACK, "--port", str(free_port()), "--node-config", _config(config)]
    return _start(f"the SuperNode of '{owner}'", "flower-supernode", arguments, files, files.log(owner))


def _config(values: Mapping[str, str]) -> str:
    """Flower's form of a node's configuration: key="text" pairs.

    Raises:
        WorkspaceError: a text that this form cannot hold.
    """
    for name, value in values.items():
        if '"' in value or "\\" in value or "\n" in value:
            raise WorkspaceError(
                f"Flower's node configuration cannot hold {name} = {json.dumps(value)}; choose a path without quotes"
            )
    return " ".join(f'{name}="{value}"' for name, value in values.items())


def _start(name: str, program: str, arguments: list[str], files: Files, log: Path) -> Process:
    command = [sys.executable, "-m", "cellwright.federation.runtimes.program", program, *arguments]
    with explained(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            handle = subprocess.Popen(
                command, cwd=files.root, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=_environment(files), start_new_session=True,
            )  # fmt: skip
    return Process(name, handle, log)


def _environment(files: Files) -> dict[str, str]:
    """No telemetry, no look for updates, Flower's own files below the deployment's, and its helpers on the path."""
    here = str(Path(sys.executable).parent)
    return {
        **os.environ,
        **QUIET,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(files.root / "flwr"),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "PYTHONUNBUFFERED": "1",
        PARENT: str(os.getpid()),
    }


def _await_superlink(deployed: Deployed) -> None:
    end = time.monotonic() + _START_S
    while True:
        deployed.check()
        try:
            with deployed.control() as control:
                control.online()
        except CellwrightError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise WorkspaceError(
                f"the SuperLink cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or choose another federation.address"
            ) from None
