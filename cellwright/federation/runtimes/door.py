"""The door for SuperNodes on other machines: of a SuperLink's API, only what a SuperNode that was admitted needs.

Whoever reaches a SuperLink may submit an app, which every SuperNode then runs, or ask for the coordinator's work: Flower 1.41 serves
its Fleet, Control and Runtime API on one port and authenticates SuperNodes alone. So the SuperLink listens on loopback, and this
server, with the same certificate, passes on the Fleet API's calls, each of which a SuperNode signs with its key; all else is not found.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from cellwright.errors import FederationError, WorkspaceError

CALLS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
_LARGEST_BYTES = 64 << 20  # of one call; Flower cuts arrays into objects of 5 MB
_PASSED_S = 60.0
_START_S = 10.0
_OWN = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "server", "date"}
)


class Door:
    """Serves at `address` (host:port) for a SuperLink at `superlink`, in a thread, until it is closed."""

    def __init__(self, address: str, superlink: str, *, ca: Path, certificate: Path, key: Path) -> None:
        self.address, self._superlink = address, superlink
        self._inside = ssl.create_default_context(cafile=str(ca))
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._outside.minimum_version = ssl.TLSVersion.TLSv1_2
        self._outside.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._opened = Future[None]()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), name="federation-door", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._opened.result(_START_S)
        except OSError as error:
            self._thread.join()
            self._loop.close()
            raise WorkspaceError(
                f"the door cannot listen on {self.address} ({error}); stop what uses it, or choose another --door"
            ) from None
        except TimeoutError:
            raise FederationError(f"the door at {self.address} did not open in {_START_S:g} s") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=_LARGEST_BYTES)
        app.router.add_route("*", "/{any:.*}", self._pass)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host, _, port = self.address.rpartition(":")
        timeout = aiohttp.ClientTimeout(total=_PASSED_S)
        connector = aiohttp.TCPConnector(ssl=self._inside, limit=256)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            try:
                await web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=self._outside).start()
            except OSError as error:
                self._opened.set_exception(error)
            else:
                self._opened.set_result(None)
                await self._stop.wait()
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.Response:
        """One call of a SuperNode to the SuperLink and its answer back."""
        if request.method != "POST" or request.path not in CALLS or request.query_string:
            raise web.HTTPNotFound
        told = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        url = f"https://{self._superlink}{request.path}"
        try:
            async with self._session.post(url, data=await request.read(), headers=told, allow_redirects=False) as answer:
                back = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN}
                return web.Response(status=answer.status, body=await answer.read(), headers=back)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise web.HTTPBadGateway(text=f"the SuperLink does not answer: {type(error).__name__}") from None
