"""A hub killed (SIGKILL) in the middle of uploads and publications: nothing half-visible, nothing lost, and it goes on."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cellwright.bundle.layout import verify
from cellwright.errors import HubError
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.refusals import Changed
from cellwright.hub.service import open_hub

PROGRAM = Path(__file__).with_name("hub_process.py")
CONTENT = random.Random(7).randbytes(3_000_000)
FORM = c.UploadForm(model="m", version="1.0.0", format="opaque", bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@contextmanager
def running(folder: Path):
    """A hub in a process; yields its URL and the process."""
    ready = folder.with_name("ready")
    ready.unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(folder), str(ready)], env=os.environ)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield ready.read_text(), process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def token(tmp_path):
    with open_hub(tmp_path / "hub") as hub:
        hub.put_tenant(LOCAL, "a", c.TenantForm())
        return hub.new_token(LOCAL, "a", c.TokenForm(name="ci", scopes=("models:write", "models:read", "publish"))).token


def upload_until_killed(folder: Path, token: str, file: Path, delay_s: float) -> bool:
    """Upload while the hub is killed after `delay_s`; whether the release had been answered before."""
    done = []
    with running(folder) as (url, process), HubClient(url, token) as client:
        client.me()  # the first request takes longer than others
        killer = threading.Timer(delay_s, lambda: process.send_signal(signal.SIGKILL))
        killer.start()
        try:
            form = next((u.form for u in client.uploads()), FORM)
            id_ = client._opened(form)[0]
            offset = client.upload_offset(id_)
            while offset < FORM.bytes:
                offset = client.send_chunk(id_, offset, CONTENT[offset : offset + 200_000])
            done.append(client.release("m", "1.0.0"))
        except Exception:  # whatever a killed hub does to a client
            process.wait(timeout=10)
        finally:
            killer.join()
    return bool(done)


def whole(folder: Path, tmp_path: Path) -> None:
    """The release is whole, or there is none; and no blob without a name is left for long."""
    with open_hub(folder) as hub:
        models = hub.models(hub_who(hub))
        for model in models:
            for version in model.versions:
                release = hub.release(hub_who(hub), model.name, version)
                for file in release.files:
                    content = b"".join(hub.content(hub.file(hub_who(hub), model.name, version, file.path)))
                    assert hashlib.sha256(content).hexdigest() == file.sha256


def hub_who(hub):
    from cellwright.hub.core import Who

    return Who("t", "a", "ci", frozenset({"models:write", "models:read", "publish"}))


def finished(folder: Path, token: str, file: Path, tmp_path: Path) -> None:
    """A hub that is not killed any more finishes the upload, whatever was left of it."""
    with running(folder) as (url, _), HubClient(url, token) as client:
        if "1.0.0" not in [v for m in client.models() for v in m.versions]:
            client.upload(file, FORM)
        (tmp_path / "out").mkdir()
        client.download("m", "1.0.0", tmp_path / "out")
        assert client.uploads() == ()
    with open_hub(folder) as hub:
        manifest = verify(tmp_path / "out", hub.trust("a"))
        assert manifest.layers["model.bin"].hex == FORM.sha256
        assert hub.verify_audit().ok
        assert hub.collect() == 0
        assert not list((folder / "uploads").iterdir())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    return path


def test_a_hub_killed_within_an_upload_goes_on_with_it(tmp_path, token, file):
    upload_until_killed(tmp_path / "hub", token, file, 0.1)
    whole(tmp_path / "hub", tmp_path)
    finished(tmp_path / "hub", token, file, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_hub_killed_again_and_again_within_an_upload(tmp_path, token, file, seed):
    rng = random.Random(seed)
    for _ in range(5):
        if upload_until_killed(tmp_path / "hub", token, file, rng.uniform(0.0, 0.8)):
            break
        whole(tmp_path / "hub", tmp_path)
    finished(tmp_path / "hub", token, file, tmp_path)


def publish_for_ever(client: HubClient) -> None:
    for turn in range(10_000):
        client.publish("m", c.Publication(version=("1.0.0", "2.0.0")[turn % 2]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_hub_killed_within_publications_tells_edges_all_of_one_or_nothing(tmp_path, token, seed):
    rng = random.Random(seed)
    with open_hub(tmp_path / "hub") as hub:
        who = hub_who(hub)
        for version in ("1.0.0", "2.0.0"):
            upload = hub.open_upload(who, c.UploadForm(model="m", version=version, format="opaque", bytes=5))
            with hub.arriving(who, upload.id, 0) as arriving:
                arriving.add(version.encode())
                arriving.finish()
        hub.place(who, "r", c.PlacementForm(model="m"))
        location = c.Location(longitude=0, latitude=0)
        for number in range(5):
            hub.register_edge(LOCAL, f"e{number}", c.EdgeForm(url="http://x", location=location, disk_bytes=1))
    with running(tmp_path / "hub") as (url, process), HubClient(url, token) as client:
        client.me()
        threading.Timer(rng.uniform(0.05, 1.0), lambda: process.send_signal(signal.SIGKILL)).start()
        with pytest.raises(HubError):
            publish_for_ever(client)
    with open_hub(tmp_path / "hub") as hub:
        published = hub.publication(who, "m").version if hub.models(who)[0].publication else None
        for number in range(5):
            state = hub.desired(f"e{number}")
            assert [m.latest for t in state.tenants for m in t.models] == ([published] if published else [])
        assert hub.verify_audit().ok


@pytest.mark.slow
def test_many_publishers_at_once_one_of_each_round_wins(tmp_path, token):
    with running(tmp_path / "hub") as (url, _), HubClient(url, token) as client:
        for version in ("1.0.0", "2.0.0"):
            path = tmp_path / "f"
            path.write_bytes(version.encode())
            client.upload(path, c.UploadForm(model="m", version=version, format="opaque", bytes=5))
        number = client.publish("m", c.Publication(version="1.0.0"), expected=0).number
        for _ in range(10):
            won, lost = [], []

            def publish(who: int, number=number, won=won, lost=lost):
                with HubClient(url, token) as mine:
                    try:
                        won.append(mine.publish("m", c.Publication(version=("1.0.0", "2.0.0")[who % 2]), expected=number).number)
                    except Changed:
                        lost.append(who)

            threads = [threading.Thread(target=publish, args=(who,)) for who in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (len(won), len(lost)) == (1, 3)
            number = won[0]
