"""Patches and quality of service while a device fetches: used where they help, never in the way, and told as they were."""

import socket
import threading

import pytest
from fetch_parts import WANTED, Line, cloud_of, noise, until

from cellwright.bundle import store
from cellwright.edge import getting
from cellwright.edge.contract import PATCHES
from cellwright.edge.finding import Finder
from cellwright.edge.quality import Network
from cellwright.edge.route import Route, Stop
from cellwright.errors import WrongUse
from cellwright.hub.client import HubClient
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


@pytest.fixture
def pair(tmp_path):
    """Two edges, each behind a line of its own."""
    lines = {"east": Line(("", 0)), "west": Line(("", 0))}
    with cloud_of(tmp_path, FIRST, [("east", 2.05), ("west", 2.30)], lines) as made:
        yield made, lines


def flows(remote):
    """Ports of the application servers that sessions are with at the moment."""
    found = [s for s in remote.all()["sessions"] if s["qosStatus"] == "AVAILABLE"]
    return [port for s in found for port in s["applicationServerPorts"]["ports"]]


def port_of(fetched, at):
    return int(fetched.edges[at].url.rpartition(":")[2])


def test_the_devices_own_session_goes_with_it_to_the_next_edge(pair, network, tmp_path):
    cloud, lines = pair
    seen = []
    with network() as running, Remote(running.url, running.control_token) as remote:

        def die(_number):
            lines["east"].down = True

        lines["east"].cuts, lines["east"].on_cut = [SIZE // 2], die
        lines["west"].cuts = [SIZE // 4]
        lines["west"].on_cut = lambda _number: seen.append(until(lambda: len(now := flows(remote)) == 1 and now))
        access = Network(running.url, running.token(), tmp_path / "qos.db", UE)
        device = cloud.device(tmp_path / "device")
        fetched = device.get(cloud.acme, WANTED, deadline_s=30, qos="device", network=access)
        assert [stop.name for stop in fetched.edges] == ["east", "west"]
        assert seen == [[port_of(fetched, 1)]]  # with the edge that it came to, and with no other
        assert (fetched.qos.state, fetched.qos.session is not None) == ("available", True)
        assert fetched.qos_held_s > 0
        assert flows(remote) == []
    assert active(device) == FIRST


def test_a_session_that_is_refused_at_the_first_edge_is_asked_for_at_the_next(pair, network, tmp_path):
    cloud, lines = pair
    with network(deny=True) as running, Remote(running.url, running.control_token) as remote:

        def die(_number):
            lines["east"].down = True
            remote.behave(deny=False)

        lines["east"].cuts, lines["east"].on_cut = [SIZE // 2], die
        lines["west"].cuts, lines["west"].on_cut = [SIZE // 4], lambda _number: until(lambda: flows(remote))
        access = Network(running.url, running.token(), tmp_path / "qos.db", UE)
        fetched = cloud.device(tmp_path / "device").get(cloud.acme, WANTED, deadline_s=30, qos="device", network=access)
        assert fetched.qos.state == "available"
        assert flows(remote) == []


def test_a_network_that_never_answers_does_not_stop_the_transfer(cloud, tmp_path, monkeypatch):
    from cellwright.edge import own_quality, quality

    for where, name in ((own_quality, "_PATIENCE_S"), (own_quality, "_TELL_S"), (own_quality, "_END_S"), (quality, "_CLOSEST_S")):
        monkeypatch.setattr(where, name, 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        access = Network(f"http://127.0.0.1:{silent.getsockname()[1]}", "t")
        device = cloud.device(tmp_path / "device")
        fetched = device.get(cloud.acme, WANTED, deadline_s=1, qos="device", network=access)
    assert (fetched.qos.state, fetched.qos_held_s) in {("requested", 0), ("denied", 0)}
    assert active(device) == FIRST


def test_a_look_up_of_the_closest_edge_is_not_waited_for_at_the_end_and_moves_nothing_then(monkeypatch):
    monkeypatch.setattr(getting, "_FOLLOW_S", 0.0)
    asked, told, looking = threading.Event(), threading.Event(), []

    def closest():
        looking.append(threading.current_thread())
        asked.set()
        told.wait(30)
        return "zone-west"

    route = Route([Stop("http://127.0.0.1:9", "east", "zone-east"), Stop("http://127.0.0.1:8", "west", "zone-west")])
    fetch = getting.Getting(Finder(HubClient("http://127.0.0.1:7", "t"), "ue-1", closest), WANTED, lambda found: None)
    with fetch._following(route):
        assert asked.wait(30)
    assert looking[0].is_alive()
    told.set()
    looking[0].join(30)
    assert not looking[0].is_alive()
    assert not route._take_move()
    assert len(looking) == 1


def test_what_a_patch_brings_is_what_is_asked_for(cloud, network, tmp_path):
    device = cloud.device(tmp_path / "device")
    with network() as running:
        access = Network(running.url, running.token(), tmp_path / "qos.db", UE)
        whole = device.get(cloud.acme, WANTED, deadline_s=1, qos="device", network=access)
        cloud.publish("2.0.0", SECOND)
        until(lambda: cloud.held("2.0.0"))
        until(lambda: offered_patch(cloud))
        patched = device.get(cloud.acme, WANTED, deadline_s=1, qos="device", network=access)
    assert patched.delta == "chunks"
    assert whole.qos.profile.startswith("model_")  # 12 Mbit in a second at most: more than low_latency's 10 Mbit/s
    assert patched.qos.profile == "low_latency"
