"""Patches and quality of service while a device fetches: used where they help, never in the way, and told as they were."""

import pytest
from fetch_parts import WANTED, Line, cloud_of, noise, until

from cellwright.bundle import store
from cellwright.edge.contract import PATCHES
from cellwright.edge.quality import Network
from cellwright.errors import WrongUse
from cellwright.qos.forms import Device as Identifiers
from cellwright.qos.simulator import network as simulated
from cellwright.qos.simulator.options import Behaviour, NetworkOptions, Terminal
from cellwright.qos.simulator.remote import Remote

SIZE = 1_500_000
FIRST = noise(SIZE)
SECOND = FIRST[:700_000] + noise(20_000, 1) + FIRST[700_000:]
UE = Identifiers.model_validate({"ipv4Address": {"publicAddress": "127.0.3.7", "privateAddress": "127.0.3.7"}})


@pytest.fixture
def line():
    return Line(("", 0))


@pytest.fixture
def cloud(tmp_path, line):
    with cloud_of(tmp_path, FIRST, [("east", 2.05)], {"east": line}) as made:
        yield made


def active(device):
    folder, manifest = store.latest(device.folder / "tenants/acme/bundles", "guide", device.of("acme")._trust)
    return (folder / manifest.layers["model.bin"].blob).read_bytes()


def offered_patch(cloud):
    """Whether the edge has made the patch from the first version to the second."""
    import hashlib

    import httpx

    from cellwright.hub.contract import GrantAsk

    first, second = (hashlib.sha256(content).hexdigest() for content in (FIRST, SECOND))
    headers = {"Authorization": f"Bearer {cloud.acme.grant(GrantAsk(device='ue-1')).grant}"}
    path = f"/v1/tenants/acme/bundles/guide/2.0.0/{PATCHES}/{first}/{second}"
    return httpx.get(f"{cloud.edges['east'].url}{path}", headers=headers).status_code == 200


@pytest.mark.parametrize("damaged", [False, True])
def test_the_next_version_comes_by_a_patch_or_whole_where_the_base_was_damaged(cloud, tmp_path, damaged):
    device = cloud.device(tmp_path / "device")
    first = device.get(cloud.acme, WANTED)
    cloud.publish("2.0.0", SECOND)
    until(lambda: cloud.held("2.0.0"))
    until(lambda: offered_patch(cloud))
    if damaged:
        (blob,) = (p for p in first.path.glob("blobs/sha256/*") if p.stat().st_size == SIZE)
        blob.write_bytes(bytes(SIZE))
    fetched = device.get(cloud.acme, WANTED)
    assert fetched.version == "2.0.0"
    assert active(device) == SECOND
    if damaged:
        assert fetched.delta is None
        assert fetched.transfer.received_bytes > SIZE
        assert any("came whole, not by a patch" in note for note in fetched.notes)
    else:
        assert fetched.delta == "chunks"
        assert fetched.transfer.received_bytes < SIZE / 4
        assert fetched.transfer.reused_bytes > SIZE / 2
        assert until(lambda: [r for r in cloud.acme.fetches() if r.version == "2.0.0"])[0].delta == "chunks"


def test_a_patch_that_is_wrong_is_let_go_and_the_whole_comes_from_the_same_edge(cloud, tmp_path):
    device = cloud.device(tmp_path / "device")
    device.get(cloud.acme, WANTED)
    cloud.publish("2.0.0", SECOND)
    until(lambda: cloud.held("2.0.0"))
    until(lambda: offered_patch(cloud))
    (patch,) = (cloud.folder / "east/.patches").glob("acme/guide/*.patch")
    patch.write_bytes(bytes(patch.stat().st_size))
    fetched = device.get(cloud.acme, WANTED)
    assert (fetched.version, fetched.delta, fetched.distrusted) == ("2.0.0", None, ())
    assert any("came whole, not by a patch" in note for note in fetched.notes)
    assert active(device) == SECOND


@pytest.fixture
def network():
    def made(**behaviour):
        options = NetworkOptions(devices=(Terminal(name="ue", identifiers=UE),), behaviour=Behaviour(**behaviour))
        return simulated.in_thread(simulated.Network(options))

    return made


@pytest.mark.parametrize(("behaviour", "states"), [({}, {"available"}), ({"deny": True}, {"denied"})])
def test_a_device_asks_for_quality_and_tells_what_it_got(cloud, network, tmp_path, behaviour, states):
    with network(**behaviour) as running:
        access = Network(running.url, running.token(), tmp_path / "qos.db", UE)
        fetched = cloud.device(tmp_path / "device").get(cloud.acme, WANTED, deadline_s=20, qos="device", network=access)
        assert fetched.qos.state in states
        assert fetched.version == "1.0.0"
        assert [s for s in Remote(running.url, running.control_token).all()["sessions"] if s["qosStatus"] == "AVAILABLE"] == []


def test_quality_that_is_revoked_on_the_way_does_not_end_the_transfer(cloud, network, line, tmp_path):
    with network() as running, Remote(running.url, running.control_token) as remote:

        def revoke(_number):
            remote.revoke(remote.all()["sessions"][0]["sessionId"])

        line.cuts, line.on_cut = [SIZE // 2], revoke
        access = Network(running.url, running.token(), tmp_path / "qos.db", UE)
        device = cloud.device(tmp_path / "device")
        fetched = device.get(cloud.acme, WANTED, deadline_s=20, qos="device", network=access)
    assert (fetched.qos.state, fetched.qos.session is not None) == ("revoked", True)
    assert active(device) == FIRST


def test_a_network_that_is_away_is_a_note_and_no_more(cloud, tmp_path):
    device = cloud.device(tmp_path / "device")
    fetched = device.get(cloud.acme, WANTED, deadline_s=20, qos="device", network=Network("http://127.0.0.1:9", "t"))
    assert fetched.qos.state == "denied"
    assert any("did not say which edge is closest" in note for note in fetched.notes)
    with pytest.raises(WrongUse, match="needs a network"):
        device.get(cloud.acme, WANTED, qos="device")
