"""Sealed storage: nothing can be read or altered without the key, keys can be replaced, and mistakes are told."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwright.errors import FederationError, UnknownName
from cellwright.federation.data.keyring import CommandKey, FileKey
from cellwright.federation.data.sealed import SealedStore
from cellwright.federation.data.vault import Vault

SECRET = b"cell 4412 carried 93.2 Mbit/s"


@pytest.fixture
def key(tmp_path: Path) -> FileKey:
    return FileKey(tmp_path / "keys" / "storage.key")


@pytest.fixture
def store(tmp_path: Path, key: FileKey) -> SealedStore:
    return SealedStore(tmp_path / "sealed", key)


def files(store: SealedStore) -> list[Path]:
    return sorted(store.folder.rglob("*.sealed"))


def test_what_is_put_comes_back_version_by_version(store):
    assert [store.put("model:gru", content) for content in (b"one", b"", b"three")] == [1, 2, 3]
    store.put("metadata.a", SECRET)
    assert store.list() == ("metadata.a", "model:gru")
    assert store.versions("model:gru") == (1, 2, 3)
    assert [store.get("model:gru", version) for version in (None, 1, 2)] == [b"three", b"one", b""]


def test_nothing_of_it_can_be_read_on_the_disk_and_no_two_files_are_alike(store):
    for _ in range(20):
        store.put("metadata.a", SECRET)
    raw = [path.read_bytes() for path in files(store)]
    assert not any(SECRET[:8] in content for content in raw)
    assert len({content[12:24] for content in raw}) == 20  # nonces
    assert len(set(raw)) == 20


def test_the_key_is_made_once_and_kept_to_oneself(store, key):
    store.put("a", SECRET)
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert SealedStore(store.folder, FileKey(key.path)).get("a") == SECRET
    key.path.chmod(0o644)
    with pytest.raises(FederationError, match="chmod 600"):
        SealedStore(store.folder, key)


def test_another_key_is_told_as_such(store, tmp_path):
    store.put("a", SECRET)
    with pytest.raises(FederationError, match=r"is sealed with key [0-9a-f]{16}, given: [0-9a-f]{16}"):
        SealedStore(store.folder, FileKey(tmp_path / "other.key")).get("a")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit_that_flips_is_found(key, data):
    vault = Vault(key)
    raw = bytearray(vault.seal(SECRET, b"here"))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FederationError, match=r"altered|sealed"):
        vault.unseal(bytes(raw), b"here")


@pytest.mark.parametrize("kept", [0, 5, 30, -1])
def test_a_file_that_is_cut_off_is_found(store, kept):
    store.put("a", SECRET)
    path = files(store)[0]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FederationError, match=r"cut off|altered"):
        store.get("a")


def test_a_file_that_is_moved_to_another_name_or_version_does_not_open(store):
    store.put("a", SECRET)
    store.put("a", b"newer")
    store.put("b", b"other")
    one, two, other = files(store)
    content = one.read_bytes()
    two.write_bytes(content)
    other.write_bytes(content)
    for name in ("a", "b"):
        with pytest.raises(FederationError, match="another place"):
            store.get(name)
    assert store.get("a", 1) == SECRET


def test_a_key_is_replaced_and_everything_sealed_anew(store, key, tmp_path):
    store.put("a", SECRET)
    store.put("a", b"two")
    store.put("b", b"three")
    new = FileKey(tmp_path / "new.key")
    assert store.rotate(new) == 3
    assert store.get("a", 1) == SECRET
    fresh = SealedStore(store.folder, new)
    assert [fresh.get("a"), fresh.get("b")] == [b"two", b"three"]
    assert fresh.rotate(new) == 0
    with pytest.raises(FederationError, match="sealed with key"):
        SealedStore(store.folder, key).get("a")


def test_a_rotation_that_was_killed_is_finished_by_the_next(store, key, tmp_path):
    for name in "abc":
        store.put(name, name.encode())
    new = FileKey(tmp_path / "new.key")
    broken = files(store)[1]  # of "b": what stops the first rotation after "a"
    content = broken.read_bytes()
    broken.write_bytes(b"CWS1")
    with pytest.raises(FederationError, match="cut off"):
        store.rotate(new)
    broken.write_bytes(content)
    both = SealedStore(store.folder, new, former=[key])
    assert [both.get(name) for name in "abc"] == [b"a", b"b", b"c"]  # under either key
    assert both.rotate(new) == 2
    assert [SealedStore(store.folder, new).get(name) for name in "abc"] == [b"a", b"b", b"c"]


def test_what_is_not_there_says_what_is(store):
    store.put("metadata.a", SECRET)
    with pytest.raises(UnknownName, match=r"Did you mean 'metadata\.a'"):
        store.get("metadata.b")
    with pytest.raises(FederationError, match="has no version 2; there are 1"):
        store.get("metadata.a", 2)
    for name in ("../key", "", "a/b", ".hidden", "x" * 200):
        with pytest.raises(FederationError, match="a name must be"):
            store.put(name, b"")


def test_versions_are_deleted_one_by_one_or_together(store):
    for content in (b"1", b"2", b"3"):
        store.put("a", content)
    store.delete("a", 2)
    assert store.versions("a") == (1, 3)
    store.delete("a")
    assert store.list() == ()
    with pytest.raises(UnknownName):
        store.delete("a")


def printing(text: str) -> CommandKey:
    return CommandKey([sys.executable, "-c", text])


def test_the_key_of_a_key_management_system_is_what_its_program_prints(tmp_path):
    source = printing("print('00ff' * 16)")
    assert source.key() == bytes.fromhex("00ff" * 16)
    store = SealedStore(tmp_path, source)
    store.put("a", SECRET)
    assert SealedStore(tmp_path, source).get("a") == SECRET


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (printing("print('short')"), "64 hexadecimal characters"),
        (printing("import sys; sys.exit('sealed: log in first')"), "ended with code 1: sealed: log in first"),
        (CommandKey([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2), r"did not answer within 0\.2 s"),
        (CommandKey(["/no/such/program"]), "cannot be started"),
        (CommandKey([]), "cannot be started"),
    ],
)
def test_a_key_program_that_fails_says_how_and_never_shows_what_it_printed(source, message):
    with pytest.raises(FederationError, match=message) as told:
        source.key()
    assert "short" not in str(told.value)


def test_a_key_file_of_another_form_says_so(tmp_path):
    path = tmp_path / "key"
    path.write_text("not hex")
    path.chmod(0o600)
    with pytest.raises(FederationError, match="64 hexadecimal characters"):
        FileKey(path).key()
