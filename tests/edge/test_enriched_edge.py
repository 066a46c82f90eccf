"""A bundle with holidays, neighbours and a series joined by time, trained and published by the real steps, and served."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import numpy as np
import polars as pl
import pytest

from cellwright.bundle import media, store
from cellwright.bundle.contents import document
from cellwright.bundle.keys import signing_key, trusted
from cellwright.bundle.layout import About, pack, read_layer
from cellwright.bundle.problem import ServedProblem, served
from cellwright.data.windows import Windows
from cellwright.edge.device import Device
from cellwright.edge.predictor import read_problem
from cellwright.edge.request import RequestError, calendar, parse
from cellwright.edge.sample import sample_of, sample_request
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.errors import BundleError, ParamsError
from cellwright.forecaster import Forecaster, forecast_panel
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params, check
from cellwright.steps.publish import publish
from cellwright.steps.rank import rank
from cellwright.steps.score import score
from cellwright.steps.train import train
from cellwright.training.candidates import resolve
from cellwright.workspace import Workspace

KEY, ROWS, SITES = "trees", 600, 16
START_MS = 1_383_001_200_000  # 2013-10-29 00:00 in Rome: All Saints' Day is the fourth day


def make_panel() -> Panel:
    rng = np.random.default_rng(5)
    hour = np.arange(ROWS)[:, None] / 144 * 2 * np.pi
    traffic = (100 + 40 * np.sin(hour + np.arange(SITES) / 3) + rng.normal(0, 5, (ROWS, SITES))).astype(np.float32)
    traffic[-3, 5] = traffic[-2, 6] = np.nan
    schema = PanelSchema(
        dataset="mini",
        sites=tuple(f"c{i}" for i in range(SITES)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0), Feature(name="users", unit="1", low=0)),
        targets=("traffic",),
        cadence_s=600,
        clock="utc",
        timezone="Europe/Rome",
        start_ms=START_MS,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        grid=(4, 4),
        licence="CC0 1.0",
        attribution="Made for a test.",
    )
    return Panel.from_arrays(schema, {"traffic": traffic, "users": np.sqrt(np.abs(traffic))})


def params_of(**problem) -> Params:
    asked = {
        "history": 4, "horizon": 2, "patch": 3, "features": ["users"], "lags": [6], "holidays": "IT", "neighbours": 5,
        "exogenous": ["weather/hourly.csv:temperature"],
    }  # fmt: skip
    return check(
        {
            "dataset": "mini",
            "problem": asked | problem,
            "train": {"models": [KEY], "scaler": "log", "settings": {KEY: {"options": {"trees": 20, "min_rows": 20}}}},
            "score": {"costs": False, "bootstrap": 50, "replay_s": 0},
            "energy": {"idle_s": 0},
            "publish": {"int8": False},
        },
        "test",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The project's folder, with hourly frost and warmth in it, and the panel."""
    root = tmp_path_factory.mktemp("enriched")
    (root / "weather").mkdir()
    hours = range(ROWS // 6 + 2)
    times = [datetime.fromtimestamp(START_MS / 1000 + h * 3600, UTC).isoformat() for h in hours]
    temperature = [round(-2 + 0.1 * h, 1) for h in hours]
    pl.DataFrame({"time": times, "temperature": temperature}).write_csv(root / "weather" / "hourly.csv")
    make_panel().save(Workspace(root).panel("mini"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLWRIGHT_ROOT", str(root))
        yield root


@pytest.fixture(scope="module")
def ws(root) -> Workspace:
    """One published run of trees on all there is."""
    ws, params = Workspace(root, "mini-1a2b3c4d"), params_of()
    assert train(params, ws, KEY).status in ("converged", "max_epochs")
    score(params, ws)
    rank(params, ws)
    publish(params, ws)
    return ws


@pytest.fixture(scope="module")
def panel(root) -> Panel:
    return Panel.open(Workspace(root).panel("mini"))


@pytest.fixture(scope="module")
def problem(ws) -> ServedProblem:
    (name,) = store.names(ws.published)
    return read_problem(*store.latest(ws.published, name, trusted(ws.keys)))


@pytest.fixture(scope="module")
def edge(ws):
    with in_thread(Edge(ws.published, trusted(ws.keys), port=0, limits=Limits(poll_s=0.05, shutdown_s=2))) as running:
        yield running


@pytest.mark.parametrize("inputs", ["site", "patch", "all"])
@pytest.mark.parametrize("origin", [431, 577, 598])  # All Saints' Day is rows 432 to 575
def test_a_request_gives_the_arrays_that_windows_give(panel, inputs, origin):
    asked_for = resolve(params_of(inputs=inputs), panel.schema, "mlp").problem
    windows = Windows(panel, asked_for)
    description = served(asked_for, panel.schema, windows.neighbours, {})
    index = {site: i for i, site in enumerate(panel.schema.sites)}
    request = sample_request(description, panel, sites=("c0", "c5", "c10"), origin=origin)
    asked = parse(json.loads(json.dumps(request)), description, index, calendar(description))
    centres = np.zeros(1, np.int64) if inputs == "all" else np.array([0, 5, 10])
    raw = windows.raw(np.full(len(centres), origin), centres)
    np.testing.assert_array_equal(asked.history, raw.history)
    np.testing.assert_array_equal(asked.known, raw.known)


def test_the_bundle_says_what_a_request_must_bring(problem):
    assert problem.measured == ("traffic", "users")
    assert problem.features == ("traffic", "users", "temperature", "traffic~5", "traffic@6", "valid")
    assert problem.holidays == "IT"
    assert problem.exogenous == {"temperature": "weather/hourly.csv:temperature"}
    assert len(problem.nearest) == SITES
    assert problem.summary()["exogenous"] == ["temperature"]
    assert problem.summary()["neighbours"] == 5


def test_folders_of_this_machine_are_not_told(root, panel):
    spec = f"{root / 'weather' / 'hourly.csv'}:temperature"
    asked_for = resolve(params_of(exogenous=[spec], inputs="site"), panel.schema, "mlp").problem
    description = served(asked_for, panel.schema, None, {})
    assert description.exogenous == {"temperature": "hourly.csv:temperature"}
    with pytest.raises(ParamsError, match=r"there is no file .*hourly.csv"):
        sample_request(description, panel)


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("neighbours", [-2] * 9, "neighbours: expected positions from -1 to 15, found -2 to 15"),
        ("neighbours", [16] * 9, "neighbours: expected positions from -1 to 15, found -1 to 16"),
        ("neighbours", [0] * 8, r"neighbours: expected rows of one length, found lengths \[8, 9\]"),
        ("nearest", [-1] * 5, "nearest: expected positions from 0 to 15, found -1 to 15"),
        ("nearest", [0] * 4, r"nearest: expected rows of one length, found lengths \[4, 5\]"),
    ],
)
def test_tables_that_name_no_site_are_told_when_the_bundle_is_loaded(ws, problem, tmp_path, table, row, message):
    content = problem.model_dump(mode="json")
    content[table][3] = row
    with pytest.raises(BundleError, match=message):
        read_problem(tmp_path, repacked(ws, tmp_path, content))


def test_the_means_are_of_the_nearest_that_are_given(ws, problem, tmp_path):
    content = problem.model_dump(mode="json")
    content["nearest"] = [row[:4] for row in content["nearest"]]
    with pytest.raises(BundleError, match="'traffic~5' is no mean of a target over the 4 nearest"):
        read_problem(tmp_path, repacked(ws, tmp_path, content))


def repacked(ws: Workspace, target, problem: dict):
    """The published bundle with another problem, signed by the same key."""
    (name,) = store.names(ws.published)
    folder, manifest = store.latest(ws.published, name, trusted(ws.keys))
    contents = {layer: read_layer(folder, manifest, layer) for layer in manifest.layers} | {media.PROBLEM: document(problem)}
    return pack(target, contents, About(name, "2.0.0", "Trees", "trees", "changed", 7, None, None), signing_key(ws.keys))


def test_a_bundle_of_before_is_read_as_ever(problem):
    old = problem.model_dump(mode="json", exclude={"holidays", "exogenous", "nearest"})
    assert ServedProblem.model_validate(old).exogenous == {}


def test_the_edge_answers_what_torch_says(ws, edge, panel, problem):
    """At the beginning of the holiday, and where the last rows of two sites are missing."""
    forecaster = Forecaster.load(ws.candidate(KEY))
    for origin in (431, ROWS - 2):
        request = sample_request(problem, panel, sites=problem.sites, origin=origin)
        answer = httpx.post(f"{edge.url}/v1/forecast", json=request).json()
        expected = forecast_panel(forecaster, Windows(panel, forecaster.problem), np.array([origin]))[0, :, :, 0]
        found = np.array([answer["forecasts"][site]["traffic"] for site in problem.sites]).T
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_device_forecasts_from_the_panel_s_last_rows(ws, edge, tmp_path, problem):
    device = Device(tmp_path / "device", trusted(ws.keys))
    device.fetch(edge.url, problem_name(ws), "latest")
    request = sample_of(ws, sites=("c5",))
    assert request["exogenous"]["temperature"] == pytest.approx([7.9] * 4)  # of 03:00, the hour of the last rows
    answer = device.forecast(request)
    assert len(answer["forecasts"]["c5"]["traffic"]) == 2
    assert answer["forecasts"] == httpx.post(f"{edge.url}/v1/forecast", json=request).json()["forecasts"]


def problem_name(ws: Workspace) -> str:
    (name,) = store.names(ws.published)
    return name


def test_sites_that_only_enter_means_bring_their_targets(problem, panel):
    """Of the corner's patch, c5's five nearest reach to c9, which the patch does not."""
    request = sample_request(problem, panel, sites=("c0",))
    assert set(request["history"]["c1"]) == {"traffic", "users"}
    assert set(request["history"]["c9"]) == {"traffic"}
    assert "c9" not in request["lags"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.pop("exogenous"),
            "'exogenous' must be an object, series -> the 4 values known before 'time', of temperature",
        ),
        (lambda r: r["exogenous"].pop("temperature"), "'exogenous' lacks temperature; expected temperature"),
        (lambda r: r["exogenous"].update(wind=[1, 2, 3, 4]), "unknown key 'wind'"),
        (lambda r: r["exogenous"].update(temperature=[1.0]), "'exogenous.temperature' must be a list of 4 values"),
        (lambda r: r["history"].pop("c9"), "'history' lacks site 'c9', which the model looks at"),
        (lambda r: r["history"]["c9"].pop("traffic"), "'history.c9' lacks traffic; expected traffic"),
        (lambda r: r["history"]["c1"].pop("users"), "'history.c1' lacks users; expected traffic, users"),
    ],
)
def test_what_is_missing_is_told(edge, problem, panel, change, message):
    request = sample_request(problem, panel, sites=("c0",))
    change(request)
    told = httpx.post(f"{edge.url}/v1/forecast", json=request)
    assert told.status_code == 400
    assert message in told.json()["detail"]


def test_a_series_is_refused_where_the_bundle_has_none(panel):
    plain = resolve(params_of(exogenous=[], inputs="site"), panel.schema, "mlp").problem
    description = served(plain, panel.schema, None, {})
    request = sample_request(description, panel) | {"exogenous": {"temperature": [1, 2, 3, 4]}}
    with pytest.raises(RequestError, match="'exogenous': this bundle has none"):
        parse(request, description, {site: i for i, site in enumerate(panel.schema.sites)}, calendar(description))


def test_training_is_done_again_where_the_series_changed(root, ws):
    file = root / "weather" / "hourly.csv"
    before, record = file.read_text(), ws.candidate(KEY) / "inputs.json"
    first = record.read_text()
    other = Workspace(root, "mini-again")
    try:
        file.write_text(before.replace("-2.0", "-2.5"))
        train(params_of(), other, KEY)
    finally:
        file.write_text(before)
    assert (other.candidate(KEY) / "inputs.json").read_text() != first
