"""What all rooms' tests share: a project of their own, the data mirror, and one Prefect harness for the whole session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

REPOSITORY = Path(__file__).parent.parent
MARK = "CELLWRIGHT_TEST_COMMAND"  # in the environment of all that a command starts

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a script that runs the tests with `&`; programs under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A city small enough to be gone through in seconds; on the third day after its benchmark more than half of it changes. And
# telemetry of a user's own, in a folder beside the project.
TOWN = """
  town:
    title: Town, a small city
    reader: generated
    generator: city
    generator_options:
      seed: 3
      days: 20
      benchmark_days: 12
      grid: [5, 5]
      changes: [{kind: layer, day: 14, size: 1.0, row: 0, column: 0, rows: 1, columns: 0.6}]
    cadence_s: 600
    features:
      traffic_mbps: {unit: Mbit/s, low: 0}
      users: {unit: users, low: 0}
    targets: [traffic_mbps]

  exported:
    title: Cells as exported by their operator
    files: {exports}
    reader: long
    options: {time: time, site: cell}
    timezone: Europe/Berlin
    cadence_s: 3600
    features:
      dl_mbps: {unit: Mbit/s, low: 0}
    targets: [dl_mbps]
"""
TOWN_PARAMS = """
  town:
    split: { until: "2026-01-17T00:00" }
    train: { models: [persistence, ridge, mlp], budget_s: 60, max_epochs: 30, patience: 100, windows_per_epoch: 8000 }
    runner: { workers: 1 }
    score: { latency_repeats: 10, energy_forecasts: 50, bootstrap: 200, replay_s: 0 }
    scorecard: { finalists: 2, windows: 100, budget_s: 0.3, attribution_windows: 8 }
    energy: { idle_s: 0 }
    federation: { owners: 4, rounds: 3 }
"""

# Put before everything else on PYTHONPATH, it is the first thing that every Python process runs.
GUARD = r"""
import os, socket, sys

def _guard(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if not host or host in ("localhost", "::1", "0.0.0.0", "::", socket.gethostname()) or host.startswith("127."):
        return
    with open(os.environ["CELLWRIGHT_TEST_GUARD"], "a") as log:
        log.write(f"{event} {host} by {sys.argv}\n")
    raise ConnectionRefusedError(f"{event} to {host}: only this machine may be spoken to")

sys.addaudithook(_guard)
"""


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process: tests share two cores with each other's children."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order in which workers take shares: the longest one first, and those of a single test last, which fill what time is left."""
    items.sort(key=lambda item: (_share(item.nodeid) != "flows", _share(item.nodeid) == item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup --no-loadscope-reorder`, a worker takes a share at a time. (pytest-xdist's own groups are marks on tests,
    which version 3.8 loses under pytest 9.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _share(nodeid)

    return Shares(config, log) if config.getvalue("dist") == "loadgroup" else None


def _share(nodeid: str) -> str:
    """What one worker takes as a whole: a room, with the fixtures and the Prefect server that it shares; a file of the federation's;
    or, of conformance, the test alone."""
    file = Path(nodeid.partition("::")[0])
    return {"conformance": nodeid, "federation": file.stem}.get(file.parent.name, file.parent.name)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder with copies of the real data sets; tests that need it are marked `shared`."""
    folder = Path(os.environ.get("CELLWRIGHT_MIRROR") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "milan-5x5").is_dir():
        pytest.skip(f"no data mirror: {folder} holds no milan-5x5; set CELLWRIGHT_MIRROR to a folder that does")
    return folder


def copy_project(target: Path) -> Path:
    """A checkout of the present tree in `target`, under git, without anything that runs have made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "copy"],
    ):
        subprocess.run(["git", *command], cwd=target, check=True)
    return target


@dataclass(frozen=True)
class Command:
    """A `cellwright` command that runs: its process, and all that it has started."""

    process: subprocess.Popen[str]
    mark: str

    def finish(self, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)

    def family(self) -> list[psutil.Process]:
        """The processes of this command that are alive, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_until(self, condition: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
        """Wait for something to come true while the command runs; returns it."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                out, err = self.process.communicate()
                pytest.fail(f"{what} did not come to pass:\n{out}\n{err}")
            time.sleep(0.02)
        return found

    def left_behind(self, timeout_s: float = 15) -> list[str]:
        """What is alive of it after a moment's grace; nothing is, if all is well."""
        deadline = time.monotonic() + timeout_s
        while (alive := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [repr(p) for p in alive]


@dataclass(frozen=True)
class Project:
    """A checkout with the data set `town`, and the environment in which its commands run."""

    root: Path
    environment: dict[str, str] = field(repr=False)

    def cellwright(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self.start(*arguments).finish(timeout_s)

    def start(self, *arguments: str) -> Command:
        """Start a command."""
        return self.start_program(sys.executable, "-m", "flows.cli", *arguments)

    def start_program(self, *command: str, log: Path | None = None) -> Command:
        """Start a program; what it says goes to `log`, else to pipes."""
        mark = uuid4().hex
        with (log or Path(os.devnull)).open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment | {MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=file if log else subprocess.PIPE,
                stderr=file if log else subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C in the terminal of the tests is not one in theirs
            )
        return Command(process, mark)

    def program(self, *command: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return self.start_program(*command).finish(timeout_s)

    @property
    def exports(self) -> Path:
        """Where the files of the data set `exported` are put."""
        return self.root.parent / "exports"

    @property
    def attempts(self) -> str:
        """Connections to elsewhere that any process of the project has tried."""
        log = Path(self.environment["CELLWRIGHT_TEST_GUARD"])
        return log.read_text() if log.is_file() else ""


def make_project(root: Path, *, server: str | None) -> Project:
    """A copy of the present tree whose data set is `town`, all committed; its processes can reach this machine alone."""
    copy_project(root)
    exports = root.parent / "exports"
    exports.mkdir()
    _append(root / "data" / "catalogue.yaml", TOWN.replace("{exports}", str(exports)))
    _append(root / "params.yaml", TOWN_PARAMS)
    params = root / "params.yaml"
    params.write_text("".join("dataset: town\n" if x.startswith("dataset:") else x for x in params.open()))
    commit(root)
    guard = root.parent / f"{root.name}-guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    given = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{guard}{os.pathsep}{root}",
        "CELLWRIGHT_ROOT": str(root),
        "CELLWRIGHT_TEST_GUARD": str(guard / "attempts.log"),
        "PREFECT_HOME": str(guard / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    if server:
        given["PREFECT_API_URL"] = server
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CELLWRIGHT_", "PYTHON", "COV_"))}
    return Project(root, clean | given)


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text().rstrip("\n") + "\n" + text)


def commit(root: Path, message: str = "more") -> None:
    """Commit everything in a project."""
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message], cwd=root, check=True)


@contextmanager
def prefect_server(project: Project) -> Iterator[str]:
    """A Prefect server on a free port, with SQLite in the project's Prefect home; yields its API address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = project.root.parent / "prefect-server.log"
    command = project.start_program(sys.executable, "-m", "prefect", "server", "start", "--port", str(port), log=log)
    try:
        command.wait_until(lambda: _answers(f"http://127.0.0.1:{port}/api/health"), f"Prefect's server ({log})", 300)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        command.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            command.process.wait(timeout=30)
        for process in command.family():
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Prefect server for all tests of a session: its API address."""
    home = make_project(tmp_path_factory.mktemp("server") / "project", server=None)
    with prefect_server(home) as url:
        yield url
    assert home.attempts == ""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, server: str) -> Project:
    """The project that the tests of the flows share."""
    return make_project(tmp_path_factory.mktemp("project") / "project", server=server)


@pytest.fixture(scope="session")
def another_project(server: str) -> Callable[[Path], Project]:
    """Makes a project for the tests of one module."""
    return lambda root: make_project(root / "project", server=server)


@pytest.fixture
def own_project(tmp_path: Path, server: str) -> Project:
    """A project of a test's own."""
    return make_project(tmp_path / "project", server=server)


@pytest.fixture(scope="session")
def answering_by():
    """answering_by(handler): an HTTP server on loopback whose requests a BaseHTTPRequestHandler answers; its address."""

    @contextmanager
    def server_of(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return server_of
