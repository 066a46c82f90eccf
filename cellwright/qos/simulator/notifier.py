"""Delivers events to sinks: CloudEvents with the sink's own token, repeated with growing pauses until they arrive."""

from __future__ import annotations

import asyncio
import logging
import ssl
from uuid import uuid4

import aiohttp

from cellwright.qos.forms import CloudEvent
from cellwright.qos.simulator.camara import QOD
from cellwright.qos.simulator.clock import Clock, moment
from cellwright.qos.simulator.sessions import Notice

log = logging.getLogger(__name__)
_TIMEOUT_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, _TOGETHER = 5.0, 0.1, 5.0, 64
_GONE = 410


class Notifier:
    """Events of one session arrive in order; those of different sessions do not wait for each other."""

    def __init__(self, clock: Clock, tls: ssl.SSLContext | None, attempts: int) -> None:
        self._clock, self._attempts = clock, attempts
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), connector=aiohttp.TCPConnector(limit=_TOGETHER, ssl=tls or True)
        )
        self._last: dict[str, asyncio.Task[None]] = {}
        self.delivered, self.undelivered = 0, 0

    def send(self, notice: Notice, url: str) -> None:
        """Deliver in the background. `url`: of the network, the event's source."""
        key = str(notice.held.id)
        task = asyncio.create_task(self._after(self._last.get(key), notice, url))
        self._last[key] = task
        task.add_done_callback(lambda done: self._last.pop(key) if self._last.get(key) is done else None)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in (tasks := list(self._last.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()

    async def _after(self, before: asyncio.Task[None] | None, notice: Notice, url: str) -> None:
        if before is not None:
            await asyncio.wait([before])
        event = CloudEvent(
            id=str(uuid4()), source=f"{url}{QOD}/sessions/{notice.held.id}", time=moment(notice.at_s), data=notice.data
        )
        for failures in range(self._attempts):
            if await self._deliver(notice, event):
                return
            await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures))
        self.undelivered += 1
        log.warning("an event of QoS session %s could not be delivered", notice.held.id)

    async def _deliver(self, notice: Notice, event: CloudEvent) -> bool:
        """Whether there is nothing more to do: it arrived, its token has expired, or the sink is gone for good."""
        asked = notice.held.asked
        headers = {"Content-Type": "application/cloudevents+json", "x-correlator": str(uuid4())}
        if credential := asked.sink_credential:
            if credential.access_token_expires_utc.timestamp() <= self._clock.now_s():
                self.undelivered += 1
                return True
            headers["Authorization"] = f"Bearer {credential.access_token}"
        try:
            async with self._http.post(asked.sink or "", json=event.wire(), headers=headers, allow_redirects=False) as answer:
                self.delivered += answer.ok
                return answer.ok or answer.status == _GONE
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            log.info("sink %s: %s", asked.sink, error)
            return False
