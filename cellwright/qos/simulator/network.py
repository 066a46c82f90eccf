"""A simulated network: the three APIs, /simulator/…, events and shaped traffic, in one event loop.

async with Network(options) as network:      # or: with in_thread(Network(options)) as network:
    network.url, network.control_token, network.token(client="edge")
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Self

from aiohttp import web

from cellwright.errors import QosError, WrongUse
from cellwright.qos.forms import Device
from cellwright.qos.simulator import answers
from cellwright.qos.simulator.access import CONTROL, SCOPES, Access, Grant
from cellwright.qos.simulator.bodies import MOST_BYTES
from cellwright.qos.simulator.camara import Camara
from cellwright.qos.simulator.clock import Clock
from cellwright.qos.simulator.control import Control
from cellwright.qos.simulator.notifier import Notifier
from cellwright.qos.simulator.options import NetworkOptions, Terminal
from cellwright.qos.simulator.rates import NetworkRules
from cellwright.qos.simulator.sessions import Sessions
from cellwright.qos.simulator.shaper import Shaper
from cellwright.qos.simulator.terrain import Terrain
from cellwright.web import standing

log = logging.getLogger(__name__)
DEFAULT_PORT = 9091  # the standard's example
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Network:
    """One network. Its parts are public: a test may look at them."""

    def __init__(
        self,
        options: NetworkOptions | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        control_token: str | None = None,
        sink_tls: ssl.SSLContext | None = None,
        seed: int = 0,
    ) -> None:
        """Port 0 takes any free one. `sink_tls`: whom to trust where a sink's certificate is not a public one.

        Raises:
            WrongUse: an address that others can reach: tokens would cross the network in the open.
        """
        if host not in _LOOPBACK:
            raise WrongUse(f"the simulator serves this machine only; listen on 127.0.0.1 instead of {host}")
        self.options = options or NetworkOptions()
        self.host, self.port, self.clock = host, port, clock or Clock()
        self.terrain = Terrain(self.options)
        profiles = {profile.name: profile for profile in self.options.profiles}
        self.sessions = Sessions(self.terrain, profiles, self.options.behaviour)
        self.access, self.faults = Access(), answers.Faults()
        self.counts: Counter[tuple[str, int]] = Counter()  # answers, by operation and status
        self.control_token = self.access.new(Grant("operator", frozenset({CONTROL})), control_token)
        self.rules = NetworkRules(self.terrain, self.sessions, self.clock)
        self.shaper = Shaper(self.rules, seed=seed)
        self._sink_tls = sink_tls
        self._runner: web.AppRunner | None = None
        self._wake: asyncio.Event | None = None
        self._timer: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Root of all APIs."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def token(self, client: str = "client", *, device: str | None = None, scopes: frozenset[str] = SCOPES) -> str:
        """A new token of an API consumer; with `device`, a three-legged one."""
        return self.access.new(Grant(client, scopes, device))

    def stranger(self, identifier: Device) -> Terminal | None:
        """A device that nobody has put anywhere, if such are admitted."""
        if self.sessions.behaviour.strangers == "refuse":
            return None
        made = Terminal(name=f"stranger-{secrets.token_hex(8)}", identifiers=identifier)
        self.terrain.put(made)
        return made

    def changed(self) -> None:
        """Send what is to be sent, and look anew at what is next. In the event loop only."""
        self.rules.version = self.sessions.version
        for notice in self.sessions.outbox:
            self._notifier.send(notice, self.url)
        self.sessions.outbox.clear()
        if self._wake:
            self._wake.set()

    async def __aenter__(self) -> Self:
        self._wake = asyncio.Event()
        self._notifier = Notifier(self.clock, self._sink_tls, self.options.behaviour.delivery_attempts)
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port, backlog=512).start()
        except OSError as error:
            await self.__aexit__()
            taken = "the port is taken; stop what uses it, or choose another with --port"
            why = taken if error.errno == errno.EADDRINUSE else error.strerror
            raise QosError(f"cannot listen on {self.host}:{self.port}: {why}") from error
        self.port = int(self._runner.addresses[0][1])
        self._timer = asyncio.create_task(self._follow_time(self._wake))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timer
        await self.shaper.close()
        await self._notifier.close()
        if self._runner:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[answers.middleware(self.faults, self.counts)], client_max_size=MOST_BYTES)
        Camara(self).add_to(app)
        Control(self).add_to(app)
        return app

    async def _follow_time(self, wake: asyncio.Event) -> None:
        """What happens by itself happens when it is due, not when somebody asks."""
        while True:
            self.sessions.tick(self.clock.now_s())
            self.changed()
            wake.clear()
            due_s = self.sessions.next_due_s()
            waits: list[asyncio.Task[Any]] = [asyncio.create_task(wake.wait())]
            if due_s is not None:
                waits.append(asyncio.create_task(self.clock.sleep_until(due_s)))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)


def in_thread(network: Network) -> AbstractContextManager[Network]:
    """Run a network in a thread of its own while the block runs.

    Raises:
        QosError: the port is taken.
    """
    return standing.in_thread(network, "network")


def serve(network: Network, on_ready: Callable[[Network], None] | None = None) -> None:
    """Run a network until SIGINT or SIGTERM. Raises QosError: the port is taken."""
    standing.run(standing.until_signal(network, on_ready))
