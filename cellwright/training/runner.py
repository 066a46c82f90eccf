"""Train many candidates without Prefect: one after the other, in threads, in processes, or on Dask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from cellwright.errors import CellwrightError
from cellwright.params import Params, Runner, check
from cellwright.results import Failure, Trained
from cellwright.training.halving import Rung, stages
from cellwright.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """What came of the candidates, in the order of `train.models`."""

    trained: list[Trained]
    failures: list[Failure]


@contextmanager
def bounded(threads: int) -> Iterator[None]:
    """Torch computes with that many threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def at_home(ws: Workspace) -> None:
    """Paths of the parameters start at the project's folder, wherever the Dask worker that runs this was started."""
    os.environ["CELLWRIGHT_ROOT"] = str(ws.root)


def workers_of(runner: Runner) -> int:
    """Candidates at once."""
    if runner.kind == "serial":
        return 1
    return runner.workers or max(1, len(os.sched_getaffinity(0)) // runner.threads_per_worker)


def train_all(params: Params, ws: Workspace) -> Outcome:
    """Train every entry of `train.models` on the runner that `params.runner` names. One that fails stops no other.

    With `halving.rungs` the weakest are dropped on the way: their records say so.

    Raises:
        WrongUse: `train.models` names what there is not; nothing was started.
    """
    _checked(params, ws)
    ready = {"serial": _serial, "threads": _threads, "processes": _processes, "dask": _dask}[params.runner.kind]
    results: _Results = {}
    with ready(params, ws) as train:
        for stage in stages(params, ws):
            results |= train(stage.keys, stage.rung)
    ordered = [results[key] for key in params.train.models]
    return Outcome(
        trained=[_final(ws, r) for r in ordered if isinstance(r, Trained)],
        failures=[r for r in ordered if isinstance(r, Failure)],
    )


_Results = dict[str, Trained | Failure]
_Train = Callable[[Sequence[str], Rung | None], _Results]  # some candidates, up to a rung


def _final(ws: Workspace, trained: Trained) -> Trained:
    """Of one that was dropped, the record that says so."""
    return Trained.read(ws.candidate(trained.key) / "candidate.json") if trained.status == "halved" else trained


def _checked(params: Params, ws: Workspace) -> None:
    from cellwright.panel import Panel
    from cellwright.training.candidates import resolve

    schema = Panel.open(ws.panel(params.dataset)).schema
    for key in params.train.models:
        resolve(params, schema, key)


def _outcome(key: str, work: Callable[[], Trained]) -> Trained | Failure:
    try:
        return work()
    except CellwrightError as error:
        return Failure(key=key, reason=str(error))
    except Exception as error:
        return Failure(key=key, reason=f"{type(error).__name__}: {error}")


def _train(params: Params, ws: Workspace, key: str, rung: Rung | None, shared: bool) -> Trained:
    from cellwright.steps.train import train

    return train(params, ws, key, rung=rung, shared=shared)


@contextmanager
def _serial(params: Params, ws: Workspace) -> Iterator[_Train]:
    with bounded(params.runner.threads_per_worker):
        yield lambda keys, rung: {key: _outcome(key, partial(_train, params, ws, key, rung, shared=False)) for key in keys}


def _side_by_side(params: Params, keys: Sequence[str], work: Callable[[str], Trained]) -> _Results:
    with ThreadPoolExecutor(workers_of(params.runner)) as pool:
        jobs = {pool.submit(work, key): key for key in keys}
        return {jobs[job]: _outcome(jobs[job], job.result) for job in as_completed(jobs)}


@contextmanager
def _threads(params: Params, ws: Workspace) -> Iterator[_Train]:
    shared = workers_of(params.runner) > 1
    with bounded(params.runner.threads_per_worker):
        yield lambda keys, rung: _side_by_side(params, keys, lambda key: _train(params, ws, key, rung, shared))


@contextmanager
def _processes(params: Params, ws: Workspace) -> Iterator[_Train]:
    from cellwright.training.workers import Workers

    with Workers(workers_of(params.runner), params.runner.threads_per_worker) as workers:
        yield lambda keys, rung: _side_by_side(params, keys, lambda key: workers.train(params, ws, key, rung=rung))


@contextmanager
def _dask(params: Params, ws: Workspace) -> Iterator[_Train]:
    plain, shared = params.model_dump(mode="json", by_alias=True), workers_of(params.runner) > 1

    with _dask_client(params.runner) as client:

        def train(keys: Sequence[str], rung: Rung | None) -> _Results:
            jobs = {key: client.submit(_train_there, plain, ws, key, rung, shared, pure=False) for key in keys}
            return {key: _outcome(key, job.result) for key, job in jobs.items()}

        yield train


@contextmanager
def _dask_client(runner: Runner) -> Iterator[Any]:
    """Of the running cluster that is named, or of one started for this."""
    dask: Any = import_module("distributed")  # untyped
    if runner.dask_address:
        with dask.Client(runner.dask_address) as client:
            yield client
        return
    local = dask.LocalCluster(n_workers=workers_of(runner), threads_per_worker=1, processes=True, dashboard_address=None)
    with local as cluster, dask.Client(cluster) as client:
        yield client


def _train_there(plain: dict[str, Any], ws: Workspace, key: str, rung: Rung | None, shared: bool) -> Trained:
    params = check(plain, "run")
    at_home(ws)
    with bounded(params.runner.threads_per_worker):
        return _train(params, ws, key, rung, shared)
