"""Steps 3 and 4: what the FMLMS sends to the nodes, and the owners' data in one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save

from cellwright.federation.alignment.horizontal import AlignmentReport
from cellwright.federation.contract import Arrays, Task
from cellwright.federation.data.normalise import normalised
from cellwright.federation.initial import initial, task_for
from cellwright.federation.management.records import (
    Plan,
    ServiceRequest,
    Submitted,
    Topology,
    Training,
)
from cellwright.federation.management.service import Fmlms
from cellwright.federation.management.topology import members
from cellwright.federation.owners import cut
from cellwright.federation.privacy import mechanism as privacy_mechanism
from cellwright.panel import Panel
from cellwright.params import Params, check
from road_anomalies.deciding import HISTORY_S, HORIZON_S, Asked, Decided
from road_anomalies.interfaces import Interfaces
from road_anomalies.telling import Telling
from road_anomalies.world import DATASET, Vehicle, World, drive, unified_schema

PRIVACY: dict[str, dict[str, object]] = {"secure_aggregation": {"least": 2}}
NETWORK = {"channels": 16, "dropout": 0.0, "residual": "none"}  # no dropout, and a forecast of its own: not a correction
THRESHOLD = 0.5  # of the label, above which it is an anomaly


@dataclass(frozen=True)
class Sent:
    """What the nodes have received."""

    plans: Mapping[str, Plan]
    first: Arrays  # the initial model


def params_of(request: ServiceRequest, place: World, network: str) -> Params:
    """The operator's parameters for the task."""
    raw = {
        "dataset": DATASET,
        "problem": {
            "history": HISTORY_S, "horizon": HORIZON_S, "targets": list(request.data.targets),
            "features": list(request.data.features), "calendar": False, "inputs": "site",
        },
        "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        "train": {"models": [network], "settings": {network: {"options": NETWORK}}, "loss": "mse", "seed": place.seed, "device": "cpu"},
    }  # fmt: skip
    return check(raw, "the story's parameters")


def send(place: World, request: Submitted, decided: Decided, fmlms: Fmlms, api: Interfaces, asked: Asked, tell: Telling) -> Sent:
    """The FMLMS sends all that the nodes must know; every node fetches its plan and the initial model."""
    params = params_of(request.request, place, decided.network)
    schema = unified_schema(decided.topology.owners, place.rows)
    task = task_for(
        params, schema, f"{decided.cloud_rule}:{decided.network}", request.id, kind="classification", threshold=THRESHOLD
    )
    first = initial(task)
    fmlms.configure(request.id, _training(task, decided, asked), save(first))
    plans, digests = {}, set[str]()
    for node in members(decided.topology):
        plans[node] = api.plan(node, request.id)
        content, digest = api.model(node, f"/v1/nodes/{node}/initial-model", request=request.id)
        digests.add(digest)
    values = sum(array.size for array in first.values())
    tell.line(
        f"{len(plans)} nodes fetched their plan: properties, permissions, topology, algorithm, privacy and channel parameters"
    )
    tell.line(f"for example car-01: {_example(plans['car-01'])}")
    tell.line(f"the initial {decided.network} has {values:,} values in {len(content):,} bytes, SHA-256 {digest[:16]}…")
    sealed = all(privacy_mechanism(name, options).seals for name, options in plans["car-01"].training.privacy.items())
    _permissions(decided.topology, request.id, api, tell)
    tell.holds(len(digests) == 1 and sealed, "all nodes hold the same initial model, and all know that updates are to be sealed")
    return Sent(plans, first)


def _permissions(topology: Topology, request: str, api: Interfaces, tell: Telling) -> None:
    """A roadside unit may read the metadata of a vehicle of the request; another vehicle may not."""
    edge, (one, other, *_) = next(iter(topology.regions)), topology.owners
    found = api.send(edge, "GET", f"/v1/nodes/{one}/metadata", dataset=DATASET, request=request)
    asked = api.refused(other, "GET", f"/v1/nodes/{one}/metadata", dataset=DATASET, request=request)
    tell.holds(
        found["version"] == 1 and asked.startswith("rule"), f"{edge} may read the metadata of {one}; {other} may not: {asked}"
    )


def _training(task: Task, decided: Decided, asked: Asked) -> Training:
    options = {"buffer": asked.buffer} if decided.cloud_rule == "fedbuff" else {}
    return Training(
        task=task.model_dump(mode="json"),
        algorithm={"model": task.model, "steps": asked.steps, "batch": 64, "learning_rate": 1e-2},
        aggregation={
            "region": "fedavg",
            "cloud": decided.cloud_rule,
            "cloud_options": options,
            "rounds": asked.rounds,
        },
        privacy=PRIVACY,
        channel={"management": "TLS", "signatures": "Ed25519", "compression": "none"},
    )


def _example(plan: Plan) -> str:
    return f"role {plan.role}, may {', '.join(plan.operations)}, sends to {plan.parent}, {', '.join(plan.training.privacy)}"


# -- step 4


def deploy_data(place: World, decided: Decided, folder: Path, tell: Telling) -> dict[str, Path]:
    """Each chosen vehicle brings its own raw data into the unified form, in a folder of its own."""
    folders = {}
    for name in decided.topology.owners:
        folders |= cut(unified(place.vehicle(name), place, decided.alignment), {name: (0,)}, folder)
    first = next(o for o in decided.alignment.owners if o.owner == "car-01")
    tell.line(f"{first.owner} renames {', '.join(first.renamed)}")
    tell.line(f"{first.owner} converts {', '.join(first.converted)}; {first.every} of its half seconds make one interval")
    forms = {Panel.open(path).schema.model_copy(update={"sites": ()}).model_dump_json() for path in folders.values()}
    tell.holds(len(forms) == 1, f"the data of {len(folders)} vehicles are in one form, each in its vehicle's own folder")
    return folders


def unified(car: Vehicle, place: World, report: AlignmentReport, *, again: int = 0) -> Panel:
    """A drive in the unified form; done where the data lie."""
    return normalised(drive(car, place, again=again), report.plan(car.name))
