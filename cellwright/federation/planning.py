"""From a request to a plan: the FMLMS classifies it, waits for its turn, chooses nodes and builds their topology (M.3387 8.1 to 8.5)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from cellwright.errors import FederationError
from cellwright.federation.contract import Spec
from cellwright.federation.fleet import Fleet
from cellwright.federation.management.records import Capacity, Choice, DataNeeds, ServiceRequest, Submitted, Topology

if TYPE_CHECKING:
    from cellwright.federation.management.scheduling import Start
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
    nodes: Collection[str] | None = None,
    hold: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
    dead: Callable[[str], bool] = lambda _: False,
    most: int | None = None,
    say: Say = lambda _: None,
    wait_s: float = 3600.0,
) -> Plan:
    """Submit the request, or find it again, and wait for its turn.

    Args:
        resumed: id of the request, where an interrupted run goes on.
        nodes: those that there are; a request that runs on others is begun anew. None: any.
        hold: marks a request as being worked on.
        dead: whether the process that worked on a request is known to be gone; what it held is then free for this one.
        most: owners that train at most, the best by score; None: all that are fit.
        wait_s: longest it waits for nodes that others use.

    Raises:
        FederationError: too few nodes are fit, or they were not free in time; says why.
    """
    submitted = _found(fmlms, request, resumed, nodes, most) or fmlms.submit(request, CLIENT).id
    with hold(submitted):
        start = _turn(fmlms, submitted, request.name, dead, say, wait_s, most)
    kind: Literal["star", "hierarchy"] = "hierarchy" if hierarchical else "star"
    topology = _standing(fmlms, submitted, start.nodes, kind) or fmlms.form(submitted, kind)
    state = fmlms.follow(submitted)
    return Plan(
        request=submitted,
        name=request.name,
        class_=state.class_,
        owners=start.nodes,
        choices=fmlms.choices(submitted),
        topology=topology,
    )


def _turn(
    fmlms: Fmlms, submitted: str, name: str, dead: Callable[[str], bool], say: Say, wait_s: float, most: int | None
) -> Start:
    """Wait for it. Requests whose process is gone are taken back once they are in the way."""
    until, told = time.monotonic() + wait_s, ""
    while (start := fmlms.next(only=submitted, any_data=True, most=most)) is None:
        state = fmlms.follow(submitted)
        if state.status not in ("queued", "preempted"):
            raise FederationError(f"request '{name}' is {state.status}: {state.reason or 'no reason is known'}")
        if _cleared(fmlms, submitted, dead):
            continue
        others = [r for r in fmlms.requests(status="running") if r.id != submitted]
        if not others or time.monotonic() > until:
            fmlms.fail(submitted, state.reason)
            raise FederationError(state.reason or f"request '{name}' found no nodes within {wait_s:g} s")
        if state.reason != told:
            told = state.reason
            say(f"request  {name} waits, {state.position or 1}. in the queue: {told or 'others come first'}")
        time.sleep(_PATIENCE_S)
    return start


def _cleared(fmlms: Fmlms, submitted: str, dead: Callable[[str], bool]) -> bool:
    """Take back requests of processes that are gone; whether there were any."""
    active = [r for r in fmlms.requests(CLIENT) if r.status in ("queued", "running", "preempted") and r.id != submitted]
    gone = [r.id for r in active if dead(r.id)]
    for request in gone:
        fmlms.cancel(
            request, CLIENT, "the process that worked on it is gone, and others need the nodes; the same command resumes it"
        )
    return bool(gone)


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


def _found(
    fmlms: Fmlms, request: ServiceRequest, resumed: str | None, nodes: Collection[str] | None, most: int | None
) -> str | None:
    """The request of a process that was interrupted, which goes on; one that asked for something else, for nodes that are gone, or
    for more than are wanted now, is taken back."""
    active = [r for r in fmlms.requests(CLIENT) if r.status in ("queued", "running", "preempted")]
    for submitted in (r for r in active if r.id == resumed or r.request.name == request.name):
        held = _reserved(fmlms, submitted)
        few = most is None or len(held) <= most
        if submitted.request == request and few and (nodes is None or held <= set(nodes)):
            return submitted.id
        fmlms.cancel(submitted.id, CLIENT, "asked for anew, with other parameters or nodes")
    return None


def _reserved(fmlms: Fmlms, submitted: Submitted) -> set[str]:
    """Owners that a request runs on."""
    start = fmlms.next(only=submitted.id) if submitted.status == "running" else None
    return set(start.nodes) if start else set()


def _standing(fmlms: Fmlms, request: str, owners: Sequence[str], kind: str) -> Topology | None:
    """The topology that the request has already, where it is one of that kind for these owners."""
    made = fmlms.topologies(request)
    fits = bool(made) and made[-1].kind == kind and sorted(made[-1].owners) == sorted(owners)
    return made[-1] if fits else None
