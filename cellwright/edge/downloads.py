"""Bundles over HTTP: what is served, and every file of it."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from cellwright.edge.files import serve_file
from cellwright.edge.shelf import Snapshot


class Downloads:
    """The bundles that a request may see."""

    def __init__(self, snapshot_of: Callable[[web.Request], Snapshot]) -> None:
        """`snapshot_of`: what a request may see; raises RequestError where it may see nothing."""
        self._snapshot_of = snapshot_of

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Serve under `<prefix>/bundles`."""
        router.add_get(f"{prefix}/bundles", self.listed)
        router.add_get(f"{prefix}/bundles/{{name}}/{{version}}", self.one)
        router.add_get(f"{prefix}/bundles/{{name}}/{{version}}/{{path:.+}}", self.file)

    async def listed(self, request: web.Request) -> web.Response:
        """All bundles."""
        now = self._snapshot_of(request)
        listed = [
            {"name": name, "latest": now.latest.get(name), "versions": [v.described() for v in versions.values()]}
            for name, versions in now.bundles.items()
        ]
        return web.json_response({"bundles": listed}, headers={"Cache-Control": "no-cache"})

    async def one(self, request: web.Request) -> web.Response:
        """One version of one bundle."""
        name, version = request.match_info["name"], request.match_info["version"]
        found = self._snapshot_of(request).find(name, version)
        return web.json_response({"name": name, **found.described()}, headers={"Cache-Control": "no-cache"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One file of one version."""
        match = request.match_info
        return serve_file(request, self._snapshot_of(request).find(match["name"], match["version"]), match["path"])
