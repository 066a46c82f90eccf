"""Fetching: a mirror folder, and a real HTTP server on loopback that breaks off, refuses and changes its mind."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cellwright.catalogue import Entry
from cellwright.data.fetch import pull
from cellwright.errors import SourceError
from cellwright.workspace import Workspace

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@dataclass
class Served:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    status: int = 200
    break_after: list[int] = field(default_factory=list)  # bytes sent before the connection is cut, one a request
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)  # Range headers
    address: str = ""


@pytest.fixture
def server() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.asked.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and served.ranges else 0
            if served.status != 200 or start >= len(served.content):
                self.send_response(served.status if served.status != 200 else 416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = served.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if served.break_after:
                self.wfile.write(body[: served.break_after.pop(0)])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        served.address = f"http://127.0.0.1:{http.server_address[1]}/x.csv"
        yield served
        http.shutdown()
        thread.join()


def entry(content: bytes = CONTENT, **source: object) -> Entry:
    described = {"name": "x.csv", "sha256": hashlib.sha256(content).hexdigest(), **source}
    return Entry.model_validate({
        "name": "own", "title": "Own", "reader": "long", "options": {"time": "t"}, "cadence_s": 600, "homepage": "https://example.org",
        "features": {"mbps": {"unit": "1"}}, "targets": ["mbps"], "sources": [described],
    })  # fmt: skip


def raw(ws: Workspace) -> list[str]:
    folder = ws.raw("own")
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_download_arrives_whole_with_its_progress(tmp_path, server):
    told: list[tuple[str, int, int | None]] = []
    ws = Workspace(tmp_path)
    paths = pull(entry(address=server.address), ws, None, lambda *now: told.append(now))
    assert [p.read_bytes() for p in paths] == [CONTENT]
    assert told[-1] == ("x.csv", len(CONTENT), len(CONTENT))
    assert not ws.downloads("own").exists()


def test_what_is_there_is_not_fetched_again(tmp_path, server):
    ws = Workspace(tmp_path)
    pull(entry(address=server.address), ws, None)
    pull(entry(address=server.address), ws, None)
    assert len(server.asked) == 1


def test_a_broken_connection_is_taken_up_where_it_ended(tmp_path, server):
    server.break_after = [1_000_000, 500_000]
    paths = pull(entry(address=server.address), Workspace(tmp_path), None)
    assert paths[0].read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1500000-"]


def test_after_too_many_breaks_nothing_is_left_in_the_raw_folder_and_the_next_run_resumes(tmp_path, server):
    server.break_after = [1_000_000, 100_000, 100_000]
    ws = Workspace(tmp_path)
    with pytest.raises(SourceError, match=r"broke off after 1200000 bytes.*run again \(it resumes\)"):
        pull(entry(address=server.address), ws, None)
    assert raw(ws) == []
    assert pull(entry(address=server.address), ws, None)[0].read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=1200000-"


def test_a_server_without_ranges_starts_over(tmp_path, server):
    server.ranges, server.break_after = False, [1_000_000]
    assert pull(entry(address=server.address), Workspace(tmp_path), None)[0].read_bytes() == CONTENT


def test_a_wrong_checksum_is_said_and_nothing_is_left(tmp_path, server):
    server.content = CONTENT[:-1] + b"?"
    ws = Workspace(tmp_path)
    with pytest.raises(SourceError, match=r"expected SHA-256 .* for x\.csv, found"):
        pull(entry(address=server.address), ws, None)
    assert raw(ws) == []
    assert list(ws.downloads("own").iterdir()) == []
    server.content = CONTENT
    assert pull(entry(address=server.address), ws, None)[0].read_bytes() == CONTENT


def test_a_source_that_became_shorter_is_fetched_anew(tmp_path, server):
    """The rest of a longer file lies there; the server has nothing after it (416)."""
    ws = Workspace(tmp_path)
    ws.downloads("own").mkdir(parents=True)
    (ws.downloads("own") / "x.csv.part").write_bytes(CONTENT + b"more")
    with pytest.raises(SourceError, match="expected SHA-256"):
        pull(entry(address=server.address), ws, None)
    assert pull(entry(address=server.address), ws, None)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_answer_that_is_no_file_is_said(tmp_path, server, status):
    server.status = status
    with pytest.raises(SourceError, match=rf"answered {status} .*Correct its address.*ingest\.mirror"):
        pull(entry(address=server.address), Workspace(tmp_path), None)


def test_a_refused_connection_is_said(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"http://127.0.0.1:{held.getsockname()[1]}/x.csv"
        with pytest.raises(SourceError, match=r"cannot be reached.*Check the\s+connection"):
            pull(entry(address=address), Workspace(tmp_path), None)


def test_no_address_and_no_mirror_says_where_people_find_it(tmp_path):
    with pytest.raises(SourceError, match=r"no address to fetch it from, and no mirror was given.*https://example\.org"):
        pull(entry(), Workspace(tmp_path), None)


def mirrored(folder: Path, content: bytes = CONTENT) -> bytes:
    packed = gzip.compress(content, mtime=0)
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "x.csv.gz").write_bytes(packed)
    return packed


def described(packed: bytes, **more: object) -> Entry:
    return entry(mirror="set/x.csv.gz", mirror_sha256=hashlib.sha256(packed).hexdigest(), **more)


def test_a_mirror_is_read_before_any_address_and_decompressed(tmp_path, server):
    packed = mirrored(tmp_path / "mirror")
    paths = pull(described(packed, address=server.address), Workspace(tmp_path / "w"), tmp_path / "mirror")
    assert paths[0].name == "x.csv"
    assert paths[0].read_bytes() == CONTENT
    assert server.asked == []


def test_a_mirror_that_lacks_the_file_gives_way_to_the_address(tmp_path, server):
    (tmp_path / "mirror").mkdir()
    one = entry(mirror="set/x.csv.gz", address=server.address)
    assert pull(one, Workspace(tmp_path / "w"), tmp_path / "mirror")[0].read_bytes() == CONTENT
    with pytest.raises(SourceError, match=r"not in the mirror .* \(looked for set/x\.csv\.gz\)"):
        pull(entry(mirror="set/x.csv.gz"), Workspace(tmp_path / "v"), tmp_path / "mirror")


def test_a_damaged_mirror_file_is_said(tmp_path):
    packed = mirrored(tmp_path / "mirror")
    with pytest.raises(SourceError, match=r"x\.csv\.gz: expected SHA-256 .*damaged or another version"):
        pull(described(packed + b"x"), Workspace(tmp_path / "w"), tmp_path / "mirror")
    (tmp_path / "mirror" / "set" / "x.csv.gz").write_bytes(packed[:-100])
    with pytest.raises(SourceError, match="not a whole gzip file"):
        pull(entry(mirror="set/x.csv.gz"), Workspace(tmp_path / "w"), tmp_path / "mirror")
    assert raw(Workspace(tmp_path / "w")) == []


def test_a_mirror_file_with_a_rotten_byte_is_said(tmp_path):
    packed = bytearray(mirrored(tmp_path / "mirror"))
    packed[10] = 0xFF  # the first block after the header: of a kind that there is not
    (tmp_path / "mirror" / "set" / "x.csv.gz").write_bytes(packed)
    with pytest.raises(SourceError, match=r"not a whole gzip file \(.*invalid block type"):
        pull(entry(mirror="set/x.csv.gz"), Workspace(tmp_path / "w"), tmp_path / "mirror")


def test_a_mirror_file_of_other_content_is_said(tmp_path):
    packed = mirrored(tmp_path / "mirror", b"something else")
    with pytest.raises(SourceError, match=r"expected SHA-256 .* for x\.csv, found"):
        pull(described(packed), Workspace(tmp_path / "w"), tmp_path / "mirror")
