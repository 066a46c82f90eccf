"""Tenants' shelves: who may fetch what, and what others learn of it."""

import shutil
import time

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import store
from cellwright.bundle.keys import public_pem, signing_key
from cellwright.bundle.layout import About
from cellwright.bundle.wrap import wrap
from cellwright.edge.download import Download
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.edge.shelves import Shelves
from cellwright.hub.grant import issue

NAME = "mini--traffic--h6-3"
HUB = Ed25519PrivateKey.from_private_bytes(bytes(32))


def grant(tenant="acme", models=("*",), *, key=HUB, now_s=None, lifetime_s=600.0):
    now_s = time.time() if now_s is None else now_s
    text, _ = issue(key, tenant=tenant, subject="ue-1", models=models, now_s=now_s, lifetime_s=lifetime_s)
    return {"Authorization": f"Bearer {text}"}


def file_bundle(folder, name, content, version="1.0.0", key=HUB):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_bytes(content)
    about = About(name, version, name, "file", "a file", 0, None, None)
    return folder / version, wrap(folder / version, folder / "file", "opaque", about, key)


@pytest.fixture
def shelves(project, tmp_path):
    """acme has the forecasting bundle and a file, zeta a file; both believe the hub's key, acme also the project's."""
    made = Shelves(tmp_path / "store")
    made.believe_hub(public_pem(HUB.public_key()).decode())
    keys = [public_pem(key.public_key()).decode() for key in (HUB, signing_key(project.ws.keys))]
    made.believe("acme", keys)
    made.believe("zeta", keys[:1])
    store.place(made.place_of("acme"), *store.latest(project.ws.published, NAME, project.trust), activate=True)
    for tenant, name in (("acme", "guide"), ("zeta", "secret")):
        store.place(made.place_of(tenant), *file_bundle(tmp_path / "made" / tenant, name, name.encode() * 100), activate=True)
    return made


@pytest.fixture
def http(shelves, project, tmp_path):
    running = Edge(tmp_path / "store", project.trust, port=0, limits=Limits(poll_s=0.05, shutdown_s=2))
    with in_thread(running) as edge, httpx.Client(base_url=edge.url) as client:
        yield client


def blob_of(http, tenant, name, headers):
    (layer,) = http.get(f"/v1/tenants/{tenant}/bundles/{name}/latest", headers=headers).json()["layers"].values()
    return f"/v1/tenants/{tenant}/bundles/{name}/1.0.0/blobs/sha256/{layer['digest'].removeprefix('sha256:')}"


def test_a_grant_opens_its_tenants_shelf(http):
    listed = http.get("/v1/tenants/acme/bundles", headers=grant()).json()["bundles"]
    assert [(b["name"], b["latest"]) for b in listed] == [("guide", "1.0.0"), (NAME, "1.0.0")]
    path = blob_of(http, "acme", "guide", grant())
    assert http.get(path, headers=grant()).content == b"guide" * 100
    part = http.get(path, headers={**grant(), "Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, b"guide")
    assert part.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert http.get("/v1/bundles").json() == {"bundles": []}


def test_forecasts_of_a_tenant_need_a_grant_too(http, project):
    path = "/v1/tenants/acme/forecast"
    assert http.post(path, json=project.request()).status_code == 401
    answer = http.post(path, json=project.request(), headers=grant())
    assert (answer.status_code, answer.json()["bundle"]) == (200, NAME)
    other = http.post(path, json=project.request(), headers=grant(models=("guide",)))
    assert (other.status_code, other.json()["detail"]) == (404, f"no bundle '{NAME}' is served here; there are: none")
    assert http.post("/v1/forecast", json=project.request()).status_code == 404


def test_what_is_wrong_with_a_grant_is_said(http):
    now_s = time.time()
    path = "/v1/tenants/acme/bundles/guide/latest"
    refused = {
        "a grant is needed": {},
        "that is no grant": {"Authorization": "Bearer abc"},
        "not signed by this hub": grant(key=Ed25519PrivateKey.generate()),
        "expired 100 s ago": grant(now_s=now_s - 200, lifetime_s=100),
        "becomes valid in": grant(now_s=now_s + 100),
    }
    for detail, headers in refused.items():
        answer = http.get(path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="cellwright"')
        assert detail in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


def test_clocks_may_differ_by_a_minute(http):
    now_s, path = time.time(), "/v1/tenants/acme/bundles/guide/latest"
    assert http.get(path, headers=grant(now_s=now_s + 50)).status_code == 200
    assert http.get(path, headers=grant(now_s=now_s - 150, lifetime_s=100)).status_code == 200


def test_another_tenant_looks_the_same_whether_it_exists_or_not(http):
    def answers(tenant, name):
        paths = (f"/v1/tenants/{tenant}/bundles", f"/v1/tenants/{tenant}/bundles/{name}/latest", f"/v1/tenants/{tenant}/evidence")
        return [(a.status_code, a.content) for a in (http.get(p, headers=grant()) for p in paths)]

    assert answers("zeta", "secret") == answers("nobody", "secret") == answers("zeta", "other")
    assert {status for status, _ in answers("zeta", "secret")} == {403}


def test_a_grant_for_one_model_shows_no_other(http):
    only = grant(models=("guide",))
    assert [b["name"] for b in http.get("/v1/tenants/acme/bundles", headers=only).json()["bundles"]] == ["guide"]
    there, not_there = (http.get(f"/v1/tenants/acme/bundles/{name}/latest", headers=only) for name in (NAME, "nothing"))
    assert (there.status_code, there.content) == (not_there.status_code, not_there.content)
    assert there.status_code == 403
    unknown = http.get("/v1/tenants/acme/bundles/nothing/latest", headers=grant())
    assert unknown.status_code == 404
    assert "secret" not in unknown.text


def test_a_key_that_is_believed_no_more_takes_its_bundles_with_it(http, shelves):
    shelves.believe("acme", [public_pem(HUB.public_key()).decode()])
    until = time.monotonic() + 10
    while len(listed := http.get("/v1/tenants/acme/bundles", headers=grant()).json()["bundles"]) > 1:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert [b["name"] for b in listed] == ["guide"]


def test_without_a_hub_no_grant_can_be_checked(edge):
    answer = httpx.get(f"{edge.url}/v1/tenants/acme/bundles", headers=grant())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "not heard from its hub" in answer.json()["detail"]


def test_a_download_resumes_under_a_grant(http, tmp_path):
    from cellwright.bundle.manifest import Descriptor

    described = http.get("/v1/tenants/acme/bundles/guide/latest", headers=grant()).json()["layers"]["model.bin"]
    http.headers.update(grant())
    path = blob_of(http, "acme", "guide", {})
    partial = tmp_path / "partial"
    partial.write_bytes(b"guide" * 40)
    blob = Descriptor(mediaType="x", digest=described["digest"], size=described["bytes"])
    had = Download(http, str(http.base_url)).blob(path, partial, blob, "guide", tmp_path / "whole")
    assert (had.received_bytes, had.resumed_bytes) == (300, 200)
    assert (tmp_path / "whole").read_bytes() == b"guide" * 100


def test_a_tenant_that_is_gone_leaves_no_model_in_memory(shelves, project, tmp_path):
    running = Edge(tmp_path / "store", project.trust, port=0, limits=Limits(poll_s=0.05, shutdown_s=2))
    with in_thread(running) as edge, httpx.Client(base_url=edge.url) as client:
        ask = {"json": project.request(), "headers": grant()}
        assert client.post("/v1/tenants/acme/forecast", **ask).status_code == 200
        shutil.rmtree(shelves.place_of("acme"))
        until = time.monotonic() + 10
        while client.post("/v1/tenants/acme/forecast", **ask).status_code != 404:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert client.post("/v1/tenants/zeta/forecast", json={}, headers=grant("zeta")).status_code == 404
        assert list(running.tenants._forecasting) == ["zeta"]
