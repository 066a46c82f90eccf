"""Service request management (M.3387 8.5): requests are classified, queued by priority with ageing, and share the nodes. Pure.

**Order.** A request is worth points (0..80, see `classify`), and gains AGEING points a second while it waits. Since all gain at
the same rate, who is ahead of whom never changes: the order is that of `submitted - points / AGEING`, and two requests cannot preempt each
other in turn.

**Bound.** Nobody who is submitted more than BOUND_S = 80 / AGEING seconds after a request goes ahead of it. A request that does not
fit beside those that run lets others pass that do (nodes are not left idle); once it has waited BOUND_S, nothing of what it could
use is given to others before it, and those behind it that run pause for it after their round. So it waits at most for BOUND_S, what
is ahead of it, and one round.

**Sharing.** Requests run side by side where their nodes have room for both. Preemption happens at round boundaries only: the
coordinator asks `should_preempt` between two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cellwright.federation.management.capacity import NOTHING, lacking, less, plus
from cellwright.federation.management.records import Capacity, ServiceRequest, Submitted

MOST_POINTS = 80.0
AGEING = 20 / 600  # points a second: a class in ten minutes
BOUND_S = MOST_POINTS / AGEING
_PRIORITY = {"high": 40.0, "medium": 20.0, "low": 0.0}
_DELAY = ((600.0, 20.0), (3600.0, 10.0))  # delay bound of at most so many seconds -> points
_CLASSES = ((60.0, "urgent"), (40.0, "high"), (20.0, "normal"), (0.0, "background"))

Nodes = tuple[str, ...]
Place = Callable[[Submitted, Mapping[str, Capacity]], Nodes | None]


@dataclass(frozen=True)
class Class:
    """What classification makes of a request."""

    name: str
    points: float  # 0..80
    level: int  # 0 is the most urgent class
    words: str


@dataclass(frozen=True)
class Start:
    """The next request that can run, and where."""

    id: str
    nodes: Nodes
    words: str


@dataclass(frozen=True)
class Preemption:
    """Why a request has to pause at this round boundary."""

    by: str  # id of the request that goes first
    words: str


def classify(request: ServiceRequest) -> Class:
    """Class of a request: 0, 20 or 40 points for its priority, 2 for each step of importance (0..10), 20 for a delay bound of at most
    10 minutes or 10 for one of at most an hour. From 60 points it is urgent, from 40 high, from 20 normal, below background."""
    bound = request.delay_bound_s
    hurry = next((points for most, points in _DELAY if bound is not None and bound <= most), 0.0)
    points = _PRIORITY[request.priority] + 2.0 * request.importance + hurry
    level, name = next((level, name) for level, (least, name) in enumerate(_CLASSES) if points >= least)
    due = f"model due within {bound:g} s" if bound is not None else "no delay bound"
    words = f"{name}: {request.priority} priority, importance {request.importance} of 10, {due} ({points:g} of {MOST_POINTS:g} points)"
    return Class(name, points, level, words)


@dataclass
class Running:
    """A request that runs, and what it has reserved."""

    submitted: Submitted
    nodes: Nodes


@dataclass
class Scheduler:
    """The queue. `place` says on which of the nodes a request can run with what they have free; None: it cannot now."""

    capacity: Mapping[str, Capacity]  # of each node, for the FMLMS's tasks
    place: Place
    waiting: dict[str, Submitted] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)

    def add(self, submitted: Submitted) -> None:
        """Queue a request, new or preempted; what it waited before counts."""
        self.waiting[submitted.id] = submitted

    def begin(self, submitted: Submitted, nodes: Nodes) -> None:
        """A request runs on these nodes from now on."""
        self.waiting.pop(submitted.id, None)
        self.running[submitted.id] = Running(submitted, nodes)

    def end(self, request: str) -> None:
        """A request has ended, or is out of the queue; what it had reserved is free."""
        self.waiting.pop(request, None)
        self.running.pop(request, None)

    def queue(self) -> tuple[Submitted, ...]:
        """Those that wait, in order, each with its position from 1."""
        ordered = sorted(self.waiting.values(), key=order)
        return tuple(s.model_copy(update={"position": position}) for position, s in enumerate(ordered, start=1))

    def next(self, now: datetime) -> Start | None:
        """The request to start now; None: none can. It is only found: `begin` starts it."""
        free = self._free()
        for submitted in self.queue():
            request = submitted.request
            if nodes := self._placed(submitted, free):
                waited_s = (now - submitted.submitted).total_seconds()
                return Start(
                    submitted.id, nodes, f"{classify(request).words}; waited {waited_s:.0f} s; runs on {len(nodes)} nodes"
                )
            if _starved(submitted, now) or self._victims(submitted, now):
                free = {name: left for name, left in free.items() if not _usable(name, self.capacity[name], request)}
        return None

    def should_preempt(self, running: str, round_: int, now: datetime) -> Preemption | None:
        """Whether a request that runs has to pause, now that round `round_` is done (from 1; before the first, it never has to).

        It has to for one that is ahead of it in the queue, of a more urgent class or waiting for BOUND_S already, if that cannot
        start as it is, and this one is among the last in order that have to give up what they hold for it.
        """
        for submitted in self.queue() if round_ >= 1 else ():
            if running in self._victims(submitted, now):
                words = f"after round {round_}, for a request that goes first ({classify(submitted.request).words})"
                return Preemption(submitted.id, words)
        return None

    def _victims(self, submitted: Submitted, now: datetime) -> tuple[str, ...]:
        """The fewest that must pause so that a request can start, last in order first; empty: none, or it would not help."""
        lower = sorted(
            (r.submitted for r in self.running.values() if _outranks(submitted, r.submitted, now)), key=order, reverse=True
        )
        for count in range(len(lower) + 1):
            paused = tuple(other.id for other in lower[:count])
            if self._placed(submitted, self._free(without=paused)):
                return paused
        return ()

    def _free(self, without: Iterable[str] = ()) -> dict[str, Capacity]:
        """What the nodes have left; those that an exclusive request holds are not among them."""
        left, gone = dict(self.capacity), set(without)
        for id_, running in self.running.items():
            for node in running.nodes if id_ not in gone else ():
                if running.submitted.request.exclusive:
                    left.pop(node, None)
                elif node in left:
                    left[node] = less(left[node], running.submitted.request.per_node)
        return left

    def _placed(self, submitted: Submitted, free: Mapping[str, Capacity]) -> Nodes | None:
        """Where it fits; an exclusive request only where nothing else runs."""
        if submitted.request.exclusive:
            free = {node: left for node, left in free.items() if left == self.capacity[node]}
        return self.place(submitted, free)


def order(submitted: Submitted) -> tuple[float, str]:
    """Place in the queue, smallest first; the same at any time (see the module)."""
    return submitted.submitted.timestamp() - classify(submitted.request).points / AGEING, submitted.id


def fitting(submitted: Submitted, free: Mapping[str, Capacity]) -> Nodes | None:
    """A `Place` by resources alone: all nodes with enough free, or those asked for by name; None: fewer than the request needs."""
    request = submitted.request
    fit = tuple(name for name, left in sorted(free.items()) if _usable(name, left, request))
    if request.owners and len(fit) < len(request.owners):
        return None
    return fit if len(fit) >= request.least_owners else None


def reserved(running: Iterable[Running]) -> dict[str, Capacity]:
    """What requests that run have reserved, by node."""
    total: dict[str, Capacity] = {}
    for one in running:
        for node in one.nodes:
            total[node] = plus(total.get(node, NOTHING), one.submitted.request.per_node)
    return total


def _starved(submitted: Submitted, now: datetime) -> bool:
    return (now - submitted.submitted).total_seconds() >= BOUND_S


def _outranks(first: Submitted, second: Submitted, now: datetime) -> bool:
    """Whether a request that waits may stop one that runs."""
    if order(first) >= order(second):
        return False
    return _starved(first, now) or classify(first.request).level < classify(second.request).level


def _usable(name: str, left: Capacity, request: ServiceRequest) -> bool:
    return (not request.owners or name in request.owners) and not lacking(left, request.per_node)
