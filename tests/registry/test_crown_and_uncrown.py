"""The alias `champion` follows a rollout: promotion moves it, the way back returns it."""

import pytest

from cellwright.registry import champions
from cellwright.registry.store import writing
from cellwright.registry.versions import crown
from cellwright.workspace import Workspace

NAME = "tiny--traffic--h4-2"


@pytest.fixture
def ws(tmp_path):
    """A registry with three versions of which the first is champion."""
    found = Workspace(tmp_path)
    with writing(found) as client:
        client.create_registered_model(NAME)
        for semantic in ("1.0.0", "1.1.0", "2.0.0"):
            run = client.create_run(client.create_experiment(semantic))
            client.create_model_version(NAME, source=str(tmp_path), run_id=run.info.run_id, tags={"semantic": semantic})
        crown(client, NAME, "1")
    return found


def champion(ws):
    (found,) = champions.list_champions(ws)
    return found.version, found.challenger


def test_what_is_given_back_leaves_no_trace_in_who_was_champion(ws):
    champions.promote(ws, NAME, "2")
    champions.give_back(ws, NAME, "2", "1", "taken back")
    assert champion(ws) == ("1", "2")
    with pytest.raises(Exception, match="no champion before"):
        champions.rollback(ws, NAME)


def test_a_first_champion_that_is_given_back_leaves_none(ws):
    champions.give_back(ws, NAME, "1", None, "taken back")
    assert champions.number(ws, NAME) is None
    champions.promote(ws, NAME, "1")
    assert champions.number(ws, NAME) == "1"


def test_what_another_has_crowned_since_stays(ws):
    champions.promote(ws, NAME, "2")
    champions.promote(ws, NAME, "3")
    champions.give_back(ws, NAME, "2", "1", "taken back")
    assert champions.number(ws, NAME) == "3"


def test_a_bundle_is_traced_to_its_registered_version(ws):
    assert champions.registered_as(ws, NAME, "1.1.0+0a1b2c3d") == (NAME, "2")
    assert champions.registered_as(ws, NAME, "9.0.0") is None
    assert champions.registered_as(ws, "other", "1.1.0") is None
