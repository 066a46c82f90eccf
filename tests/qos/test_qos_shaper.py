"""Shaped traffic: what a flow is given in each situation, the bucket worked out by hand, and real connections through it."""

import hashlib
import socket
import threading
import time

import pytest
from qos_parts import UE, client_of, options, remote_of

from cellwright.qos.simulator.bucket import BURST_S, Bucket
from cellwright.qos.simulator.network import Network, in_thread
from cellwright.qos.simulator.options import Cell, NetworkOptions
from cellwright.qos.simulator.shaper import Path


class Hand:
    """A clock that a test turns."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_bucket_lets_pass_what_its_rate_allows_in_order():
    hand = Hand()
    bucket = Bucket(8000.0, hand)  # 1000 bytes a second
    first, second = bucket.reserve(500), bucket.reserve(250)
    assert (bucket.wait_s(first), bucket.wait_s(second)) == (0.5, 0.75)
    hand.now_s = 0.5
    assert (bucket.wait_s(first), bucket.wait_s(second)) == (0.0, 0.25)


def test_a_change_of_rate_counts_from_its_moment():
    hand = Hand()
    bucket = Bucket(8000.0, hand)
    ticket = bucket.reserve(1000)
    hand.now_s = 0.5
    bucket.rate_bit_s = 80_000.0
    assert bucket.wait_s(ticket) == pytest.approx(0.05)
    bucket.rate_bit_s = None
    assert bucket.wait_s(ticket) == 0.0


def test_a_pause_saves_up_no_more_than_the_burst():
    hand = Hand()
    bucket = Bucket(8000.0, hand)
    hand.now_s = 100.0
    assert bucket.wait_s(bucket.reserve(1000)) == pytest.approx(1.0 - BURST_S)


def test_a_place_that_is_given_up_delays_nobody_after():
    hand = Hand()
    bucket = Bucket(8000.0, hand)
    bucket.reserve(1000)
    bucket.cancel(1000)
    assert bucket.wait_s(bucket.reserve(100)) == pytest.approx(0.1)


def given(network, device="ue", target=("127.0.0.1", 8080), entrance=("127.0.0.1", 5000), device_port=40_000):
    return network.rules.conditions(Path(device, device_port, target, entrance))


def test_what_a_flow_is_given_without_and_with_a_session(network):
    assert (given(network).down_bit_s, given(network).up_bit_s) == (50e6, 20e6)
    before = network.rules.version
    with client_of(network) as client, remote_of(network) as remote:
        with client.session(UE, "127.0.0.1", "gold", 60) as held:
            assert network.rules.version > before
            assert (given(network).down_bit_s, given(network).flow) == (100e6, str(held.id))
            assert given(network, "other").down_bit_s == 50e6
            assert given(network, target=("127.0.0.2", 8080), entrance=("127.0.0.2", 5000)).down_bit_s == 50e6
            remote.revoke(held.id)
            assert given(network).down_bit_s == 50e6
        assert given(network).down_bit_s == 50e6


def test_ports_of_a_session_bind_its_flow(network):
    from cellwright.qos.forms import Ports

    with client_of(network) as client:
        ports, own = Ports(ports=(8080,)), Ports.model_validate({"ranges": [{"from": 40_000, "to": 40_010}]})
        with client.session(UE, "127.0.0.1", "gold", 60, app_server_ports=ports, device_ports=own):
            assert given(network).down_bit_s == 100e6
            assert given(network, target=("127.0.0.1", 9)).down_bit_s == 50e6
            assert given(network, target=("127.0.0.1", 9), entrance=("127.0.0.1", 8080)).down_bit_s == 100e6
            assert given(network, device_port=39_999).down_bit_s == 50e6


def test_up_to_the_maximum_from_what_the_cell_has_left():
    profile = {"name": "elastic", "status": "ACTIVE", "maxDownstreamRate": {"value": 90, "unit": "Mbps"}}
    profile |= {"targetMinDownstreamRate": {"value": 20, "unit": "Mbps"}, "packetErrorLossRate": 3}
    whole = NetworkOptions.model_validate(
        options().model_dump() | {"cells": [Cell(name="west", capacity_bit_s=100e6, stalls_per_s=3.0)], "profiles": [profile]}
    )
    with in_thread(Network(whole)) as network, client_of(network) as client:
        assert given(network).stalls_per_s == 3.0
        with client.session(UE, "127.0.0.1", "elastic", 60):
            assert (given(network).down_bit_s, given(network).stalls_per_s) == (90e6, 0.0)
            with client.session(UE, "127.0.0.2", "elastic", 60):
                assert given(network).down_bit_s == 20e6 + (100e6 - 40e6) / 2


class Source:
    """A server that sends the same bytes to everybody and digests what it gets."""

    def __init__(self, content):
        self.content, self.received = content, hashlib.sha256()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        with connection:
            try:
                connection.sendall(self.content)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    self.received.update(chunk)
            except OSError:
                return


@pytest.fixture
def source():
    found = Source(bytes(range(256)) * 8192)  # 2 MiB
    yield found
    found.server.close()


def fetch(at, upload=b"", source=None):
    with socket.create_connection(at, timeout=20, source_address=source) as connection:
        connection.sendall(upload)
        connection.shutdown(socket.SHUT_WR)
        got = bytearray()
        while chunk := connection.recv(65536):
            got += chunk
        return bytes(got)


@pytest.mark.parametrize(
    "cell",
    [
        {"background_down_bit_s": None, "background_up_bit_s": None},
        {"background_down_bit_s": 200e6, "delay_s": 0.02},
        {"stalls_per_s": 50.0, "stall_s": 0.01},
    ],
)
def test_every_byte_arrives_both_ways(live, source, cell):
    with remote_of(live) as remote:
        remote.put_cell("west", **cell)
        at = remote.link("127.0.0.1", source.port, device="ue")
        upload = b"up" * 50_000
        assert fetch(at, upload) == source.content
        deadline = time.monotonic() + 10
        while source.received.hexdigest() != hashlib.sha256(upload).hexdigest():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        [link] = remote.all()["links"]
        assert (link["down_bytes"], link["up_bytes"]) == (len(source.content), len(upload))


def test_devices_are_told_apart_by_their_address(live, source):
    seen = []
    conditions = live.rules.conditions
    live.rules.conditions = lambda path: seen.append(path.device) or conditions(path)
    with remote_of(live) as remote:
        at = remote.link("127.0.0.1", source.port)
        fetch(at, source=("127.0.3.7", 0))
        fetch(at, source=("127.0.9.9", 0))
    assert set(seen) == {"ue", "127.0.9.9"}


def test_a_cut_breaks_the_connection_and_is_no_end(live, source):
    with remote_of(live) as remote:
        remote.put_cell("west", background_down_bit_s=100e3)
        at = remote.link("127.0.0.1", source.port, device="ue")
        with socket.create_connection(at, timeout=20) as connection:
            assert connection.recv(1024)
            assert remote.cut("ue") == 1
            with pytest.raises(ConnectionResetError):
                drain(connection)


def test_an_edge_that_is_away_is_a_broken_connection(live):
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with remote_of(live) as remote, pytest.raises(OSError):
        assert fetch(remote.link("127.0.0.1", port)) != b""


def test_a_session_frees_a_transfer_that_is_under_way(live, source):
    """At 40 kbit/s the 2 MiB would take 7 minutes; the session lets them pass, and the connection is the same."""
    with remote_of(live) as remote, client_of(live) as client:
        remote.put_cell("west", background_down_bit_s=40e3, capacity_bit_s=150e6)
        at = remote.link("127.0.0.1", source.port, device="ue")
        with socket.create_connection(at, timeout=20) as connection:
            got = len(connection.recv(1024))
            with client.session(UE, "127.0.0.1", "gold", 60):
                while chunk := connection.recv(65536):
                    got += len(chunk)
        assert got == len(source.content)


def drain(connection):
    while connection.recv(65536):
        pass


def rate_of(at, seconds):
    with socket.create_connection(at, timeout=20) as connection:
        buffer, got, begin = bytearray(1 << 20), 0, time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            got += connection.recv_into(buffer)
        return got * 8 / passed


@pytest.mark.slow
@pytest.mark.parametrize("rate_bit_s", [1e6, 22e6, 100e6, 512e6])
def test_rates_are_kept_within_five_percent(live, rate_bit_s):
    source = Source(bytes(256 << 20))
    with remote_of(live) as remote:
        remote.put_cell("west", background_down_bit_s=rate_bit_s)
        at = remote.link("127.0.0.1", source.port, device="ue")
        assert rate_of(at, 3.0) == pytest.approx(rate_bit_s, rel=0.05)
    source.server.close()
