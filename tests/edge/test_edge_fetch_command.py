"""`cellwright fetch` through a hub, as a user types it."""

import json

import pytest
from fetch_parts import cloud_of, noise
from typer.testing import CliRunner

from cellwright.errors import WrongUse
from flows.cli import app


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with cloud_of(tmp_path_factory.mktemp("cloud"), noise(200_000), [("east", 2.05)], {}) as made:
        (made.folder / "token").write_text(made.token("acme", "ue-1", "device"))
        yield made


def fetch(cloud, folder, *arguments):
    common = [
        "fetch",
        "--folder",
        str(folder),
        "--hub",
        cloud.url,
        "--token-file",
        str(cloud.folder / "token"),
        "--device",
        "ue-1",
    ]
    found = CliRunner().invoke(app, [*common, *arguments], catch_exceptions=True)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.output


def test_the_model_of_a_service_and_its_report(cloud, tmp_path):
    found = json.loads(fetch(cloud, tmp_path, "--service", "guide", "--location", "2.05,48.05", "--deadline", "30", "--json"))
    assert (found["name"], found["version"], found["tenant"], found["met"]) == ("guide", "1.0.0", "acme", True)
    assert (found["edges"], found["delta"], found["notes"]) == (["east"], None, [])
    assert found["bytes"] > 200_000
    assert "is active already" in fetch(cloud, tmp_path, "guide")
    lines = fetch(cloud, tmp_path / "other", "guide", "--qos", "none", "--deadline", "30")
    assert "deadline    met" in lines
    assert "edges       east" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--location", "north"], "longitude,latitude"),
        (["--latency-ms", "5"], "name it with --task"),
        (["guide", "--service", "x"], "not both"),
        (["guide", "--qos", "everyone"], "edge, device or none"),
    ],
)
def test_what_cannot_be_meant_is_refused(cloud, tmp_path, arguments, message):
    with pytest.raises(WrongUse, match=message):
        fetch(cloud, tmp_path, *arguments)


def test_options_of_a_hub_need_one(tmp_path):
    found = CliRunner().invoke(app, ["fetch", "--folder", str(tmp_path), "--service", "guide"])
    assert isinstance(found.exception, WrongUse)
