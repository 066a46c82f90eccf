"""Steps 1 and 2: who takes part, what is asked, what the FMLMS decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cellwright.federation.alignment.horizontal import AlignmentReport, align
from cellwright.federation.audit.signing import Signer
from cellwright.federation.data.metadata import Disclosure, Metadata, describe
from cellwright.federation.data.normalise import Standard
from cellwright.federation.management.records import (
    Capacity,
    Choice,
    DataNeeds,
    Holding,
    Link,
    NodeProperties,
    NodeStatus,
    ServiceRequest,
    Submitted,
    Topology,
)
from cellwright.federation.management.selection import choose
from cellwright.federation.management.service import Fmlms
from cellwright.federation.quality.choice import Circumstances, algorithm, mechanism
from road_anomalies.interfaces import CLIENT, Interfaces
from road_anomalies.telling import Telling
from road_anomalies.world import DATASET, FEATURES, FOREIGN, World, drive

CLOUD, AUDITOR = "cloud", "auditor"
HISTORY_S, HORIZON_S = 16, 3
_NEED = Capacity(cpus=1)


@dataclass(frozen=True)
class Asked:
    """What the client wants."""

    auc: float
    delay_bound_s: float
    rounds: int  # aggregations in the cloud at most
    steps: int  # an owner does in a round
    buffer: int  # regional models that make an aggregation


@dataclass(frozen=True)
class Known:
    """What the FMLMS knows before it decides."""

    nodes: Mapping[str, NodeProperties]
    links: Mapping[tuple[str, str], Link]
    signers: Mapping[str, Signer]
    metadata: Mapping[str, Metadata]


def request_for(asked: Asked, name: str, *, owners: int) -> ServiceRequest:
    """The service request of the client (8.1.1). It asks for a convolutional network by name, as the appendix does."""
    return ServiceRequest(
        name=name,
        task="classification",
        priority="high",
        importance=8,
        delay_bound_s=asked.delay_bound_s,
        target={"auc": asked.auc},
        data=DataNeeds(dataset=DATASET, targets=("anomaly",), features=("vibration", "speed"), cadence_s=1.0, least_windows=300),
        per_node=_NEED,
        least_owners=owners,
        params={"federation": {"model": "tcn"}},
    )


# -- step 1


def access(place: World, api: Interfaces, tell: Telling) -> Known:
    """All potential data owners, the roadside units and the cloud register, and say what links and what data they have."""
    nodes = {node.name: node for node in _nodes(place)}
    signers = {name: Signer.generate() for name in nodes}
    nodes = {name: node.model_copy(update={"public_key": signers[name].public}) for name, node in nodes.items()}
    links = {(link.source, link.target): link for link in _links(place)}
    for node in nodes.values():
        api.enrol(node)
        own = [link.model_dump(mode="json") for (source, _), link in links.items() if source == node.name]
        api.send(node.name, "PUT", f"/v1/nodes/{node.name}/links", own)
    told = {v.name: describe(drive(v, place), v.name, Disclosure()) for v in place.vehicles}
    for name, metadata in told.items():
        api.send(name, "POST", f"/v1/nodes/{name}/metadata", metadata.model_dump(mode="json"), dataset=DATASET)
    tell.line(f"{len(place.vehicles)} vehicles, {len(place.regions)} roadside units, the cloud and an auditor registered")
    tell.line(
        f"{len(told)} vehicles sent metadata of their raw data: names, units, cadence, share of missing values; no row of them"
    )
    return Known(nodes, links, signers, told)


def ask(asked: Asked, api: Interfaces, tell: Telling, *, owners: int) -> Submitted:
    """The client submits its request over interface 1."""
    content = request_for(asked, "road-anomalies", owners=owners).model_dump(mode="json")
    submitted = Submitted.model_validate(api.send(CLIENT, "POST", "/v1/requests", content))
    tell.line(
        f"{CLIENT} asks for a detector of road anomalies: AUC {asked.auc:g} or more, within {asked.delay_bound_s:g} s, priority high"
    )
    return submitted


def _nodes(place: World) -> list[NodeProperties]:
    hub = Capacity(cpus=16, memory_bytes=64 << 30, bandwidth_bps=1e9)
    return [
        NodeProperties(name=CLOUD, roles=("coordinator",), layer="cloud", security=5, capacity=hub),
        NodeProperties(name=AUDITOR, roles=("auditor",), layer="cloud", security=5, capacity=hub),
        *(
            NodeProperties(
                name=name, roles=("coordinator",), layer="edge", region=name, security=3,
                capacity=Capacity(cpus=4, memory_bytes=8 << 30, bandwidth_bps=2e8),
            )
            for name in place.regions
        ),
        *(
            NodeProperties(
                name=v.name, roles=("data_owner",), layer="terminal", region=v.region, sites=(v.name,),
                seconds_per_step=v.seconds_per_step, capacity=Capacity(cpus=v.cpus, memory_bytes=2 << 30, bandwidth_bps=2e7),
            )
            for v in place.vehicles
        ),
    ]  # fmt: skip


def _links(place: World) -> list[Link]:
    """Every vehicle reaches its own roadside unit well and the others less well; each unit has a line to the cloud."""
    up = [Link(source=name, target=CLOUD, bandwidth_bps=1e8, delay_ms=10 + 15 * i) for i, name in enumerate(place.regions)]
    return up + [
        Link(
            source=v.name,
            target=name,
            bandwidth_bps=2e7 if name == v.region else 8e6,
            delay_ms=8 if name == v.region else 20 + 10 * abs(place.regions.index(name) - place.regions.index(v.region)),
        )
        for v in place.vehicles
        for name in place.regions
    ]


# -- step 2


@dataclass(frozen=True)
class Decided:
    """What the FMLMS decided."""

    topology: Topology
    choices: tuple[Choice, ...]
    alignment: AlignmentReport
    statuses: Mapping[str, NodeStatus]  # when the owners were chosen
    network: str
    cloud_rule: str


def decide(place: World, known: Known, request: Submitted, fmlms: Fmlms, asked: Asked, tell: Telling, *, owners: int) -> Decided:
    """Attributes of the task, its priority, its nodes, their roles, the topology, the algorithm and the aggregation."""
    task = fmlms.properties(request.id)
    tell.line(f"the task is a {task.task}, of class {task.class_}")
    report = _aligned(known, request.request)
    _declare(fmlms, known, report)
    statuses = fmlms.statuses()
    start = fmlms.next(only=request.id, most=owners)
    if start is None:
        raise RuntimeError(f"the request cannot start: {fmlms.follow(request.id).reason}")
    choices = fmlms.choices(request.id)
    _tell_choices(choices, known, tell, owners)
    topology = fmlms.form(request.id, "hierarchy")
    tell.line(f"topology {topology.version}, {topology.kind}: {_drawn(topology)}; auditor {topology.auditor}")
    network, words = _network(_circumstances(place, known, topology.owners, asked, seals=True), request.request)
    tell.line(words)
    region = mechanism(_circumstances(place, known, topology.owners, asked, seals=True))
    above = mechanism(_above(place, known, topology, asked))
    tell.line(f"aggregation at the roadside units: {region.name}: {region.words}")
    tell.line(f"aggregation in the cloud: {above.name}: {above.words}")
    tell.holds(topology.kind == "hierarchy" and len(topology.regions) == len(place.regions), "every roadside unit heads a region")
    tell.holds(region.name == "fedavg" and above.name == "fedbuff", "sums within a region, asynchronous in the cloud")
    return Decided(topology, choices, report, statuses, network, above.name)


def next_choice(known: Known, statuses: Mapping[str, NodeStatus], asked: Asked, fmlms: Fmlms, owners: int) -> tuple[str, ...]:
    """Whom the FMLMS would choose for another request of `owners` vehicles, best first."""
    wanted = request_for(asked, "next", owners=owners)
    found = choose(
        wanted,
        list(known.nodes.values()),
        statuses,
        rules=fmlms.rules,
        holdings=fmlms.holdings(),
        weights=fmlms.weights,
        most=owners,
    )
    return tuple(choice.node for choice in found if choice.chosen)


def _aligned(known: Known, request: ServiceRequest) -> AlignmentReport:
    """The unified form is the request's; one maker's names are known to mean the same."""
    form = Standard(features=FEATURES, targets=("anomaly",), cadence_s=1.0)
    foreign = {owner: FOREIGN for owner, told in known.metadata.items() if told.features[0].name in FOREIGN}
    return align(known.metadata, needs=request.data, standard=form, synonyms=foreign)


def _declare(fmlms: Fmlms, known: Known, report: AlignmentReport) -> None:
    for owner in report.fit:
        told, every = known.metadata[owner], report.plan(owner).every
        measured = round(told.rows // every * (1 - told.features[-1].missing_share))
        names = {f.name for f in FEATURES}
        fmlms.declare(
            Holding(
                node=owner, dataset=DATASET, targets=("anomaly",), features=tuple(sorted(names)), cadence_s=1.0,
                windows=max(0, measured - HISTORY_S - HORIZON_S),
            )
        )  # fmt: skip


def _tell_choices(choices: tuple[Choice, ...], known: Known, tell: Telling, owners: int) -> None:
    chosen = [c.node for c in choices if c.chosen]
    tell.line("incentive: a pot of 100 is shared by contribution and work; a reward raises a vehicle's rank in later selections")
    tell.line(f"{len(chosen)} of {len(known.metadata)} vehicles chosen: {', '.join(sorted(chosen))}")
    for choice in choices:
        if not choice.chosen and choice.node in known.metadata:
            tell.line(f"left out: {choice.node}, {choice.reasons[0]}")
    tell.holds(len(chosen) == owners, f"{owners} vehicles with enough resources and data were found")


def _drawn(topology: Topology) -> str:
    return ", ".join(f"{edge} <- {' '.join(owners)}" for edge, owners in topology.regions.items())


def _circumstances(place: World, known: Known, owners: tuple[str, ...], asked: Asked, *, seals: bool) -> Circumstances:
    """Of a region's level: what vehicles declared; the spread of their levels is not known before they train."""
    cars = [known.nodes[name] for name in owners]
    return Circumstances(
        task="classification",
        examples=tuple(round(0.7 * place.rows) for _ in cars),
        seconds_per_step=tuple(node.seconds_per_step for node in cars),
        security=tuple(node.security for node in cars),
        reliability=(1.0,) * len(cars),
        memory_bytes=tuple(node.capacity.memory_bytes for node in cars),
        heterogeneity=0.0,
        seals=seals,
        hierarchical=False,  # asked level by level
        delay_bound_s=asked.delay_bound_s,
        rounds=asked.rounds,
        steps=asked.steps,
    )


def _above(place: World, known: Known, topology: Topology, asked: Asked) -> Circumstances:
    """Of the cloud's level: a region is as slow as its slowest vehicle."""
    paces = tuple(max(known.nodes[name].seconds_per_step for name in below) for below in topology.regions.values())
    edges = tuple(topology.regions)
    below = _circumstances(place, known, edges, asked, seals=False)
    return Circumstances(**{**vars(below), "seconds_per_step": paces})


def _network(circumstances: Circumstances, request: ServiceRequest) -> tuple[str, str]:
    """The learning algorithm: what the request asks for comes before what the rules say."""
    ruled, wanted = algorithm(circumstances), request.params.get("federation", {}).get("model")
    if wanted is None:
        return ruled.name, f"algorithm: {ruled.name}: {ruled.words}"
    return wanted, f"algorithm: {wanted}, a causal convolutional network, as the request asks (by the rules alone: {ruled.name})"
