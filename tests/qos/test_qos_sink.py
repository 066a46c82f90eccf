"""Notifications: who may bring them, what they may say, and what a session makes of them, over plain HTTP and over TLS."""

import json
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from qos_parts import EDGE, UE, client_of, options, remote_of

from cellwright.qos.forms import EVENT_TYPE
from cellwright.qos.session import State
from cellwright.qos.simulator.network import Network, in_thread
from cellwright.qos.sink import MOST_BYTES, Sink, SinkServer

TYPE = "application/cloudevents+json"


def event(**more):
    data = {"sessionId": str(uuid4()), "qosStatus": "UNAVAILABLE", "statusInfo": "NETWORK_TERMINATED"}
    whole = {
        "id": "1",
        "source": "/sessions/1",
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "time": "2026-01-01T12:00:00Z",
        "data": data,
    }
    return {key: value for key, value in (whole | more).items() if value is not None}


@pytest.fixture
def opened():
    arrived = []
    sink = Sink("https://edge.example/qos")
    address = sink.open(arrived.append)

    def send(body, *, token=None, content_type=TYPE, ref=None):
        shown = f"Bearer {address.credential.access_token}" if token is None else token
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return sink.receive(ref or address.ref, shown, content_type, content)

    return sink, address, arrived, send


def test_an_event_arrives_once_however_often_it_is_delivered(opened):
    _, address, arrived, send = opened
    assert address.url == f"https://edge.example/qos/{address.ref}"
    assert (address.credential.credential_type, address.credential.access_token_type) == ("ACCESSTOKEN", "bearer")
    assert [send(event()), send(event()), send(event(id="2"), content_type=f"{TYPE}; charset=utf-8")] == [204, 204, 204]
    assert [one.id for one in arrived] == ["1", "2"]


def test_who_does_not_show_the_token_is_refused_and_who_comes_late_told_to_stop(opened):
    sink, address, arrived, send = opened
    other = sink.open(arrived.append).credential.access_token
    for token in ("", "Bearer ", "Bearer wrong", f"Bearer {other}", address.credential.access_token, f"Basic {other}"):
        assert send(event(), token=token) == 401
    assert send(event(), ref="unknown") == 410
    sink.close(address.ref)
    assert send(event()) == 410
    assert arrived == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 50_000,
        [],
        event(data=None),
        event(type="another"),
        event(specversion="0.3"),
        event(id=None),
        event(time="yesterday"),
        event(time="2026-01-01T12:00:00"),
        event(data={"sessionId": "1", "qosStatus": "AVAILABLE"}),
        event(data={"sessionId": str(uuid4()), "qosStatus": "REQUESTED"}),
        event(data={"sessionId": str(uuid4()), "qosStatus": "UNAVAILABLE", "statusInfo": "BORED"}),
    ],
)
def test_what_is_no_event_is_refused(opened, body):
    _, _, arrived, send = opened
    assert send(body) == 400
    assert arrived == []


def test_what_is_too_large_or_of_another_type_is_refused(opened):
    _, _, arrived, send = opened
    assert send(b" " * (MOST_BYTES + 1)) == 413
    assert send(event(), content_type="application/json") == 400
    assert arrived == []


def test_the_server_is_bounded_and_answers_as_the_sink_does():
    arrived = []
    with SinkServer() as server:
        address = server.sink.open(arrived.append)
        headers = {"Authorization": f"Bearer {address.credential.access_token}", "Content-Type": TYPE}
        assert httpx.post(address.url, json=event(), headers=headers).status_code == 204
        assert httpx.post(address.url, json=event(), headers={"Content-Type": TYPE}).status_code == 401
        assert httpx.post(address.url, content=b" " * (MOST_BYTES + 1), headers=headers).status_code == 413
        assert httpx.post(address.url, content=iter([b"{}"]), headers=headers).status_code == 411
        assert httpx.get(address.url).status_code == 501
        with socket.create_connection(("127.0.0.1", int(address.url.split(":")[2].split("/")[0]))) as silent:
            assert (
                httpx.post(address.url, json=event(id="2"), headers=headers).status_code == 204
            )  # nobody waits for the silent one
            silent.close()
    assert [one.id for one in arrived] == ["1", "2"]


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_session_hears_of_its_changes_without_asking(live):
    heard = threading.Event()
    with (
        SinkServer() as server,
        client_of(live, sink=server.sink, poll_s=600) as client,
        remote_of(live) as remote,
        client.session(UE, EDGE, "gold", 60, on_change=lambda _s, change: change.state is State.REVOKED and heard.set()) as held,
    ):
        assert held.active
        remote.revoke(held.id)
        assert heard.wait(10)
        assert held.state is State.REVOKED


def test_an_event_that_cannot_be_delivered_comes_again(live):
    arrived = []
    with SinkServer() as server, client_of(live) as client:
        receive, refused = server.sink.receive, []

        def twice_away(*asked):
            if len(refused) < 2:
                refused.append(asked)
                return 503
            return receive(*asked)

        server.sink.receive = twice_away
        address = server.sink.open(arrived.append)
        with client.session(UE, EDGE, "silver", 60):
            body = {
                "applicationServer": {"ipv4Address": "127.0.0.9"},
                "qosProfile": "silver",
                "duration": 60,
                "device": UE.wire(),
            }
            body |= {"sink": address.url, "sinkCredential": address.credential.wire()}
            headers = {"Authorization": f"Bearer {live.token('other')}"}
            made = httpx.post(f"{live.url}/quality-on-demand/v1/sessions", json=body, headers=headers)
            assert made.status_code == 201
            assert "sinkCredential" not in made.json()
            until(lambda: arrived)
            httpx.delete(f"{live.url}/quality-on-demand/v1/sessions/{made.json()['sessionId']}", headers=headers)
            until(lambda: len(arrived) == 2)
    assert len(refused) == 2
    assert [(one.data.qos_status, one.data.status_info) for one in arrived] == [
        ("AVAILABLE", None),
        ("UNAVAILABLE", "DELETE_REQUESTED"),
    ]
    assert arrived[0].source == f"{live.url}/quality-on-demand/v1/sessions/{made.json()['sessionId']}"


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


def test_over_tls_as_the_standard_has_it(tmp_path):
    cert, key = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    trust = ssl.create_default_context(cafile=cert)
    with SinkServer("localhost", tls=tls) as server, in_thread(Network(options(), sink_tls=trust)) as network:
        assert server.sink.url.startswith("https://localhost:")
        client, remote = client_of(network, sink=server.sink, poll_s=600), remote_of(network)
        with client, remote, client.session(UE, EDGE, "gold", 60) as held:
            remote.revoke(held.id)
            until(lambda: held.state is State.REVOKED)
