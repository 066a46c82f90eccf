"""Score the present champion's forecaster on the windows of a run, and hold the run's choice against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellwright.data.split import Spans
from cellwright.data.split import spans as spans_of
from cellwright.data.windows import Windows
from cellwright.errors import CellwrightError
from cellwright.forecaster import Forecaster, forecast_panel
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.ranking.bootstrap import WindowErrors, block_steps, paired
from cellwright.registry.contest import CannotCompare, Contest, cost
from cellwright.report.forecasts import arrays
from cellwright.report.record import Record
from cellwright.results import Interval, Trained
from cellwright.workspace import Workspace


def match(params: Params, ws: Workspace, record: Record, version: str, folder: Path) -> Contest:
    """The choice of `record` against the champion whose forecaster lies in `folder`, on both spans.

    Raises:
        CannotCompare: the champion forecasts something else, or other sites, or was trained on rows of these spans.
        TrainingError: its model's code has changed its form since.
    """
    champion = Forecaster.load(folder)
    _check_comparable(champion, record, version)
    panel = Panel.open(ws.panel(record.board.data.dataset))
    theirs = Trained.read(folder / "candidate.json")
    _check_unseen(theirs, spans_of(params.split, panel.schema), record, version)
    windows = Windows(panel, champion.problem)
    spans = [_span(params, ws, record, windows, champion, version, span) for span in ("validation", "test")]
    mine = record.champion.trained
    if mine is None:
        raise CellwrightError(f"candidate {record.champion.key} has no candidate.json; train it again")
    (validation, mae), (test, _) = spans
    return Contest(version, validation, test, mae, cost(mine), cost(theirs))


def _span(
    params: Params, ws: Workspace, record: Record, windows: Windows, champion: Forecaster, version: str, span: str
) -> tuple[Interval, float]:
    """(challenger minus champion, the champion's MAE) on one span."""
    truth = arrays(ws, "truth", (f"{span}_truth", f"{span}_mask", f"{span}_origins"))
    forecast = arrays(ws, record.champion.key, (f"{span}_forecast",))[f"{span}_forecast"]
    origins = truth[f"{span}_origins"]
    target, mask = truth[f"{span}_truth"], truth[f"{span}_mask"]
    theirs = WindowErrors.of(forecast_panel(champion, windows, origins), target, mask)
    mine = WindowErrors.of(forecast, target, mask)
    block = block_steps(params.score.block_h, record.schema.cadence_s * record.board.stride, len(origins))
    rng = np.random.default_rng([params.train.seed, len(origins)])
    name = f"version {version}"
    return paired(mine, theirs, name=name, block=block, samples=params.score.bootstrap, rng=rng), theirs.mae


def _check_comparable(champion: Forecaster, record: Record, version: str) -> None:
    board, problem = record.board, champion.problem
    theirs = (*problem.targets, f"{problem.horizon} steps", f"{problem.cadence_s:g} s")
    ours = (*board.targets, f"{board.horizon} steps", f"{record.schema.cadence_s:g} s")
    if theirs != ours:
        raise CannotCompare(_apart(version, f"forecasts {', '.join(theirs)}", ", ".join(ours)))
    if champion.sites != record.schema.sites:
        both = len(set(champion.sites) & set(record.schema.sites))
        ours_has = f"{len(record.schema.sites)}, {both} of them the same and in another order or number"
        raise CannotCompare(_apart(version, f"knows {len(champion.sites)} sites", ours_has))


def _check_unseen(champion: Trained, spans: Spans, record: Record, version: str) -> None:
    """Whoever has learnt from the rows it is judged on cannot lose there. Records of old say nothing and are compared as before."""
    if champion.train_rows is None or champion.data.dataset != record.board.data.dataset:
        return
    first, stop = champion.train_rows
    for name, span in (("validation", spans.validation), ("test", spans.test)):
        if first < span.stop and span.start < stop:
            raise CannotCompare(
                f"the champion (version {version}) was trained on rows {first} – {stop}, this run's {name} span is rows "
                f"{span.start} – {span.stop}: on rows that one of them has learnt from they cannot be compared. Judge them on newer "
                "telemetry (split.since, or the retrain deployment), or, if the new one shall serve, `cellwright champion promote`"
            )


def _apart(version: str, theirs: str, ours: str) -> str:
    return (
        f"the champion (version {version}) {theirs}, this run {ours}: they cannot be compared. If the new one shall serve, "
        "`cellwright champion promote`"
    )
