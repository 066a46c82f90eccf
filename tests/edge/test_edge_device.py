"""Devices: what is fetched is what was signed, whatever happens on the way."""

import hashlib
import socket
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import store
from cellwright.bundle.keys import key_id
from cellwright.edge.device import Device, ask, offered
from cellwright.edge.request import RequestError
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits, tls_context
from cellwright.errors import BundleError, EdgeError

NAME = "mini--traffic--h6-3"
PAD = 3_000_000


@pytest.fixture
def device(project, tmp_path):
    return Device(tmp_path / "device", project.trust)


@contextmanager
def cutting(edge, after_bytes, times):
    """A network that breaks: passes TCP on to the edge, and cuts the first `times` connections that carry `after_bytes` back."""
    server = socket.create_server(("127.0.0.1", 0))
    left = [times]

    def carry(client):
        with client, socket.create_connection((edge.host, edge.port)) as upstream:
            threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
            sent = 0
            while chunk := upstream.recv(65536):
                if left[0] > 0 and sent + len(chunk) > after_bytes:
                    left[0] -= 1
                    client.sendall(chunk[: after_bytes - sent])
                    client.shutdown(socket.SHUT_RDWR)  # closing alone would wait for the other thread
                    return
                client.sendall(chunk)
                sent += len(chunk)

    def pump(source, target):
        try:
            while chunk := source.recv(65536):
                target.sendall(chunk)
        except OSError:
            return  # the other side was cut

    def accept():
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return  # closed: the end
            threading.Thread(target=carry, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_a_fetched_bundle_forecasts_as_the_edge_does(edge, device, project):
    fetched = device.fetch(edge.url, NAME)
    assert (fetched.name, fetched.version, fetched.digest, fetched.new) == (NAME, "1.0.0", project.published.digest, True)
    assert fetched.transfer.received_bytes > project.published.model_bytes
    assert fetched.seconds > 0
    assert fetched.rate_bps > 0
    assert device.active() == {NAME: "1.0.0"}
    assert offered(edge.url) == (NAME,)
    request = project.request("c4", "c0")
    assert device.forecast(request) == ask(edge.url, request)
    assert device.forecast(request | {"bundle": NAME}) == device.forecast({k: v for k, v in request.items() if k != "bundle"})


def test_what_is_there_is_not_fetched_again(edge, device):
    device.fetch(edge.url, NAME)
    again = device.fetch(edge.url, NAME)
    assert (again.new, again.transfer.received_bytes) == (False, 0)


def test_a_new_version_reuses_the_blobs_it_shares(edge, device, shelf, another, project):
    device.fetch(edge.url, NAME)
    low = device.forecast(project.request())["forecasts"]["c4"]["traffic"]
    store.place(shelf, *another("1.1.0", shift=1000), activate=True)
    while httpx.get(f"{edge.url}/readyz").json()["serving"][NAME] != "1.1.0":
        threading.Event().wait(0.01)
    newer = device.fetch(edge.url, NAME)
    assert (newer.version, newer.new) == ("1.1.0", True)
    assert newer.transfer.reused_bytes > 0
    np.testing.assert_allclose(device.forecast(project.request())["forecasts"]["c4"]["traffic"], np.array(low) + 1000, rtol=1e-6)
    back = device.fetch(edge.url, NAME, "1.0.0")
    assert (back.version, back.new, back.transfer.received_bytes) == ("1.0.0", True, 0)
    assert device.forecast(project.request())["version"] == "1.0.0"


def test_a_shared_blob_that_was_damaged_on_the_device_is_not_reused(edge, device, shelf, another, project):
    path = device.fetch(edge.url, NAME).path
    folder, manifest = another("1.1.0", shift=1000)
    shared = [d for d in manifest.blobs if (path / d.blob).is_file()]
    rotten = max(shared, key=lambda d: d.size)
    (path / rotten.blob).write_bytes(bytes(rotten.size))
    store.place(shelf, folder, manifest, activate=True)
    while httpx.get(f"{edge.url}/readyz").json()["serving"][NAME] != "1.1.0":
        threading.Event().wait(0.01)
    newer = device.fetch(edge.url, NAME)
    assert newer.version == "1.1.0"
    assert newer.transfer.reused_bytes == sum({d.digest: d.size for d in shared}.values()) - rotten.size
    assert newer.transfer.received_bytes >= rotten.size


@pytest.fixture
def large(edge, shelf, another):
    """Version 1.1.0 with a card of 3 MB."""
    store.place(shelf, *another("1.1.0", pad=PAD), activate=True)
    while httpx.get(f"{edge.url}/readyz").json()["serving"][NAME] != "1.1.0":
        threading.Event().wait(0.01)
    return edge


def test_a_broken_connection_goes_on_where_it_broke(large, device, project):
    with cutting(large, after_bytes=400_000, times=6) as url:
        fetched = device.fetch(url, NAME)
    assert fetched.version == "1.1.0"
    assert fetched.transfer.resumed_bytes == 0
    whole = PAD + project.published.model_bytes
    assert whole < fetched.transfer.received_bytes < whole + 100_000  # nothing was sent twice


def test_a_fetch_that_gave_up_is_resumed_by_the_next(large, device, project):
    with (
        cutting(large, after_bytes=200_000, times=100) as url,
        pytest.raises(EdgeError, match=r"broke off 4 times .* run again to go on"),
    ):
        device.fetch(url, NAME)
    assert device.active() == {}
    resumed = device.fetch(large.url, NAME)
    assert (
        resumed.transfer.resumed_bytes > project.published.model_bytes + 500_000
    )  # the model, and four times a piece of the card
    assert resumed.transfer.received_bytes < PAD - 500_000 + 100_000


def test_leftovers_that_are_no_part_of_the_blob_are_thrown_away(large, device, project):
    with cutting(large, after_bytes=200_000, times=100) as url, pytest.raises(EdgeError):
        device.fetch(url, NAME)
    (partial,) = (p for p in (device.folder / "partial").iterdir() if p.is_file())
    partial.write_bytes(b"x" + partial.read_bytes()[1:])
    with pytest.raises(BundleError, match=r"card\.md: expected SHA-256"):
        device.fetch(large.url, NAME)
    assert not partial.exists()
    assert device.fetch(large.url, NAME).transfer.received_bytes > PAD  # all of the card once more


class Liar:
    """An edge that lies: serves a copy of the store in which `path` -> bytes were replaced, and checks nothing."""

    def __init__(self, folder, manifest, replaced):
        self.folder, self.manifest, self.replaced = folder, manifest, replaced

    @contextmanager
    def serve(self):
        import asyncio

        from aiohttp import web

        base = f"/v1/bundles/{self.manifest.name}/{self.manifest.version}"

        async def describe(request):
            return web.json_response(
                {"name": self.manifest.name, "version": self.manifest.version, "digest": self.manifest.digest}
            )

        async def file(request):
            path = request.match_info["path"]
            return web.Response(body=self.replaced.get(path) or (self.folder / path).read_bytes())

        ready, stop = threading.Event(), threading.Event()
        url = []

        async def run():
            app = web.Application()
            app.router.add_get(base, describe)
            app.router.add_get(base.rsplit("/", 1)[0] + "/latest", describe)
            app.router.add_get(base + "/{path:.+}", file)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)
            await runner.cleanup()

        thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        thread.start()
        ready.wait()
        yield url[0]
        stop.set()
        thread.join()


def lying(project, replaced=None):
    folder, manifest = store.latest(project.ws.published, NAME, project.trust)
    return Liar(folder, manifest, {k(manifest): v for k, v in (replaced or {}).items()}).serve()


def model_path(manifest):
    return manifest.layers["model.onnx"].blob


def manifest_path(manifest):
    return f"blobs/sha256/{manifest.digest.removeprefix('sha256:')}"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (model_path, b"evil", r"broke off 4 times|model\.onnx"),
        (model_path, b"x" * 1_000_000, r"model\.onnx: more than the \d+ bytes"),
        (manifest_path, b"{}", r"model manifest: expected \d+ bytes, found 2"),
        (lambda _: "index.json", b'{"schemaVersion": 2}', r"index\.json is not what a bundle holds there"),
        (lambda _: "index.json", b" " * 1_000_000, r"index\.json: more than 262144 bytes"),
    ],
)
def test_a_lying_edge_activates_nothing(project, device, edge, path, content, message):
    device.fetch(edge.url, NAME)
    before = device.forecast(project.request())
    other = Device(device.folder.with_name("other"), project.trust)
    with lying(project, {path: content}) as url, pytest.raises((BundleError, EdgeError), match=message):
        other.fetch(url, NAME)
    assert other.active() == {}
    assert device.forecast(project.request()) == before


def test_a_model_of_the_right_size_with_one_other_byte_is_refused(project, device):
    folder, manifest = store.latest(project.ws.published, NAME, project.trust)
    content = bytearray((folder / model_path(manifest)).read_bytes())
    content[-1] ^= 1
    with lying(project, {model_path: bytes(content)}) as url, pytest.raises(BundleError, match=r"model\.onnx: expected SHA-256"):
        device.fetch(url, NAME)
    assert device.active() == {}
    assert not list((device.folder / "partial").glob("[0-9a-f]*/blobs/sha256/" + manifest.layers["model.onnx"].hex))


def test_a_key_that_is_not_trusted_is_refused_before_the_model_is_fetched(edge, tmp_path):
    stranger = Ed25519PrivateKey.generate().public_key()
    device = Device(tmp_path / "device", {key_id(stranger): stranger})
    with pytest.raises(BundleError, match="which is not trusted here"):
        device.fetch(edge.url, NAME)
    assert device.active() == {}
    assert not (device.folder / "partial").exists()


def test_a_genuine_bundle_under_another_name_is_refused(project, device, another):
    """An old or other bundle cannot be passed off as the one that was asked for."""
    layout, manifest = another("2.0.0", name="other--model")
    import dataclasses

    with (
        Liar(layout, dataclasses.replace(manifest, name=NAME), {}).serve() as url,
        pytest.raises(BundleError, match=r"asked for mini--traffic--h6-3 2\.0\.0, the edge sent other--model 2\.0\.0"),
    ):
        device.fetch(url, NAME)


def test_a_bundle_that_was_damaged_on_the_device_is_fetched_again(edge, device, project):
    path = device.fetch(edge.url, NAME).path
    _, manifest = store.latest(path.parent.parent, NAME, project.trust)
    (path / model_path(manifest)).write_bytes(b"rotten")
    with pytest.raises(BundleError, match=r"model\.onnx: expected"):
        Device(device.folder, project.trust).forecast(project.request())
    assert device.fetch(edge.url, NAME).transfer.received_bytes > 0
    assert Device(device.folder, project.trust).forecast(project.request())["version"] == "1.0.0"


@pytest.mark.parametrize("name", ["../keys", "a/b", "", ".hidden", "x" * 300])
def test_names_that_are_no_names_are_not_asked_for(device, name):
    with pytest.raises(BundleError, match="is not a bundle's name"):
        device.fetch("http://127.0.0.1:9", name)


def test_errors_of_an_edge_reach_the_user(edge, device, project):
    with pytest.raises(EdgeError, match=r"refuses other latest: 404, no bundle 'other' is served here; there are: mini--traffic"):
        device.fetch(edge.url, "other")
    with pytest.raises(EdgeError, match=r"has no version '9\.9\.9'; there are: 1\.0\.0"):
        device.fetch(edge.url, NAME, "9.9.9")
    with pytest.raises(EdgeError, match=r"cannot reach an edge .* `cellwright edge serve`"):
        device.fetch("http://127.0.0.1:9", NAME)
    with pytest.raises(EdgeError, match="cannot reach an edge"):
        ask("http://127.0.0.1:9", project.request())
    with pytest.raises(RequestError, match="knows no site 'x'"):
        ask(edge.url, project.request() | {"site": "x"})
    with pytest.raises(RequestError, match=r"none \(fetch one first"):
        device.forecast({})


def test_a_busy_edge_is_told_as_such(shelf, project):
    limits = Limits(workers=1, queue=0)
    with (
        in_thread(Edge(shelf, project.trust, port=0, limits=limits)) as edge,
        edge.slots.slot(),
        pytest.raises(EdgeError, match="too busy"),
    ):
        ask(edge.url, project.request())


def test_a_device_fetches_over_tls(shelf, project, certificate, tmp_path):
    with in_thread(Edge(shelf, project.trust, port=0, tls=tls_context(*certificate))) as edge:
        fetched = Device(tmp_path / "device", project.trust, ca=certificate[0]).fetch(edge.url, NAME)
        assert hashlib.sha256((fetched.path / "index.json").read_bytes()).hexdigest()
        assert ask(edge.url, project.request(), ca=certificate[0])["version"] == "1.0.0"
        with pytest.raises(EdgeError, match="cannot reach an edge"):
            Device(tmp_path / "strange", project.trust).fetch(edge.url, NAME)
