"""Areas, placement and edges over HTTP."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from cellwright.hub import contract as c
from cellwright.hub.access import (
    EdgeName,
    Itself,
    Looker,
    ModelPath,
    NamePath,
    Operator,
    Placer,
    TenantPath,
    TheHub,
    VersionPath,
)
from cellwright.hub.answers import file_response

router = APIRouter(prefix="/v1")


@router.get("/areas", tags=["areas"], summary="This tenant's areas and the operator's")
def areas(hub: TheHub, who: Looker) -> tuple[c.Area, ...]:
    return hub.areas(who)


@router.put("/areas/{name}", tags=["areas"], summary="Make or change an area (GeoJSON)")
def put_area(hub: TheHub, who: Placer, name: NamePath, form: c.AreaForm) -> c.Area:
    return hub.put_area(who, name, form)


@router.delete("/areas/{name}", status_code=204, tags=["areas"], summary="Delete an area that no rule names")
def delete_area(hub: TheHub, who: Placer, name: NamePath) -> None:
    hub.delete_area(who, name)


@router.get("/placement", tags=["placement"], summary="This tenant's rules, the highest priority first")
def rules(hub: TheHub, who: Looker) -> tuple[c.PlacementRule, ...]:
    return hub.rules(who)


@router.put("/placement/{name}", tags=["placement"], summary="Where a model lies, and whom it is for")
def place(hub: TheHub, who: Placer, name: NamePath, form: c.PlacementForm) -> c.PlacementRule:
    return hub.place(who, name, form)


@router.delete("/placement/{name}", status_code=204, tags=["placement"], summary="Delete a rule")
def delete_rule(hub: TheHub, who: Placer, name: NamePath) -> None:
    hub.delete_rule(who, name)


@router.get("/edges", tags=["edges"], summary="All edges")
def edges(hub: TheHub, who: Looker) -> tuple[c.Edge, ...]:
    return hub.edges(who)


@router.get("/edges/{edge}", tags=["edges"], summary="One edge")
def edge(hub: TheHub, who: Looker, edge: EdgeName) -> c.Edge:
    return hub.edge(who, edge)


@router.put("/edges/{edge}", tags=["edges"], summary="An edge tells of itself")
def register(hub: TheHub, who: Itself, edge: EdgeName, form: c.EdgeForm) -> c.Edge:
    return hub.register_edge(who, edge, form)


@router.delete("/edges/{edge}", status_code=204, tags=["edges"], summary="Forget an edge (operator)")
def delete_edge(hub: TheHub, who: Operator, edge: EdgeName) -> None:
    hub.delete_edge(who, edge)


@router.put("/edges/{edge}/heartbeat", tags=["edges"], summary="An edge is alive")
def heartbeat(hub: TheHub, _who: Itself, edge: EdgeName, beat: c.Heartbeat) -> c.HeartbeatAnswer:
    return hub.heartbeat(edge, beat)


@router.get(
    "/edges/{edge}/desired",
    tags=["edges"],
    summary="What an edge shall hold; waits until it is of another revision (304: not within wait_s)",
    response_model=c.Desired,
    responses={304: {"description": "Nothing has changed."}},
)
async def desired(
    hub: TheHub,
    _who: Itself,
    edge: EdgeName,
    revision: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=c.LONGEST_WAIT_S)] = 0.0,
) -> Response:
    until = time.monotonic() + wait_s
    while True:
        waiting = hub.bell.waiter(edge)  # before looking, so that no change between looking and waiting is missed
        try:
            found = await run_in_threadpool(hub.desired, edge, revision)
            left_s = until - time.monotonic()
            if found is not None:
                return Response(found.model_dump_json(), media_type="application/json")
            if left_s <= 0:
                return Response(status_code=304)
            if not await hub.bell.wait(waiting, left_s, hub.revisions):
                return Response(status_code=304)
        finally:
            hub.bell.leave(waiting)


@router.get(
    "/edges/{edge}/tenants/{tenant}/bundles/{model}/{version}/{path:path}",
    tags=["edges"],
    summary="A file of a version that the edge shall hold; ranges",
    response_class=Response,
)
def pull(
    hub: TheHub,
    _who: Itself,
    request: Request,
    edge: EdgeName,
    tenant: TenantPath,
    model: ModelPath,
    version: VersionPath,
    path: str,
) -> Response:
    return file_response(hub, request, hub.pulled(edge, tenant, model, version, path))
