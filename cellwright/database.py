"""A service's database: opened, migrated and used in transactions; SQLite by default, PostgreSQL by URL.

Several processes may use one database at once. Transactions that write take turns (SQLite: BEGIN IMMEDIATE; PostgreSQL: an advisory
lock), so nothing that one has read changes before it ends; these services write little and seldom.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, NoSuchModuleError, ProgrammingError

from cellwright.errors import CellwrightError, WrongUse

_BUSY_MS = 30_000
_NO_RIGHTS = "42501"  # PostgreSQL's code: insufficient_privilege
_NUL = "cannot contain NUL"  # the driver's words: PostgreSQL keeps no such text, SQLite does


@dataclass(frozen=True)
class Purpose:
    """What a database is for, and how one speaks of it."""

    who: str  # "the FMLMS"
    setting: str  # that names another: "federation.database"
    example: str  # name of a file: "federation.db"
    migrations: Path  # folder of alembic's env.py and versions/
    lock: int  # PostgreSQL's advisory lock of whoever writes
    error: type[CellwrightError]  # it cannot be used
    refused: type[CellwrightError]  # what it cannot keep

    @property
    def whose(self) -> str:
        return f"{self.who}'s"


class Database:
    """One database; safe to share between threads."""

    def __init__(self, url: str, purpose: Purpose) -> None:
        """Open, create and migrate the database at an SQLAlchemy URL (`sqlite:///path`, `postgresql://…`).

        Raises:
            WrongUse: the URL cannot be meant.
            CellwrightError: of the purpose's kind; the database cannot be reached, or its driver is not installed.
        """
        self.purpose, self.url = purpose, _parsed(url, purpose)
        with self.explained():
            self.engine = (
                _sqlite(self.url, purpose)
                if self.url.get_backend_name() == "sqlite"
                else sa.create_engine(self.url, pool_pre_ping=True)
            )
            with self.write() as connection:
                migrate(connection, purpose)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and all of it the same state."""
        with self.explained(), self.engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it is kept when the block ends well, nothing when it does not."""
        with self.explained(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self.purpose.lock)))
            yield connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what a driver says into an error that says what to do."""
        try:
            yield
        except (IntegrityError, ProgrammingError, DataError) as error:
            if getattr(error.orig, "pgcode", None) != _NO_RIGHTS:
                raise  # a mistake of ours, not the database's
            raise self.purpose.error(
                f"{self.purpose.who} may not make or use its tables in {self._where} ({str(error.orig).splitlines()[0]}); let its user "
                "own the database"
            ) from error
        except ValueError as error:
            if _NUL not in str(error):
                raise
            raise self.purpose.refused(
                f"a text that is kept in {self._where.partition(':')[0]} cannot hold the character NUL (0x00); leave it out"
            ) from error
        except DatabaseError as error:
            raise self.purpose.error(
                f"{self.purpose.whose} database {self._where} cannot be used ({error.orig}); start it, or name another with "
                f"{self.purpose.setting}"
            ) from error
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise self.purpose.error(
                f"no driver for {self._where} ({error}); for PostgreSQL install cellwright[postgres]"
            ) from error

    @property
    def _where(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def migrate(connection: sa.Connection, purpose: Purpose, revision: str = "head") -> None:
    """Bring a database, empty or of an earlier version, to a version; within a transaction that writes.

    Raises:
        CellwrightError: of the purpose's kind; it was made by a newer Cellwright.
    """
    try:
        command.upgrade(_config(purpose, connection=connection), revision)
    except CommandError as error:
        raise purpose.error(
            f"{purpose.whose} database is of a version that is not known here ({error}); update Cellwright"
        ) from error


def migration_sql(dialect: str, purpose: Purpose) -> str:
    """The statements that make the database, for an administrator who runs them by hand."""
    out = io.StringIO()
    command.upgrade(_config(purpose, out, dialect=dialect), "head", sql=True)
    return out.getvalue()


def upsert(connection: sa.Connection, table: sa.Table, keys: dict[str, Any], values: dict[str, Any]) -> None:
    """Insert a row, or change the one that has these keys; within a transaction that writes."""
    same = sa.and_(*(table.c[name] == value for name, value in keys.items()))
    if not connection.execute(sa.update(table).where(same).values(**values)).rowcount:
        connection.execute(sa.insert(table).values(**keys, **values))


def _config(purpose: Purpose, out: io.StringIO | None = None, **attributes: Any) -> Config:
    config = Config(attributes=attributes, output_buffer=out)
    config.set_main_option("script_location", str(purpose.migrations).replace("%", "%%"))
    return config


def _sqlite(url: sa.URL, purpose: Purpose) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise WrongUse(
            f"{purpose.whose} state outlives its process: name a file (sqlite:///folder/{purpose.example}), "
            "not a database in memory"
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


def _parsed(url: str, purpose: Purpose) -> sa.URL:
    """The URL; a bare `postgresql://` with the driver of cellwright[postgres], since SQLAlchemy 2.1 would look for another."""
    try:
        found = sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        raise WrongUse(
            f"{purpose.setting} must be an SQLAlchemy URL like sqlite:///path or postgresql://user@host/name, found '{url}'"
        ) from None
    return found.set(drivername="postgresql+psycopg2") if found.drivername == "postgresql" else found
