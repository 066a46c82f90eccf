"""A real hub on loopback: SQLite, a folder of blobs, uvicorn in a thread; clients with real tokens."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.serve import in_thread
from cellwright.hub.service import open_hub

ALL = ("models:read", "models:write", "placement:write", "publish", "audit:read", "device")
COMMERCIAL = {"type": "Polygon", "coordinates": [[[2.0, 48.0], [2.1, 48.0], [2.1, 48.1], [2.0, 48.1], [2.0, 48.0]]]}
RESORT = {"type": "Polygon", "coordinates": [[[6.0, 45.0], [6.2, 45.0], [6.2, 45.2], [6.0, 45.2], [6.0, 45.0]]]}
IN_COMMERCIAL = c.Location(longitude=2.05, latitude=48.05)
IN_RESORT = c.Location(longitude=6.1, latitude=45.1)


def tensors(**arrays: np.ndarray) -> bytes:
    """A safetensors file."""
    from safetensors.numpy import save

    return save(arrays)


def onnx_model(size: int = 4) -> bytes:
    """A small sound ONNX model: y = x · w."""
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def tar_of(folder: Path) -> bytes:
    """An OCI layout as a plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(folder, arcname=".")
    return out.getvalue()


def broken_safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@pytest.fixture(scope="session")
def kit():
    """What tests of this room make models and places of."""
    return SimpleNamespace(
        tensors=tensors,
        onnx=onnx_model,
        tar=tar_of,
        broken=broken_safetensors,
        commercial=COMMERCIAL,
        resort=RESORT,
        in_commercial=IN_COMMERCIAL,
        in_resort=IN_RESORT,
    )


@pytest.fixture
def tenant_key():
    return Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
def hub(tmp_path):
    with open_hub(tmp_path / "hub") as opened:
        yield opened


@pytest.fixture
def served(hub):
    with in_thread(hub) as url:
        yield url


@pytest.fixture
def clients(hub, served):
    """clients(tenant, *scopes, name=...): a client with a new token; the tenant is made as needed."""
    opened = []

    def made(tenant: str, *scopes: str, name: str = "ci", lifetime_s: float | None = None) -> HubClient:
        if tenant not in [t.name for t in hub.tenants()]:
            hub.put_tenant(LOCAL, tenant, c.TenantForm())
        token = hub.new_token(LOCAL, tenant, c.TokenForm(name=name, scopes=scopes or ALL, lifetime_s=lifetime_s))
        opened.append(HubClient(served, token.token))
        return opened[-1]

    yield made
    for client in opened:
        client.close()


@pytest.fixture
def company(clients):
    return clients("company-a")


@pytest.fixture
def operator(clients):
    return clients("operator", "operator")


@pytest.fixture
def store(tmp_path):
    """store(client, model, version, content, format): upload bytes."""

    def stored(
        client: HubClient, model: str, version: str = "1.0.0", content: bytes = b"weights", format: str = "opaque", **more
    ):
        path = tmp_path / "upload.bin"
        path.write_bytes(content)
        form = c.UploadForm(model=model, version=version, format=format, bytes=len(content), **more)
        return client.upload(path, form)

    return stored


@pytest.fixture
def edge(clients):
    """edge(name, place): an edge that has registered; its client."""

    def registered(name: str, place: c.Location = IN_COMMERCIAL, url: str = "https://edge.example:8443") -> HubClient:
        client = clients("operator", "edge", name=name)
        client.register_edge(name, c.EdgeForm(url=url, location=place, disk_bytes=10**9))
        return client

    return registered
