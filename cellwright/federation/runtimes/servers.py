"""Flower's SuperLink and SuperNode as processes: their files, how they are started and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cellwright import QUIET
from cellwright.errors import FederationError, WorkspaceError
from cellwright.federation.audit.signing import Signer
from cellwright.federation.runtimes import certificates
from cellwright.federation.runtimes.settings import NodeSettings, write
from cellwright.files import explained
from cellwright.processes import PARENT

LOOPBACK = "127.0.0.1"
_STOP_S = 15.0
_TAIL = 12  # lines of a log that an error shows
_HINTS = {  # what Flower's words mean here
    "Failed to activate SuperNode": ": the SuperLink does not know its key (run `cellwright federate admit` there)",
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

    def check(self) -> None:
        """Raises FederationError if it has ended."""
        if (code := self.handle.poll()) is not None:
            said = self.tail()
            hint = next((hint for words, hint in _HINTS.items() if words in said), "")
            raise FederationError(f"{self.name} ended with exit code {code}{hint}; {self.log} says:\n{said}")

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
    certificates.node_key(folder / "supernode.key")
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
