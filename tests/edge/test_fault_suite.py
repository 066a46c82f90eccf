"""100 seeded stories of a device on bad days: whatever happens, never a corrupt model active, never a model lost."""

import random
import subprocess
import sys
import threading
from dataclasses import dataclass

import httpx
import pytest
from fetch_parts import line_to

from cellwright.bundle import store
from cellwright.edge.device import Device
from cellwright.errors import CellwrightError

NAME = "mini--traffic--h6-3"
PAD = 2_000_000
SEEDS = 100
FAULTS = ("drops", "tampering", "kill", "disk full", "kill and drops")
_FETCH = """
import resource, sys
from pathlib import Path
from cellwright.bundle.keys import trusted
from cellwright.edge.device import Device
from cellwright.errors import CellwrightError
folder, url, keys, most = sys.argv[1:]
if most != "-":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
try:
    Device(Path(folder), trusted(Path(keys))).fetch(url, "mini--traffic--h6-3")
except CellwrightError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@dataclass
class Story:
    """One device, one seed."""

    device: Device
    project: object
    rng: random.Random

    def suffer(self, fault: str, url: str) -> None:
        """One fetch in trouble; it may fail, with an error of ours."""
        cuts = [self.rng.randrange(PAD) for _ in range(self.rng.randint(1, 12))] if "drops" in fault else []
        line = line_to(url, cuts=cuts, spoil=self.rng.randrange(PAD) if fault == "tampering" else None)
        if "kill" in fault or fault == "disk full":
            self._in_a_process(fault, line)
            return
        try:
            with line.open() as through:
                self.device.fetch(through, NAME)
        except CellwrightError:
            return  # it may fail; what it leaves is looked at by `run`

    def _in_a_process(self, fault: str, line) -> None:
        most = str(self.rng.randrange(50_000, PAD)) if fault == "disk full" else "-"
        box: list[subprocess.Popen] = []
        if "kill" in fault:
            line.cuts = sorted([self.rng.randrange(PAD), *line.cuts]) if line.cuts else [self.rng.randrange(PAD)]
            line.on_cut = lambda _number: box and box[0].kill()
        with line.open() as through:
            arguments = [sys.executable, "-c", _FETCH, str(self.device.folder), through, str(self.project.ws.keys), most]
            box.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            _, said = box[0].communicate(timeout=120)
        assert box[0].returncode in (0, 1, -9), said
        assert "Traceback" not in said, said

    def active(self) -> str | None:
        """The active version, every byte of it checked against the signature; raises where it is not whole."""
        if store.pointer(self.device.folder / "bundles", NAME) is None:
            return None
        return store.latest(self.device.folder / "bundles", NAME, self.project.trust)[1].version


@pytest.fixture(scope="module")
def versions(project, tmp_path_factory):
    """Two versions, the second with a card of 2 MB; packed once."""
    from cellwright.bundle import media
    from cellwright.bundle.keys import signing_key
    from cellwright.bundle.layout import About, pack, read_layer

    folder, manifest = store.latest(project.ws.published, NAME, project.trust)
    contents = {layer: read_layer(folder, manifest, layer) for layer in manifest.layers if layer != media.MODEL_INT8}
    contents[media.CARD] += random.Random(1).randbytes(PAD)
    target = tmp_path_factory.mktemp("packed") / "1.1.0"
    made = pack(target, contents, About(NAME, "1.1.0", "MLP", "mlp", "", 77, None, None), signing_key(project.ws.keys))
    return (folder, manifest), (target, made)


def run(seed, device, project, edge, shelf, versions):
    """Faults before the first version is there, and on the way to the second; then a quiet fetch."""
    story = Story(device, project, random.Random(seed))
    known = {None}
    for (folder, manifest), version in zip(versions, ("1.0.0", "1.1.0"), strict=True):
        store.place(shelf, folder, manifest, activate=True)
        while httpx.get(f"{edge.url}/readyz").json()["serving"][NAME] != version:
            threading.Event().wait(0.01)
        for _ in range(story.rng.randint(1, 3)):
            story.suffer(story.rng.choice(FAULTS), edge.url)
            assert story.active() in known | {version}
        assert device.fetch(edge.url, NAME).version == version
        assert story.active() == version
        known = {version}


@pytest.mark.parametrize("seed", [3, 7, 1064])  # 1064: no room for a blob that another version has already
def test_a_bad_day(seed, project, edge, shelf, versions, tmp_path):
    run(seed, Device(tmp_path / "device", project.trust), project, edge, shelf, versions)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_hundred_bad_days(seed, project, edge, shelf, versions, tmp_path):
    run(1_000 + seed, Device(tmp_path / "device", project.trust), project, edge, shelf, versions)
