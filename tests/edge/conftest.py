"""One published run for the whole room: an MLP over 3×3 patches with a lag, exported, signed and placed by the real step."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from cellwright.bundle import media, store
from cellwright.bundle.keys import Trust, signing_key, trusted
from cellwright.bundle.layout import About, pack, read_layer
from cellwright.bundle.problem import ServedProblem
from cellwright.edge.predictor import read_problem
from cellwright.edge.sample import sample_request
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params, check
from cellwright.results import Choice, DataVersion, Leaderboard, Published, Registered, Row, Scored, Trained
from cellwright.steps.publish import publish
from cellwright.workspace import Workspace

_SPEC = importlib.util.spec_from_file_location("edge_cloud", Path(__file__).with_name("cloud.py"))
cloud = importlib.util.module_from_spec(_SPEC)
sys.modules["edge_cloud"] = cloud  # tests are imported one by one (importlib mode), so no folder of theirs is on the path
_SPEC.loader.exec_module(cloud)
operator_cloud = cloud.operator_cloud
_SPEC = importlib.util.spec_from_file_location("fetch_parts", Path(__file__).with_name("fetch_parts.py"))
sys.modules["fetch_parts"] = importlib.util.module_from_spec(_SPEC)  # tests are imported one by one (importlib mode)
_SPEC.loader.exec_module(sys.modules["fetch_parts"])

KEY, NAME = "mlp", "mini--traffic--h6-3"
SITES, ROWS = 9, 400


@dataclass(frozen=True)
class Project:
    """A workspace with one published bundle, and what it was made from."""

    ws: Workspace
    params: Params
    published: Published

    @property
    def trust(self) -> Trust:
        return trusted(self.ws.keys)

    @property
    def panel(self) -> Panel:
        return Panel.open(self.ws.panel("mini"))

    @property
    def problem(self) -> ServedProblem:
        folder, manifest = store.latest(self.ws.published, NAME, self.trust)
        return read_problem(folder, manifest)

    def request(self, *sites: str, **more: object) -> dict:
        return sample_request(self.problem, self.panel, sites=sites or ("c4",), bundle=NAME) | more


def make_panel(clock: str = "utc") -> Panel:
    rng = np.random.default_rng(5)
    hour = np.arange(ROWS)[:, None] / 144 * 2 * np.pi
    traffic = (100 + 40 * np.sin(hour + np.arange(SITES)) + rng.normal(0, 5, (ROWS, SITES))).astype(np.float32)
    users = (traffic / 4 + rng.normal(0, 1, (ROWS, SITES))).astype(np.float32)
    traffic[-3, 4] = users[-2, 3] = traffic[200:203, 0] = np.nan
    schema = PanelSchema(
        dataset="mini",
        sites=tuple(f"c{i}" for i in range(SITES)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0), Feature(name="users", unit="1", low=0)),
        targets=("traffic",),
        cadence_s=600,
        clock=clock,
        timezone="Europe/Rome" if clock == "utc" else "UTC",
        start_ms=1_383_260_400_000 if clock == "utc" else 0,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        grid=(3, 3),
        licence="CC0 1.0",
        attribution="Made for a test.",
    )
    return Panel.from_arrays(schema, {"traffic": traffic, "users": users})


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Project:
    ws = Workspace(tmp_path_factory.mktemp("project"), "mini-1a2b3c4d")
    params = check(
        {
            "dataset": "mini",
            "problem": {"features": ["users"], "lags": [144], "inputs": "patch", "patch": 3},
            "train": {"models": [KEY]},
        },
        "test",
    )
    make_panel().save(ws.panel("mini"))
    _trained_run(params, ws)
    _registration("1.0.0").save(ws.registration)
    return Project(ws, params, publish(params, ws))


@pytest.fixture(scope="session")
def quantile_project(tmp_path_factory) -> Project:
    """The same with a quantile head and intervals that were really calibrated."""
    from cellwright.kpis._bench import Bench

    ws = Workspace(tmp_path_factory.mktemp("quantiles"), "mini-5e6f7a8b")
    problem = {"features": ["users"], "inputs": "patch", "patch": 3, "quantiles": [0.1, 0.5, 0.9]}
    params = check({"dataset": "mini", "problem": problem, "train": {"models": [KEY]}}, "test")
    make_panel().save(ws.panel("mini"))
    _trained_run(params, ws)
    bench = Bench(params, ws)
    accuracy = bench.forecast(bench.entry(KEY))
    Scored.read(ws.score(KEY)).model_copy(update={"intervals": accuracy.intervals}).save(ws.score(KEY))
    _registration("1.0.0").save(ws.registration)
    return Project(ws, params, publish(params, ws))


def _registration(semantic: str | None, *, champion: bool = True) -> Registered:
    return Registered(
        experiment="mini",
        run_id="r1",
        model_name=NAME,
        version="1",
        semantic=semantic,
        champion=champion,
        reason="there was none",
    )


def _trained_run(params: Params, ws: Workspace) -> None:
    """What train, score and rank leave behind, for one candidate."""
    import torch

    from cellwright.data.scaler import fit_scaler
    from cellwright.forecaster import build
    from cellwright.training.candidates import as_json, resolve

    panel = Panel.open(ws.panel("mini"))
    candidate = resolve(params, panel.schema, KEY)
    torch.manual_seed(3)
    forecaster = build(candidate, fit_scaler(panel, candidate.problem, "standard", (0, 320)))
    forecaster.save(ws.candidate(KEY))
    version = DataVersion(dataset="mini", hash="0" * 32, rows=ROWS, sites=SITES, first="2013-10-31", last="2013-11-03")
    common = {"key": KEY, "title": "MLP", "status": "converged", "reason": "no better loss"}
    Trained(
        **common, **as_json(candidate), model=KEY, preset=None, paper="", epochs=1, windows=1, parameters=77, train_s=1, cpu_s=1,
        peak_memory_bytes=None, energy=None, seed=3, validation_loss=1, warm_start=None, resumed=0, data=version,
    ).save(ws.candidate(KEY) / "candidate.json")  # fmt: skip
    Scored(
        **common, validation={"mae": 1.0}, test={"mae": 1.0}, cost={}, sources={}, mae_by_step=[1, 1, 1],
        mae_by_site=[1.0] * SITES, validation_pairs=[], test_pairs=[],
    ).save(ws.score(KEY))  # fmt: skip
    row = Row(
        rank=1, key=KEY, title="MLP", score=1, status="converged", beats_ridge=None, on_front=True,
        similar_to_champion=False, kpis={"mae": 1.0}, validation_mae=1.0,
    )  # fmt: skip
    Leaderboard(
        run=ws.run, data=version, targets=["traffic"], unit="Mbit/s", history=6, horizon=3, test_windows=38, noise_floor=None,
        rows=[row], failures=[], kpi_titles={"mae": "MAE"}, kpi_units={"mae": "Mbit/s"}, kpi_lower_is_better={"mae": True},
        choice=Choice(key=KEY, sentence="MLP, the only one.", similar=[], decided_by="accuracy", block_steps=144),
        total_energy_j=None, energy_source=None, total_s=1.0,
    ).save(ws.leaderboard)  # fmt: skip


@pytest.fixture
def shelf(project, tmp_path) -> Path:
    """A store of its own for one test, with version 1.0.0."""
    folder, manifest = store.latest(project.ws.published, NAME, project.trust)
    store.place(tmp_path / "published", folder, manifest, activate=True)
    return tmp_path / "published"


@pytest.fixture
def another(project, tmp_path):
    """another(version, shift): the published bundle once more, its forecasts higher by `shift`; padded to `pad` bytes."""

    def made(version: str, shift: float = 0.0, pad: int = 0, name: str = NAME) -> tuple[Path, object]:
        folder, manifest = store.latest(project.ws.published, NAME, project.trust)
        kept = [layer for layer in manifest.layers if layer != media.MODEL_INT8]
        contents: dict[str, bytes] = {layer: read_layer(folder, manifest, layer) for layer in kept}
        contents[media.MODEL] = _shifted(contents[media.MODEL], shift)
        contents[media.CARD] += bytes(pad)
        about = About(name, version, "MLP", "mlp", "shifted", 77, None, None)
        target = tmp_path / "packed" / version
        return target, pack(target, contents, about, signing_key(project.ws.keys))

    return made


def _shifted(model: bytes, shift: float) -> bytes:
    """The model with `shift` added to its output."""
    graph = onnx.load_from_string(model)
    last = next(node for node in graph.graph.node if "forecast" in node.output)
    last.output[:] = ["unshifted" if name == "forecast" else name for name in last.output]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(shift), "shift"))
    graph.graph.node.append(onnx.helper.make_node("Add", ["unshifted", "shift"], ["forecast"]))
    return graph.SerializeToString(deterministic=True)


@pytest.fixture
def edge(shelf, project):
    """A real server on loopback."""
    with in_thread(Edge(shelf, project.trust, port=0, limits=Limits(poll_s=0.05, shutdown_s=2))) as running:
        yield running


@pytest.fixture
def model(http) -> tuple[str, str, int]:
    """Address, digest and size of the model's blob, where a file's own `http` asks."""
    layer = http.get(f"/v1/bundles/{NAME}/latest").json()["layers"]["model.onnx"]
    digest = layer["digest"]
    return f"/v1/bundles/{NAME}/1.0.0/blobs/sha256/{digest.removeprefix('sha256:')}", digest, layer["bytes"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"
