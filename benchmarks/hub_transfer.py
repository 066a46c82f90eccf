"""How fast a hub takes a large file in, and gives it out: upload in resumable chunks, download, hashes included; the hub's memory.

    python benchmarks/hub_transfer.py                 # 536,870,912 bytes, three rounds; writes benchmarks/results/<date>-hub-transfer.md
    python benchmarks/hub_transfer.py --bytes 16777216 --rounds 1

The hub is a process of its own on loopback, SQLite and blobs in a temporary folder. An upload (`HubClient.upload`: tus, chunks of 64 MiB)
ends when the hub has compared the SHA-256, synchronised the file with the disk, checked it as its format asks, wrapped and signed it. A
download (`HubClient.download`) ends when the client has compared the SHA-256 and synchronised the file. The machine's own bounds stand
beside: one pass of SHA-256 over the file in memory, and writing and synchronising it in the same folder.

The hub's memory is the largest resident set of its process within the step (VmHWM, set back before), its CPU time that of all its threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from cellwright.files import write_text
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.doors.uploads import CHUNK_BYTES
from cellwright.hub.serve import serve
from cellwright.hub.service import open_hub
from cellwright.web.running import Listening

ROOT = Path(__file__).resolve().parents[1]
FILE_BYTES, ROUNDS = 536_870_912, 3
FORMATS = ("opaque", "safetensors")
_START_S = 60.0


@dataclass(frozen=True)
class Step:
    """One transfer, or a bound of the machine's (no hub)."""

    what: str
    round: int
    seconds: float
    hub_cpu_s: float | None = None
    hub_peak_mb: float | None = None


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=FILE_BYTES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=ROOT / f"benchmarks/results/{datetime.now(UTC):%Y-%m-%d}-hub-transfer.md")
    parser.add_argument("--hub", type=Path, help=argparse.SUPPRESS)  # be the hub in this folder
    given = parser.parse_args()
    if given.hub:
        be_hub(given.hub)
        return
    page = report(measured(given.bytes, given.rounds), given.bytes)
    write_text(given.out, page)
    print(page)


def be_hub(folder: Path) -> None:
    """Serve until told to stop; `hub.url` then says where, `hub.token` with what."""
    with open_hub(folder / "hub") as hub:
        hub.put_tenant(LOCAL, "company-a", c.TenantForm())
        form = c.TokenForm(name="bench", scopes=("models:read", "models:write"))
        write_text(folder / "hub.token", hub.new_token(LOCAL, "company-a", form).token)
        serve(hub, Listening(), on_ready=lambda url: write_text(folder / "hub.url", url))


def measured(size: int, rounds: int) -> list[Step]:
    """All steps, round by round, so that a slow minute of the machine's falls on all of them."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        process = subprocess.Popen([sys.executable, __file__, "--hub", text])
        try:
            deadline = time.monotonic() + _START_S
            while not (folder / "hub.url").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the hub did not start")
                time.sleep(0.05)
            with HubClient((folder / "hub.url").read_text(), (folder / "hub.token").read_text()) as client:
                return [step for number in range(rounds) for step in one_round(client, process.pid, folder, size, number)]
        finally:
            process.terminate()
            process.wait()


def one_round(client: HubClient, pid: int, folder: Path, size: int, number: int) -> list[Step]:
    """The machine's bounds, then each format up and down."""
    steps = bounds(folder, size, number)
    for kind in FORMATS:
        path = folder / "weights"
        path.write_bytes(content_of(kind, size))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        form = c.UploadForm(model="large", version="1.0.0", format=kind, bytes=size, sha256=sha256)
        steps.append(timed(f"upload, {kind}", number, pid, lambda path=path, form=form: client.upload(path, form)))
        into = folder / "downloaded"
        steps.append(timed(f"download, {kind}", number, pid, lambda into=into: client.download("large", "1.0.0", into)))
        client.delete_model("large")
        for left in (path, *into.rglob("*")):
            if left.is_file():
                left.unlink()
    return steps


def bounds(folder: Path, size: int, number: int) -> list[Step]:
    """What one core hashes, and what the disk takes."""
    content, path = os.urandom(size), folder / "bound"
    begun = time.perf_counter()
    hashlib.sha256(content).digest()
    hashed = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter()
    path.unlink()
    return [Step("SHA-256 in memory", number, hashed - begun), Step("write and fsync", number, written - hashed)]


def content_of(kind: str, size: int) -> bytes:
    """A file of a format with random weights, exactly so large."""
    if kind == "opaque":
        return os.urandom(size)
    header_bytes = 256
    left = size - 8 - header_bytes
    header = json.dumps({"w": {"dtype": "U8", "shape": [left], "data_offsets": [0, left]}}).encode()
    return struct.pack("<Q", header_bytes) + header.ljust(header_bytes) + os.urandom(left)


def timed(what: str, number: int, pid: int, work: Callable[[], object]) -> Step:
    """A step, with what it took of the hub's process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # sets VmHWM back to what is resident now
    cpu_s, begun = cpu_of(pid), time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    return Step(what, number, seconds, cpu_of(pid) - cpu_s, peak_mb_of(pid))


def cpu_of(pid: int) -> float:
    """User and system time of a process, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb_of(pid: int) -> float:
    """Largest resident set of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / 1e6


def report(steps: list[Step], size: int) -> str:
    """The page."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"# A hub's uploads and downloads, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/hub_transfer.py --bytes {size} --rounds {max(s.round for s in steps) + 1}`: {size:,} bytes, chunks of "
        f"{CHUNK_BYTES:,}, client and hub on one machine.",
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}; load averages at the end {load}.",
        "Times include hashes on both sides and fsync; see the script for where each begins and ends.",
        "",
        "| step | median s | MB/s | s in each round | hub's CPU-s | hub's largest resident set, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for what in dict.fromkeys(step.what for step in steps):
        same = [step for step in steps if step.what == what]
        middle = median(step.seconds for step in same)
        cpu = [step.hub_cpu_s for step in same if step.hub_cpu_s is not None]
        peak = [step.hub_peak_mb for step in same if step.hub_peak_mb is not None]
        each = ", ".join(f"{step.seconds:.2f}" for step in same)
        hub = f"{median(cpu):.2f} | {max(peak):.0f}" if cpu else " | "
        lines.append(f"| {what} | {middle:.2f} | {size / middle / 1e6:.0f} | {each} | {hub} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
