"""Interface 2 over HTTP: properties, status, resources and metadata up; the plan and the initial model down."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import Field

from cellwright.errors import Refused
from cellwright.federation.management.access import Node, Operator, Service, itself, model_response
from cellwright.federation.management.records import (
    Capacity,
    DatasetName,
    Holding,
    Link,
    NodeProperties,
    NodeStatus,
    Plan,
    Record,
)

router = APIRouter(tags=["interface 2: nodes"])
_MODEL: dict[int | str, dict[str, Any]] = {200: {"description": "The model", "content": {"application/octet-stream": {}}}}


class Report(Record):
    """What a node says of its own state."""

    alive: bool = True
    free: Capacity | None = None  # None: as it was
    reason: Annotated[str, Field(max_length=500)] = ""


class Stored(Record):
    """Metadata that were taken."""

    version: int


class Registered(Record):
    """A node as the FMLMS knows it."""

    properties: NodeProperties
    status: NodeStatus


class Metadata(Record):
    """Metadata of a node's raw data."""

    version: int
    content: dict[str, Any]


@router.post("/v1/nodes", status_code=201, summary="Register a node")
def register(node: NodeProperties, who: Node, service: Service) -> NodeProperties:
    """Role, computation, communication and storage properties (8.3), within what the node's token allows."""
    service.register(node, ceiling=itself(who, node.name))
    return node


@router.get("/v1/nodes", summary="List nodes")
def nodes(_who: Operator, service: Service) -> list[Registered]:
    """All that are registered, with what they last reported."""
    statuses = service.statuses()
    return [Registered(properties=node, status=statuses[node.name]) for node in service.nodes() if node.name in statuses]


@router.put("/v1/nodes/{node}", summary="Modify a node's properties")
def modify(node: str, properties: NodeProperties, who: Node, service: Service) -> NodeProperties:
    """Within what its token allows; a public key that is known is replaced by an operator alone."""
    if properties.name != node:
        raise Refused(f"the path names '{node}', the body '{properties.name}'; a node keeps its name")
    return service.modify(properties, ceiling=itself(who, node))


@router.post("/v1/nodes/{node}/status", summary="Report status and resources")
def report(node: str, status: Report, who: Node, service: Service) -> NodeStatus:
    """The heartbeat: alive, and what is free. Reliability and reward are the FMLMS's to say, and are told in the answer."""
    itself(who, node)
    return service.heartbeat(node, free=status.free, alive=status.alive, reason=status.reason)


@router.put("/v1/nodes/{node}/links", summary="Report measured links")
def links(node: str, found: Annotated[list[Link], Body(max_length=1000)], who: Node, service: Service) -> list[Link]:
    """Links that begin at the node."""
    itself(who, node)
    if other := next((link.source for link in found if link.source != node), None):
        raise Refused(f"{node} reports links that begin at itself, found one from {other}")
    service.set_links(found)
    return found


@router.post("/v1/nodes/{node}/holdings", status_code=201, summary="Say which data the node holds")
def declare(node: str, holding: Holding, who: Node, service: Service) -> Holding:
    """Data set, features, cadence and number of windows, so that the node can be chosen for them (10.4)."""
    itself(who, node)
    if holding.node != node:
        raise Refused(f"the path names '{node}', the body '{holding.node}'; a node speaks for itself")
    service.declare(holding)
    return holding


@router.post("/v1/nodes/{node}/metadata", status_code=201, summary="Send metadata of raw data")
def send_metadata(
    node: str, content: Annotated[dict[str, Any], Body()], dataset: Annotated[DatasetName, Query()], who: Node, service: Service
) -> Stored:
    """A JSON object (10.1); each is a new version, and earlier ones are kept."""
    itself(who, node)
    try:
        data = json.dumps(content, sort_keys=True, allow_nan=False).encode()
    except ValueError:
        raise Refused("metadata hold numbers that JSON does not know (NaN, infinity); leave them out") from None
    return Stored(version=service.store_metadata(node, dataset, data))


@router.get("/v1/nodes/{node}/metadata", summary="Metadata of a node's raw data")
def read_metadata(
    node: str,
    dataset: Annotated[DatasetName, Query()],
    who: Node,
    service: Service,
    version: Annotated[int | None, Query(ge=1)] = None,
    request: Annotated[str | None, Query(description="for which another node reads them")] = None,
) -> Metadata:
    """For the node itself, operators, and whoever may `read_metadata` for a request by the security rules (8.2)."""
    if request is not None and who.scope == "node" and who.name != node:
        service.authorise(who.name, "read_metadata", request)
        if node not in service.topology(request).owners:
            raise Refused(f"{node} is no data owner of request {request}, so its metadata cannot be read for it")
    else:
        itself(who, node)
    found, content = service.metadata(node, dataset, version)
    return Metadata(version=found, content=json.loads(content))


@router.get("/v1/nodes/{node}/plan", summary="All that the node must know for a request")
def plan(node: str, request: Annotated[str, Query()], who: Node, service: Service) -> Plan:
    """Properties, permissions, topology, initial model, algorithm, aggregation, privacy and channel parameters (I.3, step 3)."""
    itself(who, node)
    return service.plan_for(node, request)


@router.get("/v1/nodes/{node}/initial-model", summary="The initial model of a request", responses=_MODEL)
def initial_model(node: str, request: Annotated[str, Query()], who: Node, service: Service) -> Response:
    """For nodes that take part (9.1); Repr-Digest holds its SHA-256."""
    itself(who, node)
    return model_response(*service.initial_model(node, request))
