"""The FMLMS's database: opened, migrated and used in transactions; SQLite by default, PostgreSQL by URL.

Several processes may use one database at once. Transactions that write take turns (SQLite: BEGIN IMMEDIATE; PostgreSQL: an advisory
lock), so nothing that one has read changes before it ends; management writes little and seldom.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, NoSuchModuleError, ProgrammingError

from cellwright.errors import FederationError, Refused, WrongUse

_BUSY_MS = 30_000
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x4D33_3387  # PostgreSQL's advisory lock of whoever writes
_NO_RIGHTS = "42501"  # PostgreSQL's code: insufficient_privilege
_NUL = "cannot contain NUL"  # the driver's words: PostgreSQL keeps no such text, SQLite does


class Store:
    """One database; safe to share between threads."""

    def __init__(self, url: str) -> None:
        """Open, create and migrate the database at an SQLAlchemy URL (`sqlite:///path`, `postgresql://…`).

        Raises:
            WrongUse: the URL cannot be meant.
            FederationError: the database cannot be reached, or its driver is not installed.
        """
        self.url = _driven(sa.engine.make_url(url)) if _is_url(url) else _no_url(url)
        with explained(self):
            self.engine = (
                _sqlite(self.url) if self.url.get_backend_name() == "sqlite" else sa.create_engine(self.url, pool_pre_ping=True)
            )
            with self.write() as connection:
                migrate(connection)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and all of it the same state."""
        with explained(self), self.engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it is kept when the block ends well, nothing when it does not."""
        with explained(self), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Bring a database, empty or of an earlier version, to a version; within a transaction that writes.

    Raises:
        FederationError: it was made by a newer Cellwright.
    """
    try:
        command.upgrade(_config(connection=connection), revision)
    except CommandError as error:
        raise FederationError(
            f"the FMLMS's database is of a version that is not known here ({error}); update Cellwright"
        ) from error


def migration_sql(dialect: str) -> str:
    """The statements that make the database, for an administrator who runs them by hand."""
    out = io.StringIO()
    command.upgrade(_config(out, dialect=dialect), "head", sql=True)
    return out.getvalue()


def _config(out: io.StringIO | None = None, **attributes: Any) -> Config:
    config = Config(attributes=attributes, output_buffer=out)
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@contextmanager
def explained(store: Store) -> Iterator[None]:
    """Turn what a driver says into a FederationError that says what to do."""
    where = store.url.render_as_string(hide_password=True)
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError) as error:
        if getattr(error.orig, "pgcode", None) != _NO_RIGHTS:
            raise  # a mistake of ours, not the database's
        raise FederationError(
            f"the FMLMS may not make or use its tables in {where} ({str(error.orig).splitlines()[0]}); let its user own the database"
        ) from error
    except ValueError as error:
        if _NUL not in str(error):
            raise
        raise Refused(
            f"a text that is kept in {where.partition(':')[0]} cannot hold the character NUL (0x00); leave it out"
        ) from error
    except DatabaseError as error:
        raise FederationError(
            f"the FMLMS's database {where} cannot be used ({error.orig}); start it, or name another with federation.database"
        ) from error
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise FederationError(f"no driver for {where} ({error}); for PostgreSQL install cellwright[postgres]") from error


def upsert(connection: sa.Connection, table: sa.Table, keys: dict[str, Any], values: dict[str, Any]) -> None:
    """Insert a row, or change the one that has these keys; within a transaction that writes."""
    same = sa.and_(*(table.c[name] == value for name, value in keys.items()))
    if not connection.execute(sa.update(table).where(same).values(**values)).rowcount:
        connection.execute(sa.insert(table).values(**keys, **values))


def _sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise WrongUse(
            "the FMLMS's state outlives its process: name a file (sqlite:///folder/federation.db), not a database in memory"
        )
    folder = Path(url.database).parent
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    """A new SQLite connection: transactions are begun by us, not by the driver at the first change."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _driven(url: sa.URL) -> sa.URL:
    """A bare `postgresql://` with the driver that comes with cellwright[postgres]; SQLAlchemy 2.1 would look for another."""
    return url.set(drivername="postgresql+psycopg2") if url.drivername == "postgresql" else url


def _is_url(url: str) -> bool:
    try:
        sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        return False
    return True


def _no_url(url: str) -> sa.URL:
    raise WrongUse(
        f"federation.database must be an SQLAlchemy URL like sqlite:///path or postgresql://user@host/name, found '{url}'"
    )
