"""The six steps of M.3387, Appendix I.3, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cellwright.federation.contract import Task
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.management.service import Fmlms
from cellwright.federation.results import OwnerRound, Round
from cellwright.federation.rounds import Outcome
from road_anomalies import deciding, ending, preparing
from road_anomalies.deciding import CLOUD, Asked, Decided
from road_anomalies.ending import Paid, Received
from road_anomalies.interfaces import CLIENT, Interfaces, management
from road_anomalies.preparing import Sent
from road_anomalies.telling import Say, Telling
from road_anomalies.training import Site, cloud, roadside_unit
from road_anomalies.world import World, world


@dataclass(frozen=True)
class Sizes:
    """How large the story is."""

    regions: int = 4
    per_region: int = 3
    spare: int = 3
    rows: int = 1800  # seconds of each vehicle's drive
    auc: float = 0.90  # on every road that was tried; 0.91 only on some (docs/federation-story.md)
    rounds: int = 60  # aggregations in the cloud at most
    steps: int = 10
    buffer: int = 2  # regional models that make an aggregation
    fails_after: int = 2  # aggregations, after which a roadside unit fails
    delay_bound_s: float = 60.0
    seed: int = 7


@dataclass(frozen=True)
class Told:
    """What came of it."""

    broken: tuple[str, ...]  # conditions that did not hold
    outcome: Outcome
    decided: Decided
    place: World
    regional: Sequence[tuple[str, int, Sequence[OwnerRound]]]  # roadside unit, the cloud's round, its vehicles
    paid: Paid
    received: Received
    records: dict[str, int]  # of each audit log


def main(sizes: Sizes | None = None, *, say: Say = print, folder: Path | None = None) -> int:
    """Tell the story; 0 if every step's condition held."""
    told = tell(sizes or Sizes(), say=say, folder=folder)
    say(f"\n{'every condition held' if not told.broken else 'did not hold: ' + '; '.join(told.broken)}")
    return 1 if told.broken else 0


def tell(sizes: Sizes, *, say: Say = print, folder: Path | None = None) -> Told:
    """All six steps. `folder`: where databases, logs and models go; None: a temporary one."""
    torch.set_num_threads(1)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="road-anomalies-") as made:
            return tell(sizes, say=say, folder=Path(made))
    telling = Telling(say)
    place = world(regions=sizes.regions, per_region=sizes.per_region, spare=sizes.spare, rows=sizes.rows, seed=sizes.seed)
    asked = Asked(sizes.auc, sizes.delay_bound_s, sizes.rounds, sizes.steps, sizes.buffer)
    with management(folder / "fmlms") as (fmlms, api):
        return _six_steps(sizes, place, asked, fmlms, api, telling, folder)


def _six_steps(sizes: Sizes, place: World, asked: Asked, fmlms: Fmlms, api: Interfaces, telling: Telling, folder: Path) -> Told:
    owners = sizes.regions * sizes.per_region
    telling.step(1, "vehicles access the network, the client asks for a service")
    known = deciding.access(place, api, telling)
    request = deciding.ask(asked, api, telling, owners=owners)
    telling.step(2, "the FMLMS decides: attributes, priority, nodes, roles, topology, algorithm, aggregation")
    decided = deciding.decide(place, known, request, fmlms, asked, telling, owners=owners)
    telling.step(3, "the FMLMS sends it to the nodes over interface 2")
    sent = preparing.send(place, request, decided, fmlms, api, asked, telling)
    telling.step(4, "owners bring their raw data into one form and take the rows of the task")
    panels = preparing.deploy_data(place, decided, folder / "vehicles", telling)
    telling.step(5, "vehicles train, roadside units aggregate regions, the cloud aggregates what they send")
    site = Site(folder, known.signers, panels, known.links, {v.name: v.seconds_per_step for v in place.vehicles})
    coordinator, outcome = _trained(sizes, site, sent, fmlms, api, telling)
    telling.step(6, "the FMLMS watches, adjusts, ends the training, rewards and delivers")
    _watched(sizes, decided, outcome, site, telling)
    paid = ending.reward(site, coordinator, outcome, decided, known, fmlms, api, asked, telling)
    task = Task.model_validate(sent.plans[CLOUD].training.task)
    received = ending.deliver(place, task, outcome, decided, fmlms, api, folder, asked, telling)
    coordinator.dismiss()
    records = ending.verify(site, telling)
    return Told(tuple(telling.broken), outcome, decided, place, site.regional, paid, received, records)


def _trained(
    sizes: Sizes, site: Site, sent: Sent, fmlms: Fmlms, api: Interfaces, telling: Telling
) -> tuple[Coordinator, Outcome]:
    """Step 5: rounds until the quality asked for is reached; one roadside unit fails on the way."""
    plans = sent.plans
    vehicles = {name: plan for name, plan in plans.items() if plan.role == "data_owner"}
    edges = [name for name, plan in plans.items() if plan.role == "coordinator" and name != CLOUD]
    units = {name: roadside_unit(site, plans[name], vehicles, sent.first) for name in edges}

    def after(coordinator: Coordinator, record: Round) -> None:
        telling.line(_line(record))
        if record.round == sizes.fails_after:
            coordinator.channel.grid.fail(edges[1])  # type: ignore[attr-defined]
            state = api.send(CLIENT, "GET", f"/v1/requests/{plans[CLOUD].request}")
            telling.line(f"    {edges[1]} fails; meanwhile {CLIENT} reads that its request is {state['status']}")

    coordinator = cloud(site, fmlms, plans[CLOUD], units, sent.first, {"auc": sizes.auc}, after)
    outcome = coordinator.run(sent.first)
    edge, number, below = site.regional[-1]
    members = ", ".join(f"{line.owner} {line.steps} steps" for line in below if line.outcome == "counted")
    telling.line(f"below that, for example {edge} from aggregation {number - 1}: {members}; it learnt their sum, and no update")
    return coordinator, outcome


def _watched(sizes: Sizes, decided: Decided, outcome: Outcome, site: Site, telling: Telling) -> None:
    """Step 6: what the FMLMS saw and did."""
    last, seconds = outcome.rounds[-1], sum(r.seconds for r in outcome.rounds)
    telling.line(f"topology {outcome.topology.version}: {outcome.topology.reason}")
    telling.holds(outcome.topology.version > 1, f"the topology was rebuilt: version {outcome.topology.version}")
    telling.holds(set(outcome.topology.owners) == set(decided.topology.owners), "no vehicle was lost with its roadside unit")
    home = {owner: edge for edge, owners in decided.topology.regions.items() for owner in owners}
    counted = {(edge, line.owner) for edge, _, members in site.regional for line in members if line.outcome == "counted"}
    moved = [(edge, owner) for edge, owners in outcome.topology.regions.items() for owner in owners if home[owner] != edge]
    telling.holds(bool(moved) and set(moved) <= counted, "those that moved train on at their new roadside units")
    slow = max(site.panels, key=lambda name: site.paces[name])
    steps = {
        line.steps for _, _, members in site.regional for line in members if line.owner == slow and line.outcome == "counted"
    }
    telling.holds(
        bool(steps) and max(steps) < sizes.steps,
        f"{slow} is slow, and was told {max(steps, default=0)} steps a round, not {sizes.steps}",
    )
    stale = max(owner.staleness for r in outcome.rounds for owner in r.owners)
    telling.holds(stale > 0, f"nobody waited for the slowest: updates up to {stale} aggregations old were counted, for less")
    telling.holds(outcome.status == "target", f"the training ended: {outcome.reason}")
    telling.holds(
        seconds <= sizes.delay_bound_s,
        f"it took {seconds:.1f} simulated seconds of {sizes.delay_bound_s:g}; AUC {last.auc or 0:.3f}",
    )


def _line(record: Round) -> str:
    counted = ", ".join(f"{o.owner} (staleness {o.staleness})" for o in record.owners if o.outcome == "counted")
    quality = (
        "not judged by all yet"
        if record.auc is None
        else f"AUC {record.auc:.3f} precision {record.precision or 0:.2f} recall {record.recall or 0:.2f}"
    )
    events = "".join(f"\n    {event}" for event in record.events)
    return f"aggregation {record.round:2d}: {counted}; {quality}; {record.up_bytes / 1e3:.0f} kB up{events}"
