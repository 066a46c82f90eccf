"""How long reports are kept: fetches and QoS sessions, by when they came (what a device says of the time is its own word).

Rows go in small transactions, so that nobody waits for long, and are counted, so that totals go on growing. In the service a thread
does it now and then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from cellwright.database import upsert
from cellwright.errors import CellwrightError
from cellwright.hub import tables
from cellwright.hub.core import LOCAL, Core
from cellwright.hub.revoking import forget_expired

log = logging.getLogger(__name__)
EVERY_S = 3_600.0
_BATCH = 1_000  # rows in one transaction; a few more where several came at one moment
_MOST_BATCHES = 100  # at once; the rest goes the next time
_KEPT = (tables.fetches, tables.qos)


class Retention(Core):
    """Throw away what is older than it is kept for."""

    def prune(self, stop: threading.Event | None = None) -> dict[str, int]:
        """Throw old reports away, `_MOST_BATCHES` × `_BATCH` of each kind at most, and names of grants that have expired since.

        Returns how many rows went, by table; in the audit log too, where any did. `stop`: end after the batch.
        """
        gone = {table.name: sum(self._batches(table, stop or threading.Event())) for table in _KEPT}
        with self.store.read() as connection:
            t = tables.revocations
            expired = connection.execute(sa.select(t.c.name).where(t.c.until_s <= self.clock()).limit(1)).first()
        if expired is not None:
            with self.changing() as connection:
                forget_expired(connection, self.clock())
        if any(gone.values()):
            days = self.settings.retention_s / 86_400
            with self.store.write() as connection:
                told = ", ".join(f"{name}: {rows}" for name, rows in gone.items() if rows)
                self.note(connection, LOCAL, "prune", "reports", f"{told}; older than {days:g} days")
        return gone

    def _batches(self, table: sa.Table, stop: threading.Event) -> Iterator[int]:
        """How many rows went, batch by batch."""
        before_s, came = self.clock() - self.settings.retention_s, table.c.received_s
        oldest = sa.select(came).where(came < before_s).order_by(came).limit(_BATCH).subquery()
        for _ in range(_MOST_BATCHES):
            with self.store.read() as connection:
                last_s = connection.execute(sa.select(sa.func.max(oldest.c.received_s))).scalar_one()
            if last_s is None or stop.is_set():
                return
            with self.store.write() as connection:
                yield drop(connection, table, came <= last_s)


def drop(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    """Delete reports, and remember how many there were; within a transaction that writes."""
    rows = connection.execute(sa.delete(table).where(*where)).rowcount
    if rows:
        upsert(connection, tables.dropped, {"what": table.name}, {"rows": dropped(connection, table) + rows})
    return rows


def dropped(connection: sa.Connection, table: sa.Table) -> int:
    """How many reports of a kind were thrown away, with deleted tenants' too."""
    t = tables.dropped
    return connection.execute(sa.select(t.c.rows).where(t.c.what == table.name)).scalar_one_or_none() or 0


@contextmanager
def housekeeping(hub: Retention, every_s: float = EVERY_S) -> Iterator[None]:
    """While the block runs, a thread prunes a hub at once and then every so often."""
    stop = threading.Event()

    def keep_house() -> None:
        while True:
            try:
                hub.prune(stop)
            except CellwrightError as error:
                log.warning("old reports were not thrown away: %s; tried again in %g s", error, every_s)
            except sa.exc.SQLAlchemyError:  # no fault of the database's that has an advice; the next look may find it gone
                log.exception("old reports were not thrown away; tried again in %g s", every_s)
            if stop.wait(every_s):
                return

    thread = threading.Thread(target=keep_house, name="housekeeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
