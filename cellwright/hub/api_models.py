"""Models, releases and publication over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from cellwright.errors import HubRefused
from cellwright.hub import contract as c
from cellwright.hub.access import Looker, ModelPath, Publisher, Reader, TheHub, VersionPath, Writer
from cellwright.hub.answers import file_response

router = APIRouter(prefix="/v1/models")
Owner = Annotated[c.TenantName | None, Query(description="Tenant of a shared model; else one's own.")]


@router.get("", tags=["models"], summary="This tenant's models, or those that others share")
def models(hub: TheHub, who: Looker, shared: bool = False) -> tuple[c.Model, ...]:
    return hub.models(who, shared=shared)


@router.get("/{model}", tags=["models"], summary="One model")
def model(hub: TheHub, who: Looker, model: ModelPath, owner: Owner = None) -> c.Model:
    return hub.model(who, model, owner)


@router.put("/{model}", tags=["models"], summary="Make a model, or change what is said of it")
def put_model(hub: TheHub, who: Writer, model: ModelPath, form: c.ModelForm) -> c.Model:
    return hub.put_model(who, model, form)


@router.delete("/{model}", status_code=204, tags=["models"], summary="Delete a model that is not published, and its releases")
def delete_model(hub: TheHub, who: Writer, model: ModelPath) -> None:
    hub.delete_model(who, model)


@router.get("/{model}/versions/{version}", tags=["models"], summary="One release")
def release(hub: TheHub, who: Looker, model: ModelPath, version: VersionPath, owner: Owner = None) -> c.Release:
    return hub.release(who, model, version, owner)


@router.delete("/{model}/versions/{version}", status_code=204, tags=["models"], summary="Delete a version that is not published")
def delete_release(hub: TheHub, who: Writer, model: ModelPath, version: VersionPath) -> None:
    hub.delete_release(who, model, version)


@router.get(
    "/{model}/versions/{version}/files/{path:path}",
    tags=["models"],
    summary="A file of a release; ranges",
    response_class=Response,
)
def file(
    hub: TheHub, who: Reader, request: Request, model: ModelPath, version: VersionPath, path: str, owner: Owner = None
) -> Response:
    return file_response(hub, request, hub.file(who, model, version, path, owner))


@router.get("/{model}/publication", tags=["publication"], summary="What is published of a model")
def publication(hub: TheHub, who: Looker, model: ModelPath, owner: Owner = None) -> c.Published:
    return hub.publication(who, model, owner)


@router.post("/{model}/publication", tags=["publication"], summary="Make a version the one in use; edges are told at once")
def publish(
    hub: TheHub,
    who: Publisher,
    model: ModelPath,
    form: c.Publication,
    if_match: Annotated[str | None, Header(description='Number of the publication that this replaces; "0": none.')] = None,
) -> c.Published:
    return hub.publish(who, model, form, expected=_number(if_match))


@router.delete("/{model}/publication", status_code=204, tags=["publication"], summary="Take a model off all edges")
def unpublish(hub: TheHub, who: Publisher, model: ModelPath) -> None:
    hub.unpublish(who, model)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r'"(\d{1,18})"', text.strip())
    if found is None:
        raise HubRefused(f'If-Match must be the number of a publication in quotes, like "3", found {text[:40]}')
    return int(found[1])
