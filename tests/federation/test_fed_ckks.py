"""Homomorphic aggregation: the exact sum of the rounded vectors, under a key that the coordinator does not have."""

import numpy as np
import pytest

from cellwright.errors import FederationError, ParamsError, Refused
from cellwright.federation.privacy import _ciphertexts, mechanism
from cellwright.federation.privacy._envelopes import packed
from cellwright.federation.privacy._fixed_point import Grid

TEN = tuple(f"o{i:02d}" for i in range(10))
STAGES = ("advertise", "deal", "accept", "seal", "decrypt")
GRID = Grid(2.0**18, 18)


@pytest.fixture(scope="module")
def key() -> bytes:
    return _ciphertexts.new_key()


@pytest.mark.parametrize("stage", STAGES)
def test_two_of_ten_drop_out_at_a_stage_and_the_sum_is_exact(sealed_sum, stage):
    session = sealed_sum("ckks", 10)
    total = session.run({stage: TEN[::5]})
    np.testing.assert_array_equal(total, session.expected())
    assert len(session.sealed) == (10 if stage == "decrypt" else 8)


def test_the_error_is_within_the_bound_that_is_stated(sealed_sum):
    session = sealed_sum("ckks", 5, _ciphertexts.SLOTS + 100)  # two ciphertexts
    session.run()
    error = np.abs(session.side.total() - sum(session.vectors.values())).max()
    assert 0 < error <= 5 * 2.0**-19


def test_the_largest_sum_is_exact_though_every_error_adds_up(key):
    """1,024 times the same ciphertext: the largest sum that is allowed, with all errors in one direction."""
    context = _ciphertexts.with_key(key)
    integers = GRID.integers(np.random.default_rng(0).uniform(-1, 1, _ciphertexts.SLOTS) * 2.0**18)
    (total,) = _ciphertexts.loaded(context, _ciphertexts.encrypted(context, integers, GRID), len(integers))
    for _ in range(10):
        total = total + total
    steps = np.ldexp(np.array(total.decrypt()), GRID.bits)
    assert np.abs(steps - 1024 * integers).max() < 0.125
    assert GRID.most_owners(_ciphertexts.TOTAL_BITS) == 1023


def test_the_coordinator_cannot_decrypt(sealed_sum):
    session = sealed_sum("ckks", 3)
    session.run(until="decrypt")
    context = _ciphertexts.keyless()
    assert not context.has_secret_key()
    (cipher,) = _ciphertexts.loaded(context, session.sealed["o00"]["encrypted"], 40)
    with pytest.raises(ValueError, match="doesn't hold a secret_key"):
        cipher.decrypt()


def test_what_the_coordinator_hands_on_does_not_hold_the_key(sealed_sum, key):
    """Everything it saw before the updates: of a key in the clear, the parameters at its head would be seen."""
    session = sealed_sum("ckks", 3)
    seen = [*session.stage("advertise").values(), *session.stage("deal").values(), *session.stage("accept").values()]
    assert all(key[:64] not in blob for reply in seen for blob in reply.values())
    assert any(len(blob) >= len(key) - 5000 for reply in seen for blob in reply.values())  # the key did travel, sealed


def test_the_loss_of_all_dealers_but_one_is_survived(sealed_sum):
    session = sealed_sum("ckks", 6)
    session.stage("advertise")
    dealers = [owner for owner, asked in session.side.ask("deal", TEN[:6]).items() if asked]
    assert len(dealers) == 3
    session.stage("deal", gone=dealers[:2])
    session.stage("accept")
    session.seal()
    session.stage("decrypt")
    np.testing.assert_array_equal(session.side.integers(), session.expected())
    assert set(session.side.left_out) <= set(dealers[:2])


def test_without_any_dealer_there_is_no_key(sealed_sum):
    session = sealed_sum("ckks", 4, dealers=2)
    session.stage("advertise")
    dealers = [owner for owner, asked in session.side.ask("deal", TEN[:4]).items() if asked]
    with pytest.raises(FederationError, match="none of the dealers answered"):
        session.stage("deal", gone=dealers)


@pytest.mark.parametrize("stage", ["advertise", "accept", "seal"])
def test_with_one_owner_there_is_no_sum(sealed_sum, stage):
    with pytest.raises(FederationError, match="only 1 of 3 owners"):
        sealed_sum("ckks", 3, dealers=3).run({stage: TEN[1:3]})


def test_an_owner_that_decrypts_something_else_is_outvoted_and_named(sealed_sum):
    session = sealed_sum("ckks", 3)
    session.change["decrypt"] = lambda replies: {**replies, "o01": {"integers": bytes(8 * 40)}}
    np.testing.assert_array_equal(session.run(), session.expected())
    assert session.side.left_out == {"o01": "decrypted another sum"}


def test_owners_that_do_not_agree_give_no_sum(sealed_sum):
    session = sealed_sum("ckks", 2)
    session.change["decrypt"] = lambda replies: {**replies, "o01": {"integers": bytes(8 * 40)}}
    with pytest.raises(FederationError, match="only 1 of 2 owners decrypted the same sum"):
        session.run()


def test_nobody_decrypts(sealed_sum):
    with pytest.raises(FederationError, match="no owner decrypted"):
        sealed_sum("ckks", 2).run({"decrypt": TEN[:2]})


def test_a_vector_under_another_key_is_noticed(key):
    context, other = _ciphertexts.with_key(key), _ciphertexts.with_key(_ciphertexts.new_key())
    integers = GRID.integers(np.ones(8))
    vectors = {"o00": _ciphertexts.encrypted(context, integers, GRID), "o01": _ciphertexts.encrypted(other, integers, GRID)}
    total = _ciphertexts.added(_ciphertexts.keyless(), vectors, 8)
    with pytest.raises(FederationError, match="off the grid"):
        _ciphertexts.decrypted(context, total, 8, GRID)


@pytest.mark.parametrize(
    "blob", [b"", b"nonsense", bytes(64), packed({"00000000": b"nonsense"}), packed({"00000000": bytes(300_001)})]
)
def test_what_is_no_encrypted_vector_is_refused_by_name(sealed_sum, blob):
    session = sealed_sum("ckks", 3)
    session.run(until="seal")
    session.seal()
    with pytest.raises(Refused, match="'o02'"):
        session.side.collect({**session.sealed, "o02": {"encrypted": blob}}, 40)


def test_ciphertexts_of_other_parameters_are_refused_by_name(key):
    import tenseal

    context = _ciphertexts.with_key(key)
    good = _ciphertexts.encrypted(context, GRID.integers(np.ones(8)), GRID)
    other = packed({"00000000": tenseal.ckks_vector(context, [1.0] * 8, scale=2.0**40).serialize()})
    with pytest.raises(Refused, match="'o01': an encrypted vector of other parameters"):
        _ciphertexts.added(_ciphertexts.keyless(), {"o00": good, "o01": other}, 8)


def test_a_length_that_nobody_could_have_sent_is_refused_at_once(key):
    with pytest.raises(Refused, match="has 0 parts"):
        _ciphertexts.decrypted(_ciphertexts.with_key(key), b"", 2**60, GRID)


def test_a_sealed_vector_of_another_length_is_refused_by_name(sealed_sum):
    session = sealed_sum("ckks", 3)
    session.vectors["o02"] = np.zeros(39)
    with pytest.raises(Refused, match="'o02': an encrypted vector has 39 values, expected 40"):
        session.run()


def test_every_message_may_find_an_owner_that_knows_its_state_alone(sealed_sum):
    session = sealed_sum("ckks", 4, anew=True)
    np.testing.assert_array_equal(session.run({"seal": ["o02"]}), session.expected())


def test_stages_out_of_turn_and_second_vectors_are_refused(sealed_sum):
    session = sealed_sum("ckks", 2)
    with pytest.raises(Refused, match="once a round"):
        session.owner("o00").seal(session.vectors["o00"])
    session.run(until="decrypt")
    with pytest.raises(Refused, match="once a round"):
        session.owner("o00").seal(session.vectors["o00"])
    with pytest.raises(Refused, match="over 1 owners would be decrypted"):
        session.owner("o00").answer("decrypt", {"owners": (1).to_bytes(8)})
    with pytest.raises(Refused, match="no stage 'unmask'"):
        session.owner("o00").answer("unmask", {})


def test_sums_that_could_be_inexact_are_refused_before_the_round():
    ckks = mechanism("ckks")
    ckks.coordinator_side(tuple(map(str, range(1023))), seed=0)
    with pytest.raises(FederationError, match="at most 1023 owners fit"):
        ckks.coordinator_side(tuple(map(str, range(1024))), seed=0)
    with pytest.raises(ParamsError, match="dealers must be at least 1"):
        mechanism("ckks", {"dealers": 0})
