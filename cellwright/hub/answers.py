"""How files of releases are answered: ETag = SHA-256, one byte range, conditional requests (RFC 9110), as edges answer devices."""

from __future__ import annotations

import re

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from cellwright.hub.models import BlobFile
from cellwright.hub.service import Hub

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_SUFFIX = re.compile(r"bytes=-(\d{1,18})")


def file_response(hub: Hub, request: Request, file: BlobFile) -> Response:
    """A file, or the part of it that was asked for."""
    etag = f'"sha256:{file.sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if etag in (tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("Range") if request.headers.get("If-Range", etag) == etag else None
    found = _part(wanted, file.bytes)
    if found is None and wanted is not None and (_RANGE.fullmatch(wanted) or _SUFFIX.fullmatch(wanted)):
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{file.bytes}"})
    start, stop = found or (0, file.bytes)
    headers["Content-Length"] = str(stop - start)
    if found:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    content = hub.content(file, start, stop)
    return StreamingResponse(content, 206 if found else 200, headers, media_type=file.media_type)


def _part(wanted: str | None, size: int) -> tuple[int, int] | None:
    """[start, stop) of a header with one range that can be met; None: the whole, or 416 where it cannot."""
    if wanted is None:
        return None
    if suffix := _SUFFIX.fullmatch(wanted):
        length = min(int(suffix[1]), size)
        return (size - length, size) if length else None
    if (found := _RANGE.fullmatch(wanted)) is None:
        return None  # several ranges, or another unit: the whole file is an answer to that
    start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    return (start, stop) if start < stop else None
