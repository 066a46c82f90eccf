"""Reports on their way to the hub, kept on disk while it is away: SQLite, bounded.

When it is full, the oldest of the tenant that has the most go first, so that no tenant's devices push out what others have reported.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cellwright.errors import WorkspaceError
from cellwright.files import explained

_TABLE = "CREATE TABLE IF NOT EXISTS reports (id INTEGER PRIMARY KEY, kind TEXT, name TEXT, document TEXT, UNIQUE (kind, name))"
_COUNTED = "SELECT substr(name, 1, instr(name, '/')) AS tenant, count(*) FROM reports GROUP BY tenant ORDER BY 2 DESC"
_DELETE_OLDEST = (
    "DELETE FROM reports WHERE id IN (SELECT id FROM reports WHERE substr(name, 1, instr(name, '/')) = ? ORDER BY id LIMIT ?)"
)
MOST_ROWS = 100_000


@dataclass(frozen=True)
class Report:
    """One report. `name`: what makes it one, "<tenant>/<…>": a report of the same name replaces it."""

    kind: str  # "fetch" or "qos"
    name: str
    document: str
    row: int = 0


class Outbox:
    """The reports of one edge. Safe to use from several threads."""

    def __init__(self, path: Path, most_rows: int = MOST_ROWS) -> None:
        self._path, self._most, self._lock = path, most_rows, threading.Lock()
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open()) as db, db:
            db.execute(_TABLE)

    def put(self, reports: Iterable[Report]) -> int:
        """Keep reports until they are sent; returns how many were new. Raises WorkspaceError."""
        rows = [(r.kind, r.name, r.document) for r in reports]
        with self._lock, closing(self._open()) as db:
            try:
                with db:
                    before = db.execute("SELECT count(*) FROM reports").fetchone()[0]
                    db.executemany("INSERT OR REPLACE INTO reports (kind, name, document) VALUES (?, ?, ?)", rows)
                    after = db.execute("SELECT count(*) FROM reports").fetchone()[0]
                    _make_room(db, after - self._most)
            except sqlite3.OperationalError as error:
                raise WorkspaceError(f"cannot keep reports in {self._path} ({error}); free some space") from error
        return int(after - before)

    def oldest(self, kind: str, most: int) -> list[Report]:
        """The next to send."""
        with self._lock, closing(self._open()) as db:
            wanted = "SELECT kind, name, document, id FROM reports WHERE kind = ? ORDER BY id LIMIT ?"
            return [Report(*row) for row in db.execute(wanted, (kind, most))]

    def sent(self, reports: Sequence[Report]) -> None:
        """Forget those that have arrived; one that was replaced meanwhile has another row and stays."""
        with self._lock, closing(self._open()) as db, db:
            db.executemany("DELETE FROM reports WHERE id = ?", [(r.row,) for r in reports])

    def __len__(self) -> int:
        with self._lock, closing(self._open()) as db:
            return int(db.execute("SELECT count(*) FROM reports").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10)


def _make_room(db: sqlite3.Connection, surplus: int) -> None:
    """Delete so many reports: of whichever tenant has the most, down to what the next has, and so on."""
    while surplus > 0:
        (tenant, most), *others = db.execute(_COUNTED).fetchall()
        beyond = most - (others[0][1] if others else 0)
        gone = min(surplus, max(beyond, -(-surplus // (1 + len(others)))))
        db.execute(_DELETE_OLDEST, (tenant, gone))
        surplus -= gone
