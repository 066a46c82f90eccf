"""One fetch through a hub, from the request to the report: find, announce, ask for quality, bring, activate, report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cellwright.edge.bringing import resolved
from cellwright.edge.contract import Arrival, Asker, Quality
from cellwright.edge.download import Download, Transfer
from cellwright.edge.fetched import Attempt, Fetched
from cellwright.edge.finding import Finder, Found, Wanted
from cellwright.edge.ongoing import Ongoing
from cellwright.edge.own_quality import Demand, OwnQuality
from cellwright.edge.quality import Network, Presence
from cellwright.edge.route import Route, Stop
from cellwright.edge.wire import Nonsense
from cellwright.errors import BundleError, CellwrightError, EdgeError, HubError
from cellwright.hub.contract import FetchReport

if TYPE_CHECKING:
    import ssl

    from cellwright.edge.device import Device

_Given = TypeVar("_Given")
_NO_VERSION = "0.0.0"  # nobody said which
_DEADLINE_S = 1.0  # that quality is asked for where the caller names none: the use case's
_HELD_ALL = 0.95  # quality for so much of a transfer is quality for all of it
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
    _own: OwnQuality | None = field(default=None, init=False)

    def run(self) -> Fetched:
        """Raises EdgeError, BundleError, HubError, WorkspaceError; a failure is reported too, where it can be."""
        started = time.perf_counter()
        found = self.finder.find(self.wanted)
        self.notes += found.notes
        device = self.device_of(found)
        ongoing = Ongoing(found, started, self.deadline_s)
        presence = Presence(lambda: self._arrival(ongoing), self.tls)

        def arrived(stop: Stop) -> None:
            presence.announce(stop)
            if self._own is not None:
                self._own.at(stop.url)

        route = presence.route = Route(found.stops, tls=self.tls, grant=found.grant, renew=self.finder.renew, on_arrival=arrived)
        try:
            with device.locked(), ExitStack() as stack:
                stack.callback(route.close)
                fetched = self._fetched(device, route, presence, ongoing, stack)
        except CellwrightError as error:
            failed = _explained(error, route)
            report = self._attempt(ongoing, route).report(str(failed), refused=isinstance(failed, BundleError))
            self._report(report, route, presence)
            if failed is error:
                raise
            raise failed from error
        self._report(self._attempt(ongoing, route).report(), route, presence)
        notes = (*self.notes, *route.notes, *presence.notes)
        return replace(fetched, notes=notes)

    def _fetched(self, device: Device, route: Route, presence: Presence, ongoing: Ongoing, stack: ExitStack) -> Fetched:
        found = ongoing.found
        download = ongoing.download = Download(route)
        named = self._believed(route, lambda: self._named(download, found))
        ongoing.version = named["version"]
        if held := device.held(found.model, named):
            activated = device.activated(held, ongoing.started)
            ongoing.seconds = activated.seconds
            return self._told(activated, ongoing, route)
        stack.enter_context(self._following(route))
        base = f"/v1/tenants/{found.tenant}/bundles/{found.model}/{named['version']}"
        bringing = ongoing.bringing = device.bringing(download, base, self.patches)
        manifest, documents = self._believed(route, lambda: bringing.documents(found.model, named["version"]))
        ongoing.plan(bringing.plan(manifest, documents))
        with self._quality(route, presence, ongoing) as quality:
            staging = bringing.complete(manifest, documents)
            ongoing.seconds = time.perf_counter() - ongoing.started
            ongoing.qos = quality()
        self.notes += bringing.notes
        ongoing.streams = download.streams
        activated = device.activate(staging, manifest, bringing, ongoing.started)
        return self._told(activated, ongoing, route)

    def _named(self, download: Download, found: Found) -> dict[str, str]:
        """What the edge says the version is, if that is what the hub said. Raises BundleError, EdgeError."""
        named = resolved(download, f"/v1/tenants/{found.tenant}", found.model, found.version)
        if found.digest is not None and named["digest"] != found.digest:
            raise BundleError(
                f"{found.model} {found.version}: the hub names digest {found.digest[:19]}…, the edge {named['digest'][:19]}…; "
                "it was not fetched"
            )
        return named

    def _believed(self, route: Route, ask: Callable[[], _Given]) -> _Given:
        """What `ask` brings, from the next edge where it is not what was signed. Raises as `ask`, when no edge is left."""
        while True:
            route.begin()
            try:
                return ask()
            except (BundleError, Nonsense) as error:
                if not route.distrust(error):
                    raise

    def _told(self, activated: Fetched, ongoing: Ongoing, route: Route) -> Fetched:
        found = ongoing.found
        return replace(
            activated,
            verified_s=ongoing.seconds,
            deadline_s=self.deadline_s,
            edges=tuple(route.used),
            streams=ongoing.streams,
            qos=ongoing.qos,
            qos_held_s=ongoing.qos_held_s,
            tenant=found.tenant,
            why=found.why,
            match_age_s=found.age_s,
            distrusted=tuple(route.distrusted),
        )

    @contextmanager
    def _quality(self, route: Route, presence: Presence, ongoing: Ongoing) -> Iterator[Callable[[], Quality | None]]:
        if self.qos != "device" or self.network is None:
            yield presence.quality
            return
        with OwnQuality(self.network, lambda: self._demand(ongoing)) as own:
            try:
                own.begin(route.url)
                self._own, begun = own, time.perf_counter()
                yield own.told
                ongoing.qos_held_s, took_s = own.held_s, time.perf_counter() - begun
                if 0 < ongoing.qos_held_s < _HELD_ALL * took_s:
                    self.notes.append(f"quality was held for {ongoing.qos_held_s:.2f} s of the transfer's {took_s:.2f} s")
            finally:
                self._own = None
        self.notes += own.notes

    def _demand(self, ongoing: Ongoing) -> Demand:
        left_s = ongoing.left_s
        return Demand(ongoing.left_bytes or 1, ongoing.pace_s(_DEADLINE_S) if left_s is None else left_s)

    @contextmanager
    def _following(self, route: Route) -> Iterator[None]:
        """While the block runs, the route follows the device from zone to zone, where a network can be asked."""
        if self.finder.closest is None or len(route.stops) < 2:
            yield
            return
        ended, moving = threading.Event(), threading.Lock()

        def follow() -> None:
            while not ended.wait(_FOLLOW_S):
                stops, note = self.finder.ordered(route.stops)
                with moving:
                    if note is None and not ended.is_set():
                        route.move(stops)

        threading.Thread(target=follow, name="closest-edge", daemon=True).start()
        try:
            yield
        finally:  # a look-up that runs is not waited for: it moves nothing any more
            with moving:
                ended.set()

    def _arrival(self, ongoing: Ongoing) -> Arrival:
        found = ongoing.found
        return Arrival(
            device=self.finder.device,
            tenant=found.tenant,
            model=found.model,
            version=found.version,
            deadline_s=ongoing.left_s,
            bytes=ongoing.left_bytes,
            location=self.wanted.location,
            qos=self.qos,
        )

    def _attempt(self, ongoing: Ongoing, route: Route) -> Attempt:
        transfer = ongoing.bringing.transfer if ongoing.bringing else Transfer()
        if not ongoing.seconds:  # it failed: what was received all the same
            transfer = replace(transfer, received_bytes=max(transfer.received_bytes, ongoing.received_bytes))
        named = None if ongoing.found.version == "latest" else ongoing.found.version
        return Attempt(
            tenant=ongoing.found.tenant,
            model=ongoing.found.model,
            version=ongoing.version or named or _NO_VERSION,
            device=self.finder.device,
            seconds=ongoing.seconds or time.perf_counter() - ongoing.started,
            deadline_s=self.deadline_s,
            transfer=transfer,
            edges=tuple(route.used),
            delta=ongoing.bringing.delta if ongoing.bringing else None,
            qos=ongoing.qos,
            distrusted=tuple(route.distrusted),
        )

    def _report(self, report: FetchReport, route: Route, presence: Presence) -> None:
        """To the edge, which passes it on and ends the arrival; to the hub where the edge does not take it, or is not to be believed."""
        if report.version == _NO_VERSION:
            return
        if any(found.stop == route.stop for found in route.distrusted):
            presence.leave()
        elif presence.report(route.stop, report):
            return
        try:
            self.finder.hub.report([report])
        except HubError as error:
            self.notes.append(f"the fetch could not be reported: {error}"[:500])


def _explained(error: CellwrightError, route: Route) -> CellwrightError:
    """The error with what edges were not asked again for."""
    if not route.distrusted or not isinstance(error, BundleError | EdgeError):
        return error
    if isinstance(error, BundleError | Nonsense):
        return BundleError(f"no edge is left that gives what was signed: {'; '.join(map(str, route.distrusted))}")
    return EdgeError(f"{error}; not asked again, as what they gave was wrong: {'; '.join(map(str, route.distrusted))}")
