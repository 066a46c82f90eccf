"""What comes of the training: contributions and rewards, the model for the client, the logs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellwright.data.windows import Windows
from cellwright.federation.audit.chain import verify_log
from cellwright.federation.contract import Task
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.gain import Observer, gains
from cellwright.federation.initial import forecaster, table_of
from cellwright.federation.management.service import Fmlms
from cellwright.federation.quality.classification import Classified, classified, histograms
from cellwright.federation.quality.incentive import Incentive, Spending
from cellwright.federation.results import OwnerRound
from cellwright.federation.rounds import Outcome
from cellwright.files import write_bytes
from cellwright.forecaster import FILE, Forecaster, forecast_panel
from cellwright.panel import Panel
from road_anomalies.deciding import Asked, Decided, Known, next_choice
from road_anomalies.interfaces import CLIENT, Interfaces
from road_anomalies.preparing import THRESHOLD, unified
from road_anomalies.telling import Telling
from road_anomalies.training import Site
from road_anomalies.world import World, unified_schema

POT = 100.0
MARGIN = 0.02  # of AUC: training ends where the validation spans reach what was asked; other drives are another sample
STEP_S = 0.05  # what a training step is worth, whoever's computer did it: slowness does not pay


@dataclass(frozen=True)
class Paid:
    """What the incentive comes to."""

    contributions: Mapping[str, float]  # validation MAE that each vehicle took off
    rewards: Mapping[str, float]
    before: tuple[str, ...]  # whom the next request would have got without rewards, best first
    after: tuple[str, ...]


@dataclass(frozen=True)
class Received:
    """What the client has in the end."""

    folder: Path  # of forecaster.safetensors
    sha256: str
    told: Classified  # on drives that no training saw
    known: Classified  # of the last second's label alone, on the same drives


def reward(
    site: Site, coordinator: Coordinator, outcome: Outcome, decided: Decided, known: Known, fmlms: Fmlms, api: Interfaces,
    asked: Asked, tell: Telling,
) -> Paid:  # fmt: skip
    """Contributions, rewards, and what they change.

    The cloud sees each region's update, so the contribution of a region is measured: the validation error that its updates took off.
    What a vehicle added within it nobody sees, since it is sealed: a region's gain is shared by windows × steps.
    """
    observer = coordinator.observe
    if not isinstance(observer, Observer):
        raise TypeError("the coordinator was made without an observer")
    by_region = gains(observer, lambda arrays: _error(coordinator, arrays), orders=2, seed=coordinator.task.seed)
    tell.line(
        "contribution of a region (validation MAE that its updates took off): "
        + _listed({e: c.shapley for e, c in by_region.items()}, 4)
    )
    work, lines = _work(site), _lines(site)
    shared = dict.fromkeys(decided.topology.owners, 0.0)
    for edge, contribution in by_region.items():
        whole = math.fsum(part for (unit, _), part in work.items() if unit == edge)
        for (unit, owner), part in work.items():
            if unit == edge:
                shared[owner] += contribution.shapley * part / whole
    spent = {owner: _spent(lines[owner]) for owner in shared}
    reliability = {owner: site.auditors[_edge(outcome, owner)].reliability(owner) for owner in shared}
    rewards = Incentive(pot=POT).rewards(shared, spent, reliability)
    for owner in shared:
        rounds = sum(line.outcome == "counted" for line in lines[owner])
        fmlms.rate(owner, reliability=reliability[owner], contribution=shared[owner], reward=rewards[owner], rounds=rounds)
    few = max(2, len(shared) // 2)
    before = next_choice(known, decided.statuses, asked, fmlms, few)
    after = next_choice(known, fmlms.statuses(), asked, fmlms, few)
    told = {owner: float(api.send(owner, "POST", f"/v1/nodes/{owner}/status", {})["reward"]) for owner in shared}
    tell.line("rewards, as each vehicle is told with its next report: " + _listed(told, 1))
    tell.line(f"a request for {few} vehicles would have got {' '.join(before)}; now it gets {' '.join(after)}")
    tell.holds(
        0 < math.fsum(rewards.values()) <= POT + 1e-9, f"the rewards add up to {math.fsum(rewards.values()):.1f} of {POT:g}"
    )
    tell.holds(set(before) != set(after), "the rewards change who is chosen next")
    return Paid(shared, rewards, before, after)


def deliver(
    place: World, task: Task, outcome: Outcome, decided: Decided, fmlms: Fmlms, api: Interfaces, folder: Path, asked: Asked,
    tell: Telling,
) -> Received:  # fmt: skip
    """The model goes to the client over interface 1; the client tries it on drives of its own."""
    tables = [table for reply in outcome.deployed.values() if (table := table_of(reply)) is not None]
    owners = decided.topology.owners
    made = forecaster(task, outcome.arrays, tables, unified_schema(owners, place.rows), key=f"{decided.cloud_rule}:{task.model}")
    content = made.save(folder / "cloud").read_bytes()
    fmlms.progress(task.request, len(outcome.rounds))
    fmlms.deliver(task.request, content, reason=outcome.reason)
    status = api.send(CLIENT, "GET", f"/v1/requests/{task.request}")
    tell.line(f"{CLIENT} reads: {status['status']} after {status['rounds']} rounds, {status['reason']}")
    received, digest = api.model(CLIENT, f"/v1/requests/{task.request}/model")
    write_bytes(folder / "client" / FILE, received)
    told, before = tried(folder / "client", place, decided)
    tell.line(f"received {len(received):,} bytes, SHA-256 {digest}")
    tell.line(f"on new drives of these vehicles: {_quality(told)}; the label of the last second alone: {_quality(before)}")
    tell.holds(received == content, "the client's model is the one that was trained, byte for byte")
    tell.holds(
        (told.auc or 0) >= asked.auc - MARGIN,
        f"it has the AUC asked for, {asked.auc:g}, within {MARGIN:g} on drives that no training saw",
    )
    tell.holds((told.auc or 0) > (before.auc or 1), "it foresees more than the label of the last second tells")
    return Received(folder / "client", digest, told, before)


def tried(folder: Path, place: World, decided: Decided) -> tuple[Classified, Classified]:
    """How well the model in a folder foresees anomalies on another drive of each vehicle; and the last label alone."""
    loaded = Forecaster.load(folder)
    panel = _together([unified(place.vehicle(name), place, decided.alignment, again=1) for name in loaded.sites])
    windows = Windows(panel, loaded.problem)
    origins = windows.origins(0, panel.schema.rows)
    truth = np.stack([panel.values("anomaly")[origins + ahead] for ahead in range(loaded.problem.horizon)], axis=1)[..., None]
    last = np.broadcast_to(panel.values("anomaly")[origins - 1][:, None, :, None], truth.shape)
    return _judged(forecast_panel(loaded, windows, origins), truth), _judged(last, truth)


def verify(site: Site, tell: Telling) -> dict[str, int]:
    """Every log, with the key of who wrote it; and that one altered byte is found. Returns the number of records by log."""
    site.close()
    records = {}
    for name, log in site.logs.items():
        verdict = verify_log(log.path, site.signers[name].public)
        records[name] = verdict.records
        tell.holds(
            verdict.ok and verdict.authentic and verdict.signed == verdict.records,
            f"log of {name}: {verdict.records} records in order, signed",
        )
    copy = next(iter(site.logs.values())).path
    altered = copy.with_name("altered.jsonl")
    write_bytes(altered, copy.read_bytes().replace(b'"accepted"', b'"Accepted"', 1))
    write_bytes(altered.with_name("altered.jsonl.head"), copy.with_name(copy.name + ".head").read_bytes())
    found = verify_log(altered)
    tell.holds(not found.ok, f"a copy of it with one letter altered is found out at line {found.line}")
    return records


def _error(coordinator: Coordinator, arrays: Mapping[str, np.ndarray]) -> float:
    error = coordinator.error(dict(arrays))
    if error is None:
        raise RuntimeError("no vehicle has a measured label in its validation span")
    return error


def _lines(site: Site) -> dict[str, list[OwnerRound]]:
    """What became of each vehicle in every regional round."""
    found = defaultdict(list)
    for _edge_name, _round, members in site.regional:
        for line in members:
            found[line.owner].append(line)
    return found


def _work(site: Site) -> dict[tuple[str, str], float]:
    """Windows × steps of each vehicle at each roadside unit, where they counted."""
    done: dict[tuple[str, str], float] = defaultdict(float)
    for edge, _round, members in site.regional:
        for line in members:
            done[edge, line.owner] += line.examples * line.steps if line.outcome == "counted" else 0
    return done


def _spent(lines: list[OwnerRound]) -> Spending:
    return Spending(STEP_S * sum(line.steps for line in lines), None, sum(line.up_bytes + line.down_bytes for line in lines))


def _edge(outcome: Outcome, owner: str) -> str:
    """The roadside unit that a vehicle had in the end."""
    return next(edge for edge, owners in outcome.topology.regions.items() if owner in owners)


def _together(panels: list[Panel]) -> Panel:
    schema = panels[0].schema
    sites = tuple(panel.schema.sites[0] for panel in panels)
    values = {f.name: np.hstack([panel.values(f.name) for panel in panels]) for f in schema.features}
    return Panel.from_arrays(schema.model_copy(update={"sites": sites}), values)


def _judged(forecast: np.ndarray, truth: np.ndarray) -> Classified:
    level, scale = np.full(truth.shape, THRESHOLD), np.full(truth.shape, 0.4)
    return classified(*histograms(forecast, truth, level, scale))


def _quality(told: Classified) -> str:
    return f"AUC {told.auc or 0:.3f}, precision {told.precision or 0:.2f}, recall {told.recall or 0:.2f}"


def _listed(values: Mapping[str, float], digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in sorted(values.items()))
