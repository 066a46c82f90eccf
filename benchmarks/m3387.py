"""Whether the tests that docs/m3387.md names would notice if the code of a clause were gone: each row, mutated.

    python benchmarks/m3387.py [--only 8.4.1-send ...] [--workers 2] [--no-write]

Each mutation of m3387_mutations.yaml is made in a copy of the tree, never in the tree itself, and the tests it names are run there: they
must fail. Without any mutation they must pass. A module that no longer imports counts as nothing shown. Results go to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("m3387_mutations.yaml")
PARTS = ("cellwright", "examples", "flows", "models", "tasks", "tests", "params.yaml", "pyproject.toml")
TIMEOUT_S = 180.0
PLUGINS = ("xdist", "pytest_timeout", "_hypothesis_pytestplugin")  # that the tests need; each other one costs a start its time
LIBRARIES = (
    "pytest", "numpy", "torch", "hypothesis.strategies", "pydantic", "yaml", "sqlalchemy", "alembic.command", "fastapi", "httpx",
    "uvicorn", "flwr.app", "flwr.serverapp", "flwr.clientapp", "safetensors.numpy", "cryptography.x509", "lightning", "typer",
    "pyarrow", "psutil", "scipy.sparse", "tenseal", "opacus", "dp_accounting",
)  # fmt: skip
NOT_THE_COPY = 99
PASSED, FAILED = 0, 1  # pytest's exit codes; all others mean that the tests did not run as they should


@dataclass(frozen=True)
class Mutation:
    """The code of a clause, taken out."""

    row: str
    what: str
    file: str
    find: str
    put: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The file's text without the code.

        Raises:
            ValueError: the text is not there exactly once.
        """
        if (count := source.count(self.find)) != 1:
            raise ValueError(f"{self.row}, '{self.what}': expected its text once in {self.file}, found it {count} times")
        return source.replace(self.find, self.put)


@dataclass(frozen=True)
class Shown:
    """What became of a mutation."""

    mutation: Mutation
    result: str  # "killed", "survived", or what went wrong
    seconds: float


def mutations() -> list[Mutation]:
    """All of the list, in its order."""
    return [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in yaml.safe_load(LIST.read_text())]


def copied(target: Path) -> Path:
    """The parts of the tree that the tests need, with their byte code."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target / part)
        else:
            shutil.copy2(ROOT / part, target / part)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "cellwright", "models", "flows"], cwd=target, check=True)
    return target


@dataclass
class Child:
    """One run of pytest in a copy, by a fork of this process, which has all libraries imported and nothing of the package."""

    tree: Path
    tests: tuple[str, ...]
    mutation: Mutation | None = None
    pid: int = 0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def log(self) -> Path:
        return self.tree / "said.txt"

    def start(self) -> None:
        """Mutate the copy, and run the tests in it."""
        if self.mutation is not None:
            path = self.tree / self.mutation.file
            self._source, self._times = path.read_text(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
            path.write_text(self.mutation.applied(self._source))
            os.utime(path, ns=(self._times[0], self._times[1] + 10**10))  # byte code of the whole module does not fit
        self.pid = os.fork()
        if not self.pid:
            os._exit(self._run())

    def ended(self) -> int | None:
        """Exit code of pytest; None: it goes on; -1: it took too long, or was killed."""
        found, status = os.waitpid(self.pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else -1
        if time.perf_counter() - self.begun < TIMEOUT_S:
            return None
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return -1

    def restore(self) -> None:
        """The copy as it was."""
        if self.mutation is not None:
            path = self.tree / self.mutation.file
            path.write_text(self._source)
            os.utime(path, ns=self._times)

    def said(self) -> str:
        """The last of what pytest said."""
        return " ".join(self.log.read_text(errors="replace").split())[-400:]

    def _run(self) -> int:
        """In the fork: nothing of it comes back but its exit code."""
        import pytest

        os.setsid()
        with self.log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(self.tree)
        os.environ["PYTHONPATH"] = str(self.tree)
        sys.path[:] = [str(self.tree), *(p for p in sys.path if Path(p or ".").resolve() not in (ROOT, LIST.parent))]
        sys.dont_write_bytecode = True  # of a mutated module for the next
        importlib.invalidate_caches()
        for name in ("cellwright", "models"):
            found = importlib.util.find_spec(name)
            if name in sys.modules or found is None or not str(found.origin).startswith(str(self.tree)):
                print(f"expected {name} of {self.tree}, found {found}; uninstall what shadows it")
                return NOT_THE_COPY
        plugins = [word for name in PLUGINS for word in ("-p", name)]
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *plugins, "--tb=line", *self.tests]))


def halves(tests: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Tests shared out by file, so that each file is imported once."""
    files = sorted({test.partition("::")[0] for test in tests})
    shared = [tuple(t for t in tests if files.index(t.partition("::")[0]) % count == i) for i in range(count)]
    return [some for some in shared if some]


def all_shown(chosen: Sequence[Mutation], workers: int) -> tuple[list[str], list[Shown]]:
    """What failed without any mutation, and what became of each."""
    tests = list(dict.fromkeys(test for m in chosen for test in m.tests))
    waiting: list[tuple[tuple[str, ...], Mutation | None]] = [(some, None) for some in halves(tests, workers)]
    waiting += [(m.tests, m) for m in chosen]
    faults, shown, running = list[str](), list[Shown](), list[Child]()
    with tempfile.TemporaryDirectory(prefix="m3387-") as folder:
        free = [copied(Path(folder).resolve() / str(i)) for i in range(workers)]
        while waiting or running:
            while waiting and free:
                running.append(Child(free.pop(), *waiting.pop(0)))
                running[-1].start()
            time.sleep(0.02)
            for child in list(running):
                if (code := child.ended()) is not None:
                    running.remove(child)
                    child.restore()
                    free.append(child.tree)
                    note(child, code, faults, shown)
    return faults, sorted(shown, key=lambda s: chosen.index(s.mutation))


def note(child: Child, code: int, faults: list[str], shown: list[Shown]) -> None:
    """Keep what became of a run, and say so."""
    seconds = time.perf_counter() - child.begun
    if child.mutation is None:
        faults += [] if code == PASSED else [child.said()]
        print(
            f"{seconds:6.1f} s  {len(child.tests)} tests without any mutation: {'pass' if code == PASSED else 'fail'}", flush=True
        )
        return
    result = {FAILED: "killed", PASSED: "survived"}.get(code, f"not run (exit code {code}): {child.said()}")
    shown.append(Shown(child.mutation, result, seconds))
    print(f"{seconds:6.1f} s  {result:9}  {child.mutation.row}: {child.mutation.what}", flush=True)


def ready() -> None:
    """Import once what every run would import; a library that is not there will be missed by the tests, not here."""
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in [name for name in os.environ if name.startswith("CELLWRIGHT_")]:
        del os.environ[name]
    for library in LIBRARIES:
        importlib.import_module(library)


def page(faults: Sequence[str], shown: Sequence[Shown], seconds: float, commit: str) -> str:
    """The results as Markdown."""
    killed = sum(s.result == "killed" for s in shown)
    rows = len({s.mutation.row for s in shown})
    lines = [
        f"# The clauses of M.3387, mutated, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/m3387.py` at commit {commit} on {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}: {len(shown)} mutations of {rows} rows of [docs/m3387.md](../../docs/m3387.md), {killed} killed, "
        f"{len(shown) - killed} not; {seconds:.0f} s in all.",
        "",
        f"Without any mutation the tests {'fail' if faults else 'pass'}.",
        "",
        "| row | mutation | tests | result | s |",
        "|-|-|-|-|-:|",
    ]
    for s in shown:
        names = ", ".join(f"`{test.removeprefix('tests/')}`" for test in s.mutation.tests)
        lines.append(f"| {s.mutation.row} | `{s.mutation.file}`: {s.mutation.what} | {names} | {s.result} | {s.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the list; 0: all were killed, and nothing failed without a mutation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[], metavar="ROW", help="rows to mutate; none: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="print, and leave benchmarks/results/ as it is")
    given = parser.parse_args()
    chosen = [m for m in mutations() if not given.only or m.row in given.only]
    for mutation in chosen:
        mutation.applied((ROOT / mutation.file).read_text())
    begun = time.perf_counter()
    ready()
    faults, shown = all_shown(chosen, given.workers)
    for fault in faults:
        print(f"without any mutation:\n{fault}")
    left = [s for s in shown if s.result != "killed"]
    print(f"{len(shown) - len(left)} of {len(shown)} mutations killed in {time.perf_counter() - begun:.0f} s")
    if not given.no_write and not given.only:
        described = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        commit = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        target = ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-m3387.md"
        target.write_text(page(faults, shown, time.perf_counter() - begun, commit))
    return 1 if faults or left else 0


if __name__ == "__main__":
    sys.exit(main())
