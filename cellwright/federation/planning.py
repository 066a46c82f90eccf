"""From a request to a plan: the FMLMS classifies it, waits for its turn, chooses nodes and builds their topology (M.3387 8.1 to 8.5)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cellwright.errors import FederationError
from cellwright.federation.contract import Spec
from cellwright.federation.fleet import Fleet
from cellwright.federation.management.records import Capacity, Choice, DataNeeds, ServiceRequest, Topology

if TYPE_CHECKING:
    from cellwright.federation.management.service import Fmlms
    from cellwright.panel import PanelSchema
    from cellwright.params import Params

CLIENT = "operator"  # who asks, where the pipeline does
Say = Callable[[str], None]
SHARED_CPUS = 0.01  # of a core, for each owner that this machine plays: many requests can go on side by side
_PATIENCE_S = 1.0  # between two looks at the queue


class Plan(Spec):
    """Who takes part in a request and how they are connected."""

    request: str
    name: str
    class_: str  # what classification made of it (8.5)
    owners: tuple[str, ...]
    choices: tuple[Choice, ...]
    topology: Topology


def request_of(params: Params, schema: PanelSchema, name: str) -> ServiceRequest:
    """The service request that params.yaml amounts to (8.1.1)."""
    f = params.federation
    target = {**f.target, **({"mse": f.target_mse} if f.target_mse is not None and f.task == "regression" else {})}
    return ServiceRequest(
        name=re.sub(r"[^A-Za-z0-9_.:-]", "-", name)[:64],
        task=f.task,
        priority=f.priority,
        importance=f.importance,
        delay_bound_s=f.delay_bound_s,
        target=target,
        budget_j=f.budget_j,
        budget_s=f.budget_s,
        data=DataNeeds(
            dataset=params.dataset,
            targets=params.problem.targets or schema.targets,
            features=params.problem.features,
            cadence_s=schema.cadence_s,
        ),
        per_node=Capacity(cpus=1 if f.nodes else SHARED_CPUS),
        least_owners=f.least_owners,
    )


def enlist(fmlms: Fmlms, fleet: Fleet) -> None:
    """Register the nodes, or bring what is known of them up to date; all of them report that they are there (8.3)."""
    known = {node.name: node for node in fmlms.nodes()}
    fmlms.register(*(node for node in fleet.nodes if node.name not in known))
    for node in fleet.nodes:
        if node.name in known and known[node.name] != node:
            fmlms.modify(node)
        if node.name in known:
            fmlms.heartbeat(node.name, free=node.capacity)
    fmlms.set_links(fleet.links)
    here = {node.name for node in fleet.nodes}
    for gone in sorted(set(known) - here):
        fmlms.heartbeat(gone, alive=False, reason="it is none of the nodes of this data set any more")


def plan(
    fmlms: Fmlms,
    request: ServiceRequest,
    *,
    hierarchical: bool,
    resumed: str | None = None,
    say: Say = lambda _: None,
    wait_s: float = 3600.0,
) -> Plan:
    """Submit the request, or find it again, and wait for its turn.

    Args:
        resumed: id of the request, where an interrupted run goes on.
        wait_s: longest it waits for nodes that others use.

    Raises:
        FederationError: too few nodes are fit, or they were not free in time; says why.
    """
    submitted = _found(fmlms, resumed) or _again(fmlms, request) or fmlms.submit(request, CLIENT).id
    until, told = time.monotonic() + wait_s, ""
    while (start := fmlms.next(only=submitted, any_data=True)) is None:
        state = fmlms.follow(submitted)
        if state.status not in ("queued", "preempted"):
            raise FederationError(f"request '{request.name}' is {state.status}: {state.reason or 'no reason is known'}")
        others = [r for r in fmlms.requests(status="running") if r.id != submitted]
        if not others or time.monotonic() > until:
            fmlms.fail(submitted, state.reason)
            raise FederationError(state.reason or f"request '{request.name}' found no nodes within {wait_s:g} s")
        if state.reason != told:
            told = state.reason
            say(f"request  {request.name} waits, {state.position or 1}. in the queue: {told or 'others come first'}")
        time.sleep(_PATIENCE_S)
    topology = _standing(fmlms, submitted, start.nodes) or fmlms.form(submitted, "hierarchy" if hierarchical else "star")
    state = fmlms.follow(submitted)
    return Plan(
        request=submitted,
        name=request.name,
        class_=state.class_,
        owners=start.nodes,
        choices=fmlms.choices(submitted),
        topology=topology,
    )


def told(plan: Plan, fleet: Fleet) -> tuple[str, ...]:
    """The plan in a few sentences."""
    left_out = [choice for choice in plan.choices if not choice.chosen and _owner(fleet, choice.node)]
    t = plan.topology
    edges = f", {len(t.regions)} edges" if t.regions else ""
    lines = [
        f"request {plan.name}: {plan.class_}",
        f"{len(plan.owners)} owners chosen, {len(left_out)} left out",
        f"topology {t.kind}: coordinator {t.coordinator}{edges}, auditor {t.auditor or 'none'}",
    ]
    return (*lines, *(f"{choice.node} left out: {choice.reasons[0] if choice.reasons else ''}" for choice in left_out[:5]))


def regions_by_owner(topology: Topology) -> Mapping[str, str]:
    """The edge of each owner; empty for a star."""
    return {owner: edge for edge, owners in topology.regions.items() for owner in owners}


def _owner(fleet: Fleet, name: str) -> bool:
    return any(node.name == name and "data_owner" in node.roles for node in fleet.nodes)


def _found(fmlms: Fmlms, request: str | None) -> str | None:
    """A request that was begun and can go on."""
    if request is None:
        return None
    known: Sequence[str] = [r.id for r in fmlms.requests(CLIENT) if r.status in ("queued", "running", "preempted")]
    return request if request in known else None


def _standing(fmlms: Fmlms, request: str, owners: Sequence[str]) -> Topology | None:
    """The topology that the request has already, where it is for these owners."""
    made = fmlms.topologies(request)
    return made[-1] if made and sorted(made[-1].owners) == sorted(owners) else None


def _again(fmlms: Fmlms, request: ServiceRequest) -> str | None:
    """The same request of a process that was killed: it goes on."""
    active = [r for r in fmlms.requests(CLIENT) if r.status in ("queued", "running", "preempted")]
    return next((r.id for r in active if r.request.name == request.name), None)
