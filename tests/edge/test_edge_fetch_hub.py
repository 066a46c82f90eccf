"""Devices that ask a hub: the model of the place, from the closest edge, over the next one when that fails, and an honest report."""

import hashlib
import time

import pytest
from fetch_parts import HERE, WANTED, Line, cloud_of, noise, until

from cellwright.bundle import store
from cellwright.edge.finding import Wanted
from cellwright.errors import EdgeError, HubRefused
from cellwright.hub.contract import MatchAsk

SIZE = 3_000_000
CONTENT = noise(SIZE)
PLACES = (("east", 2.05), ("west", 2.30))


@pytest.fixture(scope="module")
def lines():
    return {name: Line(("", 0)) for name, _ in PLACES}


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory, lines):
    with cloud_of(tmp_path_factory.mktemp("cloud"), CONTENT, PLACES, lines) as made:
        yield made


@pytest.fixture
def cloud(shared_cloud, lines):
    """The cloud, every line as good as new."""
    for line in lines.values():
        line.cuts, line.spoil, line.down, line.on_cut, line.connections = [], None, False, lambda number: None, 0
    return shared_cloud


@pytest.fixture
def device(cloud, tmp_path):
    return cloud.device(tmp_path / "device")


def content_of(device):
    """What is active, verified byte for byte."""
    folder, manifest = store.latest(device.folder / "tenants/acme/bundles", "guide", device.of("acme")._trust)
    return (folder / manifest.layers["model.bin"].blob).read_bytes()


def reported(cloud, fetched):
    """The hub's record of the newest fetch."""
    return until(lambda: next((r for r in cloud.acme.fetches() if abs(r.seconds - fetched.verified_s) < 1e-9), None))


def test_the_model_of_the_place_comes_from_the_closest_edge_and_is_reported(cloud, device):
    fetched = device.get(cloud.acme, WANTED, deadline_s=60)
    assert (fetched.name, fetched.version, fetched.tenant, fetched.new) == ("guide", "1.0.0", "acme", True)
    assert [stop.name for stop in fetched.edges] == ["east"]
    assert (fetched.met, fetched.delta, fetched.notes) == (True, None, ())
    assert 0 < fetched.verified_s <= fetched.seconds
    assert content_of(device) == CONTENT
    report = reported(cloud, fetched)
    assert (report.outcome, report.met, report.edges, report.device) == ("activated", True, ("east",), "ue-1")
    assert report.bytes == fetched.transfer.received_bytes > SIZE
    assert report.resumed_bytes == report.reused_bytes == 0
    again = device.get(cloud.acme, WANTED)
    assert (again.new, again.transfer.received_bytes, again.met) == (False, 0, None)


def test_a_model_is_fetched_by_its_name_and_from_a_named_edge(cloud, device):
    fetched = device.get(cloud.acme, Wanted(model="guide", location=HERE), edge="west", qos="none")
    assert ([stop.name for stop in fetched.edges], fetched.why) == (["west"], "asked for by name")
    with pytest.raises(EdgeError, match="no edge holds guide"):
        device.get(cloud.acme, Wanted(model="guide"), edge="north")
    with pytest.raises(HubRefused, match="services guide"):
        device.get(cloud.acme, Wanted(service="other"))


def test_a_deadline_that_was_missed_is_said_so(cloud, device):
    fetched = device.get(cloud.acme, WANTED, deadline_s=1e-6)
    assert fetched.met is False
    assert reported(cloud, fetched).met is False


def test_the_next_edge_goes_on_where_the_first_one_left_off(cloud, device, lines):
    def die(_number):
        lines["east"].down = True

    lines["east"].cuts, lines["east"].on_cut = [SIZE // 2], die
    fetched = device.get(cloud.acme, WANTED)
    assert [stop.name for stop in fetched.edges] == ["east", "west"]
    assert SIZE < fetched.transfer.received_bytes < SIZE + 100_000  # nothing came twice
    assert any(note.startswith("went on from east") for note in fetched.notes)
    assert content_of(device) == CONTENT
    assert reported(cloud, fetched).edges == ("east", "west")


def test_a_device_that_moves_takes_its_download_along(cloud, device, lines, monkeypatch):
    from cellwright.edge import getting
    from cellwright.edge.quality import Network

    monkeypatch.setattr(getting, "_FOLLOW_S", 0.01)
    zones = {"east": "zone-e", "west": "zone-w"}
    here = ["zone-e"]
    monkeypatch.setattr(Network, "closest_zone", lambda self: here[0])
    match = type(cloud.acme).match

    def with_zones(self, ask):
        found = match(self, ask)
        return found.model_copy(
            update={"edges": tuple(e.model_copy(update={"zone": zones[e.name]}) for e in reversed(found.edges))}
        )

    monkeypatch.setattr(type(cloud.acme), "match", with_zones)

    def leave(_number):
        here[0] = "zone-w"
        time.sleep(0.3)  # the line stalls while the device is on its way

    lines["east"].cuts, lines["east"].on_cut = [SIZE // 2], leave
    fetched = device.get(cloud.acme, WANTED, network=Network("http://127.0.0.1:1", "t"), qos="none")
    assert [stop.name for stop in fetched.edges] == ["east", "west"]
    assert any(note.startswith("moved from east to west") for note in fetched.notes)
    assert fetched.transfer.received_bytes < SIZE + 100_000
    assert content_of(device) == CONTENT


def test_a_grant_that_expires_on_the_way_is_renewed(cloud, device, lines):
    guard, hub = cloud.edges["east"].guard, cloud.hub
    before = guard._clock, hub.clock

    def time_passes(_number):
        guard._clock = hub.clock = lambda: time.time() + 7_000

    lines["east"].cuts, lines["east"].on_cut = [SIZE // 2], time_passes
    lines["west"].down = True
    try:
        fetched = device.get(cloud.acme, Wanted(model="guide", location=HERE), edge="east")
    finally:
        guard._clock, hub.clock = before
    assert "the grant was renewed" in fetched.notes
    assert fetched.transfer.received_bytes < SIZE + 100_000
    assert content_of(device) == CONTENT


def test_a_device_whose_clock_is_wrong_fetches_all_the_same(cloud, device, monkeypatch):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() if _in_server() else now() + 10 * 86_400)
    fetched = device.get(cloud.acme, WANTED, deadline_s=60)
    assert (fetched.version, fetched.met) == ("1.0.0", True)


def _in_server():
    import threading

    return threading.current_thread() is not threading.main_thread()


def test_edges_that_all_change_bytes_activate_nothing_and_the_failure_is_reported(cloud, device, lines):
    from cellwright.errors import BundleError

    for line in lines.values():
        line.spoil = SIZE // 2
    with pytest.raises(BundleError, match=r"no edge is left .* east: model\.bin: expected SHA-256.*west: model\.bin: expected"):
        device.get(cloud.acme, WANTED)
    assert device.of("acme").active() == {}
    (report,) = until(lambda: [r for r in cloud.acme.fetches() if r.outcome == "refused" and "SHA-256" in r.reason])
    assert "west: model.bin" in report.reason
    assert report.bytes > 2 * SIZE  # what was of no use was received all the same
    for line in lines.values():
        line.spoil = None
    device.get(cloud.acme, WANTED)
    assert content_of(device) == CONTENT


def test_an_edge_that_changes_bytes_is_left_for_the_next_and_named(cloud, device, lines):
    lines["east"].spoil = SIZE // 2
    fetched = device.get(cloud.acme, WANTED)
    assert content_of(device) == CONTENT
    assert [stop.name for stop in fetched.edges] == ["east", "west"]
    assert [(bad.stop.name, bad.why[:28]) for bad in fetched.distrusted] == [("east", "model.bin: expected SHA-256 ")]
    assert any(note.startswith("east gave wrong bytes and is not asked again: model.bin") for note in fetched.notes)
    assert 2 * SIZE < fetched.transfer.received_bytes < 2 * SIZE + 100_000
    assert fetched.transfer.resumed_bytes == 0
    report = reported(cloud, fetched)
    assert (report.outcome, report.edges) == ("activated", ("east", "west"))
    assert report.reason.startswith("wrong bytes came from east: model.bin: expected SHA-256")


def test_where_two_edges_had_a_part_in_wrong_bytes_nobody_is_accused_and_all_of_it_is_asked_for_anew(cloud, device, lines):
    def die(_number):
        lines["east"].down = True

    lines["east"].spoil, lines["east"].cuts, lines["east"].on_cut = SIZE // 4, [SIZE // 2], die
    fetched = device.get(cloud.acme, WANTED)
    assert content_of(device) == CONTENT
    assert fetched.distrusted == ()
    assert any("east and west gave together was wrong" in note for note in fetched.notes)


def test_the_only_edge_that_is_left_may_have_to_give_all_of_it_and_an_error_says_who_was_not_believed(cloud, device, lines):
    lines["east"].spoil, lines["west"].down = SIZE // 2, True
    with pytest.raises(EdgeError, match=r"not asked again, as what they gave was wrong: east: model\.bin"):
        device.get(cloud.acme, WANTED)
    assert device.of("acme").active() == {}


@pytest.mark.parametrize("of", ["index", "manifest"])
def test_documents_that_are_not_what_was_signed_lead_to_the_next_edge(cloud, device, of):
    folder = cloud.folder / "east/tenants/acme/guide/1.0.0"
    digest = cloud.acme.match(MatchAsk(device="ue-1", service="guide", location=HERE)).digest
    path = folder / ("index.json" if of == "index" else f"blobs/sha256/{digest.removeprefix('sha256:')}")
    genuine = path.read_bytes()
    path.write_bytes(genuine.replace(b'"', b"'", 1))
    try:
        fetched = device.get(cloud.acme, WANTED)
    finally:
        path.write_bytes(genuine)
    assert content_of(device) == CONTENT
    assert [bad.stop.name for bad in fetched.distrusted] == ["east"]
    assert fetched.edges[-1].name == "west"


def test_what_an_earlier_fetch_left_is_not_held_against_an_edge(cloud, device):
    partial = device.folder / "tenants/acme/partial"
    partial.mkdir(parents=True)
    (partial / hashlib.sha256(CONTENT).hexdigest()).write_bytes(b"x" + CONTENT[1 : SIZE // 2])
    fetched = device.get(cloud.acme, WANTED)
    assert content_of(device) == CONTENT
    assert ([stop.name for stop in fetched.edges], fetched.distrusted) == (["east"], ())
    assert fetched.transfer.resumed_bytes == 0
    assert any("an earlier fetch and east gave together was wrong" in note for note in fetched.notes)


@pytest.mark.parametrize("spoilt", [False, True])
def test_parallel_ranges_go_on_at_the_next_edge_too(cloud, device, lines, monkeypatch, spoilt):
    from cellwright.edge import ranges

    for name, value in (("LEAST_RTT_S", 0.0), ("LEAST_LEFT_S", 0.0), ("_OBSERVED_S", 0.0), ("_OBSERVED_RTT", 0), ("GAIN", 0.0)):
        monkeypatch.setattr(ranges, name, value)
    monkeypatch.setattr(ranges, "STRIPE_BYTES", 50_000)

    def die(_number):
        lines["east"].down, lines["east"].cuts = True, [0] * 20  # those that are open break too

    if spoilt:
        lines["east"].spoil = 300_000
    else:
        lines["east"].cuts, lines["east"].on_cut = [250_000] * 3, die  # one may meet the connection that was given up
    fetched = device.get(cloud.acme, WANTED)
    assert content_of(device) == CONTENT
    assert fetched.streams == ranges.STREAMS
    assert [stop.name for stop in fetched.edges] == ["east", "west"]
    assert [bad.stop.name for bad in fetched.distrusted] == (["east"] if spoilt else [])
