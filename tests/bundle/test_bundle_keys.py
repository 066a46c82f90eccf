"""Keys: private stays private, only Ed25519, and trust is given by files."""

import stat
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cellwright.bundle.keys import key_id, public_pem, read_public, signing_key, trust, trusted
from cellwright.errors import BundleError


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    keys = tmp_path / "keys"
    first = signing_key(keys)
    assert key_id(signing_key(keys).public_key()) == key_id(first.public_key())
    assert stat.S_IMODE((keys / "signing.key").stat().st_mode) == 0o600
    assert read_public(keys / "signing.pub") == first.public_key()
    assert sorted(p.name for p in keys.iterdir()) == ["signing.key", "signing.pub"]


def test_processes_that_begin_at_once_share_one_key(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(key_id(signing_key(tmp_path).public_key()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path):
    signing_key(tmp_path)
    (tmp_path / "signing.key").chmod(0o644)
    with pytest.raises(BundleError, match="chmod 600"):
        signing_key(tmp_path)


def test_trust_is_the_own_key_and_those_that_were_given(tmp_path):
    own, other = signing_key(tmp_path / "own").public_key(), signing_key(tmp_path / "other").public_key()
    assert set(trusted(tmp_path / "own")) == {key_id(own)}
    assert set(trusted(tmp_path / "own", tmp_path / "other" / "signing.pub")) == {key_id(own), key_id(other)}
    trust(tmp_path / "own", tmp_path / "other" / "signing.pub")
    assert set(trusted(tmp_path / "own")) == {key_id(own), key_id(other)}
    assert trusted(tmp_path / "empty") == {}


def test_what_is_no_ed25519_public_key_is_refused(tmp_path):
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "p256.pub").write_bytes(curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text.pub").write_text("hello")
    with pytest.raises(BundleError, match="must hold an Ed25519 public key"):
        trusted(tmp_path, tmp_path / "p256.pub")
    with pytest.raises(BundleError, match="is not a public key in PEM"):
        trusted(tmp_path, tmp_path / "text.pub")
    with pytest.raises(BundleError, match="cannot read the public key"):
        trusted(tmp_path, tmp_path / "absent.pub")


def test_a_damaged_private_key_says_what_to_do(tmp_path):
    (tmp_path / "signing.key").write_text("nothing")
    (tmp_path / "signing.key").chmod(0o600)
    with pytest.raises(BundleError, match="move it away"):
        signing_key(tmp_path)


def test_public_pem_is_what_other_tools_read(tmp_path):
    assert public_pem(signing_key(tmp_path).public_key()).startswith(b"-----BEGIN PUBLIC KEY-----")
