"""Secure aggregation: the exact sum whoever drops out, and an owner that never gives away more than it must."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.errors import FederationError, ParamsError, Refused
from cellwright.federation.compression import codec
from cellwright.federation.contract import NodeState, Task, Update, Usage
from cellwright.federation.owner_kit import Channelled
from cellwright.federation.owner_update import leaving
from cellwright.federation.privacy import _shamir, mechanism
from cellwright.federation.privacy._envelopes import packed, unpacked

FIFTY = tuple(f"o{i:02d}" for i in range(50))
STAGES = ("advertise", "share", "deal", "seal", "unmask")
secrets_ = st.binary(min_size=32, max_size=32)


@settings(max_examples=40, deadline=None)
@given(secret=secrets_, threshold=st.integers(1, 9), more=st.integers(0, 5), data=st.data())
def test_any_shares_as_many_as_the_threshold_give_the_secret(secret, threshold, more, data):
    shares = _shamir.split(secret, threshold, range(1, threshold + more + 1))
    some = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert _shamir.combine({point: shares[point] for point in some}) == secret


@settings(max_examples=20, deadline=None)
@given(secret=secrets_, threshold=st.integers(2, 6))
def test_fewer_shares_than_the_threshold_fit_every_secret(secret, threshold):
    few = _shamir.split(secret, threshold, range(1, threshold))
    other = bytes(31) + b"\x07"
    # The polynomial of degree threshold - 1 through these shares and the other secret exists: its value at one more point completes them.
    points = (0, *sorted(few))
    values = (int.from_bytes(other), *(int.from_bytes(few[p]) for p in sorted(few)))
    at, completed = threshold, 0
    for point, value in zip(points, values, strict=True):
        weight = 1
        for rest in points:
            if rest != point:
                weight = weight * (at - rest) * pow(point - rest, -1, _shamir.PRIME) % _shamir.PRIME
        completed = (completed + value * weight) % _shamir.PRIME
    assert _shamir.combine({**few, at: completed.to_bytes(_shamir.SHARE_BYTES)}) == other


def test_shares_of_one_secret_are_others_every_time_and_none_of_them_is_the_secret():
    splits = [_shamir.split(bytes(31) + b"\x07", 2, (1, 2)) for _ in range(20)]
    assert len({share for shares in splits for share in shares.values()}) == 40
    assert all(int.from_bytes(share) != 7 for shares in splits for share in shares.values())


def test_shares_that_do_not_belong_together_are_noticed():
    shares = _shamir.split(bytes(32), 3, range(1, 4))
    with pytest.raises(FederationError, match="not of one secret"):
        _shamir.combine({**shares, 2: _shamir.split(b"\xff" * 32, 3, [2])[2]})


def test_packed_fields_come_back_and_damage_is_noticed():
    fields = {"a": b"", "to/ö": b"\x00\x01", "z": bytes(300)}
    assert unpacked(packed(fields)) == fields
    assert packed(dict(reversed(fields.items()))) == packed(fields)
    for damaged in (packed(fields)[:-1], packed(fields) + b"\x00", b"\xff" * 9):
        with pytest.raises(Refused, match="cut or damaged"):
            unpacked(damaged)


@pytest.mark.parametrize("stage", STAGES)
def test_ten_of_fifty_drop_out_at_a_stage_and_the_sum_is_exact(sealed_sum, stage):
    session = sealed_sum("secure_aggregation", 50, 60)
    total = session.run({stage: FIFTY[::5]})
    assert total.dtype == np.int64
    np.testing.assert_array_equal(total, session.expected())
    assert len(session.sealed) == (50 if stage == "unmask" else 40)
    np.testing.assert_allclose(session.side.total(), sum(session.vectors[o] for o in session.sealed), atol=50 * 2.0**-29)


def test_a_fifth_drops_out_at_every_stage_and_the_sum_is_exact(sealed_sum):
    session = sealed_sum("secure_aggregation", 50, 60, threshold=0.4)
    left, gone = list(FIFTY), {}
    for stage in STAGES:
        gone[stage], left = left[::5], [o for i, o in enumerate(left) if i % 5]
    np.testing.assert_array_equal(session.run(gone), session.expected())
    assert (len(session.sealed), len(session.there)) == (20, 16)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_below_the_threshold_the_round_fails_and_says_why(sealed_sum, stage):
    session = sealed_sum("secure_aggregation", 6)
    with pytest.raises(FederationError, match=r"only 3 of 6 owners .*, at least 4 are needed"):
        session.run({stage: FIFTY[:3]})


def test_nobody_is_left(sealed_sum):
    with pytest.raises(FederationError, match=r"only 0 of 3 owners advertised keys, at least 2"):
        sealed_sum("secure_aggregation", 3).run({"advertise": FIFTY[:3]})


def test_the_sum_is_that_of_the_rounded_vectors_to_the_last_bit(sealed_sum):
    session = sealed_sum("secure_aggregation", 3, 4, fraction_bits=2, range=100.0)
    session.vectors = {
        "o00": np.array([0.1, 1.0, -3.3, 100]),
        "o01": np.array([0.1, 0.13, 0.2, 100]),
        "o02": np.array([0.1, 0, 0, 100.0]),
    }
    session.run()
    np.testing.assert_array_equal(session.side.integers(), [0, 4 + 1, -13 + 1, 1200])
    np.testing.assert_array_equal(session.side.total(), [0, 1.25, -3, 300])


def test_a_late_vector_is_not_in_the_sum(sealed_sum):
    session = sealed_sum("secure_aggregation", 4)
    session.run(until="seal")
    late = session.owner("o03")
    late.seal(session.vectors["o03"])
    session.seal(gone=["o03"])
    session.stage("unmask")
    np.testing.assert_array_equal(session.side.integers(), session.expected())


def test_an_owner_gives_out_one_secret_of_another_and_never_both(sealed_sum):
    session = sealed_sum("secure_aggregation", 4)
    session.run(until="unmask")
    owner = session.owner("o00")
    given_out = owner.answer("unmask", {"summed": json.dumps(["o00", "o01", "o02"]).encode()})
    assert sorted(given_out) == ["mask/o03", "self/o00", "self/o01", "self/o02"]
    with pytest.raises(Refused, match="once a round"):
        owner.answer("unmask", {"summed": json.dumps(["o00", "o01", "o03"]).encode()})
    again = session.mechanism.owner_side("o00", seed=1)
    again.restore(owner.state())
    with pytest.raises(Refused, match="once a round"):
        again.answer("unmask", {"summed": json.dumps(["o00", "o01", "o03"]).encode()})


@pytest.mark.parametrize(
    ("summed", "why"),
    [
        (b'["o00", "o01"]', "2 vectors came, at least 3 are needed"),
        (b'["o00", "o01", "o02", "o02"]', "each once"),
        (b'["o00", "o01", "o99"]', "'o99', who dealt no shares"),
        (b'{"o00": 1}', "list of names"),
        (b"\xff", "cannot be read"),
    ],
)
def test_an_owner_unmasks_nothing_for_a_list_that_cannot_be_right(sealed_sum, summed, why):
    session = sealed_sum("secure_aggregation", 4)
    session.run(until="unmask")
    with pytest.raises(Refused, match=why):
        session.owner("o00").answer("unmask", {"summed": summed})


def test_a_second_vector_under_the_same_masks_is_refused(sealed_sum):
    session = sealed_sum("secure_aggregation", 3)
    session.run(until="unmask")
    with pytest.raises(Refused, match="once a round"):
        session.owner("o00").seal(session.vectors["o00"])


def test_stages_out_of_turn_are_refused(sealed_sum):
    session = sealed_sum("secure_aggregation", 3)
    with pytest.raises(Refused, match="once a round"):
        session.owner("o00").seal(session.vectors["o00"])
    with pytest.raises(Refused, match="once a round"):
        session.owner("o00").answer("share", {})
    with pytest.raises(Refused, match="no stage 'guess'"):
        session.owner("o00").answer("guess", {})
    with pytest.raises(Refused, match="nonce"):
        session.owner("o00").answer("advertise", {})


def test_keys_and_masks_are_new_in_every_round(sealed_sum):
    one, two = sealed_sum("secure_aggregation", 3), sealed_sum("secure_aggregation", 3)
    np.testing.assert_array_equal(one.run(), two.run())
    assert one.sealed["o00"]["masked"] != two.sealed["o00"]["masked"]
    two.owners, two.sealed, two.there = one.owners, {}, set(one.vectors)
    two.side = two.mechanism.coordinator_side(tuple(sorted(two.vectors)), seed=1)
    np.testing.assert_array_equal(two.run(), one.side.integers())  # the same owners again
    assert two.sealed["o00"]["masked"] != one.sealed["o00"]["masked"]


def signed(session):
    """Owners with signing keys: HMAC stands for Ed25519, which tests/federation/test_fed_signing tries."""
    import hashlib
    import hmac

    def mark(owner: str, content: bytes) -> bytes:
        return hmac.digest(owner.encode(), content, hashlib.sha256)

    plain = session.owner

    def bound(name: str):
        side = plain(name)
        side.bind(
            lambda content: mark(name, content), lambda owner, content, given: hmac.compare_digest(mark(owner, content), given)
        )
        return side

    session.owner = bound
    return session


def test_signed_keys_are_accepted_and_keys_put_in_their_place_are_not(sealed_sum):
    session = signed(sealed_sum("secure_aggregation", 3))
    np.testing.assert_array_equal(session.run(), session.expected())

    session = signed(sealed_sum("secure_aggregation", 3))
    strangers = session.mechanism.owner_side("o02", seed=1).answer("advertise", {"nonce": bytes(16)})
    session.change["advertise"] = lambda replies: {**replies, "o02": {**replies["o02"], "keys": strangers["keys"]}}
    session.stage("advertise")
    with pytest.raises(Refused, match="'o02' are not signed by it"):
        session.stage("share", gone=["o02"])


def test_an_owner_whose_own_keys_were_replaced_notices(sealed_sum):
    session = sealed_sum("secure_aggregation", 3)
    stranger = session.mechanism.owner_side("o00", seed=1).answer("advertise", {"nonce": bytes(16)})
    session.change["advertise"] = lambda replies: {**replies, "o00": stranger}
    session.stage("advertise")
    with pytest.raises(Refused, match="does not hold the keys that 'o00' advertised"):
        session.stage("share")


def test_an_envelope_that_was_altered_is_not_opened(sealed_sum):
    def altered(replies):
        return {**replies, "o01": {**replies["o01"], "to/o00": replies["o01"]["to/o00"][:-1] + b"\x00"}}

    session = sealed_sum("secure_aggregation", 3)
    session.change["share"] = altered
    session.stage("advertise")
    session.stage("share")
    with pytest.raises(Refused, match="the envelope from 'o01' cannot be opened"):
        session.stage("deal")


def test_owners_that_were_shown_different_rosters_do_not_open_each_others_envelopes(sealed_sum):
    session = sealed_sum("secure_aggregation", 4)
    session.stage("advertise")
    roster = session.side.ask("share", FIFTY[:4])["o00"]["roster"]
    short = packed({owner: entry for owner, entry in unpacked(roster).items() if owner != "o03"})
    one, two = session.owner("o00"), session.owner("o01")
    theirs = one.answer("share", {"roster": roster})
    two.answer("share", {"roster": short})
    with pytest.raises(Refused, match="the envelope from 'o00' cannot be opened"):
        two.answer("deal", {"from/o00": theirs["to/o01"], "from/o02": theirs["to/o02"]})


def test_a_share_that_is_wrong_spoils_no_sum_in_silence(sealed_sum):
    def wrong(replies):
        return {**replies, "o00": {**replies["o00"], "self/o01": replies["o00"]["self/o02"]}}

    session = sealed_sum("secure_aggregation", 3)
    session.change["unmask"] = wrong
    with pytest.raises(FederationError, match=r"shares of 'o01' do not give its secret|not of one secret"):
        session.run()


def test_an_owner_that_shared_another_secret_than_it_committed_to_is_named(sealed_sum):
    session = sealed_sum("secure_aggregation", 3)
    session.change["share"] = lambda replies: {**replies, "o01": {**replies["o01"], "commitment": bytes(32)}}
    with pytest.raises(FederationError, match="shares of 'o01' do not give its secret"):
        session.run()


def test_an_owner_that_answers_nonsense_counts_as_gone_and_is_named(sealed_sum):
    session = sealed_sum("secure_aggregation", 6)
    session.change["advertise"] = lambda replies: {**replies, "o00": {"keys": b"short"}}
    session.change["share"] = lambda replies: {**replies, "o01": {"commitment": bytes(32)}}
    np.testing.assert_array_equal(session.run(), session.expected())
    assert set(session.side.left_out) == {"o00", "o01"}
    assert "o00" not in session.sealed


@pytest.mark.parametrize("length", [39, 41])
def test_a_sealed_vector_of_another_length_is_refused_by_name(sealed_sum, length):
    session = sealed_sum("secure_aggregation", 3)
    session.vectors["o02"] = np.zeros(length)
    with pytest.raises(Refused, match=f"'o02' has {length} values, expected 40"):
        session.run()


@pytest.mark.parametrize(("value", "found"), [(np.nan, "nan"), (np.inf, "inf"), (-1001.0, "1001")])
def test_a_value_that_cannot_be_sealed_is_refused_and_never_cut(sealed_sum, value, found):
    session = sealed_sum("secure_aggregation", 3, range=1000.0)
    session.vectors["o01"][3] = value
    with pytest.raises(FederationError, match=f"reaches {found}, the option `range` allows 1000"):
        session.run()


def test_a_sum_that_could_overflow_is_refused_before_the_round():
    dp = mechanism("secure_aggregation", {"range": 2.0**20, "fraction_bits": 32})
    dp.coordinator_side(tuple(map(str, range(2047))), seed=0)
    with pytest.raises(FederationError, match="at most 2047 owners fit"):
        dp.coordinator_side(tuple(map(str, range(2048))), seed=0)
    with pytest.raises(ParamsError, match="finer than float64"):
        mechanism("secure_aggregation", {"range": 2.0**21, "fraction_bits": 32})


def test_the_largest_values_of_all_owners_do_not_overflow(sealed_sum):
    session = sealed_sum("secure_aggregation", 8, 2, range=2.0**20, fraction_bits=32)
    session.vectors = {owner: np.array([2.0**20, -(2.0**20)]) for owner in session.vectors}
    session.run()
    np.testing.assert_array_equal(session.side.total(), [8 * 2.0**20, -8 * 2.0**20])


@pytest.mark.parametrize(("more", "weight"), [((), 10 + 20 + 30), (("central_dp",), 3)])
def test_owners_weigh_by_their_windows_and_all_alike_under_central_privacy(sealed_sum, more, weight):
    task = Task(
        request="r", dataset="d", model="m", options={}, problem={}, scaler="none", clip=None, loss="mae",
        train=(0, 1), validation=(1, 2), test=(2, 3), seed=0,
    )  # fmt: skip
    session = sealed_sum("secure_aggregation", 3, 3)
    session.run(until="seal")
    usage = Usage(1.0, 1.0, None, None)
    ways = Channelled((*(mechanism(name) for name in more), session.mechanism), codec("none"))
    for i, name in enumerate(sorted(session.vectors)):
        update = Update(name, 1, {"w": np.full(2, 0.25, np.float32)}, 10 * (i + 1), 1, {}, usage)
        session.sealed[name] = leaving(update, ways, session.owner(name), NodeState(), task, lambda: usage).blobs
    session.side.collect(session.sealed, 3)
    session.stage("unmask")
    np.testing.assert_allclose(session.side.total(), [0.25 * weight, 0.25 * weight, weight], atol=1e-6)


def test_there_is_no_sum_before_the_last_stage(sealed_sum):
    session = sealed_sum("secure_aggregation", 3)
    session.run(until="unmask")
    with pytest.raises(FederationError, match="no sum before"):
        session.side.total()


@pytest.mark.parametrize("gone", ["share", "seal", "unmask"])
def test_every_message_may_find_an_owner_that_knows_its_state_alone(sealed_sum, gone):
    session = sealed_sum("secure_aggregation", 6, anew=True)
    np.testing.assert_array_equal(session.run({gone: ["o02", "o05"]}), session.expected())


def test_a_damaged_state_is_not_gone_on_with(sealed_sum):
    session = sealed_sum("secure_aggregation", 3)
    with pytest.raises(Refused, match="damaged"):
        session.owner("o00").restore(packed({"phase": b"deal"}))
