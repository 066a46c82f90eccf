"""Retrain after a change: warm-started from the champion, judged on the newest span, promoted only if it wins there."""

from __future__ import annotations

import json
from typing import Annotated

from prefect import flow
from pydantic import Field

from cellwright import runs
from cellwright.errors import ParamsError
from cellwright.params import Params, load
from flows._catalogue import ROOT, DataSet
from flows._chain import compute
from flows._hooks import notify
from flows._runners import pool
from tasks._run import say
from tasks.find_champion import find_champion
from tasks.prepare_data import prepare_data

_REFERENCES = ("persistence", "ridge")  # cost nothing, and say whether the network earns its energy


@flow(
    name="retrain",
    flow_run_name="retrain {dataset}",
    description="Train the champion's model again on the newest telemetry; the alias moves only if it beats the champion there.",
    on_failure=[notify],
    on_crashed=[notify],
)
def retrain(
    dataset: Annotated[DataSet, Field(description="Data set of the champion")],
    until: Annotated[int | None, Field(description="Row up to which telemetry has arrived; empty: all of it")] = None,
    size: Annotated[float | None, Field(description="Size of the change: +0.5 is half as much error again")] = None,
    warm_start: Annotated[bool, Field(description="Start from the champion's weights")] = True,
    overrides: Annotated[list[str], Field(description="section.key=value of params.yaml")] = [],  # noqa: B006 - only read
) -> str:
    """Retrain, compare, and promote the winner; returns the run's name.

    Raises:
        RegistryError: there is no champion to start from.
    """
    version = prepare_data(str(ROOT), dataset.value)
    plain = load(ROOT / "params.yaml", [*overrides, f"dataset={dataset.value}"])
    champion = find_champion(str(ROOT), dataset.value, overrides)
    stop = version.rows if until is None else min(until, version.rows)
    params = _window(plain, champion.key, stop, champion.cadence_s)
    if size is not None:
        say(f"retrain  the error changed by {size:+.0%}; {champion.title} learns from rows {params.split.since} – {stop}")
    ws = runs.open_run(params, ROOT, version, until=stop)
    if runs.finished(ws):
        say(f"run      {ws.run} is finished")
        return ws.run
    start = {champion.key: champion.folder} if warm_start else None
    with pool(params.runner) as workers:
        registered = compute(params, ws, workers, promote=True, warm_start=start)
    say(f"retrain  {'promoted' if registered.champion else 'kept the champion'}: {registered.reason}")
    return ws.run


def _window(params: Params, key: str, stop: int, cadence_s: float) -> Params:
    """The newest stretch: its last `holdout_h` are the test span, as many before them the validation span."""
    rows_per_h = 3600 / cadence_s
    since = max(0, stop - round(params.monitor.retrain_window_h * rows_per_h))
    if stop - since < 4 * params.monitor.holdout_h * rows_per_h:
        raise ParamsError(
            f"retraining wants at least four times monitor.holdout_h ({params.monitor.holdout_h:g} h) of telemetry, found "
            f"{(stop - since) / rows_per_h:.1f} h before row {stop}; wait for more, or lower monitor.holdout_h"
        )
    held = params.monitor.holdout_h * rows_per_h / (stop - since)
    block_h = min(params.score.block_h, params.monitor.holdout_h / 8)  # a short span still needs several blocks
    split = params.split.model_copy(
        update={"since": since, "until": stop, "train": 1 - 2 * held, "validation": held, "test": held}
    )
    models = tuple(dict.fromkeys((*_REFERENCES, key)))
    changed = {
        "split": split,
        "train": params.train.model_copy(update={"models": models}),
        "score": params.score.model_copy(update={"block_h": block_h}),
    }
    # through JSON, so that what was changed is checked as if it stood in params.yaml
    content = params.model_copy(update=changed).model_dump_json(by_alias=True)
    return Params.model_validate(json.loads(content))
