"""Runs: their names, the lock that keeps two processes out of one, and what is known of finished ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from cellwright.errors import CellwrightError, FormatError, WorkspaceError
from cellwright.federation.key import federated
from cellwright.files import read_json, whole_folder, write_text
from cellwright.params import DATA_SECTIONS, Params, check
from cellwright.results import DataVersion
from cellwright.training import own_model
from cellwright.workspace import Workspace

_NOT_RESULTS = (*DATA_SECTIONS, "runner", "monitor", "hub", "edge", "rollout", "for_dataset")  # where and when, not what


def run_name(params: Params, data_hash: str, root: Path = Path()) -> str:
    """`<data set>-<hash of data version, parameters and code>`: the same command finds the same run again.

    Files that the parameters name count by what is in them; `root`: what their paths start from.

    Raises:
        ParamsError: a model of the user's own, or a series joined by time, whose file is missing.
    """
    from cellwright.data.exogenous import digests
    from cellwright.federation import fleet

    content = params.model_dump(mode="json", by_alias=True)
    what = {key: value for key, value in content.items() if key not in _NOT_RESULTS}
    models = [parts.model if (parts := federated(key)) else key for key in params.train.models]
    own = [own_model.sha256(model) for model, _ in map(own_model.split, models) if own_model.is_own(model)]
    nodes = [found] if (found := fleet.digest(params.federation, root)) else []
    seen = [data_hash, what, code_digest(), *own, *digests(params.problem.exogenous), *nodes]
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    return f"{params.dataset}-{digest.hexdigest()[:8]}"


def code_digest() -> str:
    """SHA-256 of what computes results: the sources of cellwright/ and models/."""
    import models

    total = hashlib.sha256()
    folders = (Path(__file__).parent, Path(next(iter(models.__path__))))
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            total.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def open_run(
    params: Params,
    root: Path,
    version: DataVersion,
    *,
    again: str | None = None,
    until: int | None = None,
    beside: Sequence[tuple[Params, DataVersion]] = (),
) -> Workspace:
    """The workspace of the run that this command means. It keeps its parameters, its data's version, and its panel.

    `again`: a mark that makes it another run of the same parameters. `until`: the row it sees the data up to, where that is not all.
    `beside`: further data sets that it needs, and the parameters that it sees each with; it keeps their panels too.
    """
    seen = "+".join(
        [version.hash if until is None else f"{version.hash}@{until}", *(run_name(other, v.hash, root) for other, v in beside)]
    )
    ws = Workspace(root, run_name(params, seen, root) + (f"-{again}" if again else ""))
    if not ws.held_panel(params.dataset).is_dir():
        version.save(ws.run_folder / "data.json")
        _hold(ws.panel(params.dataset), ws.held_panel(params.dataset))
    for _, other in beside:
        if not ws.held_panel(other.dataset).is_dir():
            other.save(ws.data_version(other.dataset))
            _hold(ws.panel(other.dataset), ws.held_panel(other.dataset))
    write_text(ws.run_folder / "params.json", params.model_dump_json(by_alias=True, indent=2) + "\n")
    return ws


def params_of(ws: Workspace) -> Params:
    """The parameters of a run, exactly as it was started.

    Raises:
        CellwrightError: there is no such run.
    """
    path = ws.run_folder / "params.json"
    if not path.is_file():
        raise CellwrightError(f"there is no run {ws.run} in {ws.artifacts}; runs: {', '.join(_names(ws)) or 'none'}")
    return check(read_json(path), str(path))


def _hold(panel: Path, held: Path) -> None:
    """Link the files of a panel; they stay what they are when the shared folder is made anew."""
    with whole_folder(held) as aside:
        for path in panel.iterdir():
            try:
                os.link(path, aside / path.name)
            except OSError:  # another disk, or a file system without links: a copy serves as well, and takes space
                shutil.copy2(path, aside / path.name)


def finished(ws: Workspace) -> bool:
    """Whether the run came to its end."""
    return (ws.run_folder / "finished.json").is_file()


def done_before(params: Params, root: Path) -> bool:
    """Whether, unless the data change, there is nothing left to do for these parameters."""
    from cellwright.versioning import data_version

    try:
        version = data_version(Workspace(root), params.dataset)
    except FormatError:
        return False
    return finished(Workspace(root, run_name(params, version.hash, root)))


@contextmanager
def locked(ws: Workspace) -> Iterator[None]:
    """Keep other processes out of this run.

    Raises:
        WorkspaceError: another process holds it.
    """
    ws.run_folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(ws.run_folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise WorkspaceError(
            f"run {ws.run} is in the hands of another process; wait for it, or start another one with --fresh"
        ) from None


def latest(ws: Workspace, name: str | None = None) -> Workspace:
    """The workspace of a named run, or of the one whose leaderboard is newest.

    Raises:
        CellwrightError: there is none.
    """
    if name:
        if not (ws.artifacts / name / "leaderboard.json").is_file():
            known = ", ".join(_names(ws)) or "none"
            raise CellwrightError(f"run {name} has no leaderboard; `cellwright run` makes one. Runs: {known}")
        return replace(ws, run=name)
    boards = sorted(ws.artifacts.glob("*/leaderboard.json"), key=lambda p: p.stat().st_mtime)
    if not boards:
        raise CellwrightError("there is no finished run yet; start one with `cellwright run`")
    return replace(ws, run=boards[-1].parent.name)


def collect_garbage(ws: Workspace, *, keep: int, dry: bool) -> list[tuple[Path, int]]:
    """Delete all but the newest `keep` finished runs of each data set. Returns what went, with its bytes.

    A run that another process holds is left alone.
    """
    by_dataset: dict[str, list[Path]] = {}
    for folder in _ended(ws):
        by_dataset.setdefault(_dataset(folder), []).append(folder)
    gone = []
    for folder in [f for runs in by_dataset.values() for f in runs[keep:]]:
        try:
            with locked(replace(ws, run=folder.name)):
                gone.append((folder, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())))
                if not dry:
                    shutil.rmtree(folder)
        except WorkspaceError:  # someone works in it
            continue
    return gone


def _ended(ws: Workspace) -> list[Path]:
    """Folders of runs that came to an end, with a leaderboard or without one (federations of parties, or of models of the owners'
    own), the newest first."""
    marks: dict[Path, float] = {}
    for mark in (*ws.artifacts.glob("*/leaderboard.json"), *ws.artifacts.glob("*/finished.json")):
        marks[mark.parent] = max(marks.get(mark.parent, 0.0), mark.stat().st_mtime)
    return sorted((folder for folder in marks if folder.name != "repro"), key=lambda folder: -marks[folder])


def _dataset(folder: Path) -> str:
    """The data set of a run's folder."""
    board = folder / "leaderboard.json"
    found = read_json(board)["data"] if board.is_file() else read_json(folder / "data.json")
    return str(found["dataset"])


def _names(ws: Workspace) -> list[str]:
    return sorted(p.parent.name for p in ws.artifacts.glob("*/leaderboard.json"))
