"""How fast an edge sends one file to 1, 8 and 64 clients, beside nginx sending the same file, in one run.

    python benchmarks/_distribution_server.py                   # prints the table (distribution.py --only server)
    python benchmarks/_distribution_server.py --seconds 1 --megabytes 64

The servers run one after the other, round by round, in processes of their own; all clients are one process that lets the kernel throw
away what arrives (recv with MSG_TRUNC), so that what is measured is the server. A client asks again as soon as it has the whole file.
`edge + nginx` is an edge behind nginx (X-Accel-Redirect).
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import store
from cellwright.bundle.keys import public_pem
from cellwright.bundle.layout import About
from cellwright.bundle.wrap import wrap
from cellwright.edge.nginx import Front, config

CLIENTS = (1, 8, 64)
ROUNDS = 3
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
_EDGE = """
import asyncio, sys
from pathlib import Path
from cellwright.bundle.keys import key_id, read_public
from cellwright.edge.server import Edge, Limits
from cellwright.web import standing

async def main():
    key = read_public(Path(sys.argv[2]))
    behind = sys.argv[4] == "behind"
    edge = Edge(Path(sys.argv[1]), {key_id(key): key}, port=int(sys.argv[3]), behind_nginx=behind, limits=Limits(poll_s=60))
    async with edge:
        print("ready", flush=True)
        await asyncio.sleep(3600)

standing.run(main())
"""
_PLAIN = """daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; sendfile_max_chunk 2m; tcp_nopush on; keepalive_requests 100000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ root {root}; }} }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A running server: where its file is, and its processes."""

    name: str
    port: int
    path: str
    processes: tuple[psutil.Process, ...]


@dataclass
class Rate:
    """One server at one number of clients, all rounds."""

    server: str
    clients: int
    bytes_s: list[float] = field(default_factory=list)
    rss_bytes: int = 0  # largest sum of the server's processes; pages they share counted once each

    @property
    def gbit_s(self) -> float:
        """Median of the rounds."""
        return median(self.bytes_s) * 8 / 1e9


def measure(seconds: float = 5.0, file_bytes: int = 536_870_912, rounds: int = ROUNDS) -> list[Rate]:
    """All servers at all numbers of clients; takes about `9 × rounds × seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        blob = _published(root, file_bytes)
        with _servers(root, blob) as servers:
            rates = {(s.name, n): Rate(s.name, n) for n in CLIENTS for s in servers}
            for _ in range(rounds):
                for clients in CLIENTS:
                    for server in servers:
                        _once(server, clients, seconds, rates[server.name, clients])
    return list(rates.values())


def table(rates: list[Rate]) -> str:
    """As Markdown; the ratio is to nginx at as many clients."""
    nginx = {r.clients: r.gbit_s for r in rates if r.server == "nginx"}
    lines = ["| server | clients | Gbit/s (median) | rounds | × nginx | RSS, MB |", "| --- | --- | --- | --- | --- | --- |"]
    for r in rates:
        each = ", ".join(f"{b * 8 / 1e9:.1f}" for b in r.bytes_s)
        ratio = f"{r.gbit_s / nginx[r.clients]:.2f}" if nginx.get(r.clients) else "–"
        lines.append(f"| {r.server} | {r.clients} | {r.gbit_s:.1f} | {each} | {ratio} | {r.rss_bytes / 1e6:.0f} |")
    return "\n".join(lines)


def _once(server: Server, clients: int, seconds: float, rate: Rate) -> None:
    stop = threading.Event()
    watch = threading.Thread(target=_watch, args=(server, stop, rate))
    watch.start()
    rate.bytes_s.append(_download(server.port, server.path, clients, seconds))
    stop.set()
    watch.join()


def _watch(server: Server, stop: threading.Event, rate: Rate) -> None:
    while not stop.wait(0.1):
        rate.rss_bytes = max(rate.rss_bytes, sum(p.memory_info().rss for p in server.processes))


def _download(port: int, path: str, clients: int, seconds: float) -> float:
    """Bytes a second of all clients together."""
    ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    room, received, left = bytearray(1 << 20), 0, {}
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(ask)
            left[client] = _head(client)
            selector.register(client, selectors.EVENT_READ)
        started = time.perf_counter()
        while (elapsed_s := time.perf_counter() - started) < seconds:
            for key, _ in selector.select(timeout=1.0):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                count = client.recv_into(room, min(len(room), left[client]), socket.MSG_TRUNC)
                if not count:
                    raise RuntimeError("the server closed a connection")
                received += count
                left[client] -= count
                if not left[client]:
                    client.sendall(ask)
                    left[client] = _head(client)
        for client in left:
            client.close()
    return received / elapsed_s


def _head(client: socket.socket) -> int:
    """Read an answer's head; bytes of the body that are still to come."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head[:200].decode())
    lines = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if ": " in line)
    return int(lines["content-length"])


def _published(root: Path, file_bytes: int) -> Path:
    """A store with one file bundle; the path of its blob."""
    key = Ed25519PrivateKey.generate()
    (root / "key.pub").write_bytes(public_pem(key.public_key()))
    with (root / "file").open("wb") as out:
        for _ in range(file_bytes >> 20):
            out.write(os.urandom(1 << 20))
    manifest = wrap(root / "made", root / "file", "opaque", About("guide", "1.0.0", "guide", "file", "", 0, None, None), key)
    (root / "file").unlink()
    folder = store.place(root / "store", root / "made", manifest, activate=True, move=True)
    return folder / max(manifest.blobs, key=lambda blob: blob.size).blob


@contextmanager
def _servers(root: Path, blob: Path) -> Iterator[list[Server]]:
    path = f"/v1/bundles/guide/1.0.0/{blob.relative_to(root / 'store/guide/1.0.0')}"
    running: list[subprocess.Popen[bytes]] = []
    try:
        direct, behind, plain, front = (_free_port() for _ in range(4))
        edge, inner = _edge(root, direct, ""), _edge(root, behind, "behind")
        running += [edge, inner]
        servers = [Server("edge", direct, path, (psutil.Process(edge.pid),))]
        if NGINX is not None:
            conf = _PLAIN.format(folder=_folder(root, "plain"), port=plain, root=root)
            fronted = "daemon off;\n" + config(
                Front(root / "store", _folder(root, "front"), f"127.0.0.1:{behind}", f"127.0.0.1:{front}")
            )
            for name, text in (("plain", conf), ("front", fronted)):
                (root / name / "nginx.conf").write_text(text)
                running.append(subprocess.Popen([NGINX, "-c", root / name / "nginx.conf", "-e", root / name / "error.log"]))
            time.sleep(1.0)
            one, two = (psutil.Process(p.pid) for p in running[2:])
            servers.append(Server("nginx", plain, f"/{blob.relative_to(root)}", (one, *one.children())))
            servers.append(Server("edge + nginx", front, path, (psutil.Process(inner.pid), two, *two.children())))
        yield servers
    finally:
        for process in running:
            process.terminate()
            process.wait()


def _edge(root: Path, port: int, how: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _EDGE, str(root / "store"), str(root / "key.pub"), str(port), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _folder(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root / name


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--megabytes", type=int, default=512, help="of the file")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    print(table(measure(arguments.seconds, arguments.megabytes << 20, arguments.rounds)))


if __name__ == "__main__":
    main()
