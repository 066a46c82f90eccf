"""What is known of sessions after a crash: each is written here before the network is asked for it, and removed once it is gone.

SQLite, one small file for all processes of a workspace, readable by its owner alone (devices' numbers and addresses are in it).
An entry whose owner (process id and its start time) is no longer alive is an orphan; `QodClient.release` deletes its session.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import psutil

from cellwright.errors import WorkspaceError
from cellwright.files import explained
from cellwright.qos.forms import CreateSession

_BUSY_S = 10.0
_TABLE = """CREATE TABLE IF NOT EXISTS sessions (
    entry TEXT PRIMARY KEY, root TEXT NOT NULL, asked TEXT NOT NULL, session TEXT,
    owner INTEGER NOT NULL, born REAL NOT NULL, written REAL NOT NULL
)"""


@dataclass(frozen=True)
class Entry:
    """One session that was asked for. `session_id`: None until the network has named it."""

    root: str
    asked: CreateSession  # without the sink's token
    session_id: UUID | None = None
    id: str = field(default_factory=lambda: uuid4().hex)
    owner: int = field(default_factory=os.getpid)
    born_s: float = field(default_factory=lambda: psutil.Process().create_time())
    written_s: float = field(default_factory=time.time)

    @property
    def orphaned(self) -> bool:
        """Whether the process that wrote it is gone."""
        try:
            return abs(psutil.Process(self.owner).create_time() - self.born_s) > 1.0
        except psutil.NoSuchProcess:
            return True


class Journal:
    """The entries of one file. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Raises WorkspaceError: the file cannot be made, or is no journal."""
        self.path = path
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(_TABLE)

    def write(self, entry: Entry) -> Entry:
        """Keep an entry; whatever happens from now on, its session can be found."""
        asked = entry.asked.model_copy(update={"sink_credential": None}).model_dump_json(by_alias=True, exclude_none=True)
        values = (entry.id, entry.root, asked, str(entry.session_id or "") or None, entry.owner, entry.born_s, entry.written_s)
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        return entry

    def remove(self, entry: Entry) -> None:
        """Forget an entry: the network knows no such session any more."""
        with self._open() as db:
            db.execute("DELETE FROM sessions WHERE entry = ?", (entry.id,))

    def entries(self, root: str | None = None) -> tuple[Entry, ...]:
        """All of them, oldest first; of one network if `root` names it."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM sessions ORDER BY written").fetchall()
        found = (
            Entry(at, CreateSession.model_validate_json(asked), UUID(session) if session else None, id_, owner, born_s, written_s)
            for id_, at, asked, session, owner, born_s, written_s in rows
        )
        return tuple(entry for entry in found if root is None or entry.root == root)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use, as threads may not share one; committed when the block ends well."""
        try:
            db = sqlite3.connect(self.path, timeout=_BUSY_S)
            try:
                db.execute("PRAGMA synchronous=NORMAL")
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise WorkspaceError(
                f"the journal of QoS sessions {self.path} cannot be used ({error}); free space or move it away"
            ) from error
