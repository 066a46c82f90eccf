"""Flower's SuperLink and SuperNode as processes: their files, how they are started and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cellwright import QUIET
from cellwright.errors import FederationError, WorkspaceError
from cellwright.federation.audit.signing import Signer
from cellwright.federation.runtimes import certificates
from cellwright.federation.runtimes.settings import ADMISSION, Admission, NodeSettings, admission, write
from cellwright.files import explained, write_text
from cellwright.processes import PARENT

LOOPBACK = "127.0.0.1"
_STOP_S = 15.0
_TAIL = 12  # lines of a log that an error shows
_NOT_YET = "Failed to activate SuperNode"
_HEARTBEAT_S = 75.0  # Flower misses a SuperNode after two of its intervals of 30 s
_HINTS = {  # what Flower's words mean here
    _NOT_YET: ": the SuperLink does not know its key (run `cellwright federate admit` there)",
    "CERTIFICATE_VERIFY_FAILED": ": the SuperLink shows no certificate of the CA that was given (take its ca.pem)",
}


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
    again: Callable[[], subprocess.Popen[bytes]] | None = None  # starts it once more
    until: float = 0.0  # of time.monotonic: how long that is tried where the SuperLink does not take it yet

    def check(self) -> None:
        """Whether it runs. A SuperNode that was killed is taken for connected until its heartbeat is missed, and until then refused.

        Raises:
            FederationError: it has ended.
        """
        if (code := self.handle.poll()) is None:
            return
        said = self.tail()
        self._signal(signal.SIGKILL)  # its helper may not have noticed that it ended
        if self.again is not None and time.monotonic() < self.until and _NOT_YET in said:
            self.handle = self.again()
            return
        hint = next((hint for words, hint in _HINTS.items() if words in said), "")
        raise FederationError(f"{self.name} ended with exit code {code}{hint}; {self.log} says:\n{said}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL:])

    def stop(self) -> None:
        """End it and the processes it started; kindly first."""
        family = self._family()
        self._signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # then it is ended unkindly
            self.handle.wait(_STOP_S)
        self._end(family)

    def kill(self) -> None:
        """End it and the processes it started at once, as a power cut would."""
        self._end(self._family())

    def _end(self, family: list[psutil.Process]) -> None:
        self._signal(signal.SIGKILL)
        for process in family:  # the SuperLink's helper is in a session of its own
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.handle.wait(_STOP_S)

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.handle.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.handle.pid, number)
        except ProcessLookupError:  # the whole group has ended
            return


def open_folder(files: Files) -> None:
    """The deployment's folder, closed to others."""
    with explained(files.root):
        files.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.root.chmod(0o700)
        (files.root / "logs").mkdir(exist_ok=True)
        (files.root / "flwr").mkdir(exist_ok=True)


def signing_key(path: Path) -> Signer:
    """The Ed25519 key at `path`, made where there is none."""
    if not path.is_file():
        Signer.generate().save(path)
    return Signer.from_file(path)


def node_keys(files: Files, owner: str) -> Admission:
    """An owner's keys, made where there are none, with its public ones in `admission.json`.

    Raises:
        FederationError: a key can be read by others, or is of another kind.
    """
    open_folder(files)
    folder = files.node(owner)
    made = Admission(
        owner=owner,
        supernode=certificates.node_key(folder / "supernode.key").decode(),
        signing=signing_key(folder / "signing.pem").public,
    )
    write_text(folder / ADMISSION, made.model_dump_json(indent=2) + "\n")
    return made


def signing_public(files: Files, owner: str) -> str:
    """The Ed25519 public key (hex) of an owner that was admitted, of this machine or another.

    Raises:
        FederationError: it was not admitted.
    """
    return admission(files.node(owner) / ADMISSION).signing


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


def start_supernode(files: Files, settings: NodeSettings, address: str, *, ca: Path) -> Process:
    """Start a data owner's SuperNode; its key is made where there is none, and the SuperLink must know it (see `admit`)."""
    folder = files.node(settings.owner)
    node_keys(files, settings.owner)
    write(folder, settings)
    if '"' in str(folder) or "\\" in str(folder):
        raise WorkspaceError(f"Flower's node configuration cannot hold the path {folder}; keep the project in one without quotes")
    arguments = [
        "--superlink",
        address,
        "--root-certificates",
        str(ca),
        "--auth-supernode-private-key",
        str(folder / "supernode.key"),
    ]
    arguments += ["--host", LOOPBACK, "--port", str(free_port()), "--node-config", f'owner="{settings.owner}" node="{folder}"']
    return _start(f"the SuperNode of '{settings.owner}'", "flower-supernode", arguments, files, files.log(settings.owner))


def _start(name: str, program: str, arguments: list[str], files: Files, log: Path) -> Process:
    command = [sys.executable, "-m", "cellwright.federation.runtimes.program", program, *arguments]

    def begin() -> subprocess.Popen[bytes]:
        with explained(log), log.open("ab") as out:
            return subprocess.Popen(
                command, cwd=files.root, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=_environment(files), start_new_session=True,
            )  # fmt: skip

    return Process(name, begin(), log, begin, time.monotonic() + _HEARTBEAT_S)


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
