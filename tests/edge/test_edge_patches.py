"""Patches between versions: offered where they pay, and the exact bytes come out."""

import random

import httpx
from edge_cloud import edge_of, publish, served, until

from cellwright.delta import apply
from cellwright.edge.patches import Patches


def layer_of(edge, model="guide"):
    found = edge.http.get(f"/v1/tenants/acme/bundles/{model}/latest").json()
    return found["version"], found["layers"]["model.bin"]


def test_a_device_gets_from_one_version_to_the_next_by_a_patch(operator_cloud):
    old = random.Random(1).randbytes(300_000)
    new = old[:100_000] + b"changed" + old[100_000:]
    publish(operator_cloud, "guide", content=old)
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        base = layer_of(edge)[1]["digest"].removeprefix("sha256:")
        publish(operator_cloud, "guide", "2.0.0", new)
        version, layer = until(lambda: (f := layer_of(edge))[0] == "2.0.0" and f[1].get("patches") and f)
        [offered] = layer["patches"]
        assert offered["from"] == f"sha256:{base}"
        target = layer["digest"].removeprefix("sha256:")
        path = f"/v1/tenants/acme/bundles/guide/{version}/patches/{base}/{target}"
        got = edge.http.get(path)
        assert len(got.content) == offered["bytes"] < 0.3 * len(new)
        assert edge.http.get(path, headers={"Range": "bytes=0-0"}).headers["content-range"] == f"bytes 0-0/{len(got.content)}"
        assert httpx.get(f"{edge.url}{path}").status_code == 401
        for wrong in (path.replace(base, "0" * 64), f"{path}/more", path.replace(target, base)):
            assert edge.http.get(wrong).status_code == 404
        until(lambda: edge.http.get("/v1/tenants/acme/bundles/guide/1.0.0").status_code == 404)
    (operator_cloud.tmp / "old").write_bytes(old)
    (operator_cloud.tmp / "patch").write_bytes(got.content)
    apply(operator_cloud.tmp / "old", operator_cloud.tmp / "patch", operator_cloud.tmp / "new")
    assert (operator_cloud.tmp / "new").read_bytes() == new
    with edge_of(operator_cloud) as edge:  # what was made is known after a restart
        until(lambda: served(edge, "guide"))
        assert edge.http.get(path).content == got.content


def test_where_nothing_is_saved_nothing_is_offered(operator_cloud):
    publish(operator_cloud, "guide", content=random.Random(1).randbytes(100_000))
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        publish(operator_cloud, "guide", "2.0.0", random.Random(2).randbytes(100_000))
        until(lambda: layer_of(edge)[0] == "2.0.0")
        folder = operator_cloud.tmp / "store/.patches/acme/guide"
        tried = until(lambda: list(folder.glob("*-*-*.patch")))
        assert [path.stat().st_size for path in tried] == [0]
        assert "patches" not in layer_of(edge)[1]


def test_patches_and_bases_give_way_to_versions(tmp_path):
    patches = Patches(tmp_path)
    blob = tmp_path / "version/blobs/sha256/ab"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(100_000))
    patches.keep("acme", "guide", tmp_path / "version", {"model.bin": "ab"})
    assert patches.cached_bytes() == 0  # still part of the version
    blob.unlink()
    assert patches.cached_bytes() == 100_000
    assert patches.trim(1) == 100_000
    assert patches.cached_bytes() == 0
