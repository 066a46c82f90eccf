"""The door to MLflow's store: probed before MLflow touches it, written by one process at a time, quiet.

MLflow retries a store that is locked for the better part of an hour, and upgrades some old ones without asking. So the
store is probed first, and what is wrong is said at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from cellwright.errors import CellwrightError, RegistryError, WorkspaceError
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

TURN_WAIT_S = 600.0  # for another Cellwright process that writes
LOCK_WAIT_S = 20.0  # for a foreign lock on the SQLite file
CONNECT_WAIT_S = 10.0

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextmanager
def writing(ws: Workspace, *, turn_wait_s: float = TURN_WAIT_S, lock_wait_s: float = LOCK_WAIT_S) -> Iterator[MlflowClient]:
    """A client that may write; other Cellwright processes wait for their turn.

    Raises:
        RegistryError: the store is locked, unreachable, not a store or of another schema; or the turn never came.
    """
    _make_folder(ws)
    try:
        with FileLock(ws.state / "mlflow.lock", timeout=turn_wait_s), reading(ws, lock_wait_s=lock_wait_s) as client:
            yield client
    except Timeout:
        raise RegistryError(
            f"another Cellwright process has been writing {shown(ws.mlflow_uri)} for {turn_wait_s:.0f} s; wait for it or end it, "
            "then run again"
        ) from None


@contextmanager
def reading(ws: Workspace, *, lock_wait_s: float = LOCK_WAIT_S) -> Iterator[MlflowClient]:
    """A client for questions. Whatever MLflow or its database says against it comes out as a RegistryError.

    Raises:
        RegistryError: as for `writing`.
    """
    uri = ws.mlflow_uri
    os.environ.update({key: os.environ.get(key, value) for key, value in _QUIET.items()})
    _probe(uri, lock_wait_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        with _explained(uri), _everywhere(uri):
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)


def artifact_location(ws: Workspace) -> str | None:
    """Where a new experiment keeps its files; None: the server that was named decides."""
    if given := os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        return given
    return None if ws.mlflow_uri.startswith(("http://", "https://")) else ws.mlflow_artifacts.as_uri()


def shown(uri: str) -> str:
    """A store's address without its password."""
    parts = urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":…@") if parts.password else uri


def _make_folder(ws: Workspace) -> None:
    try:
        ws.state.mkdir(parents=True, exist_ok=True)
        if ws.mlflow_uri.startswith("sqlite:///"):
            _sqlite_path(ws.mlflow_uri).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"cannot make the folder of MLflow's store ({error}); make {ws.root} writable") from error


def _sqlite_path(uri: str) -> Any:
    from pathlib import Path

    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def _probe(uri: str, lock_wait_s: float) -> None:
    if uri.startswith(("http://", "https://")):
        _probe_server(uri)
    elif uri.startswith("sqlite:///"):
        _probe_sqlite(uri, lock_wait_s)
    elif "://" in uri and not uri.startswith("file:"):
        _probe_database(uri)
    else:
        raise RegistryError(
            f"MLFLOW_TRACKING_URI is {uri!r}: expected sqlite:///…, postgresql://… or http(s)://…; MLflow no longer takes folders"
        )


def _probe_server(uri: str) -> None:
    import httpx

    try:
        answer = httpx.get(uri.rstrip("/") + "/health", timeout=CONNECT_WAIT_S)
    except httpx.HTTPError as error:
        raise RegistryError(
            f"no MLflow server answers at {shown(uri)} ({error}); start it, or unset MLFLOW_TRACKING_URI to use the local store"
        ) from error
    if answer.status_code >= 500:
        raise RegistryError(f"the MLflow server at {shown(uri)} answers {answer.status_code}; look at its log, then run again")


def _probe_sqlite(uri: str, lock_wait_s: float) -> None:
    """A write lock can be had, and the schema is this MLflow's. A missing file is fine: MLflow makes it."""
    import sqlite3
    from contextlib import closing

    path = _sqlite_path(uri)
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with closing(sqlite3.connect(path, timeout=lock_wait_s, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if found else None
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise RegistryError(_sqlite_complaint(path, error, lock_wait_s)) from error
    except sqlite3.DatabaseError as error:
        raise RegistryError(
            f"{path} is not an SQLite database ({error}); restore it from a copy, or move it away to start an empty store"
        ) from error
    if tables:
        _check_schema(uri, row[0] if row else None)


def _sqlite_complaint(path: Any, error: Exception, lock_wait_s: float) -> str:
    if "locked" in str(error):
        return (
            f"MLflow's store {path} has been locked by another program for {lock_wait_s:.0f} s; close what writes it "
            "(a database browser, a hanging `mlflow`), then run again: nothing is lost"
        )
    return f"MLflow's store {path} cannot be used ({error}); make the file and its folder writable, then run again"


def _probe_database(uri: str) -> None:
    import sqlalchemy

    options = {"connect_timeout": int(CONNECT_WAIT_S)} if uri.startswith("postgresql") else {}
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=options)
        with engine.connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            query = sqlalchemy.text("SELECT version_num FROM alembic_version")
            revision = connection.execute(query).scalar() if "alembic_version" in names else None
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        hint = (
            "install cellwright[postgres]"
            if isinstance(error, ImportError)
            else "start the server or correct MLFLOW_TRACKING_URI"
        )
        raise RegistryError(f"MLflow's store {shown(uri)} cannot be reached ({_first_line(error)}); {hint}") from error
    if names:
        _check_schema(uri, revision)


def _check_schema(uri: str, found: str | None) -> None:
    import mlflow
    from mlflow.store.db.utils import _get_latest_schema_revision

    expected = _get_latest_schema_revision()
    if found != expected:
        raise RegistryError(
            f"MLflow's store {shown(uri)} has schema {found or 'none that MLflow knows'}; MLflow {mlflow.__version__} wants {expected}. "
            f"Take a copy of it, then run `mlflow db upgrade {shown(uri)}` (if it was written by a newer MLflow, install that one)"
        )


@contextmanager
def _everywhere(uri: str) -> Iterator[None]:
    """Parts of MLflow ask for its global address, whatever client they work for (a version made from `models:/…`)."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    os.environ[name] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    import sqlalchemy
    from mlflow.exceptions import MlflowException

    try:
        yield
    except CellwrightError:
        raise
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        text = _first_line(error)
        if "locked" in str(error):
            text = "the database is locked by another program; close it"
        raise RegistryError(
            f"MLflow's store {shown(uri)} refused: {text}. Put that right and run again: nothing is lost"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
