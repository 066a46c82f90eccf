"""Whether the tests that docs/m3387.md names would notice if the code of a clause were gone: each row, mutated.

    python benchmarks/m3387.py [--only 8.4.1-send ...] [--workers 2] [--no-write]

Each mutation of m3387_mutations.yaml is made in a copy of the tree, never in the tree itself, and the tests it names are run there: they
must fail. Without any mutation they must pass. A module that no longer imports counts as nothing shown. Results go to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("m3387_mutations.yaml")
PARTS = ("cellwright", "examples", "flows", "models", "tasks", "tests", "params.yaml", "pyproject.toml")
TIMEOUT_S = 180.0
PLUGINS = ("xdist", "pytest_timeout", "_hypothesis_pytestplugin")  # that the tests need; each other one costs a start its time
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


def environment(tree: Path) -> dict[str, str]:
    """The copy comes before the installed package; no byte code of a mutated module is left for the next."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CELLWRIGHT_"))}
    ours = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {**clean, **ours, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Exit code of pytest in a copy, and the last of what it said; -1: it took too long."""
    plugins = [word for name in PLUGINS for word in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *plugins, "--tb=line", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"not finished after {TIMEOUT_S:g} s"
    return done.returncode, "\n".join(done.stdout.splitlines()[-15:])


def check_copy(tree: Path) -> None:
    """That tests in the copy import the copy.

    Raises:
        RuntimeError: they would import another package.
    """
    code = "import cellwright, models; print(cellwright.__file__, models.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment(tree), capture_output=True, text=True, check=True
    )
    if not all(path.startswith(str(tree)) for path in found.stdout.split()):
        raise RuntimeError(f"expected the package in {tree}, found {found.stdout.strip()}; uninstall what shadows it")


def mutated(tree: Path, mutation: Mutation) -> Shown:
    """Run the tests of a mutation; the copy is as before afterwards."""
    path, begun = tree / mutation.file, time.perf_counter()
    source, times = path.read_text(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    try:
        path.write_text(mutation.applied(source))
        os.utime(path, ns=(times[0], times[1] + 10**10))  # another time: byte code of the whole module does not fit
        code, said = run(tree, mutation.tests)
    finally:
        path.write_text(source)
        os.utime(path, ns=times)
    result = {FAILED: "killed", PASSED: "survived"}.get(code, f"not run (exit code {code}): {said[-400:]}")
    return Shown(mutation, result, time.perf_counter() - begun)


def whole(tree: Path, tests: Sequence[str]) -> str:
    """Run tests without a mutation; "" if they pass, else what they said."""
    code, said = run(tree, tests)
    return "" if code == PASSED else said


def halves(tests: Sequence[str], count: int) -> list[list[str]]:
    """Tests shared out by file, so that each file is imported once."""
    files = sorted({test.partition("::")[0] for test in tests})
    return [[t for t in tests if files.index(t.partition("::")[0]) % count == i] for i in range(count)]


def all_shown(chosen: Sequence[Mutation], workers: int) -> tuple[list[str], list[Shown]]:
    """What failed without any mutation, and what became of each."""
    with tempfile.TemporaryDirectory(prefix="m3387-") as folder, ThreadPoolExecutor(workers) as pool:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for i in range(workers):
            trees.put(copied(Path(folder).resolve() / str(i)))

        def with_tree(call: Callable[[Path, Any], Any], given: Any) -> Any:
            tree = trees.get()
            try:
                return call(tree, given)
            finally:
                trees.put(tree)

        with_tree(lambda tree, _: check_copy(tree), None)
        tests = list(dict.fromkeys(test for m in chosen for test in m.tests))
        faults = [said for said in pool.map(lambda some: with_tree(whole, some), filter(None, halves(tests, workers))) if said]
        shown: list[Shown] = []
        for found in pool.map(lambda m: with_tree(mutated, m), chosen):
            shown.append(found)
            print(f"{found.seconds:6.1f} s  {found.result:9.200}  {found.mutation.row}: {found.mutation.what}", flush=True)
    return faults, shown


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
