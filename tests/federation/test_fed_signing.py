"""Signed parcels: forged, altered, re-addressed and replayed ones are found; keys are kept to oneself."""

from __future__ import annotations

import stat
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.errors import FederationError, Refused
from cellwright.federation.audit.signing import Signer, newer, verify
from cellwright.federation.contract import Parcel

SIGNER = Signer.generate()
PARCEL = Parcel(
    arrays={"d/w": np.arange(6, dtype=np.float32).reshape(2, 3)}, blobs={"share": b"abc"}, values={"round": 3, "owner": "a"}
)
SIGNED = SIGNER.sign(PARCEL, sender="a", sequence=7, request="r1")


def test_a_signed_parcel_says_who_when_and_what_for_and_is_verified():
    assert {"sender": "a", "sequence": 7, "request": "r1"}.items() <= dict(SIGNED.values).items()
    verify(SIGNED, SIGNER.public)
    verify(SIGNED, bytes.fromhex(SIGNER.public))
    assert newer(SIGNED.values, 6, request="r1") == 7


def test_a_parcel_without_a_signature_is_refused():
    with pytest.raises(Refused, match="not signed"):
        verify(PARCEL, SIGNER.public)


def test_another_key_is_refused():
    with pytest.raises(Refused, match="not that of the expected key"):
        verify(SIGNED, Signer.generate().public)


def test_a_signature_over_other_bytes_of_the_same_key_is_none_of_the_parcel():
    forged = replace(SIGNED, blobs={**SIGNED.blobs, "signature": SIGNER.sign_bytes(SIGNED.digest())})
    with pytest.raises(Refused, match="forged"):
        verify(forged, SIGNER.public)


def changed_array(value: float, dtype: type = np.float32) -> Parcel:
    array = PARCEL.arrays["d/w"].copy()
    array[1, 2] = value
    return replace(SIGNED, arrays={"d/w": array.astype(dtype)})


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param(changed_array(-5), id="a-value"),
        pytest.param(changed_array(5, np.float64), id="its-type"),
        pytest.param(replace(SIGNED, arrays={"d/w": PARCEL.arrays["d/w"].reshape(3, 2)}), id="its-shape"),
        pytest.param(replace(SIGNED, arrays={"d/v": PARCEL.arrays["d/w"]}), id="its-name"),
        pytest.param(replace(SIGNED, arrays={}), id="no-array"),
        pytest.param(replace(SIGNED, blobs={**SIGNED.blobs, "share": b"abd"}), id="a-blob"),
        pytest.param(replace(SIGNED, blobs={**SIGNED.blobs, "more": b""}), id="one-more-blob"),
        pytest.param(replace(SIGNED, values={**SIGNED.values, "sequence": 8}), id="the-sequence"),
        pytest.param(replace(SIGNED, values={**SIGNED.values, "sender": "b"}), id="the-sender"),
        pytest.param(replace(SIGNED, values={**SIGNED.values, "request": "r2"}), id="the-request"),
        pytest.param(replace(SIGNED, values={**SIGNED.values, "round": 4}), id="the-round"),
    ],
)
def test_anything_altered_is_refused(altered):
    with pytest.raises(Refused, match="altered"):
        verify(altered, SIGNER.public)


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_any_bit_of_the_signature_counts(place, bit):
    signature = bytearray(SIGNED.blobs["signature"])
    signature[place] ^= 1 << bit
    with pytest.raises(Refused):
        verify(replace(SIGNED, blobs={**SIGNED.blobs, "signature": bytes(signature)}), SIGNER.public)


def test_a_replay_and_a_message_of_another_request_are_refused():
    with pytest.raises(Refused, match="sequence 7, after 7 was seen"):
        newer(SIGNED.values, 7, request="r1")
    with pytest.raises(Refused, match="of request 'r1', this one is 'r2'"):
        newer(SIGNED.values, 6, request="r2")
    for wrong in ("7", 7.0, True, None):
        with pytest.raises(Refused, match="whole number"):
            newer({**SIGNED.values, "sequence": wrong}, 6, request="r1")


def test_a_message_that_is_passed_off_as_one_of_another_kind_is_refused():
    told = SIGNER.sign(PARCEL, sender="a", sequence=7, request="r1", kind="evaluate")
    assert newer(told.values, 6, request="r1", kind="evaluate") == 7
    with pytest.raises(Refused, match="signed as 'evaluate' and came as 'train'"):
        newer(told.values, 6, request="r1", kind="train")
    without = replace(told, values={name: value for name, value in told.values.items() if name != "kind"})
    with pytest.raises(Refused, match="forged, or altered"):
        verify(without, SIGNER.public)


def test_a_key_is_kept_in_a_file_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "keys" / "node.key"
    SIGNER.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Signer.from_file(path)
    assert again.public == SIGNER.public
    verify(again.sign(PARCEL, sender="a", sequence=1, request="r1"), SIGNER.public)


def test_a_key_is_never_overwritten_nor_used_where_others_can_read_it(tmp_path):
    path = tmp_path / "node.key"
    SIGNER.save(path)
    with pytest.raises(FederationError, match="is there already"):
        Signer.generate().save(path)
    path.chmod(0o640)
    with pytest.raises(FederationError, match="chmod 600"):
        Signer.from_file(path)


def test_a_file_that_is_no_key_says_so(tmp_path):
    path = tmp_path / "node.key"
    with pytest.raises(FederationError, match="cannot read"):
        Signer.from_file(path)
    path.write_text("secret")
    path.chmod(0o600)
    with pytest.raises(FederationError, match="PKCS #8"):
        Signer.from_file(path)
    path.write_bytes(b"x" * 10_000)
    with pytest.raises(FederationError, match="4096"):
        Signer.from_file(path)
    with pytest.raises(FederationError, match="32 bytes"):
        verify(SIGNED, "abcd")
