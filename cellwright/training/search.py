"""Hyper-parameter search of one candidate: an Optuna study in SQLite that a killed search goes on with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from cellwright.data.split import Spans
from cellwright.errors import TrainingError
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.training.batches import derived_seed
from cellwright.training.candidates import Candidate, as_json, resolve
from cellwright.training.digest import of
from cellwright.training.fit import fit
from cellwright.workspace import Workspace

_LOCK_S = 60  # others write to the same SQLite file
_DEFAULTS_ARE_GOOD_WITHIN = 10  # the learning rate is searched this factor around its setting


def search(params: Params, ws: Workspace, candidate: Candidate, panel: Panel, spans: Spans) -> tuple[Candidate, int]:
    """The candidate with the best options and learning rate of `search.trials` trials, and how many trials there were.

    The first trial is the candidate as it is. Trial n is drawn by (seed, n) and what the trials before it found, so that a
    resumed search draws what an uninterrupted one would. A trial that is worse than the median at its epoch is pruned.

    Raises:
        TrainingError: every trial failed.
    """
    study = _study(ws, candidate, params)
    _drop_unfinished(study)
    while (number := _finished(study)) < params.search.trials:
        study.sampler = optuna.samplers.TPESampler(seed=derived_seed(candidate.settings.seed, 4, number) % 2**32)
        objective = partial(_try, params=params, candidate=candidate, panel=panel, spans=spans, drawn=number > 0)
        study.optimize(objective, n_trials=1, catch=(Exception,))
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if not complete:
        why = next((t.user_attrs["error"] for t in study.trials if "error" in t.user_attrs), "no trial was completed")
        raise TrainingError(f"all {params.search.trials} trials of the search failed: {why}")
    best = min(complete, key=lambda t: t.value if t.value is not None else float("inf"))
    return _with(params, candidate, panel, best.user_attrs["options"], best.user_attrs["learning_rate"]), _finished(study)


def _study(ws: Workspace, candidate: Candidate, params: Params) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ws.state.mkdir(parents=True, exist_ok=True)
    with FileLock(ws.state / "optuna.lock", timeout=_LOCK_S):  # two processes must not create the tables at once
        storage = optuna.storages.RDBStorage(ws.optuna_uri, engine_kwargs={"connect_args": {"timeout": _LOCK_S}})
        return optuna.create_study(
            study_name=f"{ws.run}/{candidate.key}/{of(_inputs(candidate, params))[:8]}",
            storage=storage,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
            load_if_exists=True,
        )


def _inputs(candidate: Candidate, params: Params) -> Any:
    """A study is gone on with only for the same question."""
    return [as_json(candidate), params.dataset, params.split.model_dump(), params.search.budget_s]


def _drop_unfinished(study: optuna.Study) -> None:
    """Close the trials of a killed process; they do not count."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _finished(study: optuna.Study) -> int:
    return sum("finished" in t.user_attrs for t in study.get_trials(deepcopy=False))


def _try(trial: optuna.Trial, params: Params, candidate: Candidate, panel: Panel, spans: Spans, drawn: bool) -> float:
    """Validation loss of one trial; `drawn` is False for the candidate as it is."""
    options = candidate.network.space(trial) if drawn else {}
    rate = _rate(trial, candidate) if drawn else candidate.settings.learning_rate
    trial.set_user_attr("options", options)
    trial.set_user_attr("learning_rate", rate)

    def report(record: dict[str, float]) -> None:
        trial.report(record["validation_loss"], int(record["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        tried = _with(params, candidate, panel, options, rate)
        tried = replace(tried, settings=replace(tried.settings, budget_s=params.search.budget_s))
        loss = fit(tried, panel, spans, on_epoch=report).validation_loss
    except Exception as error:
        if not isinstance(error, optuna.TrialPruned):
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        trial.set_user_attr("finished", True)
        raise
    trial.set_user_attr("finished", True)
    return loss


def _rate(trial: optuna.Trial, candidate: Candidate) -> float:
    """A closed form has no learning rate."""
    usual = candidate.settings.learning_rate
    if candidate.network.closed_form:
        return usual
    factor = _DEFAULTS_ARE_GOOD_WITHIN
    return trial.suggest_float("learning_rate", usual / factor, usual * factor, log=True)


def _with(params: Params, candidate: Candidate, panel: Panel, options: dict[str, Any], rate: float) -> Candidate:
    tried = resolve(params, panel.schema, candidate.key, options=options)
    return replace(tried, settings=replace(tried.settings, learning_rate=rate))
