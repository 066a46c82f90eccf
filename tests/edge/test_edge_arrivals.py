"""Devices that arrive: their model is brought, the network is asked, the next edge is told, and reports reach the hub."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from edge_cloud import edge_of, leave, publish, served, until

from cellwright.edge.acceleration import NetworkAccess
from cellwright.edge.arrivals import next_edge
from cellwright.edge.contract import Arrival
from cellwright.hub import contract as c
from cellwright.qos.forms import Device
from cellwright.qos.profile import QosProfile
from cellwright.qos.simulator.network import Network
from cellwright.qos.simulator.network import in_thread as network_in_thread
from cellwright.qos.simulator.options import Cell, NetworkOptions, Terminal

UE = Device.model_validate({"ipv4Address": {"publicAddress": "127.0.0.1", "privateAddress": "127.0.0.1"}})
PROFILES = [
    {"name": f"rate_{mbit}m", "status": "ACTIVE", "targetMinDownstreamRate": {"value": mbit, "unit": "Mbps"}}
    for mbit in (10, 100)
]


@pytest.fixture
def network():
    options = NetworkOptions(
        cells=(Cell(name="here", longitude=2, capacity_bit_s=1e9),),
        devices=(Terminal(name="ue", identifiers=UE),),
        profiles=tuple(QosProfile.model_validate(p | {"maxDuration": {"value": 600, "unit": "Seconds"}}) for p in PROFILES),
    )
    with network_in_thread(Network(options)) as running:
        yield running


@pytest.fixture
def access(network, tmp_path):
    return NetworkAccess(network.url, network.token("edge"), "127.0.0.1", journal=tmp_path / "qos.db")


def arriving(**more):
    return {"device": "ue-1", "tenant": "acme", "model": "guide", "deadline_s": 1.0} | more


def fetched(**more):
    same = {"tenant": "acme", "model": "guide", "version": "1.0.0", "device": "ue-1", "time_s": time.time(), "seconds": 0.5}
    return {"reports": [same | {"id": "report-1", "outcome": "activated", "bytes": 1000, "rate_bit_s": 16000.0} | more]}


def test_quality_lasts_as_long_as_the_transfer(operator_cloud, network, access):
    publish(operator_cloud, "guide", content=b"x" * 4_000_000)  # 33.6 Mbit/s with overhead: the larger profile
    with edge_of(operator_cloud, more={"network": access}) as edge:
        until(lambda: served(edge, "guide"))
        answer = edge.http.post("/v1/arrivals", json=arriving())
        arrived = answer.json()
        assert (answer.status_code, arrived["held"]) == (201, True)
        assert (arrived["qos"]["state"], arrived["qos"]["profile"]) == ("available", "rate_100m")
        assert edge.http.get(f"/v1/arrivals/{arrived['id']}").json()["qos"]["state"] == "available"
        assert edge.http.post("/v1/fetches", json=fetched()).json() == {"new": 1}
        assert edge.http.get(f"/v1/arrivals/{arrived['id']}").status_code == 404
        [report] = until(operator_cloud.acme.fetches)
        assert (report.id, report.bytes) == ("report-1", 1000)
        [record] = until(lambda: [r for r in operator_cloud.acme.qos() if r.ended_s])
        assert (record.status, record.profile, record.asked_by, record.edge) == ("DELETED", "rate_100m", "edge", "east")
        assert record.bytes == 1000


def test_an_edge_that_stops_gives_quality_back(operator_cloud, network, access):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud, more={"network": access}) as edge:
        until(lambda: served(edge, "guide"))
        assert edge.http.post("/v1/arrivals", json=arriving()).json()["qos"]["state"] == "available"
        assert (
            edge.http.post("/v1/arrivals", json=arriving()).json()["qos"]["state"] == "available"
        )  # again: in place of the first
        assert len(edge.arrivals._here) == 1
        gone = edge.http.post("/v1/arrivals", json=arriving()).json()["id"]
        assert edge.http.delete(f"/v1/arrivals/{gone}").status_code == 204
        edge.http.post("/v1/arrivals", json=arriving())
    with httpx.Client(base_url=network.url, headers={"Authorization": f"Bearer {network.token('edge')}"}, verify=False) as http:
        left = http.post("/quality-on-demand/v1/retrieve-sessions", json={"device": UE.wire()})
    assert left.json() == []


def test_what_the_network_refuses_does_not_stop_the_device(operator_cloud, access):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud, more={"network": access}) as edge:
        until(lambda: served(edge, "guide"))
        far = edge.http.post("/v1/arrivals", json=arriving(deadline_s=1e-6)).json()
        assert far["qos"]["state"] == "denied"
        assert "no profile suffices" in far["qos"]["why"]
        assert edge.http.post("/v1/arrivals", json=arriving(qos="device")).json()["qos"] is None
        assert edge.http.post("/v1/arrivals", json=arriving(deadline_s=None)).json()["qos"] is None


def test_a_device_speaks_for_itself_alone(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        assert httpx.post(f"{edge.url}/v1/arrivals", json=arriving()).status_code == 401
        assert edge.http.post("/v1/arrivals", json=arriving(device="ue-2")).status_code == 403
        assert edge.http.post("/v1/arrivals", json=arriving(tenant="other")).status_code == 403
        assert edge.http.post("/v1/arrivals", json=arriving(model="nothing")).status_code == 404
        assert edge.http.post("/v1/arrivals", json=arriving(speed=3)).status_code == 400
        assert edge.http.post("/v1/fetches", json=fetched(device="ue-2")).status_code == 403
        id = edge.http.post("/v1/arrivals", json=arriving()).json()["id"]
        other = leave(operator_cloud, "ue-2")
        assert edge.http.get(f"/v1/arrivals/{id}", headers=other).status_code == 404
        assert edge.http.delete(f"/v1/arrivals/{id}", headers=other).status_code == 404


def test_the_next_edge_is_told_to_bring_the_model(operator_cloud):
    size = 200_000
    publish(operator_cloud, "guide", content=b"g" * size)
    publish(operator_cloud, "other", content=b"o" * size, priority=5)
    with edge_of(operator_cloud) as east, edge_of(operator_cloud, name="west", disk_bytes=size + 50_000) as west:
        until(lambda: served(east, "guide") and served(west, "other"))
        assert not (operator_cloud.tmp / "store-west/tenants/acme/guide/1.0.0").exists()
        operator_cloud.acme.place("other", c.PlacementForm(model="other"))  # no more important than the other
        until(lambda: all(w.priority == 0 for w in west.agent.library.wants()))
        east.http.post("/v1/arrivals", json=arriving(next_edge="west"))
        until((operator_cloud.tmp / "store-west/tenants/acme/guide/1.0.0").exists)
        assert until(lambda: served(west, "guide")) == ("1.0.0", b"g" * size)


def test_reports_wait_for_the_hub(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        headers = leave(operator_cloud)
    with edge_of(operator_cloud, url="http://127.0.0.1:9") as edge:
        answer = httpx.post(f"{edge.url}/v1/fetches", json=fetched(), headers=headers)
        assert answer.json() == {"new": 1}
        assert httpx.post(f"{edge.url}/v1/fetches", json=fetched(), headers=headers).json() == {"new": 0}
    assert operator_cloud.acme.fetches() == ()
    with edge_of(operator_cloud):
        until(operator_cloud.acme.fetches)


def test_the_edge_ahead_is_the_nearest_in_the_heading():
    def edge(name, longitude, latitude):
        place = c.Location(longitude=longitude, latitude=latitude)
        form = c.EdgeForm(url="http://edge.example", location=place, disk_bytes=1)
        return c.Edge(**form.model_dump(), name=name, registered_s=0, seen_s=0, alive=True, revision=1)

    edges = (edge("here", 2, 48), edge("east", 2.2, 48), edge("far-east", 2.5, 48), edge("north", 2, 48.1))
    here = c.Location(longitude=2, latitude=48)

    def ahead(**more):
        found = next_edge(edges, "here", Arrival(device="ue-1", tenant="acme", model="guide", **more))
        return found and found.name

    assert ahead(location=here, heading_deg=90) == "east"
    assert ahead(location=here, heading_deg=10) == "north"
    assert ahead(location=here, heading_deg=225) is None
    assert ahead(next_edge="far-east") == "far-east"
    assert ahead(next_edge="unknown") is None


def test_a_device_that_arrives_several_times_at_once_is_here_once(operator_cloud, network, access):
    publish(operator_cloud, "guide", content=b"x" * 4_000_000)
    with edge_of(operator_cloud, more={"network": access}) as edge:
        until(lambda: served(edge, "guide"))
        edge.http.post("/v1/arrivals", json=arriving())
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: edge.http.post("/v1/arrivals", json=arriving()).status_code, range(6)))
        assert answers == [201] * 6
        assert len(edge.arrivals._here) == 1
        assert edge.http.post("/v1/fetches", json=fetched()).json() == {"new": 1}
        assert edge.arrivals._here == {}
    with httpx.Client(base_url=network.url, headers={"Authorization": f"Bearer {network.token('edge')}"}, verify=False) as http:
        left = http.post("/quality-on-demand/v1/retrieve-sessions", json={"device": UE.wire()})
    assert left.json() == []
