"""Several edges that have the same files, as one: a download goes on at the next one where the one before left off.

Blobs are named by their hash, so the byte at an offset is the same everywhere. A connection that cannot be made, or breaks twice in a
row, leads to the next edge; a grant that has expired is renewed; a device that moves says so by `move`. An edge whose bytes were wrong
is not asked again; where several edges gave parts of what was wrong, nobody can tell which lied, and all of it is asked for once more.
"""

from __future__ import annotations

import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cellwright.edge.wire import ATTEMPTS, BUSY, Answer, Broken, Link, Nonsense, Refusal
from cellwright.errors import BundleError, EdgeError, HubError

Renew = Callable[[], str]  # a new grant; raises HubError
_NO_LEAVE = frozenset({401, 403})
_AT_ONE_PLACE = 2  # failures in a row before the next edge is asked


@dataclass(frozen=True)
class Stop:
    """An edge on the way. `name`: the hub's; `zone`: the network's id of where it stands."""

    url: str
    name: str = ""
    zone: str | None = None

    @property
    def title(self) -> str:
        """For people."""
        return self.name or self.url


@dataclass(frozen=True)
class Distrusted:
    """An edge that gave something else than what was signed. `why`: what was wrong."""

    stop: Stop
    why: str

    def __str__(self) -> str:
        return f"{self.stop.title}: {self.why}"


class Route:
    """A transport over several edges, the best one first. For one thread, except `move`."""

    def __init__(
        self,
        stops: Sequence[Stop],
        *,
        tls: ssl.SSLContext | bool = True,
        grant: str | None = None,
        renew: Renew | None = None,
        on_arrival: Callable[[Stop], None] | None = None,
    ) -> None:
        """`on_arrival`: called before an edge is asked for the first time, and after each move.

        Raises:
            EdgeError: there is no edge.
        """
        if not stops:
            raise EdgeError("no edge holds this model, or none that can be reached from here; ask the hub's operator to place it")
        self.stops, self._at = tuple(stops), 0
        self.used: list[Stop] = []  # those that sent something, in order
        self.distrusted: list[Distrusted] = []  # not asked again in this fetch
        self.notes: list[str] = []
        self._gave: list[Stop] = []  # something, since `begin`
        self._mixed = 0  # times that what several gave together was wrong
        self.grant, self._renew, self._renewed = grant, renew, False
        self._tls, self._on_arrival = tls, on_arrival
        self._link: Link | None = None
        self._others: weakref.WeakSet[Link] = weakref.WeakSet()
        self._moving: tuple[Stop, ...] | None = None
        self._lock = threading.Lock()

    @property
    def stop(self) -> Stop:
        """The edge that is asked at the moment."""
        return self.stops[self._at]

    @property
    def url(self) -> str:
        """Of the edge that is asked at the moment."""
        return self.stop.url

    @property
    def ttfb_s(self) -> float:
        """Of the connection of the moment."""
        return self._link.ttfb_s if self._link else 0.0

    @property
    def attempts(self) -> int:
        """As many as for one, at each."""
        return ATTEMPTS * len(self.stops)

    @property
    def headers(self) -> dict[str, str]:
        """What shows the leave to ask."""
        return {"Authorization": f"Bearer {self.grant}"} if self.grant else {}

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Ask the edge of the moment."""
        self._take_move()
        with self._opened().get(path, headers) as answer:
            if 200 <= answer.status < 300:
                self._renewed = False
                self._gives()
            yield answer

    def begin(self) -> None:
        """What comes from here on is judged together."""
        self._gave = []

    def distrust(self, error: BundleError | Nonsense, *, leftover: bool = False) -> bool:
        """Ask the edge that gave it no more; where others had a part in it, begin it anew where the route is. False: nobody is left."""
        if leftover or len(set(self._gave)) > 1:
            self._mixed += 1
            sources = [*(["an earlier fetch"] if leftover else []), *(stop.title for stop in dict.fromkeys(self._gave))]
            self.notes.append(f"what {' and '.join(sources)} gave together was wrong, and is asked for anew: {error}"[:500])
            return self._mixed <= len(self.stops)
        stop = self._gave[-1] if self._gave else self.stop
        self.distrusted.append(Distrusted(stop, str(error)[:300]))
        self.notes.append(f"{stop.title} gave wrong bytes and is not asked again: {error}"[:500])
        return self._without_distrusted()

    def move(self, stops: Sequence[Stop]) -> None:
        """From another thread: these are the best edges now. The transfer that runs goes on at the first of them."""
        with self._lock:
            if not stops or stops[0] == self.stop:
                return
            self._moving = tuple(stops)
            links = (self._link, *self._others)
        for link in links:
            if link is not None:
                link.abort()

    def recovers(self, error: Broken | Refusal, failures: int) -> bool:
        """Renew the grant, stay and try again, or go on to the next edge; False: nothing of it helps."""
        if self._take_move():
            return True
        if isinstance(error, Refusal) and error.status in _NO_LEAVE and self._renewal():
            return True
        stays = error.status in BUSY if isinstance(error, Refusal) else error.connected
        if stays and (failures < _AT_ONE_PLACE or len(self.stops) == 1):
            return True
        if len(self.stops) == 1:
            return isinstance(error, Broken) and bool(self.used)
        self.notes.append(f"went on from {self.stop.title}: {error}"[:500])
        self._go_to((self._at + 1) % len(self.stops))
        return True

    def another(self) -> Link:
        """A second connection to the edge of the moment."""
        self._opened()
        self._gives()
        made = Link(self.url, headers=self.headers, tls=self._tls)
        with self._lock:
            self._others.add(made)
        return made

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _opened(self) -> Link:
        if self._link is None:
            if self._on_arrival is not None:
                self._on_arrival(self.stop)
            self._link = Link(self.url, headers=self.headers, tls=self._tls)
        return self._link

    def _gives(self) -> None:
        self._gave.append(self.stop)
        if not self.used or self.used[-1] != self.stop:
            self.used.append(self.stop)

    def _without_distrusted(self) -> bool:
        """Go on without the edges that are not believed; False: there is no other."""
        bad = {found.stop for found in self.distrusted}
        later = [*self.stops[self._at :], *self.stops[: self._at]]  # the next one first
        good = tuple(stop for stop in later if stop not in bad)
        if not good:
            return False
        with self._lock:
            moves = good[0] != self.stop
            self._at, self.stops = 0, good
        if moves:
            self.close()
        return True

    def _go_to(self, at: int) -> None:
        self.close()
        self._at = at

    def _take_move(self) -> bool:
        with self._lock:
            bad = {found.stop for found in self.distrusted}
            stops, self._moving = tuple(stop for stop in self._moving or () if stop not in bad), None
            if not stops or stops[0] == self.stop:
                return False
            self.notes.append(f"moved from {self.stop.title} to {stops[0].title}")
            self.stops = stops
            self._go_to(0)
            return True

    def _renewal(self) -> bool:
        """Once for every time that something was had: a grant that is refused when it is new will not be taken later either."""
        if self._renew is None or self._renewed:
            return False
        self._renewed = True
        try:
            self.grant = self._renew()
        except HubError as error:
            self.notes.append(f"the grant could not be renewed: {error}"[:500])
            return False
        self.notes.append("the grant was renewed")
        if self._link is not None:
            self._link.headers.update(self.headers)
        return True
