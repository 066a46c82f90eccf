"""3GPP TR 22.874, 6.2: company A stores model A in the commercial area and model B in the resort; devices get what they need."""

import threading
import time
from datetime import datetime

import pytest

from cellwright.bundle.layout import verify
from cellwright.bundle.manifest import Descriptor
from cellwright.edge.download import Download
from cellwright.hub import contract as c
from cellwright.hub.grant import check
from cellwright.hub.matching import is_open
from cellwright.hub.refusals import Changed, HubRefused, NotFound
from cellwright.hub.tenants import public_key


@pytest.fixture
def guide(company, operator, store, edge, kit):
    """Two areas, two edges, models A and B published and placed; the edges' clients."""
    east, west = edge("east", kit.in_commercial), edge("west", kit.in_resort)
    operator.put_area("commercial", c.AreaForm(geometry=kit.commercial))
    company.put_area("resort", c.AreaForm(geometry=kit.resort))
    for model, area in (("model-a", "commercial"), ("model-b", "resort")):
        store(company, model, content=model.encode() * 100)
        company.place(model, c.PlacementForm(model=model, areas=(area,), services=("guide",)))
        company.publish(model, c.Publication(version="1.0.0"))
    return {"east": east, "west": west}


def test_each_edge_is_told_to_hold_the_model_of_its_area(guide, hub):
    east, west = guide["east"].desired("east"), guide["west"].desired("west")
    assert [(t.tenant, m.name, m.latest) for t in east.tenants for m in t.models] == [("company-a", "model-a", "1.0.0")]
    assert [(t.tenant, m.name, m.latest) for t in west.tenants for m in t.models] == [("company-a", "model-b", "1.0.0")]
    assert east.hub_key == hub.key_pem == east.tenants[0].keys[0]
    [version] = east.tenants[0].models[0].versions
    assert (version.weight, version.pinned) == (1.0, False)


def test_an_edge_pulls_what_it_shall_hold_and_nothing_else(guide):
    client = guide["east"]
    held = client.desired("east").tenants[0].models[0].versions[0]
    base = client.bundle_path("east", "company-a", "model-a", "1.0.0")
    download = Download(client.http, client.url)
    index = download.document(f"{base}/index.json", 1 << 16)
    assert held.digest.encode() in index
    with pytest.raises(HubRefused, match="shall not hold"):
        client._raw("GET", f"{client.bundle_path('east', 'company-a', 'model-b', '1.0.0')}/index.json")
    with pytest.raises(HubRefused, match="cannot speak for"):
        client.desired("west")


def test_a_device_gets_the_model_of_where_it_is_and_leave_to_fetch_it(guide, company, hub, kit):
    here = company.match(c.MatchAsk(device="ue-1", service="guide", location=kit.in_commercial))
    there = company.match(c.MatchAsk(device="ue-1", service="guide", location=kit.in_resort))
    assert (here.model, there.model) == ("model-a", "model-b")
    assert "in commercial" in here.why
    assert [e.name for e in here.edges] == ["east"]
    assert here.edges[0].distance_m == 0.0
    grant = check(here.grant, public_key(hub.key_pem), time.time())
    assert grant.allows("company-a", "model-a")
    assert not grant.allows("company-a", "model-b")
    assert grant.subject == "ue-1"


def test_where_nothing_is_placed_the_answer_says_why(guide, company):
    with pytest.raises(NotFound, match="it is for the areas"):
        company.match(c.MatchAsk(device="ue-1", service="guide", location=c.Location(longitude=0, latitude=0)))
    with pytest.raises(NotFound, match="did not say where it is"):
        company.match(c.MatchAsk(device="ue-1", service="guide"))
    with pytest.raises(NotFound, match="services guide"):
        company.match(c.MatchAsk(device="ue-1", service="other"))


def test_a_new_publication_reaches_a_waiting_edge_at_once(guide, company, store):
    client = guide["east"]
    before = client.desired("east")
    store(company, "model-a", "2.0.0", b"better")
    found = []
    waiting = threading.Thread(target=lambda: found.append(client.desired("east", revision=before.revision, wait_s=30)))
    waiting.start()
    time.sleep(0.1)
    company.publish("model-a", c.Publication(version="2.0.0"))
    waiting.join(timeout=5)
    assert not waiting.is_alive()
    [after] = found
    assert after.revision == before.revision + 1
    assert after.tenants[0].models[0].latest == "2.0.0"
    assert guide["west"].desired("west").tenants[0].models[0].latest == "1.0.0"


def test_an_edge_whose_state_did_not_change_is_not_woken_and_told_so(guide):
    now = guide["west"].desired("west")
    assert guide["west"].desired("west", revision=now.revision, wait_s=0.2) is None
    assert guide["west"].desired("west", revision=now.revision + 7).revision == now.revision


def test_a_change_by_another_process_wakes_an_edge_too(guide, company, store, hub):
    """As the command line does: the same database, another hub object, no bell in common."""
    from cellwright.hub.core import Who
    from cellwright.hub.service import open_hub

    client, before = guide["east"], guide["east"].desired("east")
    found = []
    waiting = threading.Thread(target=lambda: found.append(client.desired("east", revision=before.revision, wait_s=20)))
    waiting.start()
    time.sleep(0.1)
    with open_hub(hub.folder) as other:
        other.unpublish(Who("x", "company-a", "x", frozenset({"publish"})), "model-a")
    waiting.join(timeout=10)
    assert found[0].tenants == ()


def test_an_edge_holds_the_versions_under_trial_too_with_their_shares(guide, company, store):
    store(company, "model-a", "1.1.0", b"challenger")
    company.publish("model-a", c.Publication(version="1.0.0", weights={"1.1.0": 0.1}, canary="1.1.0"))
    [model] = guide["east"].desired("east").tenants[0].models
    assert (model.latest, model.canary) == ("1.0.0", "1.1.0")
    assert {v.version: v.weight for v in model.versions} == {"1.0.0": 0.9, "1.1.0": 0.1}
    picked = [
        company.match(c.MatchAsk(device=f"ue-{n}", service="guide", location=c.Location(longitude=2.05, latitude=48.05))).version
        for n in range(60)
    ]
    again = company.match(c.MatchAsk(device="ue-0", service="guide", location=c.Location(longitude=2.05, latitude=48.05))).version
    assert again == picked[0]
    assert 0 < picked.count("1.1.0") < 20


def test_of_two_publishers_at_once_one_wins_and_the_other_is_told(company, store):
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        store(company, "m", version, version.encode())
    first = company.publish("m", c.Publication(version="1.0.0"), expected=0)
    company.publish("m", c.Publication(version="1.1.0"), expected=first.number)
    with pytest.raises(Changed, match="by another meanwhile"):
        company.publish("m", c.Publication(version="1.2.0"), expected=first.number)
    assert company.publication("m").version == "1.1.0"
    company.unpublish("m")
    with pytest.raises(Changed):
        company.publish("m", c.Publication(version="1.2.0"), expected=2)
    assert company.publish("m", c.Publication(version="1.2.0"), expected=0).number == 4


def test_what_is_published_cannot_be_deleted_and_what_is_not_there_cannot_be_published(company, store):
    store(company, "m")
    company.publish("m", c.Publication(version="1.0.0"))
    with pytest.raises(HubRefused, match="is published"):
        company.delete_release("m", "1.0.0")
    with pytest.raises(HubRefused, match="is published"):
        company.delete_model("m")
    with pytest.raises(NotFound):
        company.publish("m", c.Publication(version="9.9.9"))
    company.unpublish("m")
    company.delete_model("m")
    with pytest.raises(NotFound):
        company.model("m")


def test_a_layout_downloaded_from_the_hub_verifies(company, store, hub, tmp_path):
    release = store(company, "m", content=b"x" * 3_000_000)
    (tmp_path / "out").mkdir()
    company.download("m", "1.0.0", tmp_path / "out")
    manifest = verify(tmp_path / "out", hub.trust("company-a"))
    assert (manifest.digest, manifest.format) == (release.digest, "opaque")


def test_files_are_answered_in_ranges_by_their_hash(company, store):
    release = store(company, "m", content=bytes(range(256)) * 10)
    layer = release.layers["model.bin"]
    path = f"/v1/models/m/versions/1.0.0/files/blobs/sha256/{layer.removeprefix('sha256:')}"
    get = company.http.get
    assert get(path, headers={"Range": "bytes=10-19"}).content == bytes(range(10, 20))
    assert get(path, headers={"Range": "bytes=-5"}).content == bytes(range(251, 256))
    assert get(path, headers={"Range": "bytes=2550-"}).content == bytes(range(246, 256))
    part = get(path, headers={"Range": "bytes=0-0"})
    assert (part.status_code, part.headers["Content-Range"], part.headers["ETag"]) == (206, "bytes 0-0/2560", f'"{layer}"')
    assert get(path, headers={"Range": "bytes=9999-"}).status_code == 416
    assert len(get(path, headers={"Range": "bytes=10-19", "If-Range": '"other"'}).content) == 2560
    assert get(path, headers={"If-None-Match": f'"{layer}"'}).status_code == 304
    assert Descriptor(mediaType="x", digest=layer, size=2560).check(get(path).content, "layer") is None


def test_match_by_requirement_takes_the_best_that_fits_and_says_why(company, store):
    made = {"small": (3.0, 2.0, 40), "best": (2.0, 4.0, 900), "slow": (1.0, 9.0, 400), "huge": (0.5, 1.0, 90_000)}
    for model, (error, latency_ms, size) in made.items():
        figures = c.Figures(task="traffic forecast", error=error, error_unit="Mbit/s", latency_ms=latency_ms)
        store(company, model, content=b"x" * size, figures=figures)
        company.publish(model, c.Publication(version="1.0.0"))
    store(company, "untold")
    company.publish("untold", c.Publication(version="1.0.0"))
    needs = c.Requirements(task="Traffic Forecast", latency_ms=5, bytes=50_000)
    found = company.match(c.MatchAsk(device="ue", requirements=needs))
    assert found.model == "best"
    assert "error 2, 4 ms" in found.why
    reasons = {seen.model: seen.reason for seen in found.considered}
    assert "9 ms" in reasons["slow"]
    assert "bytes" in reasons["huge"]
    assert "task" in reasons["untold"]
    assert "fits too" in reasons["small"]
    with pytest.raises(NotFound, match="no model fits"):
        company.match(c.MatchAsk(device="ue", requirements=c.Requirements(task="traffic forecast", latency_ms=0.1)))


@pytest.mark.parametrize(
    ("hours", "when", "open_"),
    [
        (c.Hours(start="08:00", stop="20:00"), "2026-11-22T12:00:00+01:00", True),
        (c.Hours(start="08:00", stop="20:00"), "2026-11-22T20:00:00+01:00", False),
        (c.Hours(start="22:00", stop="06:00", days=("sun",)), "2026-11-22T23:00:00+01:00", True),
        (c.Hours(start="22:00", stop="06:00", days=("sun",)), "2026-11-23T05:59:00+01:00", True),
        (c.Hours(start="22:00", stop="06:00", days=("sun",)), "2026-11-22T05:59:00+01:00", False),
        (c.Hours(days=("mon",)), "2026-11-22T12:00:00+01:00", False),
    ],
)
def test_rules_hold_at_their_hours_in_their_time_zone(hours, when, open_):
    assert is_open(hours, "Europe/Berlin", datetime.fromisoformat(when).timestamp()) is open_


def test_a_rule_of_other_hours_is_passed_over(company, store):
    store(company, "m")
    company.publish("m", c.Publication(version="1.0.0"))
    company.place("r", c.PlacementForm(model="m", hours=(c.Hours(days=("mon",)),), timezone="Europe/Berlin"))
    monday = datetime.fromisoformat("2026-11-23T12:00:00+01:00").timestamp()
    assert company.match(c.MatchAsk(device="ue", time_s=monday)).model == "m"
    with pytest.raises(NotFound, match="other hours"):
        company.match(c.MatchAsk(device="ue", time_s=monday - 86_400))


def test_the_highest_priority_wins_then_the_rule_that_says_most(company, store):
    for model in ("plain", "premium", "first"):
        store(company, model)
        company.publish(model, c.Publication(version="1.0.0"))
    company.place("a", c.PlacementForm(model="plain"))
    company.place("b", c.PlacementForm(model="premium", user_classes=("gold",)))
    assert company.match(c.MatchAsk(device="ue", user_class="gold")).model == "premium"
    assert company.match(c.MatchAsk(device="ue", user_class="silver")).model == "plain"
    company.place("c", c.PlacementForm(model="first", priority=5))
    assert company.match(c.MatchAsk(device="ue", user_class="gold")).model == "first"


def test_reports_count_once_and_are_the_tenants_own(company, edge, clients):
    east = edge("east")
    report = c.FetchReport(
        id="abcdefgh", tenant="company-a", model="m", version="1.0.0", device="ue", time_s=5.0, outcome="activated",
        seconds=0.5, deadline_s=1.0, met=True, bytes=10, rate_bit_s=160.0, edges=("east",),
    )  # fmt: skip
    assert east.report([report]) == 1
    assert east.report([report, report.model_copy(update={"id": "ijklmnop"})]) == 1
    assert [r.id for r in company.fetches()] == ["abcdefgh", "ijklmnop"]
    assert clients("company-b").fetches() == ()
    with pytest.raises(HubRefused, match="cannot report for another"):
        clients("company-b").report([report])
    record = c.QosRecord(
        session="s-1", tenant="company-a", device="ue", profile="QOS_L", asked_by="edge", status="AVAILABLE", started_s=1.0
    )
    east.record_qos(record)
    east.record_qos(record.model_copy(update={"status": "DELETED", "ended_s": 2.0}))
    assert [(r.session, r.status) for r in company.qos()] == [("s-1", "DELETED")]


def test_heartbeats_say_who_is_alive_and_how_far_clocks_are_apart(edge, operator, company, hub):
    east = edge("east")
    beat = c.Heartbeat(revision=1, time_s=time.time() + 90, disk_free_bytes=5)
    answer = east.heartbeat("east", beat)
    assert answer.revision == east.desired("east").revision
    assert 85 < answer.clock_skew_s < 95
    assert operator.edge("east").heartbeat == beat
    assert company.edge("east").heartbeat is None  # it may name other tenants' models
    hub.clock = lambda: time.time() + 3600
    assert not company.edge("east").alive


def test_edges_that_hold_the_model_come_first_and_dead_ones_not_at_all(company, store, edge, kit, hub):
    near, far = edge("near", kit.in_commercial), edge("far", kit.in_resort)
    release = store(company, "m")
    company.place("r", c.PlacementForm(model="m"))
    company.publish("m", c.Publication(version="1.0.0"))
    held = c.Held(tenant="company-a", model="m", version="1.0.0", digest=release.digest)
    far.heartbeat("far", c.Heartbeat(revision=2, time_s=1.0, disk_free_bytes=1, held=(held,)))
    ask = c.MatchAsk(device="ue", location=kit.in_commercial)
    assert [(e.name, e.holds) for e in company.match(ask).edges] == [("far", True), ("near", False)]
    hub.clock = lambda: time.time() + 3600
    assert company.match(ask).edges == ()
    near.heartbeat("near", c.Heartbeat(revision=2, time_s=1.0, disk_free_bytes=1))
    assert [e.name for e in company.match(ask).edges] == ["near"]


FLAWED = [
    ({"type": "Point", "coordinates": [1, 2]}, "Polygon or MultiPolygon"),
    ({"type": "Polygon", "coordinates": [[[0, 0], [200, 0], [200, 1], [0, 0]]]}, "beyond the globe"),
    ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}, "not a sound polygon"),
    ({"type": "Polygon", "coordinates": "x"}, "coordinates"),
    ({"type": "Polygon"}, "beyond the globe"),
    ({"type": "Polygon", "coordinates": []}, "beyond the globe|sound polygon"),
]


def test_areas_that_are_none_are_refused(company):
    for geometry, why in FLAWED:
        with pytest.raises(HubRefused, match=why):
            company.put_area("a", c.AreaForm(geometry=geometry))


def test_an_area_that_a_rule_names_stays(company, store, kit):
    company.put_area("a", c.AreaForm(geometry={"type": "Feature", "properties": {}, "geometry": kit.resort}))
    store(company, "m")
    company.place("r", c.PlacementForm(model="m", areas=("a",)))
    with pytest.raises(HubRefused, match="a rule names the area"):
        company.delete_area("a")
    with pytest.raises(HubRefused, match="there are: a"):
        company.place("r", c.PlacementForm(model="m", areas=("b",)))
    with pytest.raises(HubRefused, match="no edge 'x'"):
        company.place("r", c.PlacementForm(model="m", edges=("x",)))
    company.delete_rule("r")
    company.delete_area("a")
