"""Hyper-parameters of the owners' training by search (M.3387 9.2): a few short federations, judged on the owners' validation spans.

Learning rate, steps and batch are drawn by Optuna's TPE sampler; each trial is a federation of `federation.search_rounds` rounds
from the same first weights, and the parameters as configured are the first one. The trials are plain, in this process, without audit or
checkpoint; what was found is kept beside the plan. Under a privacy mechanism there is no search: every trial would spend of the same
owners' budget, or go past it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cellwright.errors import FederationError
from cellwright.federation.contract import Spec
from cellwright.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cellwright.federation.contract import Arrays, Task
    from cellwright.federation.federate import Bed
    from cellwright.federation.planning import Plan
    from cellwright.params import Federation

FOUND = "search.json"
_RATES = (1e-3, 2e-2)  # of learning rates, drawn on a logarithmic scale
_BATCHES = (64, 128, 256, 512)


class Found(Spec):
    """What a search came to."""

    learning_rate: float
    steps: int
    batch: int
    validation_loss: float  # of the best trial, normalised
    trials: int
    default_loss: float | None  # of the parameters as configured, which are the first trial


def searched(bed: Bed, made: Plan, task: Task, first: Arrays, *, say: Callable[[str], None]) -> Bed:
    """The bed with the parameters that a search found; as it is where none is asked for (`federation.search_trials`).

    Raises:
        FederationError: a search under a privacy mechanism, or on a SuperLink; or no trial could be judged.
    """
    f = bed.params.federation
    if not f.search_trials:
        return bed
    if f.privacy or f.runtime == "deployed":
        why = f"privacy is {', '.join(f.privacy)}" if f.privacy else "runtime is 'deployed'"
        raise FederationError(
            f"federation.search_trials is {f.search_trials}, but {why}; search on data of your own, then set it to 0"
        )
    path = bed.folder / FOUND
    found = Found.model_validate_json(path.read_bytes()) if path.is_file() else _search(bed, made, task, first, say)
    write_text(path, found.model_dump_json(indent=2) + "\n")
    say(f"search   {found.trials} trials: learning rate {found.learning_rate:.3g}, {found.steps} steps, batch {found.batch}")
    chosen = {name: getattr(found, name) for name in ("learning_rate", "steps", "batch")}
    return replace(bed, params=bed.params.model_copy(update={"federation": f.model_copy(update=chosen)}))


def _search(bed: Bed, made: Plan, task: Task, first: Arrays, say: Callable[[str], None]) -> Found:
    import optuna

    f = bed.params.federation
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=task.seed))
    study.enqueue_trial({"learning_rate": f.learning_rate, "steps": f.steps, "batch": f.batch})

    def judged(trial: optuna.Trial) -> float:
        drawn = {
            "learning_rate": trial.suggest_float(
                "learning_rate", min(_RATES[0], f.learning_rate), max(_RATES[1], f.learning_rate), log=True
            ),
            "steps": trial.suggest_int("steps", 1, max(2 * f.steps, 2)),
            "batch": trial.suggest_categorical("batch", sorted({*_BATCHES, f.batch})),
        }
        loss = _loss(bed, made, task, first, f.model_copy(update={**drawn, "rounds": f.search_rounds}))
        say(f"search   trial {trial.number + 1} of {f.search_trials}: validation loss {loss:.5g} with {drawn}")
        return loss

    study.optimize(judged, n_trials=f.search_trials, catch=())
    best = study.best_trial
    return Found(validation_loss=best.values[0], trials=len(study.trials), default_loss=study.trials[0].values[0], **best.params)


def _loss(bed: Bed, made: Plan, task: Task, first: Arrays, settings: Federation) -> float:
    """The best validation loss of one short federation."""
    from cellwright.federation.aggregation import rule
    from cellwright.federation.compression import codec
    from cellwright.federation.coordinator import Coordinator
    from cellwright.federation.owner import DataOwner, OwnerKit
    from cellwright.federation.owner_kit import deployed_values
    from cellwright.federation.rounds import Rounds
    from cellwright.federation.runtimes.local import open_channel

    kit = OwnerKit(exogenous=bed.params.problem.exogenous)
    nodes = {owner: DataOwner(owner, bed.panels[owner], kit) for owner in made.owners}
    outcome = Coordinator(
        open_channel(nodes, clock="wall"),
        task.model_copy(update={"request": f"{task.request}-search"}),
        rule(bed.rule, settings.rule_options),
        Rounds.of(settings, seed=task.seed, gradient_clip=bed.params.train.gradient_clip),
        codec=codec("none", {}),
        topology=made.topology,
        deploy=deployed_values({}, "none", {}, share_scalers=False),
    ).run(first)
    losses = [r.validation_loss for r in outcome.rounds if r.validation_loss is not None]
    if not losses:
        raise FederationError(
            "no owner has a measured target in the validation span, so that nothing can be searched by; set search_trials to 0"
        )
    return min(losses)
