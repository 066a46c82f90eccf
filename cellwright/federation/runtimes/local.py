"""The local runtime: a Flower Grid in this process. The same ClientApp as on real SuperNodes answers, one message after the other.

Time is virtual: a message takes its way there, the node's steps and the way back, and its reply can be seen from that moment on;
waiting moves the clock. Nothing sleeps, so hours of federation pass in seconds, and a seed gives one course of events.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from cellwright.errors import FederationError, UnknownName
from cellwright.federation.contract import Node, NodeState
from cellwright.federation.management.records import Link
from cellwright.federation.runtimes import wire
from cellwright.federation.runtimes.apps import client_app
from cellwright.federation.runtimes.channel import HELLO, LEFT, FlowerChannel, message_type
from cellwright.federation.runtimes.memory import ContextMemory

RUN_ID, COORDINATOR_ID = 1, 1
log = logging.getLogger(__name__)


@dataclass
class _Peer:
    """One node, as the Grid sees it."""

    name: str
    context: Any
    seconds_per_step: float = 0.0
    link: Link | None = None
    gone_at: float = math.inf
    free_at: float = 0.0  # when it has done what it was asked before

    def up(self, now: float) -> bool:
        return now < self.gone_at and (self.link is None or self.link.up)

    def transfer_s(self, bytes_: int) -> float:
        """Seconds on its link, one way; what is lost is sent again, so 1 of 1 / (1 - loss) packets counts."""
        if self.link is None:
            return 0.0
        line_s = bytes_ * 8 / self.link.bandwidth_bps if self.link.bandwidth_bps else 0.0
        return self.link.delay_ms / 1000 + (line_s / (1 - self.link.loss) if self.link.loss < 1 else math.inf)


class VirtualClock:
    """Time that passes only when someone waits for a Grid's letters."""

    def __init__(self, arrivals: Mapping[str, tuple[float, Any]]) -> None:
        self._now, self._arrivals = 0.0, arrivals

    def now(self) -> float:
        """Seconds since the Grid was made."""
        return self._now

    def wait(self, until: float, tickets: Sequence[str], least: int) -> bool:
        """Go to the moment at which `least` of the tickets have been answered, or to `until`; see `channel.Clock`."""
        if least < 1:
            return False
        coming = sorted(self._arrivals[t][0] for t in tickets if t in self._arrivals)
        enough = coming[least - 1] if least <= len(coming) else math.inf
        target = min(enough, until)
        if math.isinf(target):  # fewer will ever come: go as far as any does
            target = coming[-1] if coming else self._now
        moved, self._now = target > self._now, max(self._now, target)
        return moved


class ProcessClock:
    """Real time: a letter is answered while it is posted, so there is nothing to wait for."""

    def now(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    def wait(self, until: float, tickets: Sequence[str], least: int) -> bool:
        """Nothing comes later than at once."""
        return False


class LocalGrid(Grid):
    """Flower's Grid over nodes of this process; they share no memory that can be changed with whoever sends."""

    def __init__(
        self,
        app: Any,
        names: Iterable[str],
        *,
        speeds: Mapping[str, float] | None = None,
        links: Mapping[str, Link] | None = None,
        clock: Literal["simulated", "wall"] = "simulated",
        clocks: Mapping[str, Callable[[], float]] | None = None,
    ) -> None:
        """Nodes `names`, each answered for by `app`; `speeds`: seconds a training step, `links`: to their coordinator, `clocks`: of
        nodes that coordinate others in a time of their own."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = (
            1,
            RUN_ID,
            COORDINATOR_ID,
        )  # whom Flower's Messages are from
        self._app, self._run, self._clocks = app, Run.create_empty(RUN_ID), dict(clocks or {})
        self._letters: dict[str, tuple[float, Any]] = {}  # by ticket: when the reply can be seen, the reply
        self._arrived: dict[str, float] = {}  # by ticket, of replies that were pulled
        self._simulated = clock == "simulated"
        self.clock = VirtualClock(self._letters) if self._simulated else ProcessClock()
        self._tickets = itertools.count(1)
        self._peers = {
            number: _Peer(name, _context(number, name), (speeds or {}).get(name, 0.0), (links or {}).get(name))
            for number, name in enumerate(sorted(names), start=COORDINATOR_ID + 1)
        }
        self._numbers = {peer.name: number for number, peer in self._peers.items()}

    def set_run(self, run: Any) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Any:
        """The run that messages belong to."""
        return self._run

    def create_message(self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None) -> Any:
        """A new message, not sent yet."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Numbers of the nodes that are there now."""
        now = self.clock.now()
        return [number for number, peer in self._peers.items() if peer.up(now)]

    def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
        """Have each message answered by its node; the reply can be pulled when it has come."""
        tickets, began = [], self.clock.now()
        for message in messages:
            ticket = f"local-{next(self._tickets)}"
            message.metadata.__dict__["_message_id"] = ticket  # as Flower's own Grids set it
            self._post(ticket, message, began)
            tickets.append(ticket)
        return tickets

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
        """The replies among these that have come; each is given once."""
        now = self.clock.now()
        come = {t: self._letters.pop(t) for t in list(message_ids) if t in self._letters and self._letters[t][0] <= now}
        self._arrived |= {ticket: at for ticket, (at, _) in come.items()}
        return [reply for _, reply in come.values()]

    def arrived(self, ticket: str) -> float:
        """When a reply that was pulled had come, which may be long before; asked once."""
        return self._arrived.pop(ticket, self.clock.now())

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> Iterable[Any]:
        """Push messages and wait for their replies, `timeout` seconds at most."""
        tickets = list(self.push_messages(messages))
        end = math.inf if timeout is None else self.clock.now() + timeout
        self.clock.wait(end, tickets, len(tickets))  # no tickets: nothing to wait for
        return self.pull_messages(tickets)

    def fail(self, node: str, after_s: float = 0.0) -> None:
        """The node vanishes `after_s` from now: what it has not sent back by then never comes.

        Raises:
            UnknownName: there is no such node.
        """
        number = self._number(node)
        gone_at = self._peers[number].gone_at = self.clock.now() + after_s
        lost = [t for t, (at, reply) in self._letters.items() if reply.metadata.src_node_id == number and at > gone_at]
        for ticket in lost:
            del self._letters[ticket]

    def recover(self, node: str) -> None:
        """The node is there again, with what it remembered."""
        self._peers[self._number(node)].gone_at = math.inf

    def set_link(self, node: str, link: Link) -> None:
        """The node's link changes; `link.up = False` cuts it off."""
        self._peers[self._number(node)].link = link

    def set_speed(self, node: str, seconds_per_step: float) -> None:
        """The node becomes faster or slower."""
        self._peers[self._number(node)].seconds_per_step = seconds_per_step

    def states(self, nodes: Iterable[str] | None = None) -> dict[str, NodeState]:
        """What each node, or each of these, remembers, by name; those that remember nothing are left out."""
        peers = self._peers.values() if nodes is None else [self._peers[self._number(name)] for name in nodes]
        states = {peer.name: ContextMemory().load(peer.context) for peer in peers}
        return {name: state for name, state in states.items() if state.arrays or state.blobs}

    def restore(self, states: Mapping[str, NodeState]) -> None:
        """Every node remembers what `states` says, and nothing else.

        Raises:
            UnknownName: a state of a node that is not here.
        """
        for name in states:
            self._number(name)
        for peer in self._peers.values():
            ContextMemory().save(peer.context, states.get(peer.name, NodeState()))

    def _number(self, node: str) -> int:
        if node not in self._numbers:
            raise UnknownName("node", node, self._numbers)
        return self._numbers[node]

    def _post(self, ticket: str, message: Any, began: float) -> None:
        """Answer one message and put the reply where it can be seen from its arrival on; the nodes of this process take turns, but in
        real time each is said to have taken its own, from `began` on."""
        peer, now = self._peers[message.metadata.dst_node_id], self.clock.now()
        if not peer.up(now):
            self._letters[ticket] = now, Message(Error(ErrorCode.NODE_UNAVAILABLE, LEFT), reply_to=message)
            return
        content, message.content = message.content, wire.copied(message.content)
        own = self._clocks.get(peer.name, float)  # without a clock of its own: 0.0
        before = own()
        reply = self._answered(message, peer)
        hello = message.metadata.message_type == message_type(HELLO)
        at = self._arrival(peer, content, reply, now, hello=hello, below_s=own() - before)
        if not self._simulated:
            at = began + self.clock.now() - now
        if at <= peer.gone_at and not math.isinf(at):
            self._letters[ticket] = at, reply

    def _answered(self, message: Any, peer: _Peer) -> Any:
        """What the node's app says; as on a SuperNode, an exception in it is an error reply."""
        try:
            return self._app(message, peer.context)
        except Exception as error:
            log.exception("node %s could not answer a '%s' message", peer.name, message.metadata.message_type)
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)

    def _arrival(self, peer: _Peer, asked: Any, reply: Any, now: float, *, hello: bool, below_s: float) -> float:
        """When a reply comes: the way there, what the node is busy with, its steps or what went by at nodes below it, the way back.
        Names are asked before time runs."""
        if hello or not self._simulated:
            return now
        there = now + peer.transfer_s(wire.size(asked) if peer.link else 0)
        back_bytes = wire.size(reply.content) if peer.link and reply.has_content() else 0
        peer.free_at = max(there, peer.free_at) + _steps(reply) * peer.seconds_per_step + below_s
        return peer.free_at + peer.transfer_s(back_bytes)


def _steps(reply: Any) -> int:
    """Training steps that a reply reports."""
    if reply.metadata.message_type != "train" or not reply.has_content():
        return 0
    steps = reply.content.get(wire.VALUES, {}).get("steps", 0)
    return steps if isinstance(steps, int) and steps > 0 else 0


def _context(number: int, name: str) -> Any:
    return Context(RUN_ID, number, {"name": name}, RecordDict(), {})


def open_channel(
    nodes: Mapping[str, Node],
    *,
    speeds: Mapping[str, float] | None = None,
    links: Mapping[str, Link] | None = None,
    clock: Literal["simulated", "wall"] = "simulated",
    clocks: Mapping[str, Callable[[], float]] | None = None,
) -> FlowerChannel:
    """A channel to nodes of this process, by name; `channel.grid` makes them fail, recover and change their pace.

    Args:
        nodes: who answers, by name.
        speeds: seconds a training step takes each; 0 where nothing is said.
        links: each node's link to its coordinator; none: a message takes no time.
        clock: "simulated": time is virtual; "wall": real, and speeds and links mean nothing.
        clocks: of nodes that coordinate others, the `now` of their own channel: what goes by there is time that they take here.

    Raises:
        FederationError: a node goes by another name than it is given here.
    """
    by_name = dict(nodes)
    for name, node in by_name.items():
        if node.name != name:
            raise FederationError(f"the node given as '{name}' calls itself '{node.name}'; give each under its own name")
    app = client_app(lambda context: by_name[str(context.node_config["name"])])
    return FlowerChannel(LocalGrid(app, by_name, speeds=speeds, links=links, clock=clock, clocks=clocks))
