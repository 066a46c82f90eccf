"""Interface 1 over HTTP: requests, and the model; topologies, for all who take part."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from cellwright.federation.management.access import Anyone, Client, Operator, Service, model_response, only_theirs
from cellwright.federation.management.records import Choice, ServiceRequest, Submitted, TaskProperties, Topology
from cellwright.federation.management.refusals import NotFound
from cellwright.federation.management.topology import members

router = APIRouter()
_TAGS: list[str | Enum] = ["interface 1: clients"]
_MODEL: dict[int | str, dict[str, Any]] = {200: {"description": "The model", "content": {"application/octet-stream": {}}}}


@router.post("/v1/requests", status_code=201, tags=_TAGS, summary="Submit a service request")
def submit(asked: ServiceRequest, who: Client, service: Service, response: Response) -> Submitted:
    """It is classified and queued (8.5); the answer says where it is in the queue."""
    submitted = service.submit(asked, who.name)
    response.headers["Location"] = f"/v1/requests/{submitted.id}"
    return submitted


@router.get("/v1/requests", tags=_TAGS, summary="List requests, newest first")
def requests(who: Client, service: Service, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Submitted]:
    """A client's own; an operator's are everyone's."""
    return list(service.requests(only_theirs(who), limit=limit))


@router.get("/v1/requests/{request}", tags=_TAGS, summary="Follow a request")
def follow(request: str, who: Client, service: Service) -> Submitted:
    """Its status, its position while it waits, the rounds done while it runs, and why it ended."""
    return service.follow(request, only_theirs(who))


@router.delete("/v1/requests/{request}", tags=_TAGS, summary="Cancel a request")
def cancel(request: str, who: Client, service: Service) -> Submitted:
    """One that runs ends at its next round boundary."""
    return service.cancel(request, only_theirs(who), f"cancelled by {who.name}")


@router.get("/v1/requests/{request}/properties", tags=_TAGS, summary="Properties of the task")
def properties(request: str, who: Client, service: Service) -> TaskProperties:
    """Type and priority (8.1.1), resource capacities (8.1.2)."""
    service.follow(request, only_theirs(who))
    return service.properties(request)


@router.get("/v1/requests/{request}/model", tags=_TAGS, summary="Receive the trained model", responses=_MODEL)
def model(request: str, who: Client, service: Service) -> Response:
    """Safetensors or a bundle as tar (9.1); Repr-Digest holds its SHA-256. Only for the client that asked for it."""
    return model_response(*service.model(request, only_theirs(who)))


@router.get("/v1/requests/{request}/choices", tags=["operation"], summary="Why each node takes part or not")
def choices(request: str, _who: Operator, service: Service) -> list[Choice]:
    """As it was decided when the request last started (8.2)."""
    return list(service.choices(request))


@router.get("/v1/topologies/{request}", tags=["operation"], summary="The topology of a request")
def topology(request: str, who: Anyone, service: Service) -> Topology:
    """Who talks to whom now (8.4.1): for its client, the nodes that take part, and operators."""
    if who.scope != "node":
        service.follow(request, only_theirs(who))
        return service.topology(request)
    found = service.topology(request)
    if who.name not in members(found):
        raise NotFound(f"there is no request '{request}' that {who.name} takes part in")
    return found
