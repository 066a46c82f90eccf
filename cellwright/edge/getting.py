"""One fetch through a hub, from the request to the report: find, announce, ask for quality, bring, activate, report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cellwright.edge.bringing import Bringing, resolved
from cellwright.edge.contract import Arrival, Asker, Quality
from cellwright.edge.download import Download, Transfer
from cellwright.edge.fetched import Attempt, Fetched
from cellwright.edge.finding import Finder, Found, Wanted
from cellwright.edge.quality import Network, Presence, by_device
from cellwright.edge.route import Route
from cellwright.errors import BundleError, CellwrightError, HubError
from cellwright.hub.contract import FetchReport

if TYPE_CHECKING:
    import ssl

    from cellwright.edge.device import Device

_DEADLINE_S = 1.0  # that quality is asked for where the caller names none: the use case's
_FOLLOW_S = 1.0  # between two looks at which edge is closest, while a transfer runs


@dataclass
class Getting:
    """One fetch. `device_of`: where a tenant's models are kept, believing the keys that the hub delivered."""

    finder: Finder
    wanted: Wanted
    device_of: Callable[[Found], Device]
    deadline_s: float | None = None
    qos: Asker = "edge"
    network: Network | None = None
    patches: bool = True
    tls: ssl.SSLContext | bool = True
    notes: list[str] = field(default_factory=list, init=False)

    def run(self) -> Fetched:
        """Raises EdgeError, BundleError, HubError, WorkspaceError; a failure is reported too, where it can be."""
        started = time.perf_counter()
        found = self.finder.find(self.wanted)
        self.notes += found.notes
        device = self.device_of(found)
        presence = Presence(self._arrival(found), self.tls)
        route = presence.route = Route(
            found.stops, tls=self.tls, grant=found.grant, renew=self.finder.renew, on_arrival=presence.announce
        )
        ongoing = _Ongoing(found, started)
        try:
            with device.locked(), ExitStack() as stack:
                stack.callback(route.close)
                fetched = self._fetched(device, found, route, presence, ongoing, stack)
        except CellwrightError as error:
            report = self._attempt(ongoing, route).report(str(error), refused=isinstance(error, BundleError))
            self._report(report, route, presence)
            raise
        self._report(self._attempt(ongoing, route).report(), route, presence)
        notes = (*self.notes, *route.notes, *presence.notes)
        return replace(fetched, notes=notes)

    def _fetched(
        self, device: Device, found: Found, route: Route, presence: Presence, ongoing: _Ongoing, stack: ExitStack
    ) -> Fetched:
        below = f"/v1/tenants/{found.tenant}"
        download = Download(route)
        named = resolved(download, below, found.model, found.version)
        ongoing.version = named["version"]
        if found.digest is not None and named["digest"] != found.digest:
            raise BundleError(
                f"{found.model} {found.version}: the hub names digest {found.digest[:19]}…, the edge {named['digest'][:19]}…; "
                "it was not fetched"
            )
        if held := device.held(found.model, named):
            activated = device.activated(held, ongoing.started)
            ongoing.seconds = activated.seconds
            return self._told(activated, ongoing, route)
        stack.enter_context(self._following(route))
        bringing = ongoing.bringing = device.bringing(download, f"{below}/bundles/{found.model}/{named['version']}", self.patches)
        manifest, documents = bringing.documents(found.model, named["version"])
        needed_bytes = sum(d.size for d in manifest.blobs)
        with self._quality(route, presence, needed_bytes) as quality:
            staging = bringing.complete(manifest, documents)
            ongoing.seconds = time.perf_counter() - ongoing.started
            ongoing.qos = quality()
        self.notes += bringing.notes
        ongoing.streams = download.streams
        activated = device.activate(staging, manifest, bringing, ongoing.started)
        return self._told(activated, ongoing, route)

    def _told(self, activated: Fetched, ongoing: _Ongoing, route: Route) -> Fetched:
        return replace(
            activated,
            verified_s=ongoing.seconds,
            deadline_s=self.deadline_s,
            edges=tuple(route.used),
            streams=ongoing.streams,
            qos=ongoing.qos,
            tenant=ongoing.found.tenant,
            why=ongoing.found.why,
        )

    @contextmanager
    def _quality(self, route: Route, presence: Presence, needed_bytes: int) -> Iterator[Callable[[], Quality | None]]:
        if self.qos == "device" and self.network is not None:
            with by_device(self.network, route.url, needed_bytes, self.deadline_s or _DEADLINE_S) as told:
                yield told
        else:
            yield presence.quality

    @contextmanager
    def _following(self, route: Route) -> Iterator[None]:
        """While the block runs, the route follows the device from zone to zone, where a network can be asked."""
        if self.finder.closest is None or len(route.stops) < 2:
            yield
            return
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(_FOLLOW_S):
                stops, note = self.finder.ordered(route.stops)
                if note is None:
                    route.move(stops)

        thread = threading.Thread(target=follow, name="closest-edge", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _arrival(self, found: Found) -> Arrival:
        return Arrival(
            device=self.finder.device,
            tenant=found.tenant,
            model=found.model,
            version=found.version,
            deadline_s=self.deadline_s,
            bytes=found.bytes,
            location=self.wanted.location,
            qos=self.qos,
        )

    def _attempt(self, ongoing: _Ongoing, route: Route) -> Attempt:
        return Attempt(
            tenant=ongoing.found.tenant,
            model=ongoing.found.model,
            version=ongoing.version or "0.0.0",
            device=self.finder.device,
            seconds=ongoing.seconds or time.perf_counter() - ongoing.started,
            deadline_s=self.deadline_s,
            transfer=ongoing.bringing.transfer if ongoing.bringing else Transfer(),
            edges=tuple(route.used),
            delta=ongoing.bringing.delta if ongoing.bringing else None,
            qos=ongoing.qos,
        )

    def _report(self, report: FetchReport, route: Route, presence: Presence) -> None:
        """To the edge, which passes it on and ends the arrival; to the hub where the edge does not take it."""
        if report.version == "0.0.0" or presence.report(route.stop, report):
            return
        try:
            self.finder.hub.report([report])
        except HubError as error:
            self.notes.append(f"the fetch could not be reported: {error}"[:500])


@dataclass
class _Ongoing:
    """What is known so far."""

    found: Found
    started: float
    version: str | None = None
    seconds: float = 0.0
    streams: int = 1
    bringing: Bringing | None = None
    qos: Quality | None = None
