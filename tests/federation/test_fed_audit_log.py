"""The audit log: whatever is altered, removed, moved or cut off is found; what a kill leaves is repaired, and said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cellwright.errors import FederationError
from cellwright.federation.audit.chain import Head, head_path, line_of
from cellwright.federation.audit.log import AuditLog, Record, records, verify_log
from cellwright.federation.audit.signing import Signer, public_pem
from flows._cli import audit

SIGNER = Signer.generate()
NODES = ("a", "b", "ü")


def written(path: Path, rounds: int = 3, signer: Signer | None = SIGNER) -> Path:
    """A log of three messages a round, closed."""
    with AuditLog.open(path, signer) as log:
        for round_ in range(1, rounds + 1):
            for node in NODES:
                log.append(Record("train", node, round_, "ab" * 32, "accepted"))
            log.seal()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("log") / "audit.jsonl")


def copied(path: Path, folder: Path, lines: list[bytes] | None = None, head: bytes | None = None) -> Path:
    """The log with other lines, or another head."""
    target = folder / path.name
    target.write_bytes(path.read_bytes() if lines is None else b"".join(lines))
    head_path(target).write_bytes(head_path(path).read_bytes() if head is None else head)
    return target


def test_a_whole_log_is_verified_with_its_key_and_without(whole):
    found = verify_log(whole, SIGNER.public)
    assert (found.ok, found.records, found.signed, found.line, found.authentic) == (True, 9, 9, None, True)
    assert verify_log(whole, bytes.fromhex(SIGNER.public)).authentic
    assert verify_log(whole).ok
    assert not verify_log(whole).authentic
    assert verify_log(whole, head=found.head).ok


def test_records_say_what_happened(whole):
    rows = list(records(whole))
    assert [row["index"] for row in rows] == list(range(9))
    assert rows[5] | {"time": 0, "previous": "", "hash": ""} == {
        "index": 5, "time": 0, "kind": "train", "node": "ü", "round": 2, "digest": "ab" * 32, "verdict": "accepted", "rule": "",
        "reason": "", "previous": "", "hash": "",
    }  # fmt: skip
    assert rows[5]["previous"] == rows[4]["hash"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit_that_flips_is_found(whole, tmp_path, data):
    raw = bytearray(whole.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    found = verify_log(copied(whole, tmp_path, [bytes(raw)]))
    assert not found.ok
    assert found.line in (1 + whole.read_bytes()[:place].count(b"\n"), 2 + whole.read_bytes()[:place].count(b"\n"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit_of_the_head_that_flips_is_found(whole, tmp_path, data):
    raw = bytearray(head_path(whole).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not verify_log(copied(whole, tmp_path, head=bytes(raw))).ok


@pytest.mark.parametrize("gone", range(9))
def test_any_line_that_is_removed_is_found(whole, tmp_path, gone):
    lines = whole.read_bytes().splitlines(keepends=True)
    found = verify_log(copied(whole, tmp_path, lines[:gone] + lines[gone + 1 :]))
    assert not found.ok
    assert found.line == gone + 1


@pytest.mark.parametrize("first", range(8))
def test_any_two_lines_that_are_swapped_are_found(whole, tmp_path, first):
    lines = whole.read_bytes().splitlines(keepends=True)
    lines[first], lines[first + 1] = lines[first + 1], lines[first]
    found = verify_log(copied(whole, tmp_path, lines))
    assert not found.ok
    assert found.line == first + 1
    assert "altered, removed, added or moved" in found.reason


@pytest.mark.parametrize("kept", range(9))
def test_an_end_that_is_cut_off_is_found(whole, tmp_path, kept):
    found = verify_log(copied(whole, tmp_path, whole.read_bytes().splitlines(keepends=True)[:kept]))
    assert not found.ok
    assert found.line == kept + 1
    assert "9 were signed: its end was cut off" in found.reason


def test_a_line_that_is_added_or_repeated_is_found(whole, tmp_path):
    lines = whole.read_bytes().splitlines(keepends=True)
    assert verify_log(copied(whole, tmp_path, [*lines[:4], lines[3], *lines[4:]])).line == 5
    assert verify_log(copied(whole, tmp_path, [*lines, b"{}\n"])).line == 10


def test_one_line_that_is_written_anew_with_its_hash_does_not_fit_the_next(whole, tmp_path):
    lines = whole.read_bytes().splitlines(keepends=True)
    row = json.loads(lines[4])
    fields = {k: v for k, v in row.items() if k not in ("index", "previous", "hash")}
    lines[4], _ = line_of(fields | {"verdict": "refused"}, 4, row["previous"])
    assert verify_log(copied(whole, tmp_path, lines)).line == 6


def test_a_head_that_says_the_same_in_other_bytes_is_found(whole, tmp_path):
    head = head_path(whole).read_bytes().replace(b",", b", ", 1)
    assert "not as it is written" in verify_log(copied(whole, tmp_path, head=head)).reason


def rewritten(path: Path, folder: Path, head: bytes | None = None) -> tuple[Path, Head]:
    """The log written anew by someone who knows how, with another verdict in the second record."""
    lines, previous, count = [], "0" * 64, 0
    for row in records(path):
        fields = {k: v for k, v in row.items() if k not in ("index", "previous", "hash")}
        line, previous = line_of(fields | ({"verdict": "refused"} if count == 1 else {}), count, previous)
        lines, count = [*lines, line], count + 1
    return copied(path, folder, lines, head), Head(count, previous)


def test_a_log_that_is_written_anew_with_all_its_hashes_is_found(whole, tmp_path):
    forged, _ = rewritten(whole, tmp_path)
    assert "written anew" in verify_log(forged).reason


def test_a_log_signed_anew_with_another_key_is_found_by_who_knows_the_key(whole, tmp_path):
    _, head = rewritten(whole, tmp_path)
    forged, _ = rewritten(whole, tmp_path, head.signed(Signer.generate()).text().encode())
    assert not verify_log(forged).authentic
    assert "expected " + SIGNER.public[:16] in verify_log(forged, SIGNER.public).reason
    unsigned, _ = rewritten(whole, tmp_path, head.text().encode())
    assert "signed by nobody" in verify_log(unsigned, SIGNER.public).reason


def test_a_log_without_its_head_is_not_believed(whole, tmp_path):
    path = copied(whole, tmp_path)
    head_path(path).unlink()
    assert "head is missing" in verify_log(path).reason
    path.unlink()
    with pytest.raises(FederationError, match="no audit log"):
        verify_log(path)


def test_an_older_log_that_is_put_back_is_found_by_the_hash_kept_elsewhere(tmp_path):
    path = written(tmp_path / "audit.jsonl", rounds=2)
    old, old_head = path.read_bytes(), head_path(path).read_bytes()
    written(path, rounds=1)
    newest = verify_log(path, SIGNER.public).head
    path.write_bytes(old)
    head_path(path).write_bytes(old_head)
    assert verify_log(path, SIGNER.public).ok
    assert "older log" in verify_log(path, SIGNER.public, head=newest).reason


def test_records_after_the_last_signature_are_counted_apart(tmp_path):
    log = AuditLog.open(tmp_path / "audit.jsonl", SIGNER)
    log.append(Record("train", "a", 1, "", "accepted"))
    log.seal()
    log.append(Record("train", "b", 1, "", "accepted"))
    found = verify_log(log.path, SIGNER.public)
    assert (found.ok, found.records, found.signed) == (True, 2, 1)
    assert "1 after the last signature" in found.summary
    log.close()


def added(path: Path, reason: str = "") -> None:
    """A record that fits the chain, by someone who has no key."""
    found = verify_log(path)
    fields = {"time": 0, **vars(Record("train", "a", 9, "", "accepted", reason=reason))}
    path.write_bytes(path.read_bytes() + line_of(fields, found.records, found.head)[0])


def test_nothing_can_be_added_to_a_closed_log(whole, tmp_path):
    path = copied(whole, tmp_path)
    assert verify_log(path, SIGNER.public, closed=True).closed
    assert "9 signed by the key given; closed; head" in verify_log(path, SIGNER.public).summary
    added(path)
    for closed in (False, True):
        found = verify_log(path, SIGNER.public, closed=closed)
        assert (found.ok, found.line) == (False, 10)
        assert "closed after 9 records: this was added afterwards" in found.reason
    with pytest.raises(FederationError, match="cannot be continued"):
        AuditLog.open(path, SIGNER)


def test_a_log_that_is_written_or_whose_process_was_killed_is_told_from_a_closed_one(tmp_path):
    log = AuditLog.open(tmp_path / "audit.jsonl", SIGNER)
    log.append(Record("train", "a", 1, "", "accepted"))
    log.seal()
    open_head = head_path(log.path).read_bytes()
    found = verify_log(log.path, SIGNER.public)
    assert (found.ok, found.closed) == (True, False)
    assert "not closed: it is being written, or its process was killed" in found.summary
    assert "no signature closes it after 1 records" in verify_log(log.path, SIGNER.public, closed=True).reason
    log.close()
    assert verify_log(log.path, SIGNER.public, closed=True).ok
    head_path(log.path).write_bytes(open_head)  # the head of before, which let more come
    added(log.path)
    assert verify_log(log.path, SIGNER.public).ok
    assert not verify_log(log.path, SIGNER.public, closed=True).ok


def test_a_closed_log_that_is_opened_again_is_open_from_then_on(tmp_path):
    path = written(tmp_path / "audit.jsonl")
    log = AuditLog.open(path, SIGNER)
    assert not verify_log(path, SIGNER.public).closed
    log.append(Record("train", "a", 4, "", "accepted"))
    assert verify_log(path, SIGNER.public).ok
    log.close()
    assert verify_log(path, SIGNER.public, closed=True).records == 10


def test_that_a_log_is_closed_cannot_be_said_or_unsaid_without_the_key(whole, tmp_path):
    closed = json.loads(head_path(whole).read_bytes())
    path = copied(whole, tmp_path, head=Head(**{**closed, "closed": False}).text().encode())
    assert "not that of its key" in verify_log(path).reason
    odd = copied(whole, tmp_path, head=Head(**{**closed, "closed": 1}).text().encode())
    assert not verify_log(odd).ok


def test_a_log_that_nobody_signed_says_so_and_is_never_taken_for_complete(tmp_path):
    path = written(tmp_path / "audit.jsonl", signer=None)
    found = verify_log(path)
    assert (found.ok, found.signed, found.closed) == (True, 0, True)
    assert "0 signed by anyone" in found.summary
    assert "closed without a signature" in found.summary
    assert "closed, but nobody signed it" in verify_log(path, closed=True).reason


def test_a_resumed_log_goes_on_where_it_was(tmp_path):
    path = written(tmp_path / "audit.jsonl", rounds=2)
    written(path, rounds=2)  # the same rounds again: they are appended as such
    found = verify_log(path, SIGNER.public)
    assert (found.ok, found.records, found.signed) == (True, 12, 12)
    assert [row["round"] for row in records(path)] == [1] * 3 + [2] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("kept", [1, 60, -1])
def test_a_line_torn_by_a_kill_is_repaired_and_the_log_says_what_it_held(tmp_path, kept):
    path = written(tmp_path / "audit.jsonl")
    torn = line_of({"time": 0, "kind": "train", "node": "b", "round": 4, "digest": "", "verdict": "accepted"}, 9, "0" * 64)[0][
        :kept
    ]
    path.write_bytes(path.read_bytes() + torn)
    assert "torn by a kill" in verify_log(path).reason
    with AuditLog.open(path, SIGNER) as log:
        assert log.records == 10
    last = list(records(path))[-1]
    assert last["verdict"] == "note"
    assert torn.decode() in last["reason"]
    assert verify_log(path, SIGNER.public).ok


def test_a_signed_line_that_is_torn_is_no_accident_and_nothing_is_appended(tmp_path):
    path = written(tmp_path / "audit.jsonl")
    raw = path.read_bytes()
    path.write_bytes(raw[:-20])
    with pytest.raises(FederationError, match="end was cut off"):
        AuditLog.open(path, SIGNER)
    assert path.read_bytes() == raw[:-20]


def test_an_altered_log_is_not_continued_nor_one_of_another_key(tmp_path):
    path = written(tmp_path / "audit.jsonl")
    with pytest.raises(FederationError, match="cannot be continued"):
        AuditLog.open(path, Signer.generate())
    path.write_bytes(path.read_bytes().replace(b"accepted", b"accePted", 1))
    with pytest.raises(FederationError, match="line 1"):
        AuditLog.open(path, SIGNER)


KILLED = """
import os, signal, sys
from pathlib import Path
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.signing import Signer
log = AuditLog.open(Path(sys.argv[1]), Signer.from_file(Path(sys.argv[2])))
for i in range(7):
    log.append(Record("train", f"n{i}", 1, "", "accepted"))
    if i == 4:
        log.seal()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_every_record_it_wrote(tmp_path):
    key, path = tmp_path / "key", tmp_path / "audit.jsonl"
    SIGNER.save(key)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(key)], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -signal.SIGKILL
    found = verify_log(path, SIGNER.public)
    assert (found.ok, found.records, found.signed) == (True, 7, 5)
    with AuditLog.open(path, SIGNER) as log:
        assert log.records == 8  # a note says that it was opened again
    assert "2 records after the last signature" in list(records(path))[-1]["reason"]
    assert verify_log(path, SIGNER.public).signed == 8


def test_what_a_node_says_cannot_break_a_line(tmp_path):
    with AuditLog.open(tmp_path / "audit.jsonl", SIGNER) as log:
        log.append(Record("train", 'a"\n}', 1, "", "refused", "schema", '\u2028"},\n{"index":0' + "\U0001f4a5" * 10_000))
        log.append(Record("train", "b", 1, "", "accepted"))
    assert verify_log(tmp_path / "audit.jsonl", SIGNER.public).ok


@pytest.fixture
def cli():
    app = typer.Typer()
    audit.add_to(app)
    return lambda *arguments: CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_the_command_verifies_with_one_clear_line(cli, whole, tmp_path):
    key = tmp_path / "key.pub"
    key.write_bytes(public_pem(SIGNER.public))
    for given_key in (SIGNER.public, key):
        good = cli("verify", whole, "--key", given_key)
        assert good.exit_code == 0
        assert good.output.startswith("intact: 9 records in order, 9 signed by the key given")
        assert good.output.count("\n") == 1
    path = copied(whole, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"accepted", b"accePted", 1))
    bad = cli("verify", path)
    assert bad.exit_code == 1
    assert "not intact: line 1: the record is not what was hashed" in bad.output
    assert json.loads(cli("verify", path, "--json").output)["line"] == 1


def test_the_command_asks_for_a_closed_log(cli, whole, tmp_path):
    assert cli("verify", whole, "--closed").exit_code == 0
    path = copied(whole, tmp_path)
    added(path)
    bad = cli("verify", path)
    assert bad.exit_code == 1
    assert "line 10: the log was closed after 9 records" in bad.output
    log = AuditLog.open(tmp_path / "open.jsonl", SIGNER)
    log.append(Record("train", "a", 1, "", "accepted"))
    running = cli("verify", log.path)
    assert running.exit_code == 0
    assert "not closed: it is being written" in running.output
    assert "no signature closes it" in cli("verify", log.path, "--closed").output
    log.close()


def test_the_command_shows_what_was_refused(cli, tmp_path):
    with AuditLog.open(tmp_path / "audit.jsonl", SIGNER) as log:
        log.append(Record("train", "good", 1, "", "accepted"))
        log.append(Record("train", "bad", 1, "", "refused", "norm", "12 times [the] median"))
    shown = cli("show", log.path, "--refused").output
    assert "bad" in shown
    assert "good" not in shown
    assert "12 times [the] median" in shown
    assert [row["node"] for row in json.loads(cli("show", log.path, "--json").output)] == ["good", "bad"]
