"""The edge's side of the hub: it registers, is told what to hold, brings it, and reports.

    register      once, and again whenever the hub does not know this edge
    desired       a long poll that returns when something changed; the answer is kept on disk, so an edge without a hub goes on with it
    pull          several versions at once; each is activated as soon as it is here
    heartbeat     what is held, how often it was asked for, room, energy, problems
    reports       of devices and of QoS sessions, in batches

While the hub is away everything is tried again, after pauses that double up to half a minute, each drawn anew between half and the whole
of it, so that many edges do not come back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from cellwright.edge import power
from cellwright.edge.download import Download
from cellwright.edge.hearing import asked, desired_of
from cellwright.edge.library import Library
from cellwright.edge.outbox import Outbox
from cellwright.edge.pulling import pull
from cellwright.edge.stopping import Links
from cellwright.edge.uses import Key
from cellwright.edge.wants import Want
from cellwright.errors import BundleError, CellwrightError, HubError, HubRefused, WorkspaceError
from cellwright.hub.client import HubClient
from cellwright.hub.contract import MOST_REPORTS, Desired, Edge, EdgeForm, FetchReport, Heartbeat, Held, Location, QosRecord

log = logging.getLogger(__name__)
_NEIGHBOURS_S = 1.0  # the hub is asked for its edges no more often than so
_MOST_SKEW_S = 30.0  # beyond half of the grants' leeway a wrong clock is worth a word


@dataclass(frozen=True)
class Hub:
    """Where the hub is, and what it is told of this edge. `url`: where devices reach the edge; None: where it listens."""

    address: str
    token: str
    name: str
    location: Location
    url: str | None = None
    zone: str | None = None
    provider: str = ""
    ca: Path | None = None


@dataclass(frozen=True)
class Pace:
    """How often."""

    beat_s: float = 10.0
    wait_s: float = 25.0  # of a long poll
    first_pause_s: float = 0.5  # after a failure; doubles …
    longest_pause_s: float = 30.0  # … up to this
    look_s: float = 1.0  # at what is to be retired
    parallel: int = 4  # versions pulled at once


@dataclass
class _Tries:
    failures: int = 0
    due_s: float = 0.0
    failed_s: float = 0.0
    why: str = ""


class Agent:
    """One edge's agent. `run` in the event loop of its server; everything that waits for disk or network is in threads."""

    def __init__(self, hub: Hub, library: Library, outbox: Outbox, pace: Pace | None = None, *, energy: bool = True) -> None:
        self.hub, self.library, self.outbox, self.pace = hub, library, outbox, pace or Pace()
        self._links = Links(hub.address, self._leave, self._tls())
        self._wake, self._beat_now = asyncio.Event(), asyncio.Event()
        self._wake.set()
        self._client = HubClient(hub.address, hub.token, ca=hub.ca)
        self._pulls: dict[Key, asyncio.Task[None]] = {}
        self._tries: dict[Key, _Tries] = {}
        self._no_room: dict[Key, str] = {}
        self._asked: set[Key] = set()
        self._counts: Counter[Key] = Counter()
        self._energy = energy
        self._power: power.Power | None = None
        self._away = ""  # why the hub cannot be reached
        self._stuck = ""  # why the store cannot be brought up to date
        self._skew_s = 0.0
        self._effective = 0  # revision that is in effect
        self.url = hub.url or ""
        self.neighbours: tuple[Edge, ...] = ()
        self._neighbours_s = float("-inf")

    # for the server

    def missing(self, tenant: str, model: str, version: str) -> bool:
        """Whether a version belongs here but is not here; it is fetched from now on. From the event loop's thread."""
        want = self.library.wanted(tenant, model, version)
        if want is None or want.key in self.library.held():
            return False
        self._asked.add(want.key)
        if (tries := self._tries.get(want.key)) is not None:  # sooner, and not at once: many may ask for what does not come
            tries.due_s = min(tries.due_s, tries.failed_s + self.pace.first_pause_s)
        self._wake.set()
        return True

    def problems(self, *, public: bool = False) -> list[str]:
        """What is wrong, for operators; with `public` for everybody, without the names of tenants and models."""
        found = []
        if self._no_room:
            names = "" if public else f" ({', '.join(map(str, sorted(self._no_room)[:20]))})"
            found.append(f"disk full: {len(self._no_room)} versions are not held{names}")
        if self._away:
            found.append("the hub is away; what is held is served" if public else f"the hub is away: {self._away}")
        if self._stuck:
            found.append("the store cannot be brought up to date" + ("" if public else f": {self._stuck}"))
        if abs(self._skew_s) > _MOST_SKEW_S:
            found.append(f"the clock is {self._skew_s:+.0f} s off the hub's, by which grants are dated; set it")
        failing = {key: tries.why for key, tries in self._tries.items() if tries.failures}
        if public and failing:
            found.append(f"{len(failing)} versions could not be fetched yet")
        else:
            found += [f"{key}: {why}"[:500] for key, why in sorted(failing.items())]
        return found[:100]

    async def run(self, url: str) -> None:
        """Until it is cancelled. `url`: where the server listens."""
        self.url = self.hub.url or url
        loops = (self._follow(), self._work(), self._beats(), self._reports(), self._look_up())
        try:
            async with asyncio.TaskGroup() as group:
                for loop in loops:
                    group.create_task(loop)
        finally:
            self._links.stop()
            for task in self._pulls.values():
                task.cancel()
            await asyncio.gather(*self._pulls.values(), return_exceptions=True)
            self._client.close()

    # what shall be held

    async def _follow(self) -> None:
        """Register, then wait for the hub's word, again and again."""
        patience = httpx.Timeout(self.pace.wait_s + 30, connect=5)
        async with httpx.AsyncClient(
            base_url=self.hub.address, headers=self._leave, verify=self._tls(), trust_env=False, timeout=patience
        ) as client:
            await self._again_and_again(lambda: self._heard(client))

    async def _heard(self, client: httpx.AsyncClient) -> None:
        if self._away or not self._effective:
            await asyncio.to_thread(self._register)
            self._beat_now.set()
        while True:
            revision = self.library.desired.revision if self.library.desired else 0
            params = {"revision": str(revision), "wait_s": f"{self.pace.wait_s:g}"}
            status, content = await asked(client, f"/v1/edges/{self.hub.name}/desired", params)
            self._away = ""
            if status == httpx.codes.OK:
                desired = desired_of(content)
                await asyncio.to_thread(self.take, desired)
                self._tries, self._no_room = {}, {}
                self._wake.set()
                if desired.revision == revision:  # it has not waited for a change
                    await asyncio.sleep(self.pace.first_pause_s)
            elif status != httpx.codes.NOT_MODIFIED:
                raise HubError(f"the hub answered {status}: {content[:300].decode(errors='replace')}")

    def take(self, desired: Desired) -> None:
        """Put the hub's word into effect. Raises HubError: it cannot be meant for this edge; nothing is changed."""
        if desired.edge != self.hub.name:
            raise HubError(f"the hub told edge {self.hub.name} what {desired.edge} shall hold; it is not followed")
        try:
            self.library.take(desired)
        except BundleError as error:
            raise HubError(f"the hub's word is not followed: {error}") from error

    def _register(self) -> None:
        h = self.hub
        form = EdgeForm(
            url=self.url, location=h.location, disk_bytes=self.library.keeping.disk_bytes, zone=h.zone, provider=h.provider
        )
        self._client.register_edge(h.name, form)

    # bringing it

    async def _work(self) -> None:
        waiting = True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pace.look_s):
                    await self._wake.wait()
            waiting = waiting or self._wake.is_set()
            self._wake.clear()
            try:
                await asyncio.to_thread(self.library.damaged)
                waiting = waiting and await asyncio.to_thread(self.library.settle)
                self._start_pulls(await asyncio.to_thread(self.library.lacking))
                self._stuck = ""
            except Exception as error:  # whatever it is: an agent that has died holds its edge at what it was for ever
                self._stuck = f"{error or type(error).__name__}"[:300]
                log.exception("the store cannot be brought up to date")

    def _start_pulls(self, lacking: list[Want]) -> None:
        now_s, state = time.monotonic(), self.library.desired
        wanted = {want.key for want in lacking}
        self._no_room = {key: why for key, why in self._no_room.items() if key in wanted}
        self._tries = {key: tries for key, tries in self._tries.items() if key in wanted}
        for want in sorted(lacking, key=lambda w: w.key not in self._asked):
            tries = self._tries.get(want.key)
            if len(self._pulls) >= self.pace.parallel:
                return
            if want.key not in self._pulls and (tries is None or now_s >= tries.due_s):
                self._pulls[want.key] = asyncio.create_task(self._pull(want))
        settled = not self._pulls and state is not None
        if settled and state is not None and self._effective != state.revision:
            self._effective = state.revision
            self._beat_now.set()

    async def _pull(self, want: Want) -> None:
        try:
            await asyncio.to_thread(self._bring, want, asked=want.key in self._asked)
        except WorkspaceError as error:  # no room in the budget, or on the disk
            self._no_room[want.key] = str(error)
            self._failed(want.key, "", self.pace.longest_pause_s)
            log.warning("%s", error)
        except CellwrightError as error:
            self._failed(want.key, str(error), 0.0)
            log.warning("%s was not fetched: %s", want.key, error)
        except Exception as error:  # as above
            self._failed(want.key, f"{error or type(error).__name__}", 0.0)
            log.exception("%s was not fetched", want.key)
        else:
            self._tries.pop(want.key, None)
            self._no_room.pop(want.key, None)
            self._beat_now.set()
        finally:
            self._asked.discard(want.key)
            self._pulls.pop(want.key, None)
            self._wake.set()

    def _failed(self, key: Key, why: str, least_s: float) -> None:
        tries = self._tries.setdefault(key, _Tries())
        tries.failures, tries.why, tries.failed_s = tries.failures + bool(why), why, time.monotonic()
        tries.due_s = time.monotonic() + max(least_s, self._pause_s(tries.failures))

    def _bring(self, want: Want, *, asked: bool) -> None:
        """In a thread: make room, pull, put on the shelf."""
        order = self.library.reserve(want, asked=asked)
        base = self._client.bundle_path(self.hub.name, want.key.tenant, want.key.model, want.key.version)
        try:
            with contextlib.closing(self._links.link()) as link:
                manifest = pull(Download(link), base, order)
            self.library.put(order, manifest)
        finally:
            self.library.release(want.key)

    # reporting

    async def _beats(self) -> None:
        await self._again_and_again(self._beat)

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pace.beat_s):
                    await self._beat_now.wait()
            self._beat_now.clear()
            if self._effective:
                await asyncio.to_thread(self._tell)

    def _tell(self) -> None:
        self._counts.update(self.library.uses.take_counts())
        counts, held = dict(self._counts), self.library.held()
        answer = self._client.heartbeat(
            self.hub.name,
            Heartbeat(
                revision=self._effective,
                time_s=time.time(),
                disk_free_bytes=max(0, self.library.free_bytes()),
                held=tuple(
                    Held(
                        tenant=k.tenant,
                        model=k.model,
                        version=k.version,
                        digest=h.digest,
                        bytes=h.bytes,
                        requests=counts.get(k, 0),
                    )
                    for k, h in sorted(held.items())[:10_000]
                ),
                problems=tuple(self.problems()),
                energy_j=None if self._power is None else self._power.energy_j(),
                energy_source=None if self._power is None else "modelled",
            ),
        )
        self._counts.subtract(counts)
        self._counts = +self._counts
        self._skew_s, self._away = answer.clock_skew_s, ""

    async def _reports(self) -> None:
        await self._again_and_again(self._forward)

    async def _forward(self) -> None:
        while True:
            await asyncio.to_thread(self.send_reports)
            await asyncio.sleep(self.pace.look_s)

    def send_reports(self) -> None:
        """Send what is in the outbox. Raises HubError while the hub is away."""
        while batch := self.outbox.oldest("fetch", MOST_REPORTS):
            reports = [FetchReport.model_validate_json(r.document) for r in batch]
            self._take_refusal(lambda reports=reports: self._client.report(reports))  # type: ignore[misc]
            self.outbox.sent(batch)
        while batch := self.outbox.oldest("qos", 100):
            for record in (QosRecord.model_validate_json(r.document) for r in batch):
                self._take_refusal(lambda record=record: self._client.record_qos(record))  # type: ignore[misc]
            self.outbox.sent(batch)

    def _take_refusal(self, send: Callable[[], object]) -> None:
        """A report that the hub will never take must not stand before all others."""
        try:
            send()
        except HubRefused as error:
            if getattr(error, "retry_after_s", None) is not None:
                raise
            log.warning("the hub refuses a report, which is dropped: %s", error)

    async def _look_up(self) -> None:
        if self._energy:
            self._power = await asyncio.to_thread(power.look_up)

    def edges(self) -> tuple[Edge, ...]:
        """All edges, as the hub last told; it is not asked for each device that comes. In a thread."""
        if time.monotonic() - self._neighbours_s < _NEIGHBOURS_S:
            return self.neighbours
        self._neighbours_s = time.monotonic()
        try:
            self.neighbours = self._client.edges()
        except HubError as error:
            log.info("the neighbours of before are used: %s", error)
        return self.neighbours

    # when the hub is away

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await work()
            except (httpx.HTTPError, HubError) as error:
                failures = 1 if time.monotonic() - started > self.pace.longest_pause_s else failures + 1
                if not self._away:
                    log.warning("the hub is away: %s", error or type(error).__name__)
                self._away = f"{error or type(error).__name__}"[:300]
            except Exception as error:  # as in _work
                failures += 1
                self._stuck = f"{error or type(error).__name__}"[:300]
                log.exception("the agent failed and goes on")
            await asyncio.sleep(self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        longest = min(self.pace.longest_pause_s, self.pace.first_pause_s * 2.0 ** min(failures, 16))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  (spreads load, keeps no secret)

    @property
    def _leave(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.hub.token}"}

    def _tls(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=str(self.hub.ca)) if self.hub.ca else self.hub.address.startswith("https:")
