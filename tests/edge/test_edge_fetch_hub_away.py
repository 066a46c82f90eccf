"""A device whose hub is away gets the answer again that it had for the same question: said to be old, for a day, and nobody else's."""

import json
from dataclasses import replace

import pytest
from fetch_parts import HERE, WANTED, Line, cloud_of, line_to, noise

from cellwright.edge.finding import Wanted
from cellwright.errors import HubError, HubRefused
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.refusals import DiskFull

CONTENT = noise(300_000)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with cloud_of(tmp_path_factory.mktemp("cloud"), CONTENT, [("east", 2.05)], {}) as made:
        yield made


@pytest.fixture
def way(cloud):
    """The line to the hub, its address, and the device's client over it."""
    line: Line = line_to(cloud.url)
    with line.open() as url, HubClient(url, cloud.token("acme", "ue-1", "device")) as client:
        yield line, url, client


@pytest.fixture
def device(cloud, tmp_path):
    return cloud.device(tmp_path / "device")


def away(line, client):
    line.down = True
    client.http._transport.close()  # the kept connection too


@pytest.mark.parametrize("wanted", [WANTED, Wanted(model="guide", location=HERE)])
def test_the_last_answer_is_given_again_and_said_to_be_old(way, device, wanted):
    line, _, client = way
    assert device.get(client, wanted).match_age_s is None
    away(line, client)
    fresh = type(device)(device.folder, {}, name="ue-1")  # a new process knows it too
    fetched = fresh.get(client, wanted)
    assert (fetched.name, fetched.version, fetched.new) == ("guide", "1.0.0", False)
    assert 0 <= fetched.match_age_s < 300
    assert "the hub's last answer, " in fetched.why
    assert any("s old, as it is away: cannot reach a hub" in note for note in fetched.notes)


def test_a_model_can_be_fetched_while_the_hub_is_away(way, device):
    import shutil

    line, _, client = way
    device.get(client, WANTED)
    shutil.rmtree(device.folder / "tenants")
    away(line, client)
    fetched = device.get(client, WANTED)
    assert (fetched.new, fetched.transfer.received_bytes > len(CONTENT)) == (True, True)


def test_another_question_has_no_answer(cloud, way, device, tmp_path):
    line, url, client = way
    device.get(client, WANTED)
    away(line, client)
    others = (
        replace(WANTED, service=None),
        replace(WANTED, location=c.Location(longitude=2.06, latitude=48.05)),
        replace(WANTED, user_class="gold"),
        replace(WANTED, requirements=c.Requirements(task="translation")),
        Wanted(model="guide", location=HERE),
        Wanted(model="guide", version="1.0.0", location=HERE),
    )
    for wanted in others:
        with pytest.raises(HubError, match="cannot reach a hub"):
            device.get(client, wanted)
    cloud.hub.put_tenant(cloud_local(), "rival", c.TenantForm())
    with HubClient(url, cloud.token("rival", "ue-1", "device")) as rival, pytest.raises(HubError, match="cannot reach a hub"):
        device.get(rival, WANTED)
    with pytest.raises(HubError, match="cannot reach a hub"):
        type(device)(device.folder, {}, name="ue-2").get(client, WANTED)
    assert device.get(client, WANTED).match_age_s is not None


def cloud_local():
    from cellwright.hub.core import LOCAL

    return LOCAL


@pytest.mark.parametrize("later_s", [90_000, -3_600])
def test_an_answer_that_is_too_old_or_of_no_known_age_is_not_used(way, device, later_s):
    line, _, client = way
    device.get(client, WANTED)
    away(line, client)
    (kept,) = (device.folder / "asked").iterdir()
    found = json.loads(kept.read_text())
    kept.write_text(json.dumps(found | {"kept_s": found["kept_s"] - later_s}))
    with pytest.raises(HubError, match=r"its last answer is -?\d+ s old by this device's clock, and believed for 86400 s"):
        device.get(client, WANTED)


def test_what_the_hub_refuses_is_forgotten(cloud, way, device):
    line, _, client = way
    wanted = Wanted(service="guide", location=HERE, user_class="gold")
    device.get(client, wanted)
    (kept,) = (device.folder / "asked").iterdir()
    assert (kept.stat().st_mode & 0o777, json.loads(kept.read_text())["answer"]["model"]) == (0o600, "guide")
    cloud.acme.delete_rule("guide")
    try:
        with pytest.raises(HubRefused):
            device.get(client, wanted)
    finally:
        cloud.acme.place("guide", c.PlacementForm(model="guide", services=("guide",)))
    assert list((device.folder / "asked").iterdir()) == []
    away(line, client)
    with pytest.raises(HubError, match="cannot reach a hub"):
        device.get(client, wanted)


def test_an_answer_that_was_damaged_is_none(way, device):
    line, _, client = way
    device.get(client, WANTED)
    (kept,) = (device.folder / "asked").iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])
    away(line, client)
    with pytest.raises(HubError, match="cannot reach a hub"):
        device.get(client, WANTED)


def test_an_answer_that_may_not_be_read_is_none(way, device, caplog):
    line, _, client = way
    device.get(client, WANTED)
    (kept,) = (device.folder / "asked").iterdir()
    kept.unlink()
    kept.mkdir()
    away(line, client)
    with pytest.raises(HubError, match="cannot reach a hub"):
        device.get(client, WANTED)
    assert "the hub's last answer cannot be read" in caplog.text


def test_a_hub_whose_disk_is_full_has_taken_nothing_back(way, device, monkeypatch):
    _, _, client = way
    device.get(client, WANTED)

    def full(ask):
        raise DiskFull("the hub has no room left")

    monkeypatch.setattr(client, "match", full)
    assert device.get(client, WANTED).match_age_s is not None
