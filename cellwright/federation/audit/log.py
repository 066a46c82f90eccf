"""The audit log while it is written: one record a message, one signature a round (M.3387 9.4). chain.py has its form."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from cellwright.errors import FederationError
from cellwright.federation.audit.chain import LONGEST_LINE, Head, LogVerdict, head_path, line_of, records, verify_log, walk
from cellwright.federation.audit.signing import Signer
from cellwright.files import explained, write_text

__all__ = ["AuditLog", "LogVerdict", "Record", "head_path", "records", "verify_log"]

_LONGEST_REASON = 4_000  # characters; what comes from outside must not make a line too long to be read back


@dataclass(frozen=True)
class Record:
    """What is told of one message, or of the log itself."""

    kind: str  # of the message ("train"); "note": about the log
    node: str = ""
    round: int = 0
    digest: str = ""  # SHA-256 of the parcel, hex; "": none came
    verdict: Literal["accepted", "refused", "late", "lost", "sent", "note"] = "note"
    rule: str = ""  # that was broken
    reason: str = ""  # in words


class AuditLog:
    """One process writes it. A record survives this process at once, and the machine after `seal`."""

    def __init__(self, path: Path, file: int, found: LogVerdict, signer: Signer | None) -> None:
        self.path, self._file, self._signer = path, file, signer
        self.records, self.head = found.records, found.head  # written so far; hash of the last

    @classmethod
    def open(cls, path: Path, signer: Signer | None = None) -> Self:
        """Begin a log, or go on with one, under the same key. A last line torn by a kill is taken out; a note says what it held.

        Raises:
            FederationError: the log that is there was altered, its end is missing or another key signed it; it stays as it is.
        """
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = head_path(path).exists() or (path.exists() and path.stat().st_size > 0)
            torn = _torn(path)
            found = walk(path, signer.public if signer and begun else None, torn=bool(torn))
            if not found.ok:
                raise FederationError(
                    f"the audit log {path} cannot be continued: {found.summary}. Look at it with `cellwright audit verify`; move it "
                    "and its .head away to begin another"
                )
            if torn:
                os.truncate(path, path.stat().st_size - len(torn))
            log = cls(path, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), found, signer)
        if not begun or found.closed:
            log.seal()  # so that a log without a head is always one that lost it, and one that goes on is not closed
        log._tell(torn, found)
        return log

    def append(self, record: Record) -> str:
        """Write one record; returns its hash."""
        fields = {"time": round(time.time(), 3), **vars(record), "reason": record.reason[:_LONGEST_REASON]}
        line, digest = line_of(fields, self.records, self.head)
        with explained(self.path):
            _write(self._file, line)
        self.records, self.head = self.records + 1, digest
        return digest

    def seal(self, *, closing: bool = False) -> None:
        """Force what was written to the disk, then sign the head; once a round, and at the end, when it is said to be that."""
        with explained(self.path):
            os.fsync(self._file)
        write_text(head_path(self.path), Head(self.records, self.head, closed=closing).signed(self._signer).text())

    def close(self) -> None:
        """Seal as complete, and close; whatever is appended after it, `verify_log` finds, unless the log is opened to go on."""
        if self._file >= 0:
            self.seal(closing=True)
            os.close(self._file)
            self._file = -1

    def _tell(self, torn: bytes, found: LogVerdict) -> None:
        """Notes about what was found when the log was opened."""
        if torn:
            text = torn.decode("utf-8", "backslashreplace")
            self.append(Record("note", reason=f"repaired: a line of {len(torn)} bytes had been torn by a kill: {text}"))
        elif found.records > found.signed and self._signer:
            self.append(Record("note", reason=f"reopened {found.records - found.signed} records after the last signature"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _torn(path: Path) -> bytes:
    """What stands after the last end of line; b"": nothing, or more than a record can be."""
    if not path.exists():
        return b""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LONGEST_LINE))
        rest = file.read()
    tail = rest[rest.rfind(b"\n") + 1 :]
    return tail if len(tail) < LONGEST_LINE else b""


def _write(file: int, line: bytes) -> None:
    """All of a line: a disk that is nearly full takes a part, and says so at the next call."""
    while line:
        line = line[os.write(file, line) :]
