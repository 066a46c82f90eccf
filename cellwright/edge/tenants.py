"""Tenants' shelves over HTTP, for whoever shows a grant.

    GET  /v1/tenants/{tenant}/bundles[/{name}/{version}[/{path}]]     as /v1/bundles, of what the grant allows
    POST /v1/tenants/{tenant}/forecast, /truth; GET …/evidence        as /v1/forecast and the others; truth, told outright or in a
                                                                      forecast's history, is learnt from grants with `truth` alone

A version that this edge shall hold but does not (it was evicted, or is on its way) is answered with 503 and Retry-After, and fetched
at once.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from cellwright.edge.downloads import Downloads
from cellwright.edge.files import USING, Using
from cellwright.edge.forecasting import ALLOWED, Forecasting
from cellwright.edge.guard import Guard
from cellwright.edge.patches import Patches
from cellwright.edge.request import RequestError
from cellwright.edge.shelf import Shelf, Snapshot
from cellwright.edge.shelves import Shelves
from cellwright.edge.trialling import asked_by
from cellwright.edge.uses import Key, Uses

Missing = Callable[[str, str, str], bool]  # (tenant, model, version) -> it belongs here, is not here, and is fetched from now on
Handler = Callable[[Forecasting, web.Request], Awaitable[web.Response]]


class Tenants:
    """All tenants' bundles and forecasts. Used from the event loop's thread only."""

    def __init__(
        self, shelves: Shelves, guard: Guard, uses: Uses, forecasting: Callable[[Shelf], Forecasting], patches: Patches
    ) -> None:
        self._shelves, self._guard, self._uses, self._new, self._patches = shelves, guard, uses, forecasting, patches
        self._forecasting: dict[str, tuple[Shelf, Forecasting]] = {}
        self.missing: Missing = lambda tenant, model, version: False
        self.placed: Callable[[str], bool] = lambda tenant: True  # whether anything of a tenant's shall be here

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Serve under `<prefix>/tenants/{tenant}`."""
        below = f"{prefix}/tenants/{{tenant:[a-z0-9-]{{1,40}}}}"
        Downloads(self._downloadable, self._patches).add_to(router, below)
        for path, handler in (("forecast", Forecasting.answer), ("truth", Forecasting.truth)):
            router.add_post(f"{below}/{path}", functools.partial(self._forecast, handler))
        router.add_get(f"{below}/evidence", functools.partial(self._forecast, Forecasting.evidence))

    async def close(self) -> None:
        """Let running forecasts end."""
        for _, forecasting in self._forecasting.values():
            await forecasting.close()

    def held(self, tenant: str, model: str, version: str) -> bool:
        """Whether a version ("latest" too) is here and can be fetched."""
        shelf = self._shelf(tenant)
        try:
            return shelf is not None and bool(shelf.snapshot.find(model, version))
        except RequestError:
            return False

    def bytes_of(self, tenant: str, model: str, version: str) -> int:
        """Size of a version that is here; 0: it is not."""
        shelf = self._shelf(tenant)
        try:
            found = shelf.snapshot.find(model, version) if shelf is not None else None
        except RequestError:
            return 0
        return 0 if found is None else found.manifest.bytes

    def _shelf(self, tenant: str) -> Shelf | None:
        return self._shelves.get(tenant) if self.placed(tenant) else None

    def _drop_gone(self) -> None:
        """Let go of what forecast from shelves that are no more, and their models with it."""
        self._forecasting = {name: kept for name, kept in self._forecasting.items() if self._shelves.get(name) is kept[0]}

    def _downloadable(self, request: web.Request) -> Snapshot:
        """What a grant lets a request see; counts what is asked for."""
        match = request.match_info
        tenant, model = match["tenant"], match.get("name")
        now = self._allowed(request, tenant, model)
        if model is not None:
            self._used(request, now, tenant, model, match["version"])
        return now

    def _allowed(self, request: web.Request, tenant: str, model: str | None = None) -> Snapshot:
        grant = self._guard.tenant(request, tenant, model)
        shelf = self._shelf(tenant)
        now = shelf.snapshot if shelf is not None else Snapshot()
        return now if "*" in grant.models else now.only(lambda name: grant.allows(tenant, name))

    def _used(self, request: web.Request, now: Snapshot, tenant: str, model: str, version: str) -> None:
        exact = now.latest.get(model, "") if version == "latest" else version
        if exact not in now.bundles.get(model, {}):
            self._bring(tenant, model, version)
            return  # not known here: whoever looks for it says so
        key = Key(tenant, model, exact)
        using: Using = functools.partial(self._uses.running, key)
        request[USING] = using
        self._uses.count(key, int(request.match_info.get("path") == "index.json"))  # once a fetch

    def _bring(self, tenant: str, model: str, version: str) -> None:
        if self.missing(tenant, model, version):
            raise RequestError(503, f"{model} {version} belongs here and is being fetched from the hub; ask again in a second")

    async def _forecast(self, handler: Handler, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        request[ALLOWED] = self._allowed(request, tenant)
        believed = self._guard.grant(request).truth
        if handler is Forecasting.truth and not believed:
            raise RequestError(
                403, "the grant is no leave to tell the truth; ask the hub for one with it (a token of scopes device and truth)"
            )
        shelf = self._shelf(tenant)
        if shelf is None:
            raise RequestError(404, "nothing is served; there are: none")
        before = self._forecasting.get(tenant)
        if before is None or before[0] is not shelf:
            self._drop_gone()
            before = self._forecasting[tenant] = (shelf, self._new(shelf))
            before[1].used = lambda manifest: self._uses.count(Key(tenant, manifest.name, manifest.version))
        try:
            with asked_by(believed=believed):
                return await handler(before[1], request)
        except RequestError as error:
            if error.status == 404:
                self._bring_named(request, tenant, await request.read())
            raise

    def _bring_named(self, request: web.Request, tenant: str, body: bytes) -> None:
        """Fetch the model that a forecast's request names, where it belongs here."""
        try:
            name = json.loads(body).get("bundle") if body else request.query.get("bundle")
        except (ValueError, AttributeError):
            return
        if isinstance(name, str) and self._guard.grant(request).allows(tenant, name):
            self._bring(tenant, name, "latest")
