"""Private set intersection: exactly the common ids, and nothing that a watcher could try ids against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment import psi
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.runtimes.local import open_channel

# x-coordinates of P-256's base point (FIPS 186-5) and of its double
BASE = bytes.fromhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
DOUBLE = bytes.fromhex("7cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978")
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


class Holder:
    """A node that holds ids and answers nothing but an intersection; it remembers what it was sent and sent."""

    def __init__(self, name: str, ids: list[bytes]) -> None:
        self.name, self.ids = name, ids
        self.messages: list[Parcel] = []

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        reply = psi.answer(kind, parcel, state, lambda: self.ids)
        self.messages += [parcel, reply]
        return reply

    @property
    def points(self) -> list[bytes]:
        return [p for m in self.messages for p in psi.split_points(m.blobs.get("points", b""))]


def aligned(sets: Mapping[str, list[bytes]], batch: int = psi.BATCH) -> tuple[psi.Intersection, dict[str, list[bytes]]]:
    """The coordinator's result, and the ids that each party takes for common, in the party's own order."""
    channel = open_channel({name: Holder(name, ids) for name, ids in sets.items()})
    found = psi.intersect(channel, list(sets), batch=batch)
    states = channel.grid.states()
    return found, {name: [ids[i] for i in psi.members(states[name])] for name, ids in sets.items()}


def numbered(start: int, stop: int) -> list[bytes]:
    return [i.to_bytes(8, "big") for i in range(start, stop)]


def test_the_base_point_is_doubled():
    assert psi.multiply((2).to_bytes(32, "big"), [BASE]) == [DOUBLE]


def test_scalars_commute_on_hashed_points():
    point = [psi.hash_to_curve(b"s", b"an id")]
    a, b, c = (bytes([n]) * 32 for n in (1, 2, 3))
    ways = {psi.multiply(x, psi.multiply(y, psi.multiply(z, point)))[0] for x, y, z in ((a, b, c), (c, a, b), (b, c, a))}
    assert len(ways) == 1


def test_hashes_are_coordinates_of_points_that_differ_by_session():
    """On P-256 x³ - 3x + b is a square modulo the prime."""
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    found = {psi.hash_to_curve(session, bytes([i])) for session in (b"one", b"two") for i in range(32)}
    assert len(found) == 64
    for point in found:
        x = int.from_bytes(point, "big")
        assert pow(x**3 - 3 * x + b, (PRIME - 1) // 2, PRIME) == 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.binary(max_size=6), min_size=1, max_size=12), min_size=2, max_size=3))
def test_the_intersection_is_the_plain_one(sets: list[set[bytes]]):
    held = {f"party-{i}": sorted(ids) for i, ids in enumerate(sets)}
    plain = sorted(set.intersection(*sets))
    if not plain:
        with pytest.raises(FederationError, match="no id in common"):
            aligned(held)
        return
    found, members = aligned(held)
    assert found.common == len(plain)
    assert all(ids == plain for ids in members.values())


def test_three_parties_in_batches_smaller_than_their_sets():
    sets = {"a": numbered(0, 50), "b": numbered(20, 90), "c": numbered(10, 33)}
    found, members = aligned(sets, batch=16)
    assert found.sizes == {"a": 50, "b": 70, "c": 23}
    assert list(members.values()) == [numbered(20, 33)] * 3


def test_no_message_holds_an_id_or_its_hash_and_none_repeats_in_another_session():
    ids, seen = numbered(0, 20), []
    for _ in range(2):
        holders = {n: Holder(n, ids) for n in ("a", "b")}
        psi.intersect(open_channel(holders), ["a", "b"])
        sessions = {bytes.fromhex(str(m.values["session"])) for m in holders["a"].messages if "session" in m.values}
        (session,) = sessions
        clear = {hashlib.new(h, i).digest()[:32] for h in ("sha256", "sha512") for i in ids}
        clear |= {psi.hash_to_curve(session, i) for i in ids}
        points = [p for holder in holders.values() for p in holder.points]
        assert not clear & set(points)
        assert not any(i in b"".join(m.blobs.values()) for h in holders.values() for m in h.messages for i in ids[1:])
        seen.append(set(points))
    assert not seen[0] & seen[1]


def test_offers_are_shuffled():
    """The order of an offer is another one in every session: 1 in 64! that they agree."""
    orders = []
    for _ in range(2):
        state = NodeState()
        begin = Parcel(values={"session": "00" * 16, "parties": 2, "first": 0, "count": 64})
        psi.answer("psi_offer", begin, state, lambda: numbered(0, 64))
        orders.append(np.frombuffer(state.blobs["psi/order"], np.int64).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    assert orders[0] != orders[1]


def test_the_key_is_gone_when_the_session_ends():
    channel = open_channel({n: Holder(n, numbered(0, 3)) for n in ("a", "b")})
    psi.intersect(channel, ["a", "b"])
    assert all(list(state.blobs) == ["psi/common"] for state in channel.grid.states().values())


def test_bytes_are_those_of_the_channel():
    found, _ = aligned({"a": numbered(0, 100), "b": numbered(50, 150)})
    least = 100 * psi.POINT_BYTES
    assert found.traffic.messages == 6  # offer, blind, learn, to each of two
    for party in ("a", "b"):
        assert 2 * least < found.traffic.up_bytes[party] < 2 * least + 4000  # its own points, the other's multiplied
        assert least < found.traffic.down_bytes[party] < least + 4000


class TestRefusals:
    def begun(self) -> NodeState:
        state = NodeState()
        begin = Parcel(values={"session": "ab" * 16, "parties": 2, "first": 0, "count": 8})
        psi.answer("psi_offer", begin, state, lambda: numbered(0, 8))
        return state

    def test_ids_must_differ(self):
        with pytest.raises(FederationError, match="different ids, found 2, 1 of them different"):
            aligned({"a": [b"x", b"x"], "b": [b"x"]})

    def test_a_party_without_ids(self):
        with pytest.raises(FederationError, match="found 0"):
            aligned({"a": [], "b": [b"x"]})

    def test_one_party_alone(self):
        with pytest.raises(FederationError, match="2 to 16 different parties"):
            aligned({"a": [b"x"]})

    def test_a_party_that_is_not_there(self):
        channel = open_channel({"a": Holder("a", [b"x"])})
        with pytest.raises(FederationError, match="party 'b' gave no answer to 'psi_offer'"):
            psi.intersect(channel, ["a", "b"])

    @pytest.mark.parametrize(
        ("blob", "message"),
        [
            (b"\x01" * 33, "found 33 bytes"),
            (b"\x01" * (psi.POINT_BYTES * (psi.BATCH + 1)), "at most"),
            (PRIME.to_bytes(32, "big"), "not on the curve"),  # no element of the field
            ((1).to_bytes(32, "big"), "not on the curve"),  # 1 - 3 + b is no square
        ],
    )
    def test_points_that_are_none(self, blob: bytes, message: str):
        parcel = Parcel(blobs={"points": blob}, values={"session": "ab" * 16})
        with pytest.raises(Refused, match=message):
            psi.answer("psi_blind", parcel, self.begun(), list)

    def test_another_session(self):
        parcel = Parcel(blobs={"points": b""}, values={"session": "cd" * 16})
        with pytest.raises(Refused, match="another intersection"):
            psi.answer("psi_blind", parcel, self.begun(), list)

    def test_more_points_than_the_session_can_have(self):
        state = self.begun()
        state.blobs["psi/allowed"] = (1).to_bytes(8, "big")
        points = psi.hash_to_curve(b"s", b"1") + psi.hash_to_curve(b"s", b"2")
        with pytest.raises(Refused, match="more points"):
            psi.answer("psi_blind", Parcel(blobs={"points": points}, values={"session": "ab" * 16}), state, list)

    def test_a_result_of_another_length(self):
        parcel = Parcel(blobs={"common": b"123"}, values={"session": "ab" * 16})
        with pytest.raises(Refused, match="must hold 8 bits"):
            psi.answer("psi_learn", parcel, self.begun(), list)

    def test_members_before_any_intersection(self):
        with pytest.raises(FederationError, match="not aligned yet"):
            psi.members(NodeState())
