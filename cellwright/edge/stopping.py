"""Links that break off when they are told to, so that threads in the middle of a download end soon."""

from __future__ import annotations

import ssl
import threading
import weakref
from collections.abc import Mapping

from cellwright.edge.wire import Broken, Link, Refusal


class Links:
    """All links to one server that are open at the moment."""

    def __init__(self, url: str, headers: Mapping[str, str], tls: ssl.SSLContext | bool) -> None:
        self._url, self._headers, self._tls = url, headers, tls
        self._open: weakref.WeakSet[Link] = weakref.WeakSet()
        self.stopped = threading.Event()

    def link(self) -> Link:
        """One more, for one thread, to be closed by it."""
        made = _Stoppable(self._url, headers=self._headers, tls=self._tls)
        made.links = self
        self._open.add(made)
        return made

    def stop(self) -> None:
        """Break all of them off, for good."""
        self.stopped.set()
        for link in tuple(self._open):
            link.abort()


class _Stoppable(Link):
    links: Links

    def recovers(self, error: Broken | Refusal, failures: int) -> bool:
        """Never, once it was stopped."""
        return not self.links.stopped.is_set() and super().recovers(error, failures)

    def another(self) -> Link:
        """One that is stopped with this one."""
        return self.links.link()
