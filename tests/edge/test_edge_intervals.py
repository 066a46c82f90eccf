"""Quantiles and calibrated intervals from a published bundle: of a quantile head, of a point model, and of an older bundle."""

import numpy as np
import pytest

from cellwright.bundle import media, store
from cellwright.bundle.contents import document
from cellwright.bundle.keys import signing_key
from cellwright.bundle.layout import About, pack, read_layer, verify
from cellwright.conformal import COVERAGES, LEVELS, restored
from cellwright.data.windows import Windows
from cellwright.edge.predictor import Predictor
from cellwright.edge.request import RequestError
from cellwright.edge.sample import sample_request
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.errors import BundleError
from cellwright.forecaster import Forecaster, answer_panel
from cellwright.results import Intervals, Scored

ORIGIN = 380


@pytest.fixture(params=["fp32", "int8"])
def predictor(quantile_project, request) -> Predictor:
    folder = store.latest(quantile_project.ws.published, "mini--traffic--h6-3", quantile_project.trust)[0]
    return Predictor.load(folder, quantile_project.trust, precision=request.param)


def ask(project, **more) -> dict:
    problem, sites = project.problem, ("c0", "c4")
    return sample_request(problem, project.panel, sites=sites, origin=ORIGIN) | more


def test_a_published_quantile_head_is_torchs_with_int8_beside_it(quantile_project):
    assert quantile_project.published.parity < 1e-4
    assert quantile_project.published.int8_offered


def test_quantiles_and_intervals_are_those_of_torch(quantile_project, predictor):
    """The whole way of both: as the panel's forecasts with the offsets of the score."""
    forecaster = Forecaster.load(quantile_project.ws.candidate("mlp"))
    windows = Windows(quantile_project.panel, forecaster.problem)
    told = answer_panel(forecaster, windows, np.array([ORIGIN]))
    levels = restored(Scored.read(quantile_project.ws.score("mlp")).intervals).quantiles(told)
    found = predictor.forecast(ask(quantile_project, intervals=[0.8, 0.5, 0.95]))
    near = {"rtol": 1e-4} if predictor.precision == "fp32" else {"rtol": 0.05, "atol": 3}
    assert list(found["intervals"]) == ["0.8", "0.5", "0.95"]
    for number, site in ((0, "c0"), (4, "c4")):
        for q, level in enumerate(("0.1", "0.5", "0.9")):
            np.testing.assert_allclose(found["quantiles"][site]["traffic"][level], told[0, :, number, 0, q], **near)
        for share, ends in COVERAGES.items():
            pairs = found["intervals"][f"{share:g}"][site]["traffic"]
            np.testing.assert_allclose(pairs, levels[0, :, number, 0][:, list(ends)], **near)
    assert found["forecasts"]["c0"]["traffic"] == found["quantiles"]["c0"]["traffic"]["0.5"]


def test_wider_coverage_is_a_wider_interval(quantile_project, predictor):
    intervals = predictor.forecast(ask(quantile_project, intervals=[0.5, 0.8, 0.95]))["intervals"]
    (low50, high50), (low80, high80), (low95, high95) = (intervals[k]["c4"]["traffic"][2] for k in ("0.5", "0.8", "0.95"))
    assert low95 <= low80 <= low50 <= high50 <= high80 <= high95


def test_intervals_are_told_only_to_who_asks(quantile_project, predictor):
    assert "intervals" not in predictor.forecast(ask(quantile_project))
    assert "intervals" not in predictor.forecast(ask(quantile_project, intervals=[]))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([0.9], "no interval of 0.9; there are 0.5, 0.8, 0.95"),
        ([10**400], "no interval of 1000"),
        (0.8, "must be a list of nominal coverages"),
        (["0.8"], "must be a list of nominal coverages"),
        ([True], "must be a list of nominal coverages"),
    ],
)
def test_what_cannot_be_answered_is_told(quantile_project, predictor, asked, says):
    with pytest.raises(RequestError, match=says):
        predictor.forecast(ask(quantile_project, intervals=asked))


def test_an_older_bundle_without_intervals_still_forecasts(project):
    """The session's bundle is of a score that has none."""
    folder, manifest = store.latest(project.ws.published, "mini--traffic--h6-3", project.trust)
    assert media.INTERVALS not in manifest.layers
    older = Predictor.load(folder, project.trust)
    assert "forecasts" in older.forecast(project.request("c4"))
    with pytest.raises(RequestError, match="this bundle has none"):
        older.forecast(project.request("c4", intervals=[0.8]))


def table(levels: int = len(LEVELS), steps: int = 3, heads: tuple[float, ...] = ()) -> Intervals:
    """A point model's: level 0 is unbounded, the others lie at -3 … 3 usual steps of 2; load 0, so that nothing is scaled."""
    offsets = [[[float(v)] for _ in range(steps)] for v in range(-3, levels - 3)]
    offsets[0] = [[None]] * steps
    return Intervals(
        levels=LEVELS, heads=heads, offsets=offsets, usual_step=[[2.0]] * 9, usual_load=[[0.0]] * 9, low=[0.0], high=[None], windows=1
    )  # fmt: skip


def repacked(project, target, intervals: bytes):
    """The session's bundle of a point model, with intervals."""
    folder, manifest = store.latest(project.ws.published, "mini--traffic--h6-3", project.trust)
    contents = {layer: read_layer(folder, manifest, layer) for layer in manifest.layers} | {media.INTERVALS: intervals}
    about = About(manifest.name, "2.0.0", "MLP", "mlp", "", 77, None, None)
    return pack(target, contents, about, signing_key(project.ws.keys))


def test_a_point_models_intervals_over_http(project, tmp_path):
    manifest = repacked(project, tmp_path / "packed", document(table().model_dump(mode="json")))
    store.place(tmp_path / "published", tmp_path / "packed", manifest, activate=True)
    import httpx

    with in_thread(Edge(tmp_path / "published", project.trust, port=0, limits=Limits(shutdown_s=2))) as edge:
        answer = httpx.post(f"{edge.url}/forecast", json=project.request("c4", intervals=[0.8])).json()
        told = httpx.get(f"{edge.url}/v1/bundles").json()["bundles"][0]["versions"][0]["problem"]["intervals"]
    assert told == [0.5, 0.8]  # the lowest level of the 95 % interval is unbounded
    for value, (low, high) in zip(answer["forecasts"]["c4"]["traffic"], answer["intervals"]["0.8"]["c4"]["traffic"], strict=True):
        assert (low, high) == pytest.approx((max(0.0, value - 2 * 2), value + 2 * 2), rel=1e-5)


@pytest.mark.parametrize(
    ("intervals", "says"),
    [
        (b"{}", "intervals.json of .* is malformed"),
        (document(table().model_copy(update={"levels": (0.1, 0.5)}).model_dump(mode="json")), "expected quantiles at the levels"),
        (document(table(steps=2).model_dump(mode="json")), "does not fit problem.json"),
        (document(table(heads=(0.1, 0.5, 0.9)).model_dump(mode="json")), "does not fit problem.json"),
    ],
)
def test_intervals_of_another_form_are_refused(project, tmp_path, intervals, says):
    manifest = repacked(project, tmp_path / "packed", intervals)
    assert verify(tmp_path / "packed", project.trust) == manifest
    with pytest.raises(BundleError, match=says):
        Predictor.load(tmp_path / "packed", project.trust)
