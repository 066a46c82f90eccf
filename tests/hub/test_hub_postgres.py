"""The hub over a real PostgreSQL. Runs where CELLWRIGHT_POSTGRES names one, whose user may create databases."""

import importlib.util
import os
import secrets
import threading

import pytest
import sqlalchemy as sa

from cellwright.hub import contract as c
from cellwright.hub import tables
from cellwright.hub.core import LOCAL, Who
from cellwright.hub.refusals import Changed
from cellwright.hub.service import open_hub

SERVER = os.environ.get("CELLWRIGHT_POSTGRES", "")
pytestmark = pytest.mark.skipif(
    not SERVER or importlib.util.find_spec("psycopg2") is None,
    reason="CELLWRIGHT_POSTGRES is not set (the URL of a PostgreSQL to test with), or cellwright[postgres] is not installed",
)


@pytest.fixture
def database():
    """A database of its own, gone afterwards."""
    url = sa.engine.make_url(SERVER).set(drivername="postgresql+psycopg2")
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"hub_{secrets.token_hex(4)}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def uploaded(hub, who, version):
    upload = hub.open_upload(who, c.UploadForm(model="m", version=version, format="opaque", bytes=5))
    with hub.arriving(who, upload.id, 0) as arriving:
        arriving.add(version.encode())
        return arriving.finish()


def test_the_whole_way_of_a_model(tmp_path, database):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with open_hub(tmp_path / "hub", database=database) as hub:
        hub.put_tenant(LOCAL, "a", c.TenantForm())
        who = hub.authenticate(hub.new_token(LOCAL, "a", c.TokenForm(name="ci", scopes=("publish",))).token)
        place = c.Location(longitude=0, latitude=0)
        hub.register_edge(LOCAL, "east", c.EdgeForm(url="http://x", location=place, disk_bytes=1))
        release = uploaded(hub, who, "1.0.0")
        hub.place(who, "r", c.PlacementForm(model="m"))
        assert hub.publish(who, "m", c.Publication(version="1.0.0"), expected=0).edges == ("east",)
        assert hub.desired("east").tenants[0].models[0].versions[0].digest == release.digest
        assert hub.match(who, c.MatchAsk(device="ue", location=place)).edges[0].name == "east"
        hub.unpublish(who, "m")
        hub.delete_model(who, "m")
        assert hub.tenant("a").usage == c.Usage(bytes=0, models=0, releases=0, uploads=0)
        assert hub.verify_audit().ok
        with hub.store.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), tables.schema) == []


def test_two_hubs_on_one_database_let_one_publisher_win(tmp_path, database):
    who = Who("t", "operator", "x", frozenset({"operator"}))
    with open_hub(tmp_path / "hub", database=database) as one, open_hub(tmp_path / "hub", database=database) as two:
        uploaded(one, who, "1.0.0")
        uploaded(two, who, "2.0.0")
        won, lost = [], []

        def publish(hub, version):
            try:
                won.append(hub.publish(who, "m", c.Publication(version=version), expected=0))
            except Changed:
                lost.append(version)

        threads = [threading.Thread(target=publish, args=pair) for pair in ((one, "1.0.0"), (two, "2.0.0"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 1)
        assert one.verify_audit().ok
