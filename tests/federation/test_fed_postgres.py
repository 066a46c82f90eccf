"""The FMLMS over a real PostgreSQL: migrations, service, scheduling, API, several processes. Runs where CELLWRIGHT_POSTGRES names one."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa
from safetensors.numpy import save

from cellwright.errors import FederationError, Refused
from cellwright.federation.data.keyring import FileKey
from cellwright.federation.data.vault import Vault
from cellwright.federation.management import bounds
from cellwright.federation.management.records import DataNeeds, Holding, Link, NodeProperties, ServiceRequest, Training
from cellwright.federation.management.refusals import Conflict
from cellwright.federation.management.serve import in_thread
from cellwright.federation.management.service import Fmlms
from cellwright.federation.management.store import Store, migrate
from cellwright.federation.management.tables import schema

SERVER = os.environ.get("CELLWRIGHT_POSTGRES", "")
DRIVER = importlib.util.find_spec("psycopg2") is not None
pytestmark = [
    pytest.mark.skipif(
        not SERVER,
        reason="CELLWRIGHT_POSTGRES is not set: the URL of a PostgreSQL whose user may create databases and roles",
    ),
    pytest.mark.skipif(not DRIVER, reason="psycopg2 is not installed: install cellwright[postgres]"),
]
HUB = NodeProperties(name="hub", roles=("coordinator",), layer="cloud", security=3)
OWNERS = tuple(NodeProperties(name=f"car{i}", roles=("data_owner",)) for i in range(4))
MODEL = save({})


def administer(*statements: str) -> None:
    """Statements outside of any transaction, on the server's own database."""
    engine = sa.create_engine(sa.engine.make_url(SERVER).set(drivername="postgresql+psycopg2"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


@pytest.fixture
def url() -> Iterator[str]:
    """A database of the test's own, by the URL that an operator would write."""
    name = f"cellwright_test_{secrets.token_hex(6)}"
    administer(f"CREATE DATABASE {name}")
    server = sa.engine.make_url(SERVER).set(drivername="postgresql", database=name)
    yield server.render_as_string(hide_password=False)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def fmlms(url: str, tmp_path) -> Iterator[Fmlms]:
    with Fmlms(url, vault=Vault(FileKey(tmp_path / "key"))) as made:
        made.register(HUB, *OWNERS)
        made.declare(*(Holding(node=o.name, dataset="city", windows=100) for o in OWNERS))
        yield made


def asked(name: str = "load", **more: object) -> ServiceRequest:
    return ServiceRequest.model_validate({"name": name, "data": DataNeeds(dataset="city")} | more)


def test_migrations_lead_to_the_tables_that_are_used_and_opening_again_changes_nothing(url):
    for _ in range(2):
        store = Store(url)
        found = sa.inspect(store.engine)
        names = {t: {c["name"] for c in found.get_columns(t)} for t in found.get_table_names() if t != "alembic_version"}
        store.close()
        assert names == {t.name: set(t.columns.keys()) for t in schema.sorted_tables}


def test_a_database_of_version_1_keeps_what_it_holds(url):
    engine = sa.create_engine(sa.engine.make_url(url).set(drivername="postgresql+psycopg2"))
    with engine.begin() as connection:
        migrate(connection, "0001")
        values = {"document": asked("kept").model_dump_json()}
        connection.execute(
            sa.text(
                "INSERT INTO requests (id, client, name, status, class, submitted_s, rounds, reason, run, document, nodes, training) "
                "VALUES ('old', 'planner', 'kept', 'queued', 'normal', 1000.5, 0, '', '', :document, '[]', '{}')"
            ),
            values,
        )
    engine.dispose()
    with Fmlms(url) as made:
        assert made.follow("old").request == asked("kept")
        assert made.choices("old") == ()


def test_a_request_from_its_submission_to_its_model(fmlms):
    submitted = fmlms.submit(asked(), "planner")
    with pytest.raises(Conflict):  # the index of active names
        fmlms.submit(asked(), "planner")
    start = fmlms.next(only=submitted.id)
    assert start.nodes == ("car0", "car1", "car2", "car3")
    assert fmlms.form(submitted.id).coordinator == "hub"
    fmlms.configure(submitted.id, Training(algorithm={"model": "gru"}), MODEL)
    assert fmlms.plan_for("car0", submitted.id).training.algorithm == {"model": "gru"}
    assert fmlms.initial_model("car0", submitted.id)[1] == MODEL
    fmlms.heartbeat("car3", alive=False, reason="left")
    assert fmlms.tend(submitted.id).owners == ("car0", "car1", "car2")
    fmlms.progress(submitted.id, 3)
    fmlms.deliver(submitted.id, MODEL)
    ended = fmlms.follow(submitted.id)
    assert (ended.status, ended.rounds) == ("finished", 3)
    assert fmlms.model(submitted.id, "planner")[1] == MODEL


def test_an_urgent_request_pauses_a_running_one_which_goes_on_later(fmlms):
    calm = fmlms.submit(asked("calm", priority="low", exclusive=True), "a").id
    assert fmlms.next().id == calm
    rush = fmlms.submit(asked("rush", priority="high", importance=10, exclusive=True), "b").id
    assert fmlms.next() is None
    assert fmlms.should_preempt(calm, 4).by == rush
    assert (fmlms.follow(calm).status, fmlms.follow(calm).rounds) == ("preempted", 4)
    assert fmlms.next().id == rush
    fmlms.deliver(rush, MODEL)
    assert fmlms.next(only=calm).id == calm


def test_metadata_are_versioned_sealed_and_bounded(fmlms, monkeypatch):
    assert [fmlms.store_metadata("car0", "city", content) for content in (b"{}", b'{"secret": 1}')] == [1, 2]
    assert fmlms.metadata("car0", "city") == (2, b'{"secret": 1}')
    with fmlms.store.read() as connection:
        kept = connection.execute(sa.text("SELECT content FROM raw_metadata ORDER BY version")).scalars().all()
    assert all(bytes(content).startswith(b"CWS1") and b"secret" not in bytes(content) for content in kept)
    monkeypatch.setattr(bounds, "MOST_NODE_BYTES", sum(len(bytes(content)) for content in kept))
    with pytest.raises(Refused, match="bytes already, at most"):
        fmlms.store_metadata("car0", "city", b"{}")
    fmlms.set_links([Link(source="car0", target="hub", delay_ms=3), Link(source="car0", target="hub", delay_ms=4)])
    assert [link.delay_ms for link in fmlms.links()] == [4]


def test_what_a_transaction_reads_does_not_change_before_it_ends(fmlms):
    wanted = sa.text("SELECT count(*) FROM links")
    with fmlms.store.read() as connection:
        before = connection.execute(wanted).scalar_one()
        fmlms.set_links([Link(source="car0", target="hub")])
        assert connection.execute(wanted).scalar_one() == before
    assert len(fmlms.links()) == before + 1


WORKER = """
import sys
from cellwright.federation.management.records import DataNeeds, ServiceRequest
from cellwright.federation.management.service import Fmlms
url, me = sys.argv[1:]
with Fmlms(url) as fmlms:
    for i in range(10):
        fmlms.submit(ServiceRequest(name=f"{me}-{i}", data=DataNeeds(dataset="city")), me)
        fmlms.store_metadata("car0", "city", me.encode())
        while (start := fmlms.next()) is not None:
            print(start.id)
            fmlms.fail(start.id, "no more")
"""


def test_two_processes_lose_nothing_and_start_each_request_once(fmlms, url):
    command = [sys.executable, "-c", WORKER, url]
    workers = [subprocess.Popen([*command, f"p{i}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(2)]
    outs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outs
    started = [line for out, _err in outs for line in out.split()]
    assert len(started) == len(set(started)) == 20
    with fmlms.store.read() as connection:
        assert connection.execute(sa.text("SELECT max(version) FROM raw_metadata")).scalar_one() == 20


def test_over_http_and_a_character_that_postgresql_cannot_keep_is_refused(fmlms):
    with in_thread(fmlms) as address, httpx.Client(base_url=address, trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {fmlms.new_token('operator', 'boss')}"
        made = client.post("/v1/requests", json={"name": "over-http", "data": {"dataset": "city"}})
        assert made.status_code == 201
        assert client.get(f"/v1/requests/{made.json()['id']}").json()["status"] == "queued"
        assert client.get("/healthz").json()["status"] == "ok"
        odd = client.post("/v1/nodes/car0/metadata", params={"dataset": "a\0b"}, json={})
        assert odd.status_code == 422
        assert "NUL" in odd.json()["detail"]


def test_a_user_without_rights_and_a_server_that_is_away_are_clear_errors(url):
    name = f"cellwright_test_{secrets.token_hex(6)}"
    administer(f"CREATE ROLE {name} LOGIN PASSWORD 'hidden'")
    try:
        poor = sa.engine.make_url(url).set(username=name, password="hidden").render_as_string(hide_password=False)
        with pytest.raises(FederationError, match="let its user own the database") as found:
            Fmlms(poor)
        assert "hidden" not in str(found.value)
    finally:
        administer(f"DROP ROLE {name}")
    away = sa.engine.make_url(url).set(host="127.0.0.1", port=1, password="hidden").render_as_string(hide_password=False)
    with pytest.raises(FederationError, match="start it, or name another") as found:
        Fmlms(away)
    assert "hidden" not in str(found.value)
