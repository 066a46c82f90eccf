"""The form of the audit log, and its verification: lines of JSON that hold the hash of the line before, and a signed head.

    {"index":0,"time":…,"kind":"train","node":"a","round":1,"digest":"…","verdict":"accepted","rule":"","reason":"",
     "previous":"<hash of the line before>","hash":"<SHA-256 of this line's bytes up to here>"}

Hashes are over the bytes as they lie in the file: any altered byte, and any line removed, added or moved, breaks the chain. What a
chain cannot tell is whether its end was cut off, or whether all of it was written anew: `<log>.head`, rewritten once a round, holds
the number of records and the hash of the last with an Ed25519 signature. Lines after it are those of the round that runs, or that ran
when the process was killed. When a log is closed its head says so, under the signature: then nothing may come after it.
Whoever can put back an older log together with its older head is found only by a hash kept elsewhere (`head=`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from cellwright.errors import FederationError
from cellwright.federation.audit.signing import Signer, verified

START = "0" * 64  # `previous` of the first record
LONGEST_LINE = 65_536  # bytes
FIELDS = {"index", "time", "kind", "node", "round", "digest", "verdict", "rule", "reason", "previous", "hash"}
_PURPOSE = "cellwright audit head 1"


@dataclass(frozen=True)
class LogVerdict:
    """What verification found."""

    ok: bool
    records: int  # that are in order, from the first on
    signed: int  # of them, up to the head; the others came after its signature
    line: int | None  # where the first fault is, from 1; None: in no line
    reason: str  # in words; "" if ok
    head: str  # hash of the last record in order
    authentic: bool  # whether the head's signature is that of a key the caller gave
    closed: bool = False  # whether the head says that the log is complete

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.ok:
            return self.reason if self.line is None else f"line {self.line}: {self.reason}"
        whose = "the key given" if self.authentic else "a key that the head itself names" if self.signed else "anyone"
        tail = self.records - self.signed
        late = f", {tail} after the last signature, vouched for by the chain alone" if tail else ""
        return f"{self.records} records in order, {self.signed} signed by {whose}{late}; {self._end}; head {self.head}"

    @property
    def _end(self) -> str:
        """Whether the log is complete, in words."""
        if not self.closed:
            return "not closed: it is being written, or its process was killed"
        return "closed" if self.signed == self.records else "closed without a signature"


@dataclass(frozen=True)
class Head:
    """How far a log had come when it was last signed."""

    records: int
    hash: str
    key: str = ""  # Ed25519 public key, hex; "": not signed
    signature: str = ""
    closed: bool = False  # nothing may come after it

    @property
    def message(self) -> bytes:
        """What is signed."""
        return f"{_PURPOSE}\0{self.records}\0{self.hash}{chr(0) + 'closed' if self.closed else ''}".encode()

    def text(self) -> str:
        """As it lies in its file; only a closed one says whether it is."""
        told = {name: value for name, value in vars(self).items() if name != "closed" or value}
        return json.dumps(told, separators=(",", ":")) + "\n"

    def signed(self, signer: Signer | None) -> Head:
        """The same under a signature."""
        return replace(self, key=signer.public, signature=signer.sign_bytes(self.message).hex()) if signer else self


def head_path(path: Path) -> Path:
    """Where the head of a log lies."""
    return path.with_name(path.name + ".head")


def line_of(fields: Mapping[str, Any], index: int, previous: str) -> tuple[bytes, str]:
    """A record as its line, and its hash."""
    row = {"index": index, **fields, "previous": previous}
    body = json.dumps(row, separators=(",", ":"), allow_nan=False)[:-1].encode()
    digest = hashlib.sha256(body).hexdigest()
    return body + _end(digest), digest


def verify_log(path: Path, public_key: str | bytes | None = None, *, head: str | None = None, closed: bool = False) -> LogVerdict:
    """Whether every record is there, in order and as it was written; says where the first fault is.

    `public_key`: whose signature the head must bear; without it the key that the head names is believed. `head`: hash that a record
    of the log must have (`audit_head` of federation.json), against an older log that was put back. `closed`: the log must be complete,
    and signed as such; else one that is being written, or whose process was killed, is in order too.

    Raises:
        FederationError: there is no log, or it cannot be read.
    """
    if not path.is_file() and not head_path(path).is_file():
        raise FederationError(
            f"there is no audit log {path}; a federation writes one into its folder if federation.audit is true"
        )
    try:
        found = walk(path, public_key, known=head)
        return _unfinished(found) if closed and found.ok and not (found.closed and found.signed == found.records) else found
    except OSError as error:
        raise FederationError(f"cannot read the audit log {path}: {error.strerror}") from error


def walk(path: Path, public_key: str | bytes | None, *, known: str | None = None, torn: bool = False) -> LogVerdict:
    """As `verify_log`; `torn`: the last line has no end and is left out."""
    head = _read_head(path, public_key)
    if isinstance(head, str):
        return _bad(0, START, head, in_line=False)
    count, previous, seen = 0, START, known is None
    for line in _lines(path):
        if torn and not line.endswith(b"\n"):
            break
        fault = _fault(line, count, previous)
        if fault:
            return _bad(count, previous, fault)
        if head.closed and count == head.records:
            return _bad(count, previous, f"the log was closed after {count} records: this was added afterwards")
        count, previous = count + 1, _hash_of(line)
        seen = seen or previous == known
        if count == head.records and previous != head.hash:
            return _bad(count - 1, previous, "the signed head has another hash here: the log was written anew")
    if count < head.records:
        return _bad(count, previous, f"the log ends after {count} records, {head.records} were signed: its end was cut off")
    if not seen:
        return _bad(
            count, previous, f"no record has the hash {str(known)[:16]}… that is known: an older log was put back", in_line=False
        )
    return LogVerdict(True, count, head.records if head.signature else 0, None, "", previous, bool(public_key), head.closed)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log as they stand, unverified; the first line that is none ends them."""
    for line in _lines(path):
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not isinstance(row, dict) or not row.keys() >= FIELDS:
            return
        yield row


def _bad(count: int, previous: str, reason: str, *, in_line: bool = True) -> LogVerdict:
    return LogVerdict(False, count, 0, count + 1 if in_line else None, reason, previous, authentic=False)


def _unfinished(found: LogVerdict) -> LogVerdict:
    """A log in order, where one that is complete was expected."""
    why = (
        "its head is closed, but nobody signed it"
        if found.closed
        else f"no signature closes it after {found.records} records: it is being written, its process was killed, or its end was taken away"
    )
    return replace(found, ok=False, reason=why)


def _lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        yield from _read_lines(file)


def _read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, none longer than a record can be."""
    while line := file.readline(LONGEST_LINE):
        yield line


def _end(digest: str) -> bytes:
    return f',"hash":"{digest}"}}\n'.encode()


_END_BYTES = len(_end(START))


def _hash_of(line: bytes) -> str:
    return line[-_END_BYTES:][9:73].decode("ascii", "replace")


def _fault(line: bytes, index: int, previous: str) -> str:
    """What is wrong with a line that should be record `index`; "": nothing."""
    if not line.endswith(b"\n"):
        return "the line has no end: torn by a kill, or cut off; it is repaired, with a note, when the log is opened to go on"
    body = line[:-_END_BYTES]
    if line[-_END_BYTES:] != _end(hashlib.sha256(body).hexdigest()):
        return "the record is not what was hashed: it was altered"
    try:
        record = json.loads(body + b"}")
        place = record["index"], record["previous"]
    except (ValueError, KeyError, TypeError, RecursionError):  # hashed all the same: anyone can
        return "the line has a right hash and holds no record: it was written by another"
    if place != (index, previous):
        return f"here should be record {index}, found record {record['index']}: records were altered, removed, added or moved"
    return ""


def _read_head(path: Path, public_key: str | bytes | None) -> Head | str:
    """The head, or what is wrong with it."""
    file = head_path(path)
    try:
        raw = file.read_text()
        found = Head(**json.loads(raw))
    except FileNotFoundError:
        empty = not path.exists() or path.stat().st_size == 0
        return (
            Head(0, START) if empty and public_key is None else f"{file.name} is missing: whether the log is whole cannot be told"
        )
    except (ValueError, TypeError):
        return f"{file.name} cannot be read as a head: it was altered"
    if found.text() != raw or not isinstance(found.records, int) or not isinstance(found.closed, bool):
        return f"{file.name} is not as it is written: it was altered"
    return found if _believed(found, public_key) else _disbelief(found, public_key, file.name)


def _believed(head: Head, public_key: str | bytes | None) -> bool:
    """Whether the signature is that of the key; of the one it names where none is given. An unsigned head needs none."""
    if public_key is None and not head.key and not head.signature:
        return True
    try:
        signature = bytes.fromhex(head.signature)
        exact = signature.hex() == head.signature and bytes.fromhex(head.key).hex() == head.key
        return exact and _hex(public_key) in (None, head.key) and verified(signature, head.message, head.key)
    except (ValueError, TypeError, FederationError):
        return False


def _disbelief(head: Head, public_key: str | bytes | None, name: str) -> str:
    expected = _hex(public_key)
    if expected is not None and head.key != expected:
        return f"{name} is signed by {str(head.key)[:16] or 'nobody'}, expected {expected[:16]}…"
    return f"the signature in {name} is not that of its key: it was altered"


def _hex(key: str | bytes | None) -> str | None:
    return key.hex() if isinstance(key, bytes) else None if key is None else key.lower()
