"""Files to fast clients by threads, to slow ones by the event loop; nobody's thread is held up, and every byte is right."""

import asyncio
import hashlib
import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import store
from cellwright.bundle.keys import key_id
from cellwright.bundle.layout import About
from cellwright.bundle.wrap import wrap
from cellwright.edge.sending import _over
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits

SIZE = 24 << 20  # more than a thread sends before it looks how fast the client is, and more than sockets hold


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(store, trust, path of the file's blob, its SHA-256)"""
    root, key = tmp_path_factory.mktemp("sending"), Ed25519PrivateKey.generate()
    content = os.urandom(SIZE)
    (root / "file").write_bytes(content)
    manifest = wrap(root / "made", root / "file", "opaque", About("guide", "1.0.0", "guide", "file", "", 0, None, None), key)
    store.place(root / "store", root / "made", manifest, activate=True)
    path = f"/v1/bundles/guide/1.0.0/{manifest.layers['model.bin'].blob}"
    return root / "store", {key_id(key.public_key()): key.public_key()}, path, hashlib.sha256(content).hexdigest()


@contextmanager
def edge_of(served, *, senders=64, shutdown_s=5.0):
    limits = Limits(poll_s=60, senders=senders, shutdown_s=shutdown_s)
    with in_thread(Edge(served[0], served[1], port=0, limits=limits)) as edge:
        yield edge


@contextmanager
def asking(edge, path):
    """A client that has asked for the file and reads nothing by itself."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(20)
        client.connect((edge.host, edge.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n".encode())
        yield client


def body_of(client, pause_s=0.0):
    found = bytearray()
    while part := client.recv(1 << 18):
        found += part
        time.sleep(pause_s)
    return bytes(found).partition(b"\r\n\r\n")[2]


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_at_once_get_the_right_bytes_over_kept_connections(served):
    _, _, path, sha256 = served
    found = []

    def client():
        with httpx.Client(base_url=edge.url, timeout=60) as http:
            found.extend((headers, http.get(path, headers=headers)) for headers in ({}, {"Range": "bytes=5000000-"}, {}))
            found.append(("healthz", http.get("/healthz")))

    with edge_of(served, senders=2) as edge:
        clients = [threading.Thread(target=client) for _ in range(5)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        whole = [r.content for headers, r in found if headers == {}]
        parts = [r.content for headers, r in found if headers and headers != "healthz"]
        assert [hashlib.sha256(content).hexdigest() for content in whole] == [sha256] * 10
        assert parts == [whole[0][5_000_000:]] * 5
        assert [r.status_code for headers, r in found if headers == "healthz"] == [200] * 5
        assert edge.senders.busy == 0


def test_a_client_that_takes_nothing_for_a_while_gives_the_thread_back_and_gets_the_rest(served):
    with edge_of(served, senders=1) as edge, asking(edge, served[2]) as slow:
        until(lambda: edge.senders.busy == 1)
        until(lambda: edge.senders.busy == 0)  # it has read nothing yet
        with asking(edge, served[2]) as second:
            assert hashlib.sha256(body_of(second)).hexdigest() == served[3]
        assert hashlib.sha256(body_of(slow)).hexdigest() == served[3]


def test_a_client_that_is_steadily_slow_gives_the_thread_back(served):
    with edge_of(served, senders=1) as edge, asking(edge, served[2]) as slow:
        until(lambda: edge.senders.busy == 1)
        found = bytearray()
        while edge.senders.busy:  # about 8 MB/s
            found += slow.recv(1 << 18)
            time.sleep(0.03)
        assert len(found) < SIZE - (1 << 20)
        while part := slow.recv(1 << 18):
            found += part
        assert hashlib.sha256(bytes(found).partition(b"\r\n\r\n")[2]).hexdigest() == served[3]


def test_a_client_that_goes_frees_its_thread(served):
    with edge_of(served) as edge:
        with asking(edge, served[2]):
            until(lambda: edge.senders.busy == 1)
        until(lambda: edge.senders.busy == 0)
        assert httpx.get(f"{edge.url}/healthz").status_code == 200


def test_a_server_stops_beside_a_client_that_reads_nothing(served):
    threads = threading.active_count()
    with ExitStack() as later, edge_of(served, shutdown_s=0.1) as edge:
        later.enter_context(asking(edge, served[2]))
        until(lambda: edge.senders.busy == 1)
    assert threading.active_count() <= threads


def test_a_thread_is_waited_for_however_often_that_is_cancelled():
    """Else it would go on to send on a descriptor that is another client's by then."""

    async def cancelled_twice():
        gate = threading.Event()
        sending = asyncio.get_running_loop().run_in_executor(None, gate.wait)
        over = asyncio.ensure_future(_over(sending))
        for _ in range(2):
            await asyncio.sleep(0.01)
            over.cancel()
        await asyncio.sleep(0.01)
        assert not over.done()
        gate.set()
        await over
        assert sending.done()

    asyncio.run(cancelled_twice())
