"""Data versions: the data stages run through DVC, so that each version is recorded once, in data/dvc.lock.

The only file that knows DVC. It is called as a program: its Python API keeps state of the process it runs in.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from cellwright.errors import DataError, FormatError, WorkspaceError
from cellwright.panel import Panel
from cellwright.processes import ANCESTOR
from cellwright.results import DataVersion
from cellwright.workspace import Workspace

LOCK_WAIT_S = 600.0
_LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by", "Lock is held")


def reproduce(ws: Workspace, dataset: str, *, until: str = "validate", on_line: Callable[[str], None] | None = None) -> bool:
    """Run the data stages of a data set through DVC, as far as they are not up to date.

    Another process that holds DVC's lock is waited for. Returns whether anything was computed.

    Raises:
        DataError: a stage failed; the message is the stage's own.
        WorkspaceError: the lock was not free for ten minutes.
    """
    lines = _repro(ws, [f"data/dvc.yaml:{until}@{dataset}"], f"data stages of '{dataset}'", on_line)
    return any(line.startswith("Running stage") for line in lines)


def refresh(ws: Workspace, dataset: str, *, on_line: Callable[[str], None] | None = None) -> None:
    """Run the ingest stage even though nothing DVC knows of changed: the source grows outside the project.

    Raises:
        DataError, WorkspaceError: as `reproduce`.
    """
    _repro(ws, ["--force", "--single-item", f"data/dvc.yaml:ingest@{dataset}"], f"ingest of '{dataset}'", on_line)


def _repro(ws: Workspace, arguments: list[str], what: str, on_line: Callable[[str], None] | None) -> list[str]:
    """DVC's lines, once it had its lock and did what was asked."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        code, lines = _dvc(ws.root, ["repro", *arguments], on_line)
        if code == 0:
            return lines
        text = "\n".join(lines)
        if not any(mark in text for mark in _LOCKED):
            raise DataError(_reason(lines, what))
        if time.monotonic() > deadline:
            raise WorkspaceError("another process has held DVC's lock for ten minutes; wait for it or end it, then run again")
        time.sleep(0.5)


def data_version(ws: Workspace, dataset: str) -> DataVersion:
    """The version of a normalised panel: DVC's hash from data/dvc.lock, or the same hash computed from the files.

    A run that holds a panel of its own (`runs.open_run`) keeps that panel's version, whatever became of the shared one.

    Raises:
        FormatError: there is no panel.
    """
    if ws.held_panel(dataset).is_dir():
        beside = ws.data_version(dataset)
        return DataVersion.read(beside if beside.is_file() else ws.run_folder / "data.json")
    schema = Panel.open(ws.panel(dataset)).schema
    last_ms = schema.start_ms + round((schema.rows - 1) * schema.cadence_s * 1000)
    utc = schema.clock == "utc"
    return DataVersion(
        dataset=dataset,
        hash=_recorded(ws, dataset) or folder_hash(ws.panel(dataset)),
        rows=schema.rows,
        sites=len(schema.sites),
        first=_iso(schema.start_ms) if utc else "row 0",
        last=_iso(last_ms) if utc else f"row {schema.rows - 1}",
    )


def collect_garbage(ws: Workspace) -> tuple[Path, int]:
    """Drop data versions from DVC's cache that neither the workspace nor any branch or tag uses; the cache and the bytes freed.

    Raises:
        WorkspaceError: DVC refused; nothing is known to be dropped.
    """
    cache = ws.root / ".dvc" / "cache"
    before = _bytes(cache)
    code, lines = _dvc(ws.root, ["gc", "--workspace", "--all-branches", "--all-tags", "--skip-failed", "--force"], None)
    if code != 0:
        raise WorkspaceError(_reason(lines, "clearing DVC's cache"))
    return cache, before - _bytes(cache)


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def folder_hash(folder: Path) -> str:
    """DVC's hash of a folder: MD5 over the sorted list of its files' MD5 sums, with the suffix `.dir`."""
    if not folder.is_dir():
        raise FormatError(f"there is no folder {folder} to take a version of")
    entries = [
        {"md5": _md5(path), "relpath": path.relative_to(folder).as_posix()}
        for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).parts)
        if path.is_file()
    ]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _recorded(ws: Workspace, dataset: str) -> str | None:
    lock = ws.root / "data" / "dvc.lock"
    if not lock.is_file():
        return None
    stage = (yaml.safe_load(lock.read_text()).get("stages") or {}).get(f"normalise@{dataset}") or {}
    files = [p for p in ws.panel(dataset).rglob("*") if p.is_file()]
    for out in stage.get("outs", []):
        same = out.get("nfiles") == len(files) and out.get("size") == sum(p.stat().st_size for p in files)
        if out["path"].rstrip("/").endswith(f"panels/{dataset}") and same:
            return str(out["md5"])
    return None


def _dvc(root: Path, arguments: list[str], on_line: Callable[[str], None] | None) -> tuple[int, list[str]]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment[ANCESTOR] = str(os.getpid())  # the stages are DVC's shell's children, and must not outlive us
    command = [sys.executable, "-m", "dvc", *arguments]
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if on_line:
                    on_line(line.rstrip())
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
    return process.returncode, lines


def _reason(lines: list[str], what: str) -> str:
    """The stage's own error among DVC's lines."""
    own = [line for line in lines if line.startswith("error:")]
    if own:
        start = lines.index(own[-1])
        end = next((i for i in range(start, len(lines)) if lines[i].startswith("ERROR:")), len(lines))
        return " ".join(line.strip() for line in lines[start:end] if line.strip()).removeprefix("error: ")
    tail = [line for line in lines if line.strip()][-5:]
    return f"{what} failed under DVC: {' | '.join(tail)}" if tail else f"{what} failed under DVC without a message"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")
