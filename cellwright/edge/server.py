"""The edge server: published bundles for download, and forecasts from the latest of each.

    GET  /v1/bundles                             what is served, with each layer's digest and size
    GET  /v1/bundles/{name}/{version}            one bundle ("latest" works as a version)
    GET  /v1/bundles/{name}/{version}/{path}     its files: index.json, oci-layout, blobs/sha256/… (ranges, ETag, HEAD)
    POST /v1/forecast, /forecast                 a forecast; see request.py for the form
    POST /v1/truth                               what was measured, for a version on trial
    GET  /v1/evidence                            what was seen of a version on trial and the champion
    GET  /healthz /readyz /metrics               alive; ready to forecast; Prometheus text

Every bundle is verified before it is served, and again when `latest` moves. Forecasts that meet run together (batching.py), behind a
bounded queue; where it is full the answer is 429 with Retry-After. Errors are problem details (RFC 9457).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

from aiohttp import web

from cellwright.bundle.keys import Trust
from cellwright.edge import problems
from cellwright.edge.acceleration import Acceleration, NetworkAccess
from cellwright.edge.access_log import ACCESS
from cellwright.edge.agent import Agent, Hub, Pace
from cellwright.edge.arrivals import Arrivals
from cellwright.edge.believing import Bearer
from cellwright.edge.connections import Patience, Site
from cellwright.edge.downloads import Downloads
from cellwright.edge.files import ACCEL, SENDERS, set_headers
from cellwright.edge.forecasting import Forecasting
from cellwright.edge.guard import Guard
from cellwright.edge.library import Keeping, Library
from cellwright.edge.metrics import METRICS, Metrics, Recorder
from cellwright.edge.outbox import Outbox
from cellwright.edge.patches import OWN, Patches
from cellwright.edge.predictor import Precision
from cellwright.edge.request import RequestError
from cellwright.edge.sending import Senders
from cellwright.edge.shelf import Shelf
from cellwright.edge.shelves import Shelves
from cellwright.edge.slots import Slots
from cellwright.edge.tenants import Tenants
from cellwright.edge.uses import Uses
from cellwright.errors import EdgeError, WrongUse

DEFAULT_PORT = 8080
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Limits:
    """What one edge takes on at once."""

    workers: int = 0  # threads that run models; 0: one a core
    queue: int = 64  # forecasts that may wait for one
    batch_s: float = 5e-3  # requests run together as long as that is expected to take no longer
    body_bytes: int = 4 * 1024**2
    poll_s: float = 1.0  # how often the store is looked at
    shutdown_s: float = 10.0  # how long running requests may take to finish
    senders: int = 64  # threads that send files to clients which are fast enough


class Edge:
    """One server. `async with Edge(store, trust) as edge:` serves until the block ends; `edge.url` is its address."""

    def __init__(
        self,
        store: Path,
        trust: Trust,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        tls: ssl.SSLContext | None = None,
        insecure: bool = False,
        precision: Precision = "fp32",
        limits: Limits | None = None,
        behind_nginx: bool = False,
        hub: Hub | None = None,
        keeping: Keeping | None = None,
        pace: Pace | None = None,
        network: NetworkAccess | None = None,
        energy: bool = True,
        patience: Patience | None = None,
        access_log: bool = False,
        truth_token: str | None = None,
        metrics_token: str | None = None,
    ) -> None:
        """Port 0 takes any free one. `hub`: whom to ask what to hold for tenants; None: only what the workspace publishes is served.

        `truth_token`: who shows it may tell the truth of the workspace's models; None: whoever asks. `metrics_token`: who shows it may
        read metrics and what is held; None: whoever asks, but nobody where others reach an edge of tenants, who would count each other.

        Raises:
            WrongUse: an address that others can reach, without TLS and without `insecure`.
        """
        if host not in _LOOPBACK and tls is None and not insecure:
            raise WrongUse(
                f"{host} can be reached from other machines and nothing would be encrypted: give a certificate and its key "
                "(--tls-cert, --tls-key), or say --insecure if a proxy in front does that"
            )
        self.host, self.port, self._tls = host, port, tls
        self.limits = limits or Limits()
        self._store, self._accel, self._access = store, behind_nginx, access_log
        self._reader = None if metrics_token is None else Bearer(metrics_token)
        self._closed = hub is not None and (host not in _LOOPBACK or behind_nginx)  # tenants may be among those who reach it
        self._patience = patience or Patience()
        if behind_nginx:  # which counts and times its own clients; here all have its address
            self._patience = replace(self._patience, most_per_client=0)
        self.shelf = Shelf(store, trust, precision=precision)
        self.shelves, self.uses = Shelves(store, precision=precision), Uses()
        self.slots = Slots((self.limits.workers or os.cpu_count() or 1), self.limits.queue)
        self.forecasting = self._forecasting_of(self.shelf, None if truth_token is None else Bearer(truth_token))
        self.patches = Patches(store)
        self.guard = Guard(lambda: self.shelves.hub_key)
        self.tenants = Tenants(self.shelves, self.guard, self.uses, self._forecasting_of, self.patches)
        self.arrivals: Arrivals | None = None
        library = Library(self.shelves, self.uses, keeping or Keeping())  # without a hub, too: what one took back before stays so
        self.guard.taken_back, self.tenants.placed = library.taken_back, library.speaks_of
        self.agent = None if hub is None else _agent(store, library, hub, pace, energy=energy)
        if self.agent is not None:
            self.tenants.missing = self.agent.missing
            library.patch_with(self.patches)
            accelerated = None if network is None else Acceleration(network)
            self.arrivals = Arrivals(self.guard, self.tenants, self.agent, accelerated)
        self.metrics, self.senders = Metrics(), Senders(self.limits.senders)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Base address."""
        return f"{'https' if self._tls else 'http'}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._refresh)
        self._runner = web.AppRunner(
            self._app(),
            access_log_class=Recorder,
            shutdown_timeout=self.limits.shutdown_s,
            keepalive_timeout=self._patience.idle_s,
        )
        await self._runner.setup()
        site = Site(self._runner, self.host, self.port, ssl_context=self._tls, backlog=2048, patience=self._patience)
        try:
            await site.start()
        except OSError as error:
            await self.__aexit__()
            _explain(error, self.host, self.port)
        self.port = int(self._runner.addresses[0][1])
        if self.agent is not None:
            self._tasks.append(asyncio.create_task(self.agent.run(self.url)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.to_thread(self.senders.close)
        if self.arrivals is not None:
            await self.arrivals.close()
        await asyncio.to_thread(self.patches.close)
        await self.tenants.close()
        await self.forecasting.close()

    def _refresh(self) -> None:
        if self.shelf.refresh():
            self.patches.consider(OWN, self.shelf.snapshot)
        self.shelves.refresh()

    def _forecasting_of(self, shelf: Shelf, believes: Bearer | None = None) -> Forecasting:
        return Forecasting(shelf, self.slots, self.limits.body_bytes, self.limits.batch_s, believes)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[problems.middleware], client_max_size=self.limits.body_bytes)
        app[METRICS] = self.metrics
        app[ACCESS], app[SENDERS] = self._access, self.senders
        if self._accel:
            app[ACCEL] = self._store
        app.on_response_prepare.append(set_headers)
        app.cleanup_ctx.append(self._follow_store)
        Downloads(lambda _: self.shelf.snapshot, self.patches).add_to(app.router, "/v1")
        if self.arrivals is not None:
            self.arrivals.add_to(app.router)
        self.tenants.add_to(app.router, "/v1")
        self.forecasting.add_to(app.router, "/v1", "")
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _follow_store(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._poll())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.limits.poll_s)
            try:
                await asyncio.to_thread(self._refresh)
            except OSError as error:  # a folder vanished while it was read: the next look sees the change whole
                problems.log.warning("the store changed while it was read: %s", error)

    async def _alive(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        now = self.shelf.snapshot
        told = self._told(whole=self._may_read(request))
        if now.predictors or (told and told["hub_heard"]):
            return web.json_response({"status": "ready", "serving": dict(now.latest), "refused": dict(now.refused)} | told)
        if told:
            return problems.problem(503, "the hub has not said yet what this edge shall hold")
        why = "; ".join(f"{what}: {reason}" for what, reason in now.refused.items())
        return problems.problem(
            503, f"no bundle can be served ({why})" if why else "nothing is published yet; run the publish step"
        )

    def _told(self, *, whole: bool) -> dict[str, Any]:
        """What is told of the agent: no names of tenants or models, and to everybody nothing that changes when one publishes."""
        if self.agent is None:
            return {}
        desired, held = self.agent.library.desired, self.agent.library.held()
        told = {"hub_heard": desired is not None, "problems": self.agent.problems(public=True)}
        if not whole:
            return told
        of_tenants = {"versions_held": len(held), "versions_lacking": len(self.agent.library.lacking())}
        return told | {"hub_revision": None if desired is None else desired.revision} | of_tenants

    def _may_read(self, request: web.Request) -> bool:
        return not self._closed if self._reader is None else self._reader(request)

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._may_read(request):
            raise RequestError(
                403 if self._reader is None else 401,
                "metrics are for who shows the token in edge.metrics_token_file (Authorization: Bearer …)"
                + ("" if self._reader else "; none is set, and tenants could count each other's requests"),
            )
        now = self.shelf.snapshot
        gauges = {
            "cellwright_edge_bundles": ("Bundles that verified and are served.", sum(map(len, now.bundles.values()))),
            "cellwright_edge_refused_bundles": ("Bundles that did not verify.", len(now.refused)),
            "cellwright_edge_forecasts_pending": ("Forecasts running or waiting.", self.forecasting.pending),
            "cellwright_edge_senders_busy": ("Threads that send files to fast clients.", self.senders.busy),
        }
        return web.Response(text=self.metrics.text({k: (t, float(v)) for k, (t, v) in gauges.items()}), content_type="text/plain")


def _agent(store: Path, library: Library, hub: Hub, pace: Pace | None, *, energy: bool) -> Agent:
    library.shelves.refresh()
    return Agent(hub, library, Outbox(store / "tenants" / "outbox.db"), pace, energy=energy)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with a certificate chain and its key, in PEM.

    Raises:
        WrongUse: they cannot be read or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise WrongUse(f"cannot use the certificate {certificate} with the key {key}: {error}") from error
    return context


def _explain(error: OSError, host: str, port: int) -> NoReturn:
    if error.errno == errno.EADDRINUSE:
        raise EdgeError(
            f"port {port} of {host} is taken by {_holder(port)}; stop it, or choose another port with --port"
        ) from error
    if error.errno in (errno.EACCES, errno.EPERM):
        raise EdgeError(f"port {port} of {host} may not be opened by this user; choose one above 1023 with --port") from error
    raise EdgeError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error


def _holder(port: int) -> str:
    """Who listens there, as far as this user may see it."""
    import psutil

    try:
        found = [
            c
            for c in psutil.net_connections("tcp")
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid
        ]
        process: Any = psutil.Process(found[0].pid) if found else None
        return f"process {process.pid} ({' '.join(process.cmdline())[:80]})" if process else "another process"
    except psutil.Error:
        return "another process"
