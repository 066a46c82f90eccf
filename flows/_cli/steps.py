"""One step by itself: what `cellwright step` and DVC's stages call."""

from __future__ import annotations

import os
from dataclasses import replace

import typer

from cellwright.errors import TrainingError
from cellwright.files import write_json, write_text
from cellwright.params import Params
from cellwright.results import Leaderboard
from cellwright.workspace import Workspace
from flows._cli.replayable import check_replayable, under_dvc


def perform(name: str, params: Params, ws: Workspace, model: str | None) -> None:
    """Run the step `name`; its result is a file, its progress lines go to stdout.

    Raises:
        CellwrightError: what the step raises.
    """
    globals()[f"_{name}"](params, ws, model)


def _ingest(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.ingest import ingest

    # A mirror holds the same bytes as the source, so it is no part of the data version: it may come from the environment.
    if mirror := os.environ.get("CELLWRIGHT_MIRROR"):
        params = params.model_copy(update={"ingest": params.ingest.model_copy(update={"mirror": mirror})})
    done = ingest(params, ws)
    typer.echo(f"{done.dataset}: {done.files} files, {done.raw_bytes / 1e6:.1f} MB, {len(done.new)} of them new")


def _normalise(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.normalise import normalise

    done = normalise(params, ws)
    typer.echo(f"{done.dataset}: {done.rows:,} rows × {done.sites:,} sites, {done.first} to {done.last}")
    for name, count in done.features.items():
        typer.echo(f"  {name}: {count.filled} filled, {count.masked} masked, {count.outage} in outages, {count.outlier} outliers")


def _validate(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.validate import validate

    typer.echo(validate(params, ws))


def _train(params: Params, ws: Workspace, model: str | None) -> None:
    from cellwright.steps.train import train
    from cellwright.training.runner import bounded

    if under_dvc():
        check_replayable(params)
    _remember(params, ws)
    if params.halving.rungs:
        typer.echo(f"halving.rungs is {params.halving.rungs}: a step by itself compares nobody, so all train in full")
    for key in [model] if model else params.train.models:
        with bounded(params.runner.threads_per_worker):
            try:
                trained = train(params, ws, key)
            except TrainingError as error:
                if model is None or ws.run != "repro":
                    raise
                typer.echo(f"{key} failed: {error}")  # listed on the leaderboard; the other stages go on
                continue
        typer.echo(f"{trained.title}: {trained.status}, {trained.epochs} epochs. {trained.reason}")


def _federate(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.federate import federate
    from cellwright.training.runner import bounded

    if ws.run == "repro":  # beside the candidates that `score` depends on
        ws = replace(ws, run="repro/federated")
    with bounded(params.runner.threads_per_worker):
        federate(params, ws, on_progress=lambda line: typer.echo(f"federate {line}"))


def _federate_vertical(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.federate_kinds import vertical
    from cellwright.training.runner import bounded

    with bounded(params.runner.threads_per_worker):
        vertical(params, ws, on_progress=lambda line: typer.echo(f"federate {line}"))


def _federate_transfer(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.federate_kinds import transfer
    from cellwright.training.runner import bounded

    with bounded(params.runner.threads_per_worker):
        transfer(params, ws, on_progress=lambda line: typer.echo(f"federate {line}"))


def _score(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.score import score

    score(params, ws, on_progress=lambda line: typer.echo(f"score    {line}"))


def _rank(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.rank import rank

    board = rank(params, ws)
    if ws.run == "repro":
        _for_dvc(board, ws)
    typer.echo(board.choice.sentence)


def _scorecard(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.scorecard import scorecard

    card = scorecard(params, ws, on_progress=lambda line: typer.echo(f"probe    {line}"))
    typer.echo(f"{len(card.finalists)} finalists probed")


def _report(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.report import report

    typer.echo(report(params, ws))


def _register(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.register import register

    # By itself, and so under DVC, a step never moves the champion: only a flow does.
    typer.echo(register(params, ws, promote=False).reason)


def _publish(params: Params, ws: Workspace, _model: str | None) -> None:
    from cellwright.steps.publish import publish

    typer.echo(publish(params, ws).digest)


def _remember(params: Params, ws: Workspace) -> None:
    if ws.run == "repro":
        write_text(ws.run_folder / "params.json", params.model_dump_json(by_alias=True, indent=2) + "\n")


def _for_dvc(board: Leaderboard, ws: Workspace) -> None:
    """What `dvc metrics show` and `dvc plots` read."""
    metrics = {row.key: {k: v for k, v in row.kpis.items() if v is not None} for row in board.rows}
    write_json(
        ws.run_folder / "metrics.json", {"champion": board.choice.key, "test_windows": board.test_windows, "kpis": metrics}
    )
    lines = ["model,mae,rmse", *(f"{r.key},{r.kpis.get('mae')},{r.kpis.get('rmse')}" for r in board.rows)]
    write_text(ws.run_folder / "plots" / "leaderboard.csv", "\n".join(lines) + "\n")
