"""Slow and many clients: they are cut off, and nobody else notices. Access logs."""

import json
import logging
import socket
import threading
import time
from contextlib import ExitStack

import httpx
import pytest

from cellwright.edge.connections import Patience
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits

NAME = "mini--traffic--h6-3"


@pytest.fixture
def patient(shelf, project):
    def made(patience, **more):
        return in_thread(Edge(shelf, project.trust, port=0, limits=Limits(poll_s=5, shutdown_s=1), patience=patience, **more))

    return made


def answer_to(edge, content, *, then=None):
    """All that comes back until the connection ends; `then` is called after sending."""
    with socket.create_connection((edge.host, edge.port), timeout=20) as client:
        client.sendall(content)
        if then:
            then(client)
        found = b""
        while chunk := client.recv(65536):
            found += chunk
        return found


def test_a_head_that_never_ends_is_cut_off_while_others_are_served(patient):
    stop = threading.Event()

    def drip(client):
        for _ in range(200):  # a byte now and then, so that the connection is never silent
            if stop.wait(0.02):
                return
            try:
                client.sendall(b"x")
            except OSError:
                return

    with patient(Patience(head_s=0.5)) as edge, ExitStack() as slow:
        for _ in range(20):
            client = slow.enter_context(socket.create_connection((edge.host, edge.port)))
            client.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert httpx.get(f"{edge.url}/healthz").status_code == 200
        assert answer_to(edge, b"GET /healthz HTTP/1.1\r\nX-Slow: ", then=drip).startswith(b"HTTP/1.1 408 ")
        assert answer_to(edge, b"").startswith(b"HTTP/1.1 408 "), "nor may a client say nothing at all"
        stop.set()


def test_a_kept_connection_has_a_deadline_for_each_head(patient):
    with patient(Patience(head_s=0.3)) as edge:

        def begin_another(client):
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.5)  # an idle connection is kept for longer than a head may take
            client.sendall(b"GET /healthz HTTP/1.1\r\n")

        found = answer_to(edge, b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n", then=begin_another)
        assert found.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(patient):
    with patient(Patience(idle_s=0.3)) as edge:
        found = answer_to(edge, b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_takes_nothing_is_cut_off(patient, shelf, project, another):
    from cellwright.bundle import store

    folder, manifest = another("2.0.0", pad=40_000_000)
    store.place(shelf, folder, manifest, activate=True)
    digest = manifest.layers["card.md"].hex if "card.md" in manifest.layers else max(manifest.blobs, key=lambda d: d.size).hex
    with patient(Patience(silence_s=1.0)) as edge, socket.create_connection((edge.host, edge.port)) as client:
        client.sendall(f"GET /v1/bundles/{NAME}/2.0.0/blobs/sha256/{digest} HTTP/1.1\r\nHost: edge\r\n\r\n".encode())
        assert client.recv(100)
        end = time.monotonic() + 20
        while _requests(edge) and time.monotonic() < end:
            time.sleep(0.05)
        assert not _requests(edge)


def _requests(edge):
    (site,) = edge._runner.sites
    return site.connections.open


def test_more_connections_than_there_may_be_are_refused_at_once(patient):
    with patient(Patience(most_per_client=2)) as edge, ExitStack() as held:
        clients = [held.enter_context(httpx.Client(base_url=edge.url)) for _ in range(2)]
        assert [client.get("/healthz").status_code for client in clients] == [200, 200]
        assert answer_to(edge, b"").startswith(b"HTTP/1.1 503 ")
        assert clients[0].get("/healthz").status_code == 200
        clients[1].close()
        end = time.monotonic() + 10
        while _requests(edge) > 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert httpx.get(f"{edge.url}/healthz").status_code == 200


def test_access_logs_join_a_trace_and_tell_no_secrets(patient, caplog):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with caplog.at_level(logging.INFO, "cellwright.edge.access"), patient(Patience(), access_log=True) as edge:
        headers = {"traceparent": f"00-{trace}-{span}-01", "Authorization": "Bearer secret"}
        httpx.get(f"{edge.url}/v1/bundles/{NAME}/latest?token=secret", headers=headers)
        httpx.get(f"{edge.url}/healthz", headers={"traceparent": "00-0-0-00"})
    first, second = (json.loads(record.getMessage()) for record in caplog.records)
    assert (first["TraceId"], first["SpanId"], first["TraceFlags"]) == (trace, span, 1)
    assert first["Attributes"]["http.route"] == "/v1/bundles/{name}/{version}"
    assert first["Attributes"]["http.response.status_code"] == 200
    assert "secret" not in caplog.text
    assert "TraceId" not in second
