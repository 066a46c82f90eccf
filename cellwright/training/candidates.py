"""Candidates: from an entry of `train.models` to a network class, its options, its problem and how it is trained."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from cellwright.data import exogenous, neighbours
from cellwright.data.calendar import NAMES
from cellwright.data.holidays import HOLIDAY
from cellwright.data.holidays import check as check_holidays
from cellwright.data.windows import VALID
from cellwright.errors import ParamsError, UnknownName
from cellwright.families import member
from cellwright.federation.key import RULES, FederatedKey, federated
from cellwright.panel import PanelSchema
from cellwright.params import ModelSettings, Params, ProblemParams
from cellwright.training import own_model
from models._contract import Inputs, Network, Options, Problem

_DAY_S = 86_400


@dataclass(frozen=True)
class Settings:
    """How one candidate is trained: `train`, with what `train.settings` says of it laid over."""

    learning_rate: float
    weight_decay: float
    batch: int  # windows of one site a step
    loss: Literal["mae", "mse", "huber"]
    scaler: Literal["standard", "robust", "log", "none"]
    clip: float | None
    gradient_clip: float | None
    budget_s: float
    max_epochs: int
    patience: int
    lr_patience: int | None
    windows_per_epoch: int | None
    validation_windows: int | None
    seed: int
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "32", "bf16"]


@dataclass(frozen=True)
class Candidate:
    """A model with its hyper-parameters, ready to be built and trained."""

    key: str
    model: str
    preset: str | None
    network: type[Network]
    options: Options
    problem: Problem
    settings: Settings
    grid: tuple[int, int] | None  # of the data set
    source: Path  # the model's file
    sha256: str | None = None  # of that file, where it is one of the user's own
    rule: str | None = None  # aggregation rule, where it is trained federated

    @property
    def title(self) -> str:
        """For people: "LSTM", "VMRNN (b)", "GRU by FedAvg"."""
        title = f"{self.network.title} ({self.preset})" if self.preset else self.network.title
        return f"{title} by {member(RULES, self.rule, what='aggregation rule').Rule.title}" if self.rule else title


def resolve(params: Params, schema: PanelSchema, key: str, *, options: Mapping[str, Any] | None = None) -> Candidate:
    """The candidate that `key` ("lstm", "vmrnn:b", "path/mine.py", "neuralforecast:NHITS", "fedavg:gru") stands for on a data set.

    Options are laid over each other: the model's defaults, its preset, `train.settings[key].options`, then `options` (what a
    search found).

    Raises:
        UnknownName: no such model, preset, target or feature; the message lists those there are.
        ParamsError: options or inputs that the model does not take; a file of the user's own that is no model.
    """
    if parts := federated(key):
        return _federated(params, schema, key, parts, options)
    name, preset = own_model.split(key)
    module, chosen = with_options(params, key, options)
    network: type[Network] = module.Network
    settings = params.train.settings.get(key, ModelSettings())
    candidate = Candidate(
        key=key,
        model=name,
        preset=preset or None,
        network=network,
        options=chosen,
        problem=_problem(params, schema, key, network, settings),
        settings=_settings(params, settings),
        grid=schema.grid,
        source=Path(str(module.__file__)),
        sha256=module.sha256 if own_model.is_own(name) else None,
    )
    if own_model.is_foreign(name):
        _probe(candidate)
    return candidate


def _federated(
    params: Params, schema: PanelSchema, key: str, parts: FederatedKey, options: Mapping[str, Any] | None
) -> Candidate:
    """The model of a federated candidate: settings of its own, else those of the model by itself; each site sees itself alone."""
    own = params.train.settings.get(key, params.train.settings.get(parts.model, ModelSettings()))
    if own.inputs not in (None, "site"):
        raise ParamsError(
            f"train.settings.{key}.inputs is '{own.inputs}', but the sites of other owners do not travel; a federated candidate "
            "takes 'site'"
        )
    settings = {**params.train.settings, parts.model: own.model_copy(update={"inputs": "site"})}
    asked = params.problem.model_copy(update={"neighbours": 0})  # a mean over others' sites would travel
    alone = params.model_copy(update={"train": params.train.model_copy(update={"settings": settings}), "problem": asked})
    return replace(resolve(alone, schema, parts.model, options=options), key=key, rule=parts.rule)


def with_options(params: Params, key: str, options: Mapping[str, Any] | None = None) -> tuple[ModuleType, Options]:
    """The module of an entry of `train.models`, and the options laid over each other as `resolve` says; no data are needed.

    Raises:
        UnknownName: no such model or preset.
        ParamsError: options that the model does not take; a file of the user's own that is no model.
    """
    name, preset = own_model.split(key)
    module = module_of(name)
    own = params.train.settings.get(key, ModelSettings()).options
    merged = {**_preset(module.Network, name, preset), **own, **(options or {})}
    return module, parse_options(module.Options, merged, key)


def module_of(name: str, trained: str | None = None) -> ModuleType:
    """A model's module: a file of the user's own, a network of neuralforecast, or a member of the zoo.

    `trained`: SHA-256 of the user's file when a forecaster was trained with it.

    Raises:
        UnknownName: there is no such model.
        ParamsError: the file is no model, or neuralforecast is not installed.
        TrainingError: the file is not what it was.
    """
    if own_model.is_own(name):
        return own_model.module(name, trained)
    library, colon, network = name.partition(":")
    if library == "neuralforecast" and colon:
        from cellwright.training import neuralforecast

        return neuralforecast.module(network)
    return member("models", name, what="model")


def _probe(candidate: Candidate) -> None:
    from cellwright.training.probe import probe

    c = candidate
    probe(c.network, c.options, c.problem, name=c.key, file=c.source)


def _preset(network: type[Network], model: str, preset: str) -> Mapping[str, Any]:
    if not preset:
        return {}
    if preset not in network.presets:
        hint = "" if network.presets else f"'{model}' has no presets; write its name alone."
        raise UnknownName(f"preset of '{model}'", preset, network.presets, hint)
    return network.presets[preset]


def parse_options(kind: type[Options], given: Mapping[str, Any], key: str, *, where: str = "") -> Options:
    """The options of a mapping; `where` they stand, if not in `train.settings.<key>`.

    Raises:
        ParamsError: an unknown name (the nearest is named), a value of the wrong type or out of range.
    """
    where = where or f"train.settings.{key}.options"
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(kind)}
    for name, value in given.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(sorted(defaults)) or 'none'}"
            raise ParamsError(f"{where}: unknown option '{name}'; {hint}")
        if not _fits(value, defaults[name]):
            raise ParamsError(f"{where}.{name}: expected {type(defaults[name]).__name__}, found {value!r}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    except (ValueError, TypeError) as error:
        raise ParamsError(f"{where}: {error}") from None


def _fits(value: Any, default: Any) -> bool:
    """Whether a value of YAML has the type of the default: an int may stand for a float, a list for a tuple."""
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default))


def _settings(params: Params, own: ModelSettings) -> Settings:
    base = params.train.model_dump(include={f.name for f in fields(Settings)})
    over = own.model_dump(include={f.name for f in fields(Settings)}, exclude_none=True)
    return Settings(**{**base, **over})


def _problem(params: Params, schema: PanelSchema, key: str, network: type[Network], own: ModelSettings) -> Problem:
    asked = params.problem
    inputs = _inputs(params, schema, key, network, own)
    targets = asked.targets or schema.targets
    others = tuple(f for f in asked.features if f not in targets)
    _check_names(schema, targets, "target")
    _check_names(schema, others, "feature")
    _check_quantiles(asked.quantiles, _settings(params, own).loss, key)
    holidays = _holidays(asked, schema) if network.uses_known else ""
    sources = tuple(exogenous.source_of(spec).spec for spec in asked.exogenous) if network.uses_features else ()
    nodes = {"site": 1, "patch": asked.patch**2, "all": len(schema.sites)}[inputs]
    grid = {"site": None, "patch": (asked.patch, asked.patch), "all": schema.grid}[inputs]
    problem = Problem(
        history=asked.history,
        horizon=asked.horizon,
        cadence_s=schema.cadence_s,
        inputs=inputs,
        nodes=nodes,
        outputs=nodes if inputs == "all" else 1,
        features=(*targets, *others, *_enriched(asked, schema, network, tuple(targets), sources)),
        targets=tuple(targets),
        known=(*(NAMES if asked.calendar else ()), *((HOLIDAY,) if holidays else ())),
        lags=asked.lags if own.lags is None else own.lags,
        season=max(1, round(_DAY_S / schema.cadence_s)),
        grid=grid,
        quantiles=asked.quantiles,
        edges=(schema.adjacency or ()) if network.reads_edges and inputs == "all" else (),
        holidays=holidays,
        exogenous=sources,
    )
    return _with_channels(problem, network, key)


def _holidays(asked: ProblemParams, schema: PanelSchema) -> str:
    """The country or region whose holidays are asked for; "": none."""
    if not asked.holidays:
        return ""
    if schema.clock == "relative":
        raise ParamsError(
            f"problem.holidays is '{asked.holidays}', but the clock of '{schema.dataset}' is relative: days without dates; set it to null"
        )
    check_holidays(asked.holidays)
    return asked.holidays


def _enriched(
    asked: ProblemParams, schema: PanelSchema, network: type[Network], targets: tuple[str, ...], sources: tuple[str, ...]
) -> tuple[str, ...]:
    """Series joined by time, then the means of the neighbours; none for a network that would not look at them."""
    joined = tuple(exogenous.channel(spec) for spec in sources)
    taken = [name for name in joined if name in {f.name for f in schema.features} or joined.count(name) > 1]
    if taken:
        raise ParamsError(f"problem.exogenous: there are two channels called '{taken[0]}'; rename the column in its file")
    if not asked.neighbours or not network.uses_features:
        return joined
    neighbours.check(asked.neighbours, len(schema.sites))
    return (*joined, *(neighbours.channel(target, asked.neighbours) for target in targets))


def _with_channels(problem: Problem, network: type[Network], key: str) -> Problem:
    """Lag channels, one a target and lag, then `valid` for patches."""
    lags = tuple(network.lags(problem))
    if late := [lag for lag in lags if lag < problem.horizon]:
        raise ParamsError(
            f"{key}: lag {late[0]} is shorter than the horizon of {problem.horizon} steps, so that its values are not known in "
            "time; lengthen problem.lags or shorten problem.horizon"
        )
    channels = tuple(f"{target}@{lag}" for lag in lags for target in problem.targets)
    valid = (VALID,) if problem.inputs == "patch" else ()
    return replace(problem, lags=lags, features=(*problem.features, *channels, *valid))


def _inputs(params: Params, schema: PanelSchema, key: str, network: type[Network], own: ModelSettings) -> Inputs:
    """`train.settings`, else `problem.inputs`, else what the network prefers among what the data set allows."""
    asked = own.inputs or (None if params.problem.inputs == "auto" else params.problem.inputs)
    if asked is None:
        try:
            values = params.problem.history * len(params.problem.targets or schema.targets)
            return network.preferred_inputs(len(schema.sites), on_grid=schema.grid is not None, values_per_site=values)
        except ValueError as error:
            raise ParamsError(f"{key}: {error}") from None
    where = f"train.settings.{key}.inputs" if own.inputs else "problem.inputs"
    if asked not in network.inputs:
        raise ParamsError(
            f"{where} is '{asked}', but {network.title} takes {' or '.join(network.inputs)}; set train.settings.{key}.inputs"
        )
    if asked == "patch" and schema.grid is None:
        raise ParamsError(f"{where} is 'patch', but the sites of '{schema.dataset}' lie on no grid; use 'site' or 'all'")
    return asked


def _check_quantiles(levels: tuple[float, ...], loss: str, key: str) -> None:
    """Ascending, with the median, which is the point forecast; and a loss that has a form for quantiles."""
    found = f"problem.quantiles is {list(levels)}"
    if levels and list(levels) != sorted(set(levels)):
        raise ParamsError(f"{found}: expected ascending levels, each once; write {sorted(set(levels))}")
    if levels and 0.5 not in levels:
        raise ParamsError(f"{found}: expected 0.5 among them, which is the point forecast; write {sorted({*levels, 0.5})}")
    if levels and loss != "mae":
        raise ParamsError(
            f"{key}: the loss is '{loss}', but quantiles are trained by the pinball loss, whose median is the MAE; set loss to 'mae' "
            "or leave problem.quantiles empty"
        )


def _check_names(schema: PanelSchema, names: tuple[str, ...], what: str) -> None:
    known = [f.name for f in schema.features]
    for name in names:
        if name not in known:
            raise UnknownName(what, name, known, f"These are the features of '{schema.dataset}'.")


def as_json(candidate: Candidate) -> dict[str, dict[str, Any]]:
    """Problem, options and settings of a candidate as they come back from a JSON file: lists, no tuples."""
    c = candidate
    parts = {"problem": asdict(c.problem), "options": asdict(c.options), "settings": asdict(c.settings)}
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(parts))
    return plain
