"""The edge server on a real port: forecasts, limits, hot swap. Its files: test_edge_nginx.py, which asks it with nginx in front too."""

import json
import socket
import ssl
import threading
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest

from cellwright.bundle import store
from cellwright.data.windows import Windows
from cellwright.edge.predictor import Predictor
from cellwright.edge.sample import sample_request
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits, tls_context
from cellwright.errors import EdgeError, WrongUse
from cellwright.forecaster import Forecaster, forecast_panel

NAME = "mini--traffic--h6-3"


@pytest.fixture
def http(edge):
    with httpx.Client(base_url=edge.url) as client:
        yield client


def test_what_is_served_is_listed(http, project):
    (bundle,) = http.get("/v1/bundles").json()["bundles"]
    assert (bundle["name"], bundle["latest"]) == (NAME, "1.0.0")
    (version,) = bundle["versions"]
    assert version["digest"] == project.published.digest
    assert version["problem"]["features"] == {"traffic": "Mbit/s", "users": "1"}
    assert version["problem"]["lags"] == [144]
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json()["serving"] == {NAME: "1.0.0"}


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/bundles/{NAME}/1.0.0/../../../keys/signing.key",
        f"/v1/bundles/{NAME}/1.0.0/..%2f..%2f..%2fkeys%2fsigning.key",
        f"/v1/bundles/{NAME}/1.0.0/blobs/sha256/%2e%2e/%2e%2e/index.json",
        f"/v1/bundles/{NAME}/1.0.0//etc/passwd",
        f"/v1/bundles/{NAME}/latest.json",
        f"/v1/bundles/{NAME}/../{NAME}/1.0.0/.lock",
        "/v1/bundles/..%2f..%2fkeys/1.0.0/signing.key",
        f"/v1/bundles/{NAME}/%2e%2e/signing.key",
        f"/v1/bundles/{NAME}/1.0.0/blobs/sha256/" + "0" * 64,
    ],
)
def test_no_path_leads_out_of_a_bundle(edge, path):
    """Sent as they are: a client library would tidy them first."""
    connection = HTTPConnection(edge.host, edge.port)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 404
    assert json.loads(response.read())["status"] == 404
    connection.close()


def test_a_forecast_is_what_torch_says(http, project):
    forecaster = Forecaster.load(project.ws.candidate("mlp"))
    windows = Windows(project.panel, forecaster.problem)
    origin = project.panel.schema.rows - 3
    request = sample_request(project.problem, project.panel, sites=project.problem.sites, origin=origin)
    expected = forecast_panel(forecaster, windows, np.array([origin]))[0, :, :, 0]
    for path in ("/v1/forecast", "/forecast"):
        answer = http.post(path, json=request).json()
        found = np.array([answer["forecasts"][site]["traffic"] for site in project.problem.sites]).T
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert answer["units"] == {"traffic": "Mbit/s"}
    assert answer["version"] == "1.0.0"
    assert len(answer["times"]) == 3


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"{", 400, "the body is not JSON"),
        (b'{"time": NaN}', 400, "NaN is not a JSON number"),
        (b'{"time": -Infinity}', 400, "-Infinity is not a JSON number; write null"),
        (b'{"time": 1e999}', 400, "number is infinity"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b"[]", 400, "expected a JSON object"),
        (b'{"bundle": "other"}', 404, "no bundle 'other' is served here; there are: mini--traffic--h6-3"),
        (b'{"bundle": 3}', 400, "'bundle' must be a name"),
        (b'{"site": "nowhere"}', 404, "knows no site 'nowhere'"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b" " * 5_000_000, 413, "larger than 4194304 bytes"),
    ],
)
def test_bad_requests_are_problems(http, content, status, detail):
    response = http.post("/v1/forecast", content=content)
    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert detail in body["detail"]
    assert http.get("/healthz").status_code == 200


def test_unknown_addresses_and_methods_are_problems(http):
    assert http.get("/nothing").json()["title"] == "Not Found"
    wrong = http.get("/v1/forecast")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["status"]) == (405, "POST", 405)


def test_a_full_queue_says_when_to_come_back(shelf, project):
    limits = Limits(workers=1, queue=1, poll_s=60)
    with in_thread(Edge(shelf, project.trust, port=0, limits=limits)) as edge, edge.slots.slot(), edge.slots.slot():
        busy = httpx.post(f"{edge.url}/v1/forecast", json=project.request())
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
        assert "2 forecasts are running or waiting" in busy.json()["detail"]
        assert httpx.get(f"{edge.url}/healthz").status_code == 200
    with in_thread(Edge(shelf, project.trust, port=0, limits=limits)) as edge:
        assert httpx.post(f"{edge.url}/v1/forecast", json=project.request()).status_code == 200


def test_a_new_version_takes_over_without_a_failed_request(edge, shelf, project, another):
    """Clients hammer the edge while 1.1.0 (all forecasts 1000 higher) replaces 1.0.0 and is taken back again."""
    request = json.dumps(project.request())
    low = httpx.post(f"{edge.url}/forecast", content=request).json()["forecasts"]["c4"]["traffic"][0]
    seen, stop = [], threading.Event()

    def hammer():
        with httpx.Client(base_url=edge.url) as client:
            while not stop.is_set():
                response = client.post("/forecast", content=request)
                seen.append((response.status_code, response.json()))

    def until(version):
        while seen[-1][1].get("version") != version:
            assert threads[0].is_alive()
            stop.wait(0.01)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not seen:
        stop.wait(0.01)
    store.place(shelf, *another("1.1.0", shift=1000), activate=True)
    until("1.1.0")
    store.unpublish(shelf, NAME, "1.1.0")
    until("1.0.0")
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in seen} == {200}
    for _, answer in seen:
        assert answer["forecasts"]["c4"]["traffic"][0] == pytest.approx({"1.0.0": low, "1.1.0": low + 1000}[answer["version"]])


def test_a_tampered_version_is_not_served_and_the_old_one_goes_on(edge, http, shelf, project, another):
    layout, manifest = another("1.1.0")
    (layout / manifest.layers["model.onnx"].blob).write_bytes(b"evil")
    store.place(shelf, layout, manifest, activate=True)
    while not (ready := http.get("/readyz").json())["refused"]:
        threading.Event().wait(0.01)
    assert "model.onnx: expected" in ready["refused"][f"{NAME} 1.1.0"]
    assert ready["serving"] == {NAME: "1.0.0"}
    assert http.post("/forecast", json=project.request()).json()["version"] == "1.0.0"
    assert http.get(f"/v1/bundles/{NAME}/1.1.0/index.json").status_code == 404
    assert "cellwright_edge_refused_bundles 1" in http.get("/metrics").text


def test_an_edge_that_trusts_nobody_serves_nothing(shelf):
    with in_thread(Edge(shelf, {}, port=0)) as edge:
        response = httpx.get(f"{edge.url}/readyz")
        assert response.status_code == 503
        assert "which is not trusted here" in response.json()["detail"]
        assert httpx.get(f"{edge.url}/v1/bundles").json() == {"bundles": []}
        assert httpx.post(f"{edge.url}/forecast", json={}).status_code == 404


def test_an_empty_store_waits_for_its_first_bundle(tmp_path, project, shelf):
    empty = tmp_path / "later"
    with in_thread(Edge(empty, project.trust, port=0, limits=Limits(poll_s=0.02))) as edge:
        assert "nothing is published yet" in httpx.get(f"{edge.url}/readyz").json()["detail"]
        folder, manifest = store.latest(shelf, NAME, project.trust)
        store.place(empty, folder, manifest, activate=True)
        while httpx.get(f"{edge.url}/readyz").status_code != 200:
            threading.Event().wait(0.01)


def test_metrics_count_what_was_sent(http, model):
    path, _, size = model
    http.get(path)
    http.post("/forecast", content=b"{")
    route = "/v1/bundles/{name}/{version}/{path}"
    lines = http.get("/metrics").text.splitlines()
    assert f'cellwright_edge_requests_total{{method="GET",route="{route}",status="200"}} 1' in lines
    assert f'cellwright_edge_sent_bytes_total{{route="{route}"}} {size}' in lines
    assert 'cellwright_edge_requests_total{method="POST",route="/forecast",status="400"} 1' in lines
    assert f'cellwright_edge_request_seconds_bucket{{route="{route}",le="+Inf"}} 1' in lines


def test_a_taken_port_names_who_has_it(shelf, project):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Edge(shelf, project.trust, port=other.getsockname()[1])
        with (
            pytest.raises(EdgeError, match=rf"port {taken.port} of 127\.0\.0\.1 is taken by .*process.*--port"),
            in_thread(taken),
        ):
            pass


def test_open_addresses_need_tls_or_a_word(shelf, project, tmp_path):
    with pytest.raises(WrongUse, match=r"can be reached from other machines.*--insecure"):
        Edge(shelf, project.trust, host="0.0.0.0", port=0)
    with in_thread(Edge(shelf, project.trust, host="0.0.0.0", port=0, insecure=True)) as edge:
        assert httpx.get(f"http://127.0.0.1:{edge.port}/healthz").status_code == 200
    with pytest.raises(WrongUse, match="cannot use the certificate"):
        tls_context(tmp_path / "none.pem", tmp_path / "none.key")


def test_tls(shelf, project, certificate):
    with in_thread(Edge(shelf, project.trust, port=0, tls=tls_context(*certificate))) as edge:
        assert edge.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        assert httpx.get(f"{edge.url}/healthz", verify=trusting).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{edge.url}/healthz")


def test_a_running_download_is_finished_before_the_end(shelf, project, another):
    """The server is told to stop while a client has read the first bytes only: it gets all of them."""
    store.place(shelf, *another("1.1.0", pad=8_000_000), activate=True)
    got: list[int] = []
    with in_thread(Edge(shelf, project.trust, port=0, limits=Limits(shutdown_s=10))) as edge:
        card = httpx.get(f"{edge.url}/v1/bundles/{NAME}/1.1.0").json()["layers"]["card.md"]
        connection = HTTPConnection(edge.host, edge.port)
        connection.request("GET", f"/v1/bundles/{NAME}/1.1.0/blobs/sha256/{card['digest'].removeprefix('sha256:')}")
        response = connection.getresponse()
        got.append(len(response.read(1000)))
        reader = threading.Timer(0.2, lambda: got.append(len(response.read())))
        reader.start()
    reader.join()
    assert sum(got) == card["bytes"] > 8_000_000
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{edge.url}/healthz")


def test_no_torch_is_loaded_to_serve(project):
    """Serving needs ONNX Runtime and NumPy: an edge box has no torch."""
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path\n"
        "from cellwright.edge.predictor import Predictor; from cellwright.bundle.keys import trusted\n"
        "import cellwright.edge.serve, cellwright.edge.device, cellwright.edge.sample\n"
        f"p = Predictor.load(Path({str(project.ws.published / NAME / '1.0.0')!r}), trusted(Path({str(project.ws.keys)!r})))\n"
        "print(sorted(m for m in ('torch', 'pickle5', 'mlflow', 'lightning', 'onnx') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_int8_is_served_where_it_is_asked_for_and_offered(shelf, project, another):
    """This model's INT8 is offered; 1.1.0 offers none, so that the answer says fp32."""
    assert project.published.int8_offered
    with in_thread(Edge(shelf, project.trust, port=0, precision="int8", limits=Limits(poll_s=0.02))) as edge:
        small = httpx.post(f"{edge.url}/forecast", json=project.request()).json()
        assert small["precision"] == "int8"
        whole = Predictor.load(shelf / NAME / "1.0.0", project.trust).forecast(project.request())
        assert whole["precision"] == "fp32"
        np.testing.assert_allclose(small["forecasts"]["c4"]["traffic"], whole["forecasts"]["c4"]["traffic"], rtol=0.1)
        store.place(shelf, *another("1.1.0"), activate=True)
        while (now := httpx.post(f"{edge.url}/forecast", json=project.request()).json())["version"] != "1.1.0":
            threading.Event().wait(0.01)
        assert now["precision"] == "fp32"
