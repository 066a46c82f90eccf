"""A client of the hub, for edges, devices, flows and the command line; every method is one door of the API (api.py).

    with HubClient("https://hub.example", token) as hub:
        release = hub.upload(Path("model.onnx"), UploadForm(model="guide", version="1.0.0", format="onnx", bytes=...))
        hub.publish("guide", Publication(version="1.0.0"))

Refusals are raised as the kinds of refusals.py, with the hub's own words; HubError is raised where it cannot be reached.
`owner`: the tenant of a model that others share; None: one's own.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from cellwright.hub.doors.edges import Edges
from cellwright.hub.doors.placement import Placing
from cellwright.hub.doors.reports import Reports
from cellwright.hub.doors.tenants import Tenants
from cellwright.hub.doors.uploads import Uploads


class HubClient(Tenants, Uploads, Placing, Edges, Reports):
    """One hub, asked with one token. Safe to share between threads, as httpx's client is."""

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
