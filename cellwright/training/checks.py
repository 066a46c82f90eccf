"""What can be told of `train.models` before the data are made."""

from __future__ import annotations

import math

from cellwright.errors import ParamsError, UnknownName
from cellwright.families import members
from cellwright.federation.key import RULES, federated
from cellwright.params import Params
from cellwright.training import own_model

_LEAST_SITES = 9
_JOINS = {"fedgram": "ridge", "bagging": "trees"}  # rules for a closed form, each for one


def check_models(params: Params) -> None:
    """Does every entry of `train.models` exist with its preset and its options, and does a foreign network forecast as asked?

    Foreign networks (a file of the user's own, neuralforecast's) forecast a few sites of random numbers here, and what the data
    set really has when they are resolved for their training.

    Raises:
        WrongUse: what is wrong with an entry; nothing was started.
    """
    for key in params.train.models:
        parts = federated(key)
        if parts:
            check_rule(parts.rule, key)
        _check_model(params, parts.model if parts else key)
        if parts:
            check_form(params, key)


def check_rule(rule: str, key: str) -> None:
    """Whether a rule ends with one model, which alone can stand in a leaderboard.

    Raises:
        ParamsError: its owners end with models of their own.
    """
    from cellwright.families import member

    found = member(RULES, rule, what="aggregation rule").Rule
    if not found.one_model:
        raise ParamsError(
            f"train.models: '{key}' ends with a model for each owner or group of owners ({found.title}), which no leaderboard can "
            "hold; use `cellwright federate`, which reports them owner by owner"
        )


def check_form(params: Params, key: str) -> None:
    """Whether the rule of a federated candidate can join what its network's owners send.

    Raises:
        ParamsError: a closed form meets a rule that averages updates, or the other way round.
    """
    from cellwright.families import member
    from cellwright.training.candidates import module_of  # with torch

    parts = federated(key)
    if parts is None:
        return
    model, _ = own_model.split(parts.model)
    network, rule = module_of(model).Network, member(RULES, parts.rule, what="aggregation rule").Rule
    if network.closed_form == rule.closed_form and (not rule.closed_form or _JOINS.get(parts.rule) == model):
        return
    if not network.closed_form:
        raise ParamsError(
            f"'{key}': {network.title} is trained by gradient descent, {rule.title} is not for that; use fedavg:{model}"
        )
    fitting = [f"{joins}:{model}" for joins, of in _JOINS.items() if of == model]
    use = f"use {fitting[0]}" if fitting else "it learns nothing that owners could join: put it into train.models by itself"
    raise ParamsError(f"'{key}': {network.title} is fitted in closed form, {rule.title} does not join that; {use}")


def _check_model(params: Params, key: str) -> None:
    (model, preset), own = own_model.split(key), params.train.settings.get(key)
    if own_model.is_foreign(model):
        _forecasts(params, key)
    elif model.replace("-", "_") not in members("models"):
        rules = "" if key == model else f" A federated candidate is <rule>:<model>; rules: {', '.join(members(RULES))}."
        raise UnknownName("model", model, members("models"), f"One of your own is named by its file: path/to/mine.py.{rules}")
    elif preset or (own and own.options):
        _takes_options(params, key)


def _takes_options(params: Params, key: str) -> None:
    from cellwright.training.candidates import with_options  # with torch, which a plain name does without

    with_options(params, key)


def _forecasts(params: Params, key: str) -> None:
    from cellwright.panel import Feature, PanelSchema, Segment
    from cellwright.training.candidates import resolve

    targets = params.problem.targets or ("target",)
    names = dict.fromkeys((*targets, *params.problem.features))
    side = math.isqrt(max(_LEAST_SITES - 1, params.problem.neighbours)) + 1  # a square of more sites than neighbours
    schema = PanelSchema(
        dataset=params.dataset,
        sites=tuple(f"site {i}" for i in range(side * side)),
        features=tuple(Feature(name=name, unit="1") for name in names),
        targets=targets,
        cadence_s=600,
        clock="utc",
        start_ms=0,
        rows=1,
        segments=(Segment(name="all", start=0, stop=1),),
        grid=(side, side),
        licence="",
        attribution="",
    )
    resolve(params, schema, key)
