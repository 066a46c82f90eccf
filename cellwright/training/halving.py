"""Successive halving: all networks train a little, the best go on from where they are, until few are left for the whole budget.

    rung 0    every candidate trains for budget_s / eta^rungs, and is compared
    rung n    the best 1/eta of those (`halving.keep` at the least) train on to eta times as much, and are compared
    at last   who is left trains out its `budget_s`

A pause is no end: a candidate goes on from its checkpoint as if it had never stopped, so who is left at last is the forecaster that
training in full would have given. What has a closed form is fitted at once and never dropped.

Rungs are barriers: all of a rung are trained before any is dropped. Who goes on then depends on errors alone, not on which process was
faster, so a killed run comes to the same decisions again; an asynchronous rule (ASHA) would keep workers busy that wait here for
the last of a rung, which at a few workers is little: rungs are short.

Sources: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016, and the
rungs of Li et al., "Hyperband", JMLR 18 (2018), without its brackets: one schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cellwright.params import Params
from cellwright.results import Trained
from cellwright.workspace import Workspace

PAUSED = "paused.json"  # a candidate's record as it would be if it were dropped where it pauses
_RECORD = "candidate.json"
_CHECKPOINT = "training.ckpt"  # as in training/fit.py, which imports torch


@dataclass(frozen=True)
class Rung:
    """A pause: after `share` of a candidate's budget, to be compared on about `windows` validation windows."""

    number: int
    share: float
    windows: int


@dataclass(frozen=True)
class Stage:
    """Candidates to train up to a rung; up to their end where there is none."""

    number: int
    keys: tuple[str, ...]
    rung: Rung | None
    dropped: tuple[Trained, ...] = ()  # since the stage before


def rungs(params: Params) -> tuple[Rung, ...]:
    """The pauses, from the shortest."""
    h, budget_s = params.halving, params.train.budget_s
    shares = [h.eta**-n for n in range(h.rungs, 0, -1)]
    worth = [share for share in shares if share * budget_s >= h.min_budget_s]
    return tuple(Rung(number, share, h.windows) for number, share in enumerate(worth))


def stages(params: Params, ws: Workspace) -> Iterator[Stage]:
    """What is to be trained, one stage after the other. The candidates of a stage are compared when the next one is asked for.

    A stage that was trained before, by a process that was killed, costs nothing again: the candidates are found where they were.
    """
    left, todo, done = params.train.models, params.train.models, 0
    dropped: tuple[Trained, ...] = ()
    for rung in rungs(params):
        if len(left) <= params.halving.keep:
            break
        yield Stage(done, todo, rung, dropped)
        (left, dropped), done = _halved(params, ws, left, rung), done + 1
        todo = tuple(key for key in left if _goes_on(ws, key))
    if todo or dropped:
        yield Stage(done, todo, None, dropped)
    _forget_checkpoints(ws, params.train.models)


def _forget_checkpoints(ws: Workspace, keys: Sequence[str]) -> None:
    """Once all have ended and none has failed, nobody goes on any more; the records of pauses stay, for a later call decides by them."""
    records = [_record(ws, key) for key in keys]
    if all(record is not None and record.status != "failed" for record in records):
        for key in keys:
            (ws.candidate(key) / _CHECKPOINT).unlink(missing_ok=True)


def most_stages(params: Params) -> int:
    """How many stages there may be."""
    return len(rungs(params)) + 1


def reached(trained: Trained, rung: Rung) -> bool:
    """Whether a paused candidate has come to a rung."""
    return any(figure.rung >= rung.number for figure in trained.rungs)


def _record(ws: Workspace, key: str) -> Trained | None:
    path = ws.candidate(key) / _RECORD
    return Trained.read(path) if path.is_file() else None


def _goes_on(ws: Workspace, key: str) -> bool:
    """Whether a candidate that is left has not ended: it pauses, or was dropped before another one failed."""
    record = _record(ws, key)
    return record is None or record.status == "halved"


def _standing(ws: Workspace, key: str) -> Trained | None:
    """A candidate where it paused, or as it ended; None if it failed or never came so far."""
    record, paused = _record(ws, key), ws.candidate(key) / PAUSED
    if record is not None and record.status != "halved":
        return None if record.status == "failed" else record
    return Trained.read(paused) if paused.is_file() else None


def _halved(params: Params, ws: Workspace, keys: Sequence[str], rung: Rung) -> tuple[tuple[str, ...], tuple[Trained, ...]]:
    """Who goes on, best first, and who does not, whose records are written."""
    standing = {key: trained for key in keys if (trained := _standing(ws, key)) is not None}
    errors = {key: error for key, trained in standing.items() if (error := _error_at(trained, rung)) is not None}
    ranked = sorted(errors, key=lambda key: (errors[key], key))
    kept = max(params.halving.keep, math.ceil(len(ranked) / params.halving.eta))
    dropped = tuple(
        _drop(ws, key, standing[key], rung, f"rank {place} of {len(ranked)}")
        for place, key in enumerate(ranked[kept:], kept + 1)
        if standing[key].status == "halved"  # one that has ended has nothing to be dropped from
    )
    return tuple(ranked[:kept]), dropped


def _error_at(trained: Trained, rung: Rung) -> float | None:
    """Validation MAE at a rung; of one that ended before it, what it ended with."""
    for figure in trained.rungs:
        if figure.rung == rung.number:
            return figure.validation_mae
    ended = trained.status not in ("halved", "closed form") and trained.rungs
    return trained.rungs[-1].validation_mae if ended else None


def _drop(ws: Workspace, key: str, trained: Trained, rung: Rung, rank: str) -> Trained:
    after_s = next(figure.after_s for figure in trained.rungs if figure.rung == rung.number)
    reason = f"dropped after {after_s:.1f} s: {rank} on validation"
    return trained.model_copy(update={"reason": reason}).save(ws.candidate(key) / _RECORD)
