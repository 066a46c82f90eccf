"""Private set intersection by Diffie–Hellman on an elliptic curve (ECDH-PSI): which ids (time stamps, sites) all parties hold.

After Meadows, "A more efficient cryptographic matchmaking protocol", IEEE S&P 1986, and Huberman, Franklin and Hogg, "Enhancing
privacy and trust in electronic communities", EC 1999; here with a coordinator in the middle, who does the sample alignment of
vertical federated learning (M.3387 10.4), and for two parties or more. Each party p has a secret scalar k_p for one session:

    1  p offers k_p · H(id) of all its ids, shuffled
    2  each offer goes once through every other party, which multiplies every point by its own scalar and keeps the order
    3  k_1 · … · k_n · H(id) is now the same at all who hold the id, and only there: the coordinator compares the points
    4  each party is told which positions of its own offer are common; it knows which ids those are

**Group.** P-256 (FIPS 186-5): prime order, so there is no cofactor and no subgroup in which a scalar would show. Points travel as their
x-coordinate; a point and its negative share it before and after any multiplication, so that taking either is the same. H hashes to
x by SHA-512 and counts up until x belongs to a point (every second one does). That takes longer for some ids: a whole set is hashed
before anything is sent. A coordinate that belongs to no point is refused by the library on arrival, so no other curve can be
slipped in. (X25519, which takes any coordinate, would need the test for its twist in Python, and cost more than this does.)

**Assumed.** All follow the protocol and try to learn more from what they see (semi-honest), the coordinator sides with no party;
decisional Diffie–Hellman is hard on P-256, SHA-512 is a random oracle.

**Learnt.** A party: which of its ids all others hold too, and how many ids each other party has. The coordinator: the sizes of the sets
and of all their intersections, also of some parties only; no id. Together with one party, it learns which ids of that party
each other one holds. Ids of few bits are safe (without the scalar nobody can try them out), but not against a party that
offers every id there could be: this needs a limit by contract, `MOST_IDS` bounds its cost alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment.asking import Traffic, ask
from cellwright.federation.contract import Channel, NodeState, Parcel, Value

KINDS = ("psi_offer", "psi_blind", "psi_learn")
MOST_IDS = 1 << 20  # of one party
MOST_PARTIES = 16
BATCH = 8192  # points a message: 256 KiB
POINT_BYTES = 32
_CURVE = ec.SECP256R1()
_ORDER_OF_CURVE = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DOMAIN = b"cellwright psi 1\0"
_KEY, _POINTS, _SESSION, _ORDER, _ALLOWED, _COMMON = (
    f"psi/{n}" for n in ("key", "points", "session", "order", "allowed", "common")
)


@dataclass(frozen=True)
class Intersection:
    """What the coordinator learnt. The ids themselves are known to the parties: `members`."""

    sizes: Mapping[str, int]  # ids of each party
    common: int  # ids that all hold
    traffic: Traffic


def hash_to_curve(session: bytes, identifier: bytes) -> bytes:
    """x-coordinate (32 bytes) of a point of the curve that nobody knows the logarithm of; another one each session."""
    for count in range(256):  # each try succeeds with probability 1/2
        digest = hashlib.sha512(_DOMAIN + len(session).to_bytes(2, "big") + session + bytes([count]) + identifier).digest()
        try:
            _lifted(digest[:POINT_BYTES])
        except ValueError:
            continue
        return digest[:POINT_BYTES]
    raise AssertionError("256 hashes in a row belong to no point")  # probability 2^-256


def multiply(scalar: bytes, points: Sequence[bytes]) -> list[bytes]:
    """The points times a scalar, 1 to the order of the curve less 1, as 32 bytes.

    Raises:
        Refused: a coordinate that belongs to no point of the curve.
    """
    key, exchange = ec.derive_private_key(int.from_bytes(scalar, "big"), _CURVE), ec.ECDH()
    try:
        return [key.exchange(exchange, _lifted(point)) for point in points]
    except ValueError:
        raise Refused("a point of the intersection lies not on the curve; the party that sent it must be looked at") from None


def _lifted(x: bytes) -> ec.EllipticCurvePublicKey:
    """One of the two points with this x-coordinate."""
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x02" + x)


def answer(kind: str, parcel: Parcel, state: NodeState, ids: Callable[[], Sequence[bytes]]) -> Parcel:
    """A party's side: any Node hands its messages of `KINDS` here. `ids`: its own, without repetition.

    Raises:
        Refused: the message is out of turn, too large, or of another form.
    """
    if kind == "psi_offer":
        return _offer(parcel, state, ids)
    _same_session(parcel, state)
    return _blind(parcel, state) if kind == "psi_blind" else _learn(parcel, state)


def members(state: NodeState) -> np.ndarray:
    """(common,) int64, ascending: which of a party's ids all parties hold.

    Raises:
        FederationError: no intersection has been made.
    """
    if _COMMON not in state.blobs:
        raise FederationError("the rows of this party are not aligned yet; run the intersection (`psi.intersect`) first")
    return np.frombuffer(state.blobs[_COMMON], np.int64)


def intersect(channel: Channel, parties: Sequence[str], *, deadline_s: float = 600.0, batch: int = BATCH) -> Intersection:
    """The coordinator's side: align the parties; each of them then knows its `members`.

    Raises:
        FederationError: fewer than two parties, a party that does not answer, or sets without a common id.
    """
    names = sorted(set(parties))
    if not 2 <= len(names) <= MOST_PARTIES or len(names) != len(parties):
        raise FederationError(
            f"an intersection wants 2 to {MOST_PARTIES} different parties, found {', '.join(parties) or 'none'}; "
            "name the active party and at least one passive one"
        )
    talk = _Talk(channel, tuple(names), secrets.token_hex(16), deadline_s, batch, Traffic())
    sets = talk.offers()
    sizes = {name: len(points) for name, points in sets.items()}
    for hop in range(1, len(names)):
        sets = talk.blinded(sets, hop)
    common = set.intersection(*(set(points) for points in sets.values()))
    talk.tell({name: np.array([point in common for point in points], bool) for name, points in sets.items()})
    if not common:
        raise FederationError(
            f"the parties have no id in common ({', '.join(f'{n}: {s}' for n, s in sizes.items())}); check that their clocks, "
            "cadences and site names agree and that their telemetry is of the same time"
        )
    return Intersection(sizes, len(common), talk.traffic)


@dataclass(frozen=True)
class _Talk:
    """One session of the coordinator."""

    channel: Channel
    parties: tuple[str, ...]
    session: str
    deadline_s: float
    batch: int
    traffic: Traffic

    def offers(self) -> dict[str, list[bytes]]:
        """The set of each party, blinded by itself, in batches."""
        sets: dict[str, list[bytes]] = {name: [] for name in self.parties}
        totals: dict[str, int] = dict.fromkeys(self.parties, 1)
        while wanting := [n for n in self.parties if len(sets[n]) < totals[n]]:
            values: dict[str, Value] = {"session": self.session, "parties": len(self.parties), "count": self.batch}
            replies = self._ask("psi_offer", {n: Parcel(values={**values, "first": len(sets[n])}) for n in wanting})
            for name, reply in replies.items():
                totals[name] = _total(name, reply)
                sets[name] += _some(name, reply, min(self.batch, totals[name] - len(sets[name])))
        for name, points in sets.items():
            if len(set(points)) != len(points):
                raise Refused(f"party '{name}' offers an id twice; ids must be unique")
        return sets

    def blinded(self, sets: Mapping[str, list[bytes]], hop: int) -> dict[str, list[bytes]]:
        """Every set multiplied by the party `hop` places after its own, in order."""
        via = {name: self.parties[(i + hop) % len(self.parties)] for i, name in enumerate(self.parties)}
        out: dict[str, list[bytes]] = {name: [] for name in self.parties}
        while wanting := [n for n in self.parties if len(out[n]) < len(sets[n])]:
            parts = {n: sets[n][len(out[n]) : len(out[n]) + self.batch] for n in wanting}
            parcels = {via[n]: Parcel(blobs={"points": b"".join(p)}, values={"session": self.session}) for n, p in parts.items()}
            replies = self._ask("psi_blind", parcels)
            for name in wanting:
                out[name] += _some(via[name], replies[via[name]], len(parts[name]))
        return out

    def tell(self, found: Mapping[str, np.ndarray]) -> None:
        """Each party learns which positions of its offer are common; a bit an id."""
        values = {"session": self.session}
        self._ask("psi_learn", {n: Parcel(blobs={"common": np.packbits(m).tobytes()}, values=values) for n, m in found.items()})

    def _ask(self, kind: str, parcels: Mapping[str, Parcel]) -> dict[str, Parcel]:
        return ask(self.channel, kind, parcels, deadline_s=self.deadline_s, traffic=self.traffic)


def _offer(parcel: Parcel, state: NodeState, ids: Callable[[], Sequence[bytes]]) -> Parcel:
    session, first, count, parties = _offer_values(parcel)
    if first == 0:
        _begin(session, parties, ids(), state)
    _same_session(parcel, state)
    points = state.blobs[_POINTS]
    total = len(points) // POINT_BYTES
    part = points[first * POINT_BYTES : (first + count) * POINT_BYTES]
    return Parcel(blobs={"points": part}, values={"total": total})


def _begin(session: bytes, parties: int, ids: Sequence[bytes], state: NodeState) -> None:
    """A fresh scalar, a fresh order; the key never leaves the node's state, and goes when the session ends."""
    if not 0 < len(ids) <= MOST_IDS or len(set(ids)) != len(ids):
        raise Refused(f"an intersection wants 1 to {MOST_IDS} different ids, found {len(ids)}, {len(set(ids))} of them different")
    scalar, order = (1 + secrets.randbelow(_ORDER_OF_CURVE - 1)).to_bytes(32, "big"), list(range(len(ids)))
    secrets.SystemRandom().shuffle(order)
    points = multiply(scalar, [hash_to_curve(session, ids[i]) for i in order])
    state.blobs.pop(_COMMON, None)
    state.blobs[_ALLOWED] = _number((parties - 1) * MOST_IDS)
    state.blobs.update({_KEY: scalar, _SESSION: session, _POINTS: b"".join(points), _ORDER: np.array(order, np.int64).tobytes()})


def _blind(parcel: Parcel, state: NodeState) -> Parcel:
    """Another party's points times this one's scalar, no more of them than the session can have."""
    points = split_points(parcel.blobs.get("points", b""))
    left = int.from_bytes(state.blobs[_ALLOWED], "big") - len(points)
    if left < 0:
        raise Refused(f"the session asks for more points than its parties may have ids ({MOST_IDS} each)")
    state.blobs[_ALLOWED] = _number(left)
    return Parcel(blobs={"points": b"".join(multiply(state.blobs[_KEY], points))})


def _learn(parcel: Parcel, state: NodeState) -> Parcel:
    order = np.frombuffer(state.blobs[_ORDER], np.int64)
    blob = parcel.blobs.get("common", b"")
    if len(blob) != (len(order) + 7) // 8:
        raise Refused(f"the result of the intersection must hold {len(order)} bits, found {8 * len(blob)}")
    found = np.unpackbits(np.frombuffer(blob, np.uint8), count=len(order)).astype(bool)
    state.blobs[_COMMON] = np.sort(order[found]).tobytes()
    for name in (_KEY, _POINTS, _SESSION, _ORDER, _ALLOWED):
        del state.blobs[name]
    return Parcel()


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _offer_values(parcel: Parcel) -> tuple[bytes, int, int, int]:
    try:
        v = parcel.values
        found = bytes.fromhex(str(v["session"])), int(v["first"]), int(v["count"]), int(v["parties"])
    except (KeyError, ValueError) as error:
        raise Refused(f"the message begins no intersection that can be read: {error}") from None
    session, first, count, parties = found
    if len(session) != 16 or first < 0 or not 1 <= count <= BATCH or not 2 <= parties <= MOST_PARTIES:
        raise Refused(
            f"an intersection wants a session of 16 bytes, at most {BATCH} points a message and 2 to {MOST_PARTIES} parties; "
            f"found {len(session)} bytes, points {first} to {first + count}, {parties} parties"
        )
    return found


def _same_session(parcel: Parcel, state: NodeState) -> None:
    held = state.blobs.get(_SESSION)
    if held is None or not secrets.compare_digest(held.hex(), str(parcel.values.get("session", ""))):
        raise Refused("the message belongs to another intersection than the one under way; begin again")


def _total(name: str, reply: Parcel) -> int:
    total = reply.values.get("total")
    if not isinstance(total, int) or not 1 <= total <= MOST_IDS:
        raise Refused(f"party '{name}' says that it has {total} ids; 1 to {MOST_IDS} are taken")
    return total


def _some(name: str, reply: Parcel, count: int) -> list[bytes]:
    points = split_points(reply.blobs.get("points", b""))
    if len(points) != count:
        raise Refused(f"party '{name}' was to send {count} points and sent {len(points)}")
    return points


def split_points(blob: bytes) -> list[bytes]:
    """The points of a message.

    Raises:
        Refused: too many bytes, or not a whole number of points.
    """
    if len(blob) % POINT_BYTES or len(blob) > BATCH * POINT_BYTES:
        raise Refused(f"a message holds at most {BATCH} points of {POINT_BYTES} bytes each; found {len(blob)} bytes")
    return [blob[i : i + POINT_BYTES] for i in range(0, len(blob), POINT_BYTES)]
