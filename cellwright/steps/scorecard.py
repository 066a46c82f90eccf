"""Step `scorecard`: the dear KPIs, of the finalists alone.

The finalists are the champion, those of similar accuracy, then the best by score, `scorecard.finalists` of them at most. Nothing that
is found out here moves the choice, so the test span may be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.errors import CellwrightError
from cellwright.kpis._contract import names, probe_kpi, probe_kpis
from cellwright.kpis._probes import PROBES, Found, Probes, growth, merged, probe_of
from cellwright.params import Params, check
from cellwright.results import Leaderboard, Probed, Scorecard
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.training.workers import Workers

Say = Callable[[str], None]
Job = tuple[str, str]  # finalist, probe
_SAID = {"noise": "noise_mae", "missing values": "missing_mae", "outage": "outage_mae"}


def scorecard(params: Params, ws: Workspace, workers: Workers | None = None, *, on_progress: Say | None = None) -> Scorecard:
    """Probe every finalist of the run and write `ws.scorecard`. What was found out already of the same files is not probed again.

    Writes, in `ws.probes(key)`: <probe>.json each, and retrained/<name>/. A probe that fails stops nobody else: its KPIs have no value,
    and the reason is kept.

    Args:
        workers: the processes to probe in; None: one probe after the other, here.
        on_progress: called with one line a finalist, once its last probe is done.

    Raises:
        CellwrightError: the run has no leaderboard.
    """
    board = Leaderboard.read(ws.leaderboard)
    titles = {row.key: row.title for row in board.rows}
    keys = finalists(board, params.scorecard.finalists)
    ws.all_probes.mkdir(parents=True, exist_ok=True)  # an output of the step also where nobody is probed
    found = _kept(params, ws, keys)
    jobs = [(key, name) for key in keys for name in PROBES if (key, name) not in found]
    left = {key: sum(job[0] == key for job in jobs) for key in keys}
    for job, outcome in _run(params, ws, jobs, workers):
        found[job] = outcome
        left[job[0]] -= 1
        if not left[job[0]] and on_progress:
            on_progress(_line(titles[job[0]], [found[job[0], name] for name in PROBES]))
    parts = {key: [found[key, name] for name in PROBES] for key in keys}
    folds = {k: maes for fs in parts.values() for f in fs for k, maes in f.evidence.fold_maes.items()}
    return _card(params, ws, board, [_finalist(key, titles[key], parts[key], folds) for key in keys]).save(ws.scorecard)


def finalists(board: Leaderboard, most: int) -> list[str]:
    """Keys of those that are probed: the champion, the similar ones, then the best by score."""
    by_rank = [row.key for row in sorted(board.rows, key=lambda row: row.rank)]
    similar = [key for key in by_rank if key in board.choice.similar]
    return list(dict.fromkeys([board.choice.key, *similar, *by_rank]))[:most]


def probe_one(plain: dict[str, object], ws: Workspace, key: str, name: str) -> Found:
    """One probe of one finalist, in whatever process this is; an error becomes the reason why its KPIs have no value.

    An error of ours states a cause, which stays as long as the files do; after any other one the probe is tried again next time.
    """
    from cellwright.kpis._bed import Bed
    from cellwright.training.runner import bounded

    params, probe = check(plain, "run"), probe_of(name)
    mark = _digest(params, ws, key)
    try:
        with bounded(params.runner.threads_per_worker):
            found = probe.probe(Bed.open(params, ws, key))
    except CellwrightError as error:
        found = _failed(name, str(error))
    except Exception as error:  # whatever a network of the zoo throws
        return _failed(name, f"{type(error).__name__}: {error}")
    return found.model_copy(update={"digest": mark}).save(_path(ws, key, name))


def _run(params: Params, ws: Workspace, jobs: Sequence[Job], workers: Workers | None) -> Iterator[tuple[Job, Found]]:
    """Each job with what it found, as they end."""
    plain = params.model_dump(mode="json", by_alias=True)
    if workers is None:
        for job in jobs:
            yield job, probe_one(plain, ws, *job)
        return
    from cellwright.training.workers import WorkerDied

    threads = ThreadPoolExecutor(workers.count)
    try:
        started = {threads.submit(workers.run, f"probed {job[0]}", probe_one, plain, ws, *job): job for job in jobs}
        for future in as_completed(started):
            try:
                yield started[future], future.result()
            except WorkerDied as error:
                yield started[future], _failed(started[future][1], str(error))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for what is under way: it ends with the workers


def _kept(params: Params, ws: Workspace, keys: Sequence[str]) -> dict[Job, Found]:
    """What was found out before, of the same files and parameters."""
    kept = {}
    for key in keys:
        mark = _digest(params, ws, key)
        for name in PROBES:
            path = _path(ws, key, name)
            if path.is_file() and (found := Found.read(path)).digest == mark:
                kept[key, name] = found
    return kept


def _path(ws: Workspace, key: str, name: str) -> Path:
    return ws.probes(key) / f"{name}.json"


def _failed(name: str, reason: str) -> Found:
    return Found(reasons=dict.fromkeys(probe_of(name).FEEDS, reason))


def _digest(params: Params, ws: Workspace, key: str) -> str:
    """Of all that a finalist's probes depend on: data, parameters, what was trained and scored, and how it is probed."""
    from cellwright.forecaster import FILE
    from cellwright.versioning import data_version

    p = params
    sections = (p.scorecard, p.prices, p.split, p.problem, p.train, p.validate_)
    others = [name for name in (p.scorecard.transfer_to,) if name and ws.panel(name).is_dir()]
    versions = [data_version(ws, name).hash for name in (p.dataset, *others)]
    total = hashlib.sha256("\n".join([*versions, *map(repr, sections)]).encode())
    folder, probes = ws.candidate(key), Path(__file__).parent.parent / "kpis"
    own = (folder / FILE, folder / "candidate.json", ws.score(key), ws.score(key, ".npz"))
    for path in (*own, *sorted(probes.glob("_*.py"))):
        total.update(path.read_bytes() if path.is_file() else b"absent")
    return total.hexdigest()


def _finalist(key: str, title: str, found: Sequence[Found], folds: dict[str, tuple[float, ...]]) -> Probed:
    kpis = probe_kpis(merged(key, found, folds))
    reasons = {name: reason for f in found for name, reason in f.reasons.items()}
    return Probed(
        key=key,
        title=title,
        kpis=kpis,
        reasons={name: reasons.get(name) or _otherwise(name, folds) for name, value in kpis.items() if value is None},
        notes={name: note for f in found for name, note in f.notes.items()},
        importance=tuple(table for f in found for table in f.importance),
    )


def _otherwise(name: str, folds: dict[str, tuple[float, ...]]) -> str:
    """Why there is no value although its probe found something."""
    if name == "rank_stability" and len(folds) < 2:
        return "no other finalist was trained on the folds, so there is no rank"
    return "it is not defined for what was found: the undisturbed error, or the mean, is 0"


def _line(title: str, found: Sequence[Found]) -> str:
    """What the watcher is told of a finalist."""
    e: Probes = merged("", found, {})
    grown = {words: growth(getattr(e, field), e.mae) for words, field in _SAID.items()}
    told = [f"{words} {value:+.0%}" for words, value in grown.items() if value is not None]
    failed = sorted({name for f in found for name in f.reasons})
    return f"{title}: MAE {', '.join(told) or 'not probed'}" + (f"; without {', '.join(failed)}" if failed else "")


def _card(params: Params, ws: Workspace, board: Leaderboard, probed: list[Probed]) -> Scorecard:
    dear = names("probe")
    units = {"target": board.unit, "money": params.prices.currency}
    return Scorecard(
        run=ws.run,
        windows=params.scorecard.windows,
        finalists=probed,
        kpi_titles={name: probe_kpi(name).title for name in dear},
        kpi_units={name: units.get(probe_kpi(name).unit, probe_kpi(name).unit) for name in dear},
        kpi_lower_is_better={name: probe_kpi(name).lower_is_better for name in dear},
        kpi_groups={name: probe_kpi(name).group for name in dear},
        kpi_plain={name: probe_kpi(name).plain for name in dear},
    )
