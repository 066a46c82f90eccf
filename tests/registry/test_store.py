"""Bad stores: locked, old, damaged, unreachable; each is said at once, and nothing is lost."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from filelock import FileLock

from cellwright.errors import RegistryError
from cellwright.registry.store import reading, shown, writing
from cellwright.workspace import Workspace


@pytest.fixture
def ws(tmp_path, empty_store, monkeypatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = Workspace(tmp_path)
    found.state.mkdir()
    shutil.copy(empty_store, found.state / "mlflow.db")
    return found


def test_the_default_store_can_be_written_and_read_again(ws):
    with writing(ws) as client:
        client.create_experiment("kept")
    with reading(ws) as client:
        assert client.get_experiment_by_name("kept").name == "kept"


def test_a_store_that_another_program_has_locked_is_said_to_be(ws):
    with closing(sqlite3.connect(ws.state / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryError, match="has been locked by another program for 0 s; close what writes it"):
            writing(ws, lock_wait_s=0.3).__enter__()
        other.execute("ROLLBACK")
    with writing(ws, lock_wait_s=0.3) as client:
        assert client.search_experiments()


def _locked_out(ws: Workspace, other: sqlite3.Connection) -> None:
    with writing(ws) as client:
        client.search_experiments()
        other.execute("BEGIN EXCLUSIVE")
        client.create_experiment("never")


@pytest.mark.slow  # SQLite waits 20 s
def test_a_lock_that_comes_in_the_middle_is_said_too(ws):
    with closing(sqlite3.connect(ws.state / "mlflow.db", isolation_level=None)) as other:
        with pytest.raises(RegistryError, match="locked by another program"):
            _locked_out(ws, other)
        other.execute("ROLLBACK")
    with reading(ws) as client:
        assert client.get_experiment_by_name("never") is None


def test_another_process_that_writes_is_waited_for_but_not_for_ever(ws):
    with FileLock(ws.state / "mlflow.lock"), pytest.raises(RegistryError, match="another Cellwright process has been writing"):
        writing(ws, turn_wait_s=0.2).__enter__()


@pytest.mark.parametrize("revision", ["451aebb31d03", None])
def test_an_older_schema_says_how_to_upgrade_and_is_not_touched(ws, revision):
    database = ws.state / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "DELETE FROM alembic_version" if revision is None else f"UPDATE alembic_version SET version_num='{revision}'"
        )
        connection.commit()
    before = database.read_bytes()
    with pytest.raises(RegistryError, match=rf"has schema {revision or 'none'}.*mlflow db upgrade sqlite:///{database}"):
        writing(ws).__enter__()
    assert database.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(ws):
    database = ws.state / "mlflow.db"
    database.write_bytes(b"this is not a database, but somebody's notes" * 100)
    with pytest.raises(RegistryError, match="is not an SQLite database"):
        writing(ws).__enter__()
    assert database.read_bytes().startswith(b"this is not")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1:9", "no MLflow server answers at http://127.0.0.1:9"),
        ("./mlruns", "expected sqlite:///"),
        ("file:///var/mlruns", "expected sqlite:///"),
    ],
)
def test_a_server_that_is_not_there_is_said_at_once(ws, monkeypatch, uri, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(RegistryError, match=said):
        writing(ws).__enter__()


def test_a_password_is_not_shown():
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:…@host/db"


def test_a_database_that_is_not_there_is_said_without_its_password(ws, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1:9/mlflow")
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        writing(ws).__enter__()
    assert "secret" not in str(caught.value)
