"""`run`, `step`, `leaderboard`, `gc`: the main job and its parts."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cellwright.errors import UnknownName, WrongUse
from flows._cli.common import Dataset, Json, Run, Set, console, parameters, show, workspace

if TYPE_CHECKING:
    from cellwright.params import Params
    from cellwright.workspace import Workspace

DATA_STEPS = ("ingest", "normalise", "validate")
STEPS = (
    *DATA_STEPS,
    "train",
    "federate",
    "federate_vertical",
    "federate_transfer",
    "score",
    "rank",
    "scorecard",
    "report",
    "register",
    "publish",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("run")(run)
    app.command("step")(step)
    app.command("leaderboard")(leaderboard)
    app.command("gc")(gc)


def run(
    dataset: Dataset = None,
    models: Annotated[
        str | None, typer.Option(help="Candidates, with commas between: gru,vmrnn:b,path/to/mine.py. Else those of params.yaml.")
    ] = None,
    overrides: Set = None,
    mirror: Annotated[str | None, typer.Option(help="Folder that holds copies of the data sources.")] = None,
    promote: Annotated[bool, typer.Option(help="Let the winner become champion if it beats the present one.")] = True,
    only_new: Annotated[bool, typer.Option("--only-new", help="Look for new upstream files, stop if there are none.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start another run even if this one is finished.")] = False,
    as_json: Json = False,
) -> None:
    """Benchmark the models on a data set; register, publish and show the champion. Resumes what was interrupted."""
    ws = workspace()
    overrides = [*(overrides or []), *([f"train.models=[{models}]"] if models else [])]
    params = parameters(ws, overrides, dataset)  # a wrong parameter is told before anything heavy starts
    _known(ws, params)
    if mirror:
        os.environ["CELLWRIGHT_MIRROR"] = os.path.abspath(mirror)  # noqa: PTH100 - resolve() would follow links
    from flows._cli.start import run_benchmark
    from flows._cli.summary import summary

    name = run_benchmark(ws, params.dataset, overrides, promote=promote, only_new=only_new, fresh=fresh, quiet=as_json)
    done = replace(ws, run=name)
    show(done.leaderboard.read_text() if as_json else summary(done), as_json)


def step(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STEPS)}.")],
    dataset: Dataset = None,
    model: Annotated[str | None, typer.Option(help="Candidate, for `train`; else all of them, one after the other.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Run to work in; else `repro`, that of `dvc repro`.")] = None,
    overrides: Set = None,
) -> None:
    """Run one step by itself, as DVC does."""
    if name not in STEPS:
        raise UnknownName("step", name, STEPS)
    ws = workspace()
    if name in DATA_STEPS:
        params = parameters(ws, overrides, dataset)
    else:
        ws, params = _compute_run(ws, run, overrides, dataset)
    from flows._cli.steps import perform

    perform(name, params, ws, model)


def leaderboard(
    run: Run = None,
    everything: Annotated[bool, typer.Option("--all", help="All KPIs: accuracy, calibration, fairness, cost.")] = False,
    as_json: Json = False,
) -> None:
    """Show the leaderboard of a run and why its champion won."""
    from cellwright import runs

    ws = runs.latest(workspace(), run)
    if as_json:
        show(ws.leaderboard.read_text(), True)
        return
    from cellwright.ranking.table import render
    from cellwright.results import Leaderboard

    show(render(Leaderboard.read(ws.leaderboard), everything=everything), False)


def gc(
    keep: Annotated[int, typer.Option(min=1, help="Finished runs to keep for each data set, federations among them.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    cache: Annotated[
        bool, typer.Option(help="Also drop data versions from DVC's cache that no branch, tag or present file uses.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Free space: old runs, published bundles that nothing points to, and (with --cache) data versions."""
    from flows._cli.retention import collect

    freed = collect(workspace(), keep=keep, dry=dry_run, cache=cache)
    if as_json:
        show([{"path": str(p), "bytes": n} for p, n in freed], True)
        return
    for path, size in freed:
        console().print(f"{'would free' if dry_run else 'freed'} {size / 1e6:8.1f} MB  {path}")
    console().print(f"{len(freed)} items, {sum(n for _, n in freed) / 1e6:.1f} MB")


def _known(ws: Workspace, params: Params) -> None:
    """Unknown data sets and models, and files that are no model, are told before anything heavy is started."""
    from cellwright.catalogue import load_catalogue
    from cellwright.training.checks import check_models

    load_catalogue(ws.catalogue).entry(params.dataset)
    check_models(params)


def _compute_run(ws: Workspace, run: str | None, overrides: list[str] | None, dataset: str | None) -> tuple[Workspace, Params]:
    if run is None:
        return ws, parameters(ws, overrides, dataset)
    if overrides or dataset:
        raise WrongUse(f"run {run} keeps the parameters it was started with; leave --set and --dataset out")
    from cellwright import runs

    ws = replace(ws, run=run)
    return ws, runs.params_of(ws)
