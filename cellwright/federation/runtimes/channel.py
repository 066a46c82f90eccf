"""How a coordinator reaches its nodes, over any Flower Grid: the one of this process, or the SuperLink's.

Nodes go by name here and by number in Flower; each is asked its name once ("query.hello"). Kinds "train" and "evaluate" are Flower's own
message types, every other kind travels as "query.<kind>". Where the owners' public keys are known, a node is believed its name only with
a signature over a challenge that was made for this greeting: one that claims another's name is turned away, and the rest go on.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import Message

from cellwright.errors import FederationError, Refused
from cellwright.federation.audit.signing import vouches
from cellwright.federation.contract import NodeState, Parcel, Reply
from cellwright.federation.runtimes import wire

HELLO = "hello"
OWN_TYPES = ("train", "evaluate")
LEFT = "the node is not connected"
UNREAD = "its reply was refused: "
CHALLENGE, VOUCHED = "challenge", "vouched"  # values of "hello" and of its answer
_LONGEST_REASON = 2000
_LONGEST_NAME = 200

log = logging.getLogger(__name__)


class Clock(Protocol):
    """Where a channel's time comes from."""

    def now(self) -> float: ...

    def wait(self, until: float, tickets: Sequence[str], least: int) -> bool:
        """Let time pass until `least` of the tickets may have been answered, at most until `until`; False: no use in waiting."""
        ...


class WallClock:
    """Real time; a Grid that cannot say when something comes is asked again every `poll_s`."""

    def __init__(self, poll_s: float = 0.2) -> None:
        self._poll_s = poll_s

    def now(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    def wait(self, until: float, tickets: Sequence[str], least: int) -> bool:
        """Sleep until it is worth asking again."""
        time.sleep(max(0.0, min(self._poll_s, until - self.now())))
        return True


@dataclass(frozen=True)
class TurnedAway:
    """A node that was not let in."""

    node: str  # what it is known as: by its admission, or else by its number
    why: str

    @property
    def words(self) -> str:
        """As a sentence."""
        return f"{self.node} was turned away: {self.why}"


@dataclass(frozen=True)
class _Greeting:
    node_id: int
    challenge: str
    at: float


@dataclass(frozen=True)
class _Sent:
    node: str
    at: float
    sent_bytes: int


def message_type(kind: str) -> str:
    """Flower's message type of a kind of parcel.

    Raises:
        FederationError: the kind cannot be one.
    """
    if kind in OWN_TYPES:
        return kind
    if not kind.isidentifier():
        raise FederationError(f"a kind of message must be an identifier, such as 'deploy', found '{kind}'")
    return f"query.{kind}"


def kind_of(type_: str) -> str:
    """The kind of parcel of a Flower message type."""
    return type_.removeprefix("query.")


class FlowerChannel:
    """A `contract.Channel` over a Flower Grid."""

    def __init__(self, grid: Any, clock: Clock | None = None, *, hello_s: float = 60.0) -> None:
        self._grid, self._hello_s = grid, hello_s
        self._vouched: dict[str, str] = {}  # public keys by name
        self._admitted: dict[int, str] = {}  # names by number
        self._on_turned_away: Callable[[TurnedAway], None] = lambda _: None
        self._turned_away = set[int]()  # as long as they are connected
        self._untold: list[TurnedAway] = []
        self._asked: dict[str, _Greeting] = {}  # by ticket
        self._silent = set[int]()  # did not answer a greeting in time
        self._clock: Clock = clock or getattr(grid, "clock", None) or WallClock()
        self._names: dict[int, str] = {}
        self._keys: dict[str, str] = {}
        self._sent: dict[str, _Sent] = {}
        self._errors: dict[str, str] = {}  # by ticket: those that could not be sent
        self._numbers = itertools.count()

    @property
    def grid(self) -> Any:
        """Flower's Grid below it."""
        return self._grid

    def now(self) -> float:
        """Seconds on the channel's clock."""
        return self._clock.now()

    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that can be reached now, sorted. New ones are asked their name first; who claims another's is none of them."""
        ids = list(self._grid.get_node_ids())
        self._turned_away &= set(ids)
        if any(node_id not in self._names and node_id not in self._turned_away for node_id in ids):
            self._greet(ids)
        return tuple(sorted(self._names[node_id] for node_id in ids if node_id in self._names))

    def guard(
        self,
        keys: Mapping[str, str] | None,
        on_turned_away: Callable[[TurnedAway], None],
        *,
        admitted: Mapping[str, int],
        hello_s: float | None = None,
    ) -> None:
        """Believe names only of nodes that can show that they are theirs, and say who was turned away.

        Args:
            keys: public keys (Ed25519, hex) by name; None: whoever comes first with a name has it.
            admitted: numbers of nodes by the name that they were admitted under, as far as they are known.
            hello_s: longest a node that was not met before is waited for; None: as it was.
        """
        self._hello_s = hello_s or self._hello_s
        self._vouched, self._on_turned_away = dict(keys or {}), on_turned_away
        self._admitted = {number: name for name, number in admitted.items()}

    def turned_away(self) -> tuple[str, ...]:
        """Who was turned away since this was asked last, in sentences."""
        told, self._untold = tuple(found.words for found in self._untold), []
        return told

    def public_keys(self) -> dict[str, str]:
        """What the nodes say their public keys are (Ed25519, hex), by name; "" where one signs nothing."""
        self.nodes()
        return dict(self._keys)

    def send(self, kind: str, parcels: Mapping[str, Parcel]) -> dict[str, str]:
        """Send one parcel to each node named; returns a ticket a node. See `contract.Channel.send`."""
        type_, packer = message_type(kind), wire.Packer()
        reached = set(self.nodes())
        ids = {name: node_id for node_id, name in self._names.items() if name in reached}
        here = [name for name in sorted(parcels) if name in ids]
        packed = {id(parcel): packer.pack(parcel) for parcel in {id(parcels[n]): parcels[n] for n in here}.values()}
        sizes = {number: wire.size(records) for number, records in packed.items()}  # most often one goes to many
        messages = [Message(packed[id(parcels[n])], dst_node_id=ids[n], message_type=type_) for n in here]
        at = self.now()
        tickets = {name: ticket for name, ticket in zip(here, self._push(messages), strict=True) if ticket}
        self._sent |= {ticket: _Sent(name, at, sizes[id(parcels[name])]) for name, ticket in tickets.items()}
        return {name: tickets.get(name) or self._failed(name, LEFT) for name in sorted(parcels)}

    def receive(self, tickets: Mapping[str, str], *, until: float, least: int | None = None) -> dict[str, Reply]:
        """Replies that have come by `until`, by node, sorted. See `contract.Channel.receive`."""
        wanted = len(tickets) if least is None else min(least, len(tickets))
        got: dict[str, Reply] = {}
        while True:
            waiting = [ticket for node, ticket in tickets.items() if node not in got and ticket in self._sent]
            got |= self._taken(waiting)
            missing = [ticket for ticket in waiting if ticket in self._sent]
            if len(got) >= wanted or self.now() >= until or not self._clock.wait(until, missing, wanted - len(got)):
                return dict(sorted(got.items()))

    def states(self, nodes: Iterable[str] | None = None) -> dict[str, NodeState]:
        """What the nodes of this process, or these of them, remember, for a checkpoint; empty where nodes keep that themselves."""
        of_grid = getattr(self._grid, "states", None)
        return of_grid(nodes) if of_grid else {}

    def restore(self, states: Mapping[str, NodeState]) -> None:
        """Give the nodes of this process back what `states` returned.

        Raises:
            FederationError: the nodes are not of this process.
        """
        if not states:
            return
        if not hasattr(self._grid, "restore"):
            raise FederationError(
                "the checkpoint holds the nodes' own state, but these nodes keep it themselves; resume it locally"
            )
        self._grid.restore(states)

    def _taken(self, tickets: Sequence[str]) -> dict[str, Reply]:
        """What has come for these tickets."""
        got = {self._sent[t].node: self._reply(t, None, self._errors.pop(t)) for t in tickets if t in self._errors}
        open_ = [ticket for ticket in tickets if ticket in self._sent]
        for message in self._grid.pull_messages(open_) if open_ else ():
            reply = self._opened(message.metadata.reply_to_message_id, message)
            got[reply.node] = reply
        return got

    def _opened(self, ticket: str, message: Any) -> Reply:
        """The reply that a message is."""
        if message.has_error():
            return self._reply(ticket, None, (message.error.reason or f"error {message.error.code}")[:_LONGEST_REASON])
        bytes_ = 0
        try:
            parcel = wire.unpack(message.content)
            bytes_ = wire.size(message.content)
        except Refused as error:
            return self._reply(ticket, None, f"{UNREAD}{error}", bytes_)
        return self._reply(ticket, parcel, None, bytes_)

    def _reply(self, ticket: str, parcel: Parcel | None, error: str | None, received_bytes: int = 0) -> Reply:
        sent = self._sent.pop(ticket)
        arrived = getattr(self._grid, "arrived", None)
        at = arrived(ticket) if arrived else self.now()
        return Reply(sent.node, parcel, error, sent.sent_bytes, received_bytes, at - sent.at)

    def _failed(self, node: str, why: str) -> str:
        """A ticket for what could not be sent."""
        ticket = f"not-sent-{next(self._numbers)}"
        self._sent[ticket] = _Sent(node, self.now(), 0)
        self._errors[ticket] = why
        return ticket

    def _push(self, messages: list[Any]) -> list[str | None]:
        return list(self._grid.push_messages(messages)) if messages else []

    def _greet(self, connected: Sequence[int]) -> None:
        """Ask nodes that are not known yet their names and public keys. One that keeps silent is waited for once, and asked again."""
        now = self.now()
        self._asked = {t: g for t, g in self._asked.items() if g.node_id in connected and now - g.at < self._hello_s}
        waiting = {greeting.node_id for greeting in self._asked.values()}
        unknown = [i for i in connected if i not in self._names and i not in self._turned_away and i not in waiting]
        anew = [node_id for node_id in unknown if node_id not in self._silent]
        self._say_hello(unknown, now)
        end, came = now + (self._hello_s if anew else 0.0), dict[str, Any]()
        while open_ := [ticket for ticket in self._asked if ticket not in came]:
            came |= {m.metadata.reply_to_message_id: m for m in self._grid.pull_messages(open_)}
            missing = [ticket for ticket in open_ if ticket not in came]
            if not missing or self.now() >= end or not self._clock.wait(end, missing, len(missing)):
                break
        for ticket in sorted(came, key=lambda t: self._asked[t].node_id):  # whichever answered first
            greeting = self._asked.pop(ticket)
            self._silent.discard(greeting.node_id)
            self._meet(greeting.node_id, came[ticket], greeting.challenge)
        for node_id in [i for i in anew if i in {greeting.node_id for greeting in self._asked.values()}]:
            self._silent.add(node_id)
            log.warning("node %s did not say its name within %g s; it is left out until it does", node_id, self._hello_s)

    def _say_hello(self, ids: Sequence[int], at: float) -> None:
        greetings = [_Greeting(node_id, secrets.token_hex(16), at) for node_id in ids]
        messages = [
            Message(wire.pack(Parcel(values={CHALLENGE: g.challenge})), dst_node_id=g.node_id, message_type=message_type(HELLO))
            for g in greetings
        ]
        self._asked |= {ticket: g for ticket, g in zip(self._push(messages), greetings, strict=True) if ticket}

    def _meet(self, node_id: int, message: Any, challenge: str) -> None:
        try:
            if message.has_error():
                raise Refused(str(message.error.reason))
            values = wire.unpack(message.content).values
        except Refused as error:
            log.warning("node %s did not say its name: %s", node_id, error)
            return
        name = str(values.get("name", ""))[:_LONGEST_NAME]
        if why := self._doubt(name, challenge, str(values.get(VOUCHED, ""))):
            self._turn_away(node_id, why)
            return
        for other in [i for i, known in self._names.items() if known == name]:
            del self._names[other]  # it came back under another number
        self._names[node_id] = name
        self._keys[name] = str(values.get("public_key", ""))

    def _doubt(self, name: str, challenge: str, signature: str) -> str:
        """Why a node is not believed its name; "": it is. Names of no owner of this training need no key: they are asked for nothing."""
        key = self._vouched.get(name)
        if key is not None and not vouches(key, name, challenge, signature):
            return f"it claims to be '{name}' and does not hold that owner's signing key"
        connected = set(self._grid.get_node_ids())
        first = next((i for i, known in self._names.items() if known == name and i in connected), None)
        return "" if first is None else f"it claims to be '{name}', as node {first} did before; start each with a name of its own"

    def _turn_away(self, node_id: int, why: str) -> None:
        name = self._admitted.get(node_id)
        found = TurnedAway(f"node {node_id}" if name is None else f"node {node_id}, admitted as '{name}',", why)
        self._turned_away.add(node_id)
        self._untold.append(found)
        log.warning("%s", found.words)
        self._on_turned_away(found)
