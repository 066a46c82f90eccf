"""Files of published bundles over HTTP: ranges, ETag = SHA-256, conditional requests (RFC 9110); sent by sendfile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import hdrs, web

from cellwright.edge.problems import problem
from cellwright.edge.request import RequestError
from cellwright.edge.sending import Senders
from cellwright.edge.shelf import Shelved

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

Using = Callable[[], AbstractContextManager[None]]
USING: web.RequestKey[Using] = web.RequestKey("using")  # entered while a file is sent
ACCEL: web.AppKey[Path] = web.AppKey("accel")  # nginx is in front and sends the files below this folder itself
SENDERS: web.AppKey[Senders] = web.AppKey("senders", Senders)
ACCEL_PREFIX = "/_store"  # nginx's internal location of that folder (nginx.py)
_FOREVER = "max-age=31536000, immutable"  # a blob's address is its hash


class BlobResponse(web.FileResponse):
    """A FileResponse whose ETag is the content's hash instead of the file's time."""

    def __init__(self, path: Path, etag: str, kind: str, cache: str) -> None:
        super().__init__(path, chunk_size=1 << 20, headers={hdrs.CONTENT_TYPE: kind, hdrs.CACHE_CONTROL: cache})
        self.hash_etag = etag

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send. Only Range is passed on: the conditions were judged by the hash already, and must not be by the time."""
        wanted = request.headers.get(hdrs.RANGE)
        current = request.headers.get(hdrs.IF_RANGE, self.hash_etag) == self.hash_etag
        headers = {hdrs.RANGE: wanted} if wanted is not None and current else {}
        using = request.get(USING) or nullcontext
        with using():
            try:
                return await super().prepare(request.clone(headers=headers))
            except TimeoutError as error:  # by the kernel (connections.py): the client is gone, which is no fault of the server
                raise ConnectionResetError("the client took nothing for too long") from error

    async def _sendfile(self, request: web.BaseRequest, fobj: IO[Any], offset: int, count: int) -> AbstractStreamWriter:
        """aiohttp's own way to the bytes goes through the event loop; ours does not where that pays (sending.py)."""
        transport = request.transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return await super()._sendfile(request, fobj, offset, count)
        assert isinstance(request, web.Request)
        transport.set_write_buffer_limits(high=0)  # so that drain() waits for the head to be sent
        writer = await web.StreamResponse.prepare(self, request)
        assert writer is not None
        await writer.drain()
        await request.app[SENDERS].send(transport, fobj.fileno(), offset, count)
        transport.set_write_buffer_limits()
        await self.write_eof()
        return writer


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    """on_response_prepare: the ETag by content, and nothing about the server's software."""
    response.headers[hdrs.SERVER] = "cellwright"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if isinstance(response, BlobResponse):
        response.headers[hdrs.ETAG] = response.hash_etag
        response.headers.popall(hdrs.LAST_MODIFIED, None)


def serve_file(request: web.Request, bundle: Shelved, path: str) -> web.StreamResponse:
    """One file of a bundle. Only what its manifest names can be asked for, so no path leads elsewhere.

    Raises:
        RequestError: 404, the bundle has no such file.
    """
    if path not in bundle.files:
        raise RequestError(
            404, f"{bundle.manifest.name} {bundle.manifest.version} has no file '{path[:120]}'; index.json names them all"
        )
    digest, kind = bundle.files[path]
    if not (bundle.folder / path).is_file():
        raise RequestError(503, f"{bundle.manifest.name} {bundle.manifest.version} is just being removed; ask again in a second")
    return send(request, bundle.folder / path, digest, kind, forever=path.startswith("blobs/"))


def send(request: web.Request, path: Path, digest: str, kind: str, *, forever: bool = True) -> web.StreamResponse:
    """A file whose SHA-256 is `digest`, or what the request's conditions say instead."""
    etag = f'"sha256:{digest}"'
    whose = "private" if "tenant" in request.match_info else "public"  # no cache on the way gives it to who shows no grant
    cache = f"{whose}, {_FOREVER}" if forever else "no-cache"
    if (wanted := request.if_match) is not None and not _matches(wanted, etag):
        return problem(412, f"the file is {etag}, not what If-Match names")
    if (held := request.if_none_match) is not None and _matches(held, etag):
        return web.Response(status=304, headers={hdrs.ETAG: etag, hdrs.CACHE_CONTROL: cache})
    if ACCEL in request.app and wanted is None:  # nginx would judge If-Match by an ETag of its own
        return _handed_on(request.app[ACCEL], path, {hdrs.ETAG: etag, hdrs.CACHE_CONTROL: cache}, kind)
    return BlobResponse(path, etag, kind, cache)


def _handed_on(root: Path, path: Path, headers: dict[str, str], kind: str) -> web.Response:
    """An answer whose body nginx sends: ranges and all."""
    inside = quote(path.relative_to(root).as_posix())
    return web.Response(headers={**headers, hdrs.CONTENT_TYPE: kind, "X-Accel-Redirect": f"{ACCEL_PREFIX}/{inside}"})


def _matches(tags: tuple[Any, ...], etag: str) -> bool:
    """`tags`: what aiohttp parsed of If-Match or If-None-Match."""
    values = [tag.value for tag in tags]
    return "*" in values or etag.strip('"') in values
