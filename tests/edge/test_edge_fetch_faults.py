"""Faults on the way to a device: nothing is lost, nothing comes twice, nothing wrong is activated, and every error says what to do."""

import resource
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from fetch_parts import line_to, noise

from cellwright.bundle import store
from cellwright.bundle.manifest import Descriptor
from cellwright.edge import ranges
from cellwright.edge.arriving import Arriving
from cellwright.edge.device import Device
from cellwright.edge.download import Download
from cellwright.edge.wire import Link
from cellwright.errors import EdgeError, WorkspaceError, WrongUse

NAME = "mini--traffic--h6-3"
PAD = 6_000_000


@pytest.fixture
def large(edge, shelf, another):
    """Version 1.1.0 with a card of 6 MB."""
    folder, manifest = another("1.1.0", pad=PAD)
    store.place(shelf, folder, manifest, activate=True)
    while httpx.get(f"{edge.url}/readyz").json()["serving"][NAME] != "1.1.0":
        threading.Event().wait(0.01)
    edge.card = manifest.layers["card.md"]
    edge.card_path = f"/v1/bundles/{NAME}/1.1.0/{edge.card.blob}"
    edge.card_bytes = (folder / edge.card.blob).read_bytes()
    return edge


@pytest.fixture
def device(project, tmp_path):
    return Device(tmp_path / "device", project.trust)


def intact(device, project):
    """The active bundle, every byte of it checked."""
    return store.latest(device.folder / "bundles", NAME, project.trust)[1].version


def test_a_line_that_drops_at_every_tenth_of_a_download_costs_nothing_but_time(large, device, project):
    tenth = PAD // 10
    line = line_to(large.url, cuts=[tenth] * 9)
    with line.open() as url:
        fetched = device.fetch(url, NAME)
    assert line.cuts == []
    assert intact(device, project) == fetched.version == "1.1.0"
    assert fetched.transfer.received_bytes < PAD + 100_000 + project.published.model_bytes


@pytest.mark.parametrize("tenth", range(1, 10))
def test_what_a_drop_leaves_is_used_by_the_next_process(large, tmp_path, tenth):
    with Arriving(tmp_path / "part", large.card, "card.md") as arriving:
        arriving.add(large.card_bytes[: PAD * tenth // 10])
    moved = Download(Link(large.url)).blob(large.card_path, tmp_path / "part", large.card, "card.md", tmp_path / "card")
    assert (moved.resumed_bytes, moved.received_bytes) == (PAD * tenth // 10, large.card.size - PAD * tenth // 10)
    assert (tmp_path / "card").read_bytes() == large.card_bytes


def process(folder, url, keys, *, most_bytes=None):
    """`Device.fetch` in a process of its own, which may write files of at most so many bytes."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {most_bytes}))" if most_bytes else ""
    code = f"""
import resource, sys
from pathlib import Path
from cellwright.bundle.keys import trusted
from cellwright.edge.device import Device
from cellwright.errors import CellwrightError
{limit}
try:
    print(Device(Path({str(folder)!r}), trusted(Path({str(keys)!r}))).fetch({url!r}, {NAME!r}).transfer.resumed_bytes)
except CellwrightError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_is_resumed(large, device, project):
    line = line_to(large.url, cuts=[PAD // 2])
    running = SimpleNamespace(process=None)
    line.on_cut = lambda _number: (time.sleep(0.2), running.process.kill(), running.process.wait())
    with line.open() as url:
        running.process = process(device.folder, url, project.ws.keys)
        running.process.communicate()
    assert running.process.returncode == -9
    assert device.active() == {}
    fetched = device.fetch(large.url, NAME)
    assert fetched.transfer.resumed_bytes > PAD // 4
    assert intact(device, project) == "1.1.0"


def test_a_full_disk_is_said_and_what_was_written_is_kept(large, device, project):
    running = process(device.folder, large.url, project.ws.keys, most_bytes=4_000_000)
    _, error = running.communicate()
    assert running.returncode == 1
    assert "WorkspaceError: cannot write" in error
    assert "free some space and run again to resume" in error
    assert device.active() == {}
    fetched = device.fetch(large.url, NAME)
    assert fetched.transfer.resumed_bytes >= 4_000_000
    assert intact(device, project) == "1.1.0"


def test_a_full_disk_in_the_middle_of_a_write_keeps_the_part_that_was_written(tmp_path):
    content = noise(3_000_000)
    described = Descriptor(mediaType="x", digest="sha256:" + "0" * 64, size=len(content))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_001, hard))
    try:
        with pytest.raises(WorkspaceError, match="free some space"), Arriving(tmp_path / "part", described, "it") as arriving:
            arriving.add(content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert arriving.size == 1_500_001
    assert (tmp_path / "part").read_bytes() == content[:1_500_001]


def test_an_edge_that_is_away_from_the_start_is_told_at_once(device):
    started = time.monotonic()
    with pytest.raises(EdgeError, match=r"cannot reach an edge at http://127\.0\.0\.1:9"):
        device.fetch("http://127.0.0.1:9", NAME)
    assert time.monotonic() - started < 5
    with pytest.raises(WrongUse, match="is not an address"):
        device.fetch("edge.example", NAME)


@pytest.fixture
def eager(monkeypatch):
    """Parallel ranges are tried on any link."""
    monkeypatch.setattr(ranges, "LEAST_RTT_S", 0.0)
    monkeypatch.setattr(ranges, "LEAST_LEFT_S", 0.0)
    monkeypatch.setattr(ranges, "_OBSERVED_S", 0.0)
    monkeypatch.setattr(ranges, "_OBSERVED_RTT", 0)
    monkeypatch.setattr(ranges, "STRIPE_BYTES", 300_000)


@pytest.mark.parametrize(("gain", "cuts"), [(0.0, []), (0.0, [400_000, 100_000]), (1e9, [])])
def test_parallel_ranges_bring_the_same_bytes_whether_they_pay_or_break(large, tmp_path, eager, monkeypatch, gain, cuts):
    monkeypatch.setattr(ranges, "GAIN", gain)
    line = line_to(large.url, cuts=cuts)
    with line.open() as url:
        link = Link(url)
        Download(link).document(f"/v1/bundles/{NAME}/1.1.0/index.json", 1 << 20)  # the link's round trip is known from now on
        download = Download(link)
        moved = download.blob(large.card_path, tmp_path / "part", large.card, "card.md", tmp_path / "card")
    assert (tmp_path / "card").read_bytes() == large.card_bytes
    assert download.streams == ranges.STREAMS
    assert moved.received_bytes == large.card.size  # a stripe that was given up is not counted, and not kept
    assert line.connections > ranges.STREAMS


def test_discarded_bytes_are_hashed_too(large):
    moved = Download(Link(large.url)).blob(large.card_path, None, large.card, "card.md", None)
    assert (moved.received_bytes, moved.stored_s) == (large.card.size, 0.0)
    other = large.card.model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(Exception, match="expected SHA-256"):
        Download(Link(large.url)).blob(large.card_path, None, other, "card.md", None)
