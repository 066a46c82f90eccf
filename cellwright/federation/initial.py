"""The model that is deployed before the first round, and the forecaster that comes of the last one (M.3387 9.1).

A network is the same wherever it is built from a task: its seed draws the first weights, which are those that central training starts
from. What travels from then on are its floating-point parameters and buffers; buffers of whole numbers (the sample of Informer) follow
from the task alone. Networks that would set buffers from training windows (`Network.prepare`) keep those they are built with, since
the windows of no owner alone are those of all: TimesNet folds by its longest periods, STGCN has nothing to set where each site is
alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellwright.errors import CellwrightError, FederationError, Refused
from cellwright.families import members
from cellwright.federation.contract import Arrays, Parcel, Task
from cellwright.federation.key import federated

if TYPE_CHECKING:
    from torch import Tensor

    from cellwright.data.scaler import Scaler
    from cellwright.forecaster import Forecaster
    from cellwright.panel import PanelSchema
    from cellwright.params import Params
    from cellwright.training.candidates import Candidate
    from models._contract import Network, Problem

CENTER, SCALE = "scaler/center", "scaler/scale"  # arrays of a reply to "deploy", (sites, channels)


@dataclass(frozen=True)
class Table:
    """Centre and scale of an owner's sites, where they may leave it (federation.share_scalers)."""

    sites: tuple[str, ...]
    center: np.ndarray  # (sites, channels) float32
    scale: np.ndarray


def candidate_for(params: Params, schema: PanelSchema, key: str) -> Candidate:
    """What is trained: `key` is a federated candidate's ("fedavg:gru"), or a model's ("gru"); each site sees itself alone.

    Raises:
        WrongUse: no such model, or options that it does not take.
        FederationError: a network that is none of the zoo: owners take no code.
    """
    from cellwright.training import own_model
    from cellwright.training.candidates import resolve

    parts = federated(key)
    model, _ = own_model.split(parts.model if parts else key)
    if own_model.is_foreign(model):
        raise FederationError(
            f"'{own_model.public(model)}' is no model of the zoo, so that its code would have to travel; owners train "
            f"{', '.join(members('models'))}"
        )
    return resolve(params, schema, key if parts else f"fedavg:{key}")


def task_for(
    params: Params,
    schema: PanelSchema,
    model_key: str,
    request_id: str,
    *,
    kind: Literal["regression", "classification"] = "regression",
    threshold: float | None = None,
) -> Task:
    """What owners are told to deploy. Spans are rows of the whole data set, which are the owners' too.

    Raises:
        WrongUse, FederationError: as `candidate_for`; or a split without rows.
    """
    from cellwright.data.split import spans

    candidate, rows = candidate_for(params, schema, model_key), spans(params.split, schema)
    s = candidate.settings
    return Task(
        request=request_id,
        dataset=schema.dataset,
        model=candidate.model,
        options=asdict(candidate.options),
        problem=asdict(candidate.problem),
        scaler=s.scaler,
        clip=s.clip,
        loss=s.loss,
        kind=kind,
        threshold=threshold,
        train=(rows.train.start, rows.train.stop),
        validation=(rows.validation.start, rows.validation.stop),
        test=(rows.test.start, rows.test.stop),
        seed=s.seed,
    )


@lru_cache(maxsize=256)
def task_from(content: str | bytes) -> Task:
    """The task of its JSON form.

    Raises:
        Refused: it is none.
    """
    try:
        return Task.model_validate_json(content)
    except ValueError as error:
        raise Refused(f"the message deploys no task that can be read ({error}); both sides must run the same version") from None


def problem_of(task: Task) -> Problem:
    """What a forecast of the task is asked to be.

    Raises:
        Refused: a field that this version does not know, or inputs that reach beyond one site.
    """
    from cellwright.forecaster import problem_from

    try:
        problem = problem_from(dict(task.problem))
    except TypeError as error:
        raise Refused(f"the task's problem cannot be read ({error}); both sides must run the same version") from None
    if problem.inputs != "site":
        raise Refused(
            f"the task's inputs are '{problem.inputs}', but the sites of other owners do not travel; only 'site' can be federated"
        )
    return problem


def network_of(task: Task) -> Network:
    """The task's network with its first weights: equal for equal tasks, wherever it is built.

    Raises:
        Refused: no model of the zoo, or options or a problem that it does not take.
    """
    import torch

    from cellwright.training import seeding
    from cellwright.training.batches import derived_seed
    from cellwright.training.candidates import module_of, parse_options

    if task.model.replace("-", "_") not in members("models"):
        raise Refused(
            f"the task names the model '{task.model[:60]}'; owners train those of the zoo alone: {', '.join(members('models'))}"
        )
    problem = problem_of(task)
    try:
        module = module_of(task.model)
        options = parse_options(module.Options, task.options, task.model)
        with seeding.lock, torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(task.seed, 0))
            network: Network = module.Network(problem, options)
    except (CellwrightError, ValueError, TypeError) as error:
        raise Refused(f"the task's network cannot be built: {error}") from None
    return network


def travelling(network: Network) -> dict[str, Tensor]:
    """Parameters and persistent buffers that travel, in the network's own order: those in floating point; the tensors themselves."""
    return {name: tensor.detach() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def initial(task: Task) -> Arrays:
    """The first global weights: float32 arrays by their names in the network's state_dict.

    Raises:
        Refused: as `network_of`.
    """
    return {name: tensor.numpy().copy() for name, tensor in travelling(network_of(task)).items()}


def load(network: Network, arrays: Arrays) -> None:
    """Put weights into a network; buffers that do not travel stay.

    Raises:
        FederationError: an array too few, too many, or of another shape.
    """
    import torch

    own = network.state_dict()
    wanted = {name for name, tensor in own.items() if tensor.is_floating_point()}
    if wrong := sorted(wanted - set(arrays)) or sorted(set(arrays) - set(own)):
        what = "lack" if wrong[0] in wanted else "hold"
        raise FederationError(
            f"the weights {what} '{wrong[0]}'; both sides must hold the network '{network.title}' with equal options"
        )
    given = {name: torch.from_numpy(np.ascontiguousarray(array)).to(own[name].dtype) for name, array in arrays.items()}
    try:
        network.load_state_dict({**own, **given})
    except RuntimeError as error:
        raise FederationError(f"the weights are of another form than the network '{network.title}': {error}") from None


def table_of(reply: Parcel) -> Table | None:
    """The scaler's numbers in a reply to "deploy"; None: the owner keeps them, or has none.

    Raises:
        Refused: they are of another form.
    """
    import json

    if CENTER not in reply.arrays and SCALE not in reply.arrays:
        return None
    try:
        sites = tuple(str(site) for site in json.loads(str(reply.values["sites"])))
        center, scale = (np.asarray(reply.arrays[name], np.float32) for name in (CENTER, SCALE))
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"the reply holds no scaler that can be read: {type(error).__name__}: {error}") from None
    if center.ndim != 2 or center.shape != scale.shape or len(center) != len(sites):
        raise Refused(f"the reply's scaler is of another form: {len(sites)} sites, centres {center.shape}, scales {scale.shape}")
    if not (np.isfinite(center).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise Refused("the reply's scaler holds values that are not finite, or a scale that is not positive")
    return Table(sites, center, scale)


def forecaster(
    task: Task,
    arrays: Arrays,
    tables: Collection[Table],
    schema: PanelSchema,
    *,
    key: str | None = None,
    empty: Collection[str] = (),
) -> Forecaster:
    """One forecaster for all sites: the federated weights, and each owner's own scaler for its sites.

    Args:
        tables: of the owners (`table_of` their replies to "deploy").
        schema: of the whole data set: which sites, in which order.
        key: as in `train.models`; the model's name if not given.
        empty: sites whose owners hold no measured value: they take the mean of the others, as `fit_scaler` does.

    Raises:
        FederationError: a site that no table speaks of; weights of another form.
    """
    from cellwright.forecaster import assembled

    network = network_of(task)
    load(network, arrays)
    scaler = _joined(task, tables, schema, empty, len(network.problem.features))
    identity: dict[str, Any] = {"key": key or task.model, "model": task.model, "preset": None, "sha256": None}
    return assembled(network, scaler, None, identity).eval()


def _joined(task: Task, tables: Collection[Table], schema: PanelSchema, empty: Collection[str], channels: int) -> Scaler:
    from cellwright.data.scaler import Scaler

    rows: Mapping[str, tuple[np.ndarray, np.ndarray]] = {
        site: (table.center[i], table.scale[i]) for table in tables for i, site in enumerate(table.sites)
    }
    missing = [site for site in schema.sites if site not in rows and site not in set(empty)]
    if missing or not rows:
        raise FederationError(
            f"the centre and scale of {len(missing)} of {len(schema.sites)} sites are not known ({', '.join(missing[:3])}); one "
            "forecaster for all sites needs them: set federation.share_scalers to true, and bring back the owners that are gone"
        )
    known = [rows[site] for site in schema.sites if site in rows]
    if any(center.shape != (channels,) for center, _ in known):
        raise FederationError(f"an owner's scaler has another number of channels than the task's {channels}")
    usual = tuple(np.mean([pair[i] for pair in known], axis=0, dtype=np.float64).astype(np.float32) for i in (0, 1))
    center, scale = (np.stack([rows.get(site, usual)[i] for site in schema.sites]) for i in (0, 1))
    return Scaler(task.scaler, task.clip, schema.sites, center, scale)
