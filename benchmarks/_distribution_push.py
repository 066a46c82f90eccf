"""From a publication at the hub to the moment an edge serves it, over loopback: hub, edge and publisher in one process.

python benchmarks/_distribution_push.py         # prints the table
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx

from cellwright.edge.agent import Hub
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread as hub_in_thread
from cellwright.hub.service import open_hub

SIZES = (3_200_000, 64_000_000)
SCOPES = ("models:read", "models:write", "placement:write", "publish", "device")
HERE = c.Location(longitude=2.05, latitude=48.05)


def measure(times: int = 5, sizes: tuple[int, ...] = SIZES) -> dict[int, list[float]]:
    """Bytes -> seconds from asking the hub to publish until the edge serves the version, each time."""
    with tempfile.TemporaryDirectory() as folder, open_hub(Path(folder) / "hub") as hub, hub_in_thread(hub) as url:
        hub.put_tenant(LOCAL, "acme", c.TenantForm())
        company = hub.new_token(LOCAL, "acme", c.TokenForm(name="ci", scopes=SCOPES)).token
        token = hub.new_token(LOCAL, "operator", c.TokenForm(name="east", scopes=("edge",))).token
        edge = Edge(Path(folder) / "store", {}, port=0, hub=Hub(url, token, "east", HERE), energy=False)
        with HubClient(url, company) as client, in_thread(edge):
            leave = {"Authorization": f"Bearer {client.grant(c.GrantAsk(device='ue-1')).grant}"}
            with httpx.Client(base_url=edge.url, headers=leave) as device:
                return {size: [_push(client, device, size, n, Path(folder)) for n in range(times)] for size in sizes}


def _push(client: HubClient, device: httpx.Client, size: int, number: int, folder: Path) -> float:
    model, version, path = f"m{size}", f"1.0.{number}", folder / "file"
    path.write_bytes(os.urandom(size))
    client.upload(path, c.UploadForm(model=model, version=version, format="opaque", bytes=size))
    client.place(model, c.PlacementForm(model=model))
    started = time.perf_counter()
    client.publish(model, c.Publication(version=version))
    while True:
        found = device.get(f"/v1/tenants/acme/bundles/{model}/latest")
        if found.status_code == 200 and found.json()["version"] == version:
            return time.perf_counter() - started
        time.sleep(0.005)


def table(found: dict[int, list[float]]) -> str:
    """As Markdown."""
    lines = ["| bytes | s (median) | each |", "| --- | --- | --- |"]
    lines += [f"| {size:,} | {median(s):.2f} | {', '.join(f'{one:.2f}' for one in s)} |" for size, s in found.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
