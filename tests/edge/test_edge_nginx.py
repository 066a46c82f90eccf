"""The same downloads by the edge itself and by nginx in front of it."""

import hashlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from cellwright.edge.device import Device
from cellwright.edge.nginx import Front, config
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.errors import WrongUse

NAME = "mini--traffic--h6-3"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture(params=["aiohttp", "nginx"])
def served(request, shelf, project, tmp_path):
    """Address of an edge that is asked directly, or through nginx."""
    behind = request.param == "nginx"
    if behind and NGINX is None:
        pytest.skip("nginx is not installed")
    limits = Limits(poll_s=0.05, shutdown_s=2)
    with in_thread(Edge(shelf, project.trust, port=0, limits=limits, behind_nginx=behind)) as edge:
        if not behind:
            yield edge.url
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        front = Front(shelf, tmp_path / "nginx", edge=f"127.0.0.1:{edge.port}", listen=f"127.0.0.1:{port}")
        front.folder.mkdir()
        conf = front.folder / "nginx.conf"
        conf.write_text("daemon off;\nmaster_process off;\n" + config(front))
        with subprocess.Popen([NGINX, "-c", conf, "-p", front.folder, "-e", front.folder / "error.log"]) as process:
            try:
                _listening(port, process)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _listening(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert process.poll() is None, "nginx did not start"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("nginx does not listen")


@pytest.fixture
def http(served):
    with httpx.Client(base_url=served, trust_env=False) as client:
        yield client


def test_files_are_whole_and_named_by_their_hash(http, model):
    path, digest, size = model
    got = http.get(path)
    assert f"sha256:{hashlib.sha256(got.content).hexdigest()}" == digest
    assert got.headers["etag"] == f'"{digest}"'
    assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-type"] == "application/vnd.cncf.model.weight.v1.raw"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "last-modified" not in got.headers
    assert int(got.headers["content-length"]) == len(got.content) == size
    head = http.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
    assert http.get(f"/v1/bundles/{NAME}/latest/index.json").headers["cache-control"] == "no-cache"


def test_ranges_and_conditions(http, model):
    path, digest, size = model
    whole = http.get(path).content
    part = http.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.headers["content-range"], part.content) == (206, f"bytes 100-199/{size}", whole[100:200])
    assert part.headers["etag"] == f'"{digest}"'
    assert http.get(path, headers={"Range": "bytes=-10"}).content == whole[-10:]
    assert http.get(path, headers={"Range": f"bytes={size}-"}).status_code == 416
    kept = http.get(path, headers={"If-None-Match": f'"{digest}"'})
    assert (kept.status_code, kept.content, kept.headers["etag"]) == (304, b"", f'"{digest}"')
    assert http.get(path, headers={"If-None-Match": '"sha256:other"'}).status_code == 200
    assert http.get(path, headers={"If-Match": '"sha256:other"'}).status_code == 412
    assert http.get(path, headers={"If-Match": f'"{digest}"'}).status_code == 200
    resumed = http.get(path, headers={"Range": "bytes=100-", "If-Range": f'"{digest}"'})
    assert (resumed.status_code, resumed.content) == (206, whole[100:])
    other = http.get(path, headers={"Range": "bytes=100-", "If-Range": '"sha256:other"'})
    assert (other.status_code, other.content) == (200, whole)


def test_a_device_fetches_and_resumes(served, project, tmp_path):
    fetched = Device(tmp_path / "device", project.trust).fetch(served, NAME)
    assert (fetched.version, fetched.digest) == ("1.0.0", project.published.digest)


def test_only_files_of_bundles_are_sent(http):
    for path in ("/_store/mini/latest.json", f"/_store/{NAME}/latest.json", f"/v1/bundles/{NAME}/1.0.0/../latest.json"):
        assert http.get(path).status_code == 404
    missing = http.get(f"/v1/bundles/{NAME}/9.0.0")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_forecasts_pass_through(http, project):
    assert http.post("/v1/forecast", json=project.request()).json()["bundle"] == NAME


def test_what_nginx_would_misread_is_refused(tmp_path):
    for wrong in (Path("/store; include /etc/passwd"), Path("/store with space"), Path("/store$host")):
        with pytest.raises(WrongUse, match="misread"):
            config(Front(wrong, tmp_path))
    with pytest.raises(WrongUse, match="give both"):
        config(Front(tmp_path, tmp_path, certificate=tmp_path / "cert.pem"))
    said = config(Front(tmp_path, tmp_path, certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem", listen="8443"))
    assert "listen 8443 ssl;" in said
