"""Doors of edges."""

from __future__ import annotations

import httpx

from cellwright.hub import contract as c
from cellwright.hub.doors.base import Asking


class Edges(Asking):
    """What edges tell and are told."""

    def edges(self) -> tuple[c.Edge, ...]:
        """All edges there are."""
        return self._get("/v1/edges", tuple[c.Edge, ...])

    def edge(self, edge: str) -> c.Edge:
        """One edge."""
        return self._get(f"/v1/edges/{edge}", c.Edge)

    def register_edge(self, edge: str, form: c.EdgeForm) -> c.Edge:
        """An edge tells of itself (token: scope edge, named as the edge)."""
        return self._put(f"/v1/edges/{edge}", form, c.Edge)

    def delete_edge(self, edge: str) -> None:
        """Forget an edge (operator)."""
        self._send("DELETE", f"/v1/edges/{edge}")

    def heartbeat(self, edge: str, beat: c.Heartbeat) -> c.HeartbeatAnswer:
        """An edge is alive; the answer says which revision it should have."""
        return self._put(f"/v1/edges/{edge}/heartbeat", beat, c.HeartbeatAnswer)

    def desired(self, edge: str, *, revision: int = 0, wait_s: float = 0.0) -> c.Desired | None:
        """What an edge shall hold, as soon as it is of another revision than the one it has; None: not within `wait_s`."""
        timeout = httpx.Timeout(wait_s + 30.0, connect=5.0)
        params = {"revision": str(revision), "wait_s": f"{wait_s:g}"}
        answer = self._send("GET", f"/v1/edges/{edge}/desired", params=params, timeout=timeout)
        return None if answer.status_code == httpx.codes.NOT_MODIFIED else self._parsed(answer, c.Desired)

    @staticmethod
    def bundle_path(edge: str, tenant: str, model: str, version: str) -> str:
        """Where an edge pulls a layout from: below it lie the same sub-paths as an edge serves to devices (`edge.download`)."""
        return f"/v1/edges/{edge}/tenants/{tenant}/bundles/{model}/{version}"
