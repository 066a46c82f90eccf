"""Uploads over HTTP, by the tus resumable upload protocol 1.0 (core, creation, termination, expiration; tus.io).

POST makes an upload, from JSON (`UploadForm`) or from tus' own headers: Upload-Length, and Upload-Metadata with the form's other
fields in base64 (`figures` as JSON). PATCH sends bytes at Upload-Offset; the last byte makes the release, whose address is in the
header Cellwright-Release. HEAD says how far it is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import email.utils
import json
import re
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from cellwright.errors import HubRefused
from cellwright.hub import contract as c
from cellwright.hub.access import TheHub, Writer
from cellwright.hub.uploads import Arriving

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])
VERSION = "1.0.0"
_BATCH_BYTES = 2 << 20
_MOST_CHECKS = 2  # whole files checked at once: each may take a core and some hundred MB
_LONGEST_METADATA = 16_384
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, le=1 << 62)]
_CHUNK_TYPE = "application/offset+octet-stream"
_CHUNK = {"requestBody": {"required": True, "content": {_CHUNK_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}


def most_bytes(scope: Scope) -> int:
    """A chunk may be a whole file; how large that is, is for the upload itself to say."""
    return 1 << 43 if scope["method"] == "PATCH" and scope["path"].startswith("/v1/uploads/") else 0


@router.options("", status_code=204, response_class=Response, summary="What of tus is understood")
def options() -> Response:
    return Response(
        status_code=204,
        headers={"Tus-Resumable": VERSION, "Tus-Version": VERSION, "Tus-Extension": "creation,termination,expiration"},
    )


@router.get("", summary="Open uploads of this tenant")
def uploads(hub: TheHub, who: Writer) -> tuple[c.Upload, ...]:
    return hub.uploads(who)


@router.post("", status_code=201, summary="Begin an upload", response_model=c.Upload)
async def begin(hub: TheHub, who: Writer, request: Request, form: c.UploadForm | None = None) -> Response:
    """The form as JSON, or no body and the form in Upload-Length and Upload-Metadata, as tus' own clients send it."""
    _understood(request)
    upload = await run_in_threadpool(hub.open_upload, who, _form(request, form))
    headers = {**_state(upload), "Location": f"/v1/uploads/{upload.id}"}
    return JSONResponse(upload.model_dump(mode="json"), 201, headers)


@router.get("/{upload}", summary="An upload")
def look(hub: TheHub, who: Writer, upload: str) -> c.Upload:
    return hub.upload(who, upload)


@router.head("/{upload}", summary="How far an upload is", response_class=Response)
def offset(hub: TheHub, who: Writer, upload: str) -> Response:
    found = hub.upload(who, upload)
    headers = {**_state(found), "Upload-Length": str(found.form.bytes), "Cache-Control": "no-store"}
    return Response(status_code=200, headers=headers)


@router.patch(
    "/{upload}",
    status_code=204,
    summary="Send bytes; the last one makes the release",
    response_class=Response,
    openapi_extra=_CHUNK,
)
async def send(hub: TheHub, who: Writer, request: Request, upload: str, upload_offset: Offset) -> Response:
    _understood(request)
    if request.headers.get("Content-Type", "") != _CHUNK_TYPE:
        raise HubRefused(f"a chunk's Content-Type must be {_CHUNK_TYPE} (tus 1.0)")
    arriving = await run_in_threadpool(hub.arriving, who, upload, upload_offset)
    await run_in_threadpool(arriving.__enter__)
    try:
        await _receive(arriving, request)
        release = await to_thread.run_sync(arriving.finish, limiter=_checks(request))
    finally:
        await run_in_threadpool(arriving.__exit__, None, None, None)
    state = _state(arriving.upload.model_copy(update={"offset": arriving.offset}))
    made = {"Cellwright-Release": f"/v1/models/{release.model}/versions/{release.version}"} if release else {}
    return Response(status_code=204, headers={**state, **made})


@router.delete("/{upload}", status_code=204, summary="Give an upload up")
def cancel(hub: TheHub, who: Writer, upload: str) -> None:
    hub.cancel_upload(who, upload)


async def _receive(arriving: Arriving, request: Request) -> None:
    """Write and hash what comes, a batch in a thread while the next arrives; what came before the line broke is kept."""
    batch, writing = bytearray(), None
    try:
        async for part in request.stream():
            batch += part
            if len(batch) >= _BATCH_BYTES:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(run_in_threadpool(arriving.add, batch))
                batch = bytearray()
    except ClientDisconnect:
        raise HubRefused("the connection ended within the chunk; ask with HEAD how far the upload is") from None
    finally:
        if writing is not None:
            await writing
        if batch:
            await run_in_threadpool(arriving.add, batch)


def _checks(request: Request) -> CapacityLimiter:
    """Lets few files be checked at once, and leaves the threads that answer everybody else alone."""
    state = request.app.state
    if not hasattr(state, "checks"):
        state.checks = CapacityLimiter(_MOST_CHECKS)
    found: CapacityLimiter = state.checks
    return found


def _form(request: Request, said: c.UploadForm | None) -> c.UploadForm:
    length, metadata = request.headers.get("Upload-Length"), request.headers.get("Upload-Metadata")
    form = said if metadata is None else _form_in(metadata, length)
    if form is None:
        raise HubRefused("an upload is announced by a form as JSON, or by Upload-Length and Upload-Metadata; neither is there")
    if length is not None and length != str(form.bytes):
        raise HubRefused(f"Upload-Length is {length[:20]}, bytes is {form.bytes}; they must be equal")
    return form


def _form_in(metadata: str, length: str | None) -> c.UploadForm:
    size = int(length) if length is not None and re.fullmatch(r"\d{1,19}", length, re.ASCII) else length
    try:
        return c.UploadForm.model_validate({**_metadata(metadata), "bytes": size})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise HubRefused("; ".join(lines)[:2_000]) from None


def _metadata(text: str) -> dict[str, object]:
    """Comma-separated pairs of a key and a value in base64."""
    found: dict[str, object] = {}
    try:
        if len(text) > _LONGEST_METADATA:
            raise ValueError("too long")
        for pair in text.split(","):
            key, _, value = pair.strip().partition(" ")
            plain = base64.b64decode(value, validate=True).decode()
            found[key] = json.loads(plain) if key == "figures" else plain
    except (binascii.Error, ValueError, RecursionError) as error:
        raise HubRefused(f"Upload-Metadata must be pairs of a key and a value in base64 ({error})") from None
    return found


def _understood(request: Request) -> None:
    version = request.headers.get("Tus-Resumable", VERSION)
    if version != VERSION:
        raise HubRefused(f"tus {VERSION} is spoken here, found Tus-Resumable: {version[:20]}")


def _state(upload: c.Upload) -> dict[str, str]:
    expires = email.utils.formatdate(upload.expires_s, usegmt=True)
    return {"Tus-Resumable": VERSION, "Upload-Offset": str(upload.offset), "Upload-Expires": expires}
