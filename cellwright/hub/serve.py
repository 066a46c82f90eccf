"""Run the hub's API: until a signal ends it, or in a thread beside other work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cellwright.errors import HubError
from cellwright.hub.api import create_app
from cellwright.hub.retention import housekeeping
from cellwright.hub.service import Hub
from cellwright.web import running
from cellwright.web.running import Listening


def serve(hub: Hub, where: Listening, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Answer until SIGINT or SIGTERM; `on_ready` is given the URL once the port is open. Raises WrongUse, HubError."""
    with housekeeping(hub):
        running.serve(_service(hub), where, on_ready=on_ready)


@contextmanager
def in_thread(hub: Hub, where: Listening | None = None) -> Iterator[str]:
    """Answer in a thread while the block runs; yields the URL. Raises WrongUse, HubError."""
    with housekeeping(hub), running.in_thread(_service(hub), where or Listening()) as url:
        yield url


def _service(hub: Hub) -> running.Service:
    return running.Service(create_app(hub), "the hub", HubError, on_stop=hub.bell.release)
