"""Bundles over HTTP: what is served, and every file of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from cellwright.edge.contract import PATCHES
from cellwright.edge.files import send, serve_file
from cellwright.edge.patches import OWN, Patches
from cellwright.edge.request import RequestError
from cellwright.edge.shelf import Shelved, Snapshot


class Downloads:
    """The bundles that a request may see."""

    def __init__(self, snapshot_of: Callable[[web.Request], Snapshot], patches: Patches | None = None) -> None:
        """`snapshot_of`: what a request may see; raises RequestError where it may see nothing."""
        self._snapshot_of, self._patches = snapshot_of, patches

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Serve under `<prefix>/bundles`."""
        router.add_get(f"{prefix}/bundles", self.listed)
        router.add_get(f"{prefix}/bundles/{{name}}/{{version}}", self.one)
        router.add_get(f"{prefix}/bundles/{{name}}/{{version}}/{{path:.+}}", self.file)

    async def listed(self, request: web.Request) -> web.Response:
        """All bundles."""
        now = self._snapshot_of(request)
        listed = [
            {"name": name, "latest": now.latest.get(name), "versions": [self._described(request, v) for v in versions.values()]}
            for name, versions in now.bundles.items()
        ]
        return web.json_response({"bundles": listed}, headers={"Cache-Control": "no-cache"})

    async def one(self, request: web.Request) -> web.Response:
        """One version of one bundle."""
        name, version = request.match_info["name"], request.match_info["version"]
        found = self._snapshot_of(request).find(name, version)
        return web.json_response({"name": name, **self._described(request, found)}, headers={"Cache-Control": "no-cache"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One file of one version."""
        match = request.match_info
        if match["path"].startswith(f"{PATCHES}/"):
            return self._patch(request)
        return serve_file(request, self._snapshot_of(request).find(match["name"], match["version"]), match["path"])

    def _patch(self, request: web.Request) -> web.StreamResponse:
        """patches/<base>/<target>: from a blob that the device holds to one of this version."""
        match = request.match_info
        found = self._snapshot_of(request).find(match["name"], match["version"])
        _, base, target, *rest = [*match["path"].split("/"), "", ""]
        if self._patches is not None and not any(rest) and f"blobs/sha256/{target}" in found.files:
            ready = self._patches.find(match.get("tenant", OWN), match["name"], base, target)
            if ready is not None:
                return send(request, ready.path, ready.sha256, _PATCH)
        raise RequestError(404, "there is no such patch: none pays, or it is not made yet; fetch the blob itself")

    def _described(self, request: web.Request, bundle: Shelved) -> dict[str, Any]:
        """With the patches that lead to each layer."""
        described = bundle.described()
        owner = request.match_info.get("tenant", OWN)
        for name, layer in bundle.manifest.layers.items():
            if self._patches and (offered := self._patches.offered(owner, bundle.manifest.name, layer.hex)):
                described["layers"][name]["patches"] = offered
        return described


_PATCH = "application/vnd.cellwright.patch"
