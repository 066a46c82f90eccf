"""The network's side: states of a session, refusals with the standard's codes, tokens, mobility, edge discovery, events."""

from uuid import UUID, uuid4

import pytest
from qos_parts import EAST, NOON_S, UE, WEST, api, body, options, remote_of

from cellwright.errors import QosError, WrongUse
from cellwright.qos.discovery import EdgeDiscovery
from cellwright.qos.forms import Device
from cellwright.qos.simulator.clock import Clock
from cellwright.qos.simulator.network import Network, in_thread
from cellwright.qos.simulator.options import read_options
from cellwright.qos.transport import Denied

HOUR = "2026-01-01T13:00:00Z"


def refusal(answer):
    found = answer.json()
    assert found["status"] == answer.status_code
    assert found["message"]
    assert answer.headers["x-correlator"]
    return answer.status_code, found["code"]


def made(http, **more):
    answer = http.post("/sessions", json=body(**more))
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_session_from_request_to_deletion(network):
    with api(network) as http:
        session = made(http)
        at = f"/sessions/{session['sessionId']}"
        assert session == {
            "sessionId": session["sessionId"],
            "device": {"ipv4Address": {"publicAddress": "127.0.3.7", "privateAddress": "127.0.3.7"}},
            "applicationServer": {"ipv4Address": "127.0.0.1"},
            "qosProfile": "gold",
            "duration": 60,
            "startedAt": "2026-01-01T12:00:00Z",
            "expiresAt": "2026-01-01T12:01:00Z",
            "qosStatus": "AVAILABLE",
        }
        assert http.get(at).json() == session
        assert http.post("/retrieve-sessions", json={"device": UE.wire()}).json() == [session]
        assert http.delete(at).status_code == 204
        assert refusal(http.get(at)) == (404, "NOT_FOUND")
        assert http.post("/retrieve-sessions", json={"device": UE.wire()}).json() == []


def test_a_decision_takes_its_time(network):
    with api(network) as http, remote_of(network) as remote:
        remote.behave(decision_s=3)
        session = made(http)
        assert session["qosStatus"] == "REQUESTED"
        assert "startedAt" not in session
        assert "expiresAt" not in session
        at = f"/sessions/{session['sessionId']}"
        assert refusal(http.post(f"{at}/extend", json={"requestedAdditionalDuration": 5})) == (
            409,
            "QUALITY_ON_DEMAND.SESSION_EXTENSION_NOT_ALLOWED",
        )
        remote.advance(2.9)
        assert http.get(at).json()["qosStatus"] == "REQUESTED"
        remote.advance(0.2)
        found = http.get(at).json()
        assert (found["qosStatus"], found["startedAt"]) == ("AVAILABLE", "2026-01-01T12:00:03Z")


def test_a_duration_that_is_over_frees_the_flow_and_can_be_read_for_360_seconds(network):
    with api(network) as http, remote_of(network) as remote:
        at = f"/sessions/{made(http)['sessionId']}"
        remote.advance(60)
        found = http.get(at).json()
        assert (found["qosStatus"], found["statusInfo"], found["duration"]) == ("UNAVAILABLE", "DURATION_EXPIRED", 60)
        made(http)  # nothing is in the way
        remote.advance(359)
        assert http.get(at).status_code == 200
        remote.advance(1.5)
        assert refusal(http.get(at)) == (404, "NOT_FOUND")


def test_a_revoked_session_holds_its_flow_for_360_seconds_or_until_it_is_deleted(network):
    with api(network) as http, remote_of(network) as remote:
        session = made(http)
        remote.advance(10)
        remote.revoke(session["sessionId"])
        found = http.get(f"/sessions/{session['sessionId']}").json()
        assert (found["qosStatus"], found["statusInfo"], found["duration"]) == ("UNAVAILABLE", "NETWORK_TERMINATED", 10)
        assert found["expiresAt"] == "2026-01-01T12:00:10Z"
        assert refusal(http.post("/sessions", json=body())) == (409, "CONFLICT")
        assert http.delete(f"/sessions/{session['sessionId']}").status_code == 204
        again = made(http)
        remote.revoke(again["sessionId"])
        remote.advance(359)
        assert refusal(http.post("/sessions", json=body())) == (409, "CONFLICT")
        remote.advance(2)
        made(http)


def test_an_extension_is_capped_at_the_profiles_maximum(network):
    with api(network) as http:
        at = f"/sessions/{made(http)['sessionId']}"
        assert http.post(f"{at}/extend", json={"requestedAdditionalDuration": 30}).json()["duration"] == 90
        capped = http.post(f"{at}/extend", json={"requestedAdditionalDuration": 30}).json()
        assert (capped["duration"], capped["expiresAt"]) == (100, "2026-01-01T12:01:40Z")


@pytest.mark.parametrize(
    ("more", "conflicts"),
    [
        ({}, True),
        ({"applicationServer": {"ipv4Address": "127.0.0.0/8"}}, True),
        ({"applicationServer": {"ipv4Address": "127.0.0.2"}}, False),
        ({"applicationServer": {"ipv6Address": "::1"}}, False),
        ({"applicationServerPorts": {"ports": [80]}}, True),
        ({"device": {"phoneNumber": "+4915112345678"}}, True),
        ({"device": {"phoneNumber": "+4915100000001"}}, False),
    ],
)
def test_one_session_for_a_device_and_flow(network, more, conflicts):
    with api(network) as http:
        made(http, qosProfile="silver")
        answer = http.post("/sessions", json=body(qosProfile="silver", **more))
        assert (answer.status_code == 409) is conflicts, answer.text


def test_flows_of_different_ports_do_not_conflict(network):
    with api(network) as http:
        made(http, qosProfile="silver", applicationServerPorts={"ranges": [{"from": 8000, "to": 8010}]})
        inside = body(qosProfile="silver", applicationServerPorts={"ports": [8010]})
        assert refusal(http.post("/sessions", json=inside)) == (409, "CONFLICT")
        made(http, qosProfile="silver", applicationServerPorts={"ports": [8011]})


def test_a_cell_guarantees_no_more_than_it_has(network):
    other = {"phoneNumber": "+4915100000001"}
    with api(network) as http, remote_of(network) as remote:
        made(http)
        full = made(http, device=other)
        assert full["qosStatus"] == "REQUESTED" or full["statusInfo"] == "NETWORK_TERMINATED"
        found = http.get(f"/sessions/{full['sessionId']}").json()
        assert (found["qosStatus"], found["statusInfo"]) == ("UNAVAILABLE", "NETWORK_TERMINATED")
        assert "startedAt" not in found
        assert http.delete(f"/sessions/{full['sessionId']}").status_code == 204
        assert made(http, device=other, qosProfile="silver")["qosStatus"] == "AVAILABLE"
        remote.behave(deny=True)
        denied = made(http, device=other, applicationServer={"ipv4Address": "127.0.0.9"}, qosProfile="short", duration=1)
        assert http.get(f"/sessions/{denied['sessionId']}").json()["qosStatus"] == "UNAVAILABLE"


def test_a_device_that_moves_needs_room_in_its_new_cell(network):
    with api(network) as http, remote_of(network) as remote:
        remote.move("other", 1, 0)
        there = made(http, device={"phoneNumber": "+4915100000001"})
        mine = made(http)
        remote.move("ue", 0.1, 0)  # still closest to the first cell
        assert http.get(f"/sessions/{mine['sessionId']}").json()["qosStatus"] == "AVAILABLE"
        remote.move("ue", 0.9, 0)
        found = http.get(f"/sessions/{mine['sessionId']}").json()
        assert (found["qosStatus"], found["statusInfo"]) == ("UNAVAILABLE", "NETWORK_TERMINATED")
        assert http.get(f"/sessions/{there['sessionId']}").json()["qosStatus"] == "AVAILABLE"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"duration": 0}, 400, "OUT_OF_RANGE"),
        ({"duration": "60"}, 400, "INVALID_ARGUMENT"),
        ({"duration": True}, 400, "INVALID_ARGUMENT"),
        ({"duration": 101}, 400, "QUALITY_ON_DEMAND.DURATION_OUT_OF_RANGE"),
        ({"duration": 2**31}, 400, "OUT_OF_RANGE"),
        ({"qosProfile": "none"}, 400, "INVALID_ARGUMENT"),
        ({"qosProfile": "a b"}, 400, "INVALID_ARGUMENT"),
        ({"qosProfile": "gone"}, 422, "QUALITY_ON_DEMAND.QOS_PROFILE_NOT_APPLICABLE"),
        ({"device": None}, 422, "MISSING_IDENTIFIER"),
        ({"device": {}}, 400, "INVALID_ARGUMENT"),
        ({"device": {"networkAccessIdentifier": "1@example.com"}}, 422, "UNSUPPORTED_IDENTIFIER"),
        ({"device": {"phoneNumber": "+4999999999"}}, 404, "IDENTIFIER_NOT_FOUND"),
        ({"device": {"phoneNumber": "0049"}}, 400, "INVALID_ARGUMENT"),
        ({"device": {"ipv4Address": {"publicAddress": "127.0.3.7"}}}, 400, "INVALID_ARGUMENT"),
        ({"device": {"ipv4Address": {"publicAddress": "127.0.3.700", "publicPort": 80}}}, 400, "INVALID_ARGUMENT"),
        ({"device": {"ipv6Address": "fe80::1%eth0"}}, 400, "INVALID_ARGUMENT"),
        ({"applicationServer": {"ipv4Address": "127.0.0.1/33"}}, 400, "INVALID_ARGUMENT"),
        ({"applicationServer": {}}, 400, "INVALID_ARGUMENT"),
        ({"applicationServer": None}, 400, "INVALID_ARGUMENT"),
        ({"devicePorts": {"ports": []}}, 400, "INVALID_ARGUMENT"),
        ({"devicePorts": {"ports": [65536]}}, 400, "OUT_OF_RANGE"),
        ({"sink": "http://127.0.0.1/x"}, 400, "INVALID_SINK"),
        ({"sink": "https://example.com/x"}, 400, "INVALID_SINK"),
        ({"sink": "https://"}, 400, "INVALID_SINK"),
        ({"sinkCredential": {"credentialType": "PLAIN", "identifier": "a", "secret": "b"}}, 400, "INVALID_CREDENTIAL"),
        (
            {"sinkCredential": {"credentialType": "ACCESSTOKEN", "accessToken": "x", "accessTokenType": "mac"}},
            400,
            "INVALID_TOKEN",
        ),
        ({"sinkCredential": {"credentialType": "ACCESSTOKEN"}}, 400, "INVALID_ARGUMENT"),
    ],
)
def test_what_is_wrong_is_refused_with_the_standards_code_and_leaves_nothing(network, change, status, code):
    with api(network) as http:
        assert refusal(http.post("/sessions", json=body(**change))) == (status, code)
    assert network.sessions.held == {}


def test_a_null_is_no_value(network):
    with api(network) as http:
        assert refusal(http.post("/sessions", json=body() | {"devicePorts": None})) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"duration": NaN}', b"[" * 100_000])
def test_what_is_no_object_is_refused(network, content):
    with api(network) as http:
        answer = http.post("/sessions", content=content, headers={"Content-Type": "application/json"})
        assert refusal(answer) == (400, "INVALID_ARGUMENT")
        assert refusal(http.post("/sessions", content=b"{}")) == (400, "INVALID_ARGUMENT")


def test_too_large_a_body_is_refused(network):
    with api(network) as http:
        answer = http.post("/sessions", content=b" " * 300_000, headers={"Content-Type": "application/json"})
        assert refusal(answer) == (413, "PAYLOAD_TOO_LARGE")


def test_who_may_ask(network):
    with api(network, "wrong") as http:
        answer = http.post("/sessions", json=body())
        assert refusal(answer) == (401, "UNAUTHENTICATED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    with api(network, network.token(scopes=frozenset({"qos-profiles:read"}))) as http:
        assert refusal(http.post("/sessions", json=body())) == (403, "PERMISSION_DENIED")
    with api(network, network.control_token) as http:
        assert refusal(http.post("/sessions", json=body())) == (403, "PERMISSION_DENIED")


def test_another_clients_session_is_no_session(network):
    with api(network) as mine, api(network, network.token("another")) as theirs:
        at = f"/sessions/{made(mine)['sessionId']}"
        foreign, unknown = theirs.get(at), theirs.get(f"/sessions/{uuid4()}")
        assert refusal(foreign) == refusal(unknown) == (404, "NOT_FOUND")
        assert foreign.content == unknown.content
        assert refusal(theirs.delete(at)) == (404, "NOT_FOUND")
        assert theirs.post("/retrieve-sessions", json={"device": UE.wire()}).json() == []
        assert refusal(theirs.post("/sessions", json=body())) == (409, "CONFLICT")


def test_a_three_legged_token_names_the_device(network):
    with api(network, network.token("app", device="ue")) as http:
        assert refusal(http.post("/sessions", json=body())) == (422, "UNNECESSARY_IDENTIFIER")
        session = made(http, device=None)
        assert "device" not in session
        assert http.post("/retrieve-sessions", json={}).json() == [session]
    with api(network, network.token("app", device="other")) as http:
        assert refusal(http.get(f"/sessions/{session['sessionId']}")) == (403, "PERMISSION_DENIED")


def test_a_correlator_comes_back(network):
    with api(network) as http:
        assert http.get(f"/sessions/{uuid4()}", headers={"x-correlator": "a-1"}).headers["x-correlator"] == "a-1"
        answer = http.get(f"/sessions/{uuid4()}", headers={"x-correlator": "a b"})
        assert refusal(answer) == (400, "INVALID_ARGUMENT")
        UUID(answer.headers["x-correlator"])
        assert refusal(http.get("/sessions/not-a-uuid")) == (400, "INVALID_ARGUMENT")
        answer = http.put("/retrieve-sessions")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_the_closest_edge_follows_the_device(network):
    discovery = EdgeDiscovery(network.url, network.token())
    with remote_of(network) as remote:
        assert discovery.closest(Device(phone_number="+4915112345678")).id == WEST
        remote.move("ue", 0.8, 0.1)
        found = discovery.closest(UE)
        assert (found.id, found.name, found.device) == (EAST, "east", Device(ipv4_address=UE.ipv4_address))
        assert EdgeDiscovery(network.url, network.token(device="ue")).closest().id == EAST
        with pytest.raises(Denied, match="IDENTIFIER_NOT_FOUND"):
            discovery.closest(Device(phone_number="+4999999999"))
        network.terrain.zones.clear()
        with pytest.raises(Denied, match="no edge cloud zone"):
            discovery.closest(UE)


def test_control_needs_its_token_and_shows_what_there_is(network):
    with remote_of(network) as remote, api(network) as http:
        session = made(http)
        shown = remote.all()
        assert shown["now_s"] == NOON_S
        assert [(s["client"], s["device_name"], s["sessionId"]) for s in shown["sessions"]] == [
            ("tester", "ue", session["sessionId"])
        ]
        assert {c["name"] for c in shown["cells"]} == {"west", "east"}
        denied = http.get(f"{network.url}/simulator")
        assert refusal(denied) == (403, "PERMISSION_DENIED")
        with pytest.raises(QosError, match="no device nobody"):
            remote.move("nobody", 0, 0)
        with pytest.raises(QosError, match="no operation"):
            remote.fail("everything", status=500)
        with pytest.raises(QosError, match=r"is .*ue.* already|ue already"):
            remote.put_device("thief", Device(phone_number="+4915112345678"))


def test_a_port_that_is_taken_and_an_open_address_are_clear_errors(network):
    with pytest.raises(QosError, match="port is taken"), in_thread(Network(port=network.port)):
        pass
    with pytest.raises(WrongUse, match="this machine only"):
        Network(host="0.0.0.0")


def test_a_network_from_a_file(tmp_path):
    path = tmp_path / "network.yaml"
    path.write_text("cells: [{name: a, capacity_bit_s: 1.0e9}]\nbehaviour: {decision_s: 0.5}\n")
    found = read_options(path)
    assert (found.cells[0].capacity_bit_s, found.behaviour.decision_s, found.behaviour.linger_s) == (1e9, 0.5, 360)
    assert "model_5g" in {profile.name for profile in found.profiles}
    for wrong, said in (
        ("cells: []", "at least one cell"),
        ("cell: 1", "cell: Extra"),
        ("cells: [{name: a}, {name: a}]", "twice: a"),
        ("[", "cannot"),
    ):
        path.write_text(wrong)
        with pytest.raises(WrongUse, match=said):
            read_options(path)


def test_time_moves_by_itself_too():
    with in_thread(Network(options(), clock=Clock(start_s=NOON_S))) as network, api(network) as http:
        assert network.clock.now_s() >= NOON_S
        at = f"/sessions/{made(http, qosProfile='short', duration=1)['sessionId']}"
        network.clock.advance(1)
        assert http.get(at).json()["statusInfo"] == "DURATION_EXPIRED"
