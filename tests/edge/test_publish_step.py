"""The publish step, from a run's files to what an edge offers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cellwright.bundle import media, store
from cellwright.bundle.layout import read_layer, verify
from cellwright.data.windows import Windows
from cellwright.edge.predictor import Predictor
from cellwright.edge.sample import sample_of, sample_request
from cellwright.errors import BundleError
from cellwright.forecaster import Forecaster, forecast_panel
from cellwright.results import Registered
from cellwright.steps.publish import publish, unpublish, worth_offering


def layers(project, folder):
    manifest = verify(folder, project.trust)
    return manifest, {name: read_layer(folder, manifest, name) for name in manifest.layers}


def test_what_was_published_is_whole_and_says_where_it_comes_from(project):
    done = project.published
    assert (done.name, done.semantic, done.latest) == ("mini--traffic--h6-3", "1.0.0", True)
    manifest, found = layers(project, project.ws.published / done.name / done.semantic)
    assert manifest.digest == done.digest
    lineage, kpis = json.loads(found[media.LINEAGE]), json.loads(found[media.KPIS])
    assert lineage["run"] == "mini-1a2b3c4d"
    assert lineage["data"]["hash"] == "0" * 32
    assert lineage["mlflow"]["run_id"] == "r1"
    assert lineage["candidate"]["model"] == "mlp"
    assert kpis["exported"]["mae_fp32"] == done.mae_fp32
    assert kpis["exported"]["windows"] == 38 * 9  # validation: rows 320-360, horizon 3, nine sites
    assert b"MLP" in found[media.CARD]
    assert b"Made for a test." in found[media.LICENCE]


def test_the_accuracy_is_that_of_torch_on_the_validation_span(project):
    windows = Windows(project.panel, Forecaster.load(project.ws.candidate("mlp")).problem)
    origins = windows.origins(320, 360)
    forecast = forecast_panel(Forecaster.load(project.ws.candidate("mlp")), windows, origins)
    truth = np.stack([project.panel.values("traffic")[origins + step] for step in range(3)], axis=1)[..., None]
    assert project.published.mae_fp32 == pytest.approx(np.nanmean(np.abs(forecast - truth)), rel=1e-4)


def test_the_bundle_forecasts_what_torch_forecasts_from_raw_telemetry(project):
    """Request → calendar, neighbours, lags, scaling → forecast, against windows of the panel through torch, at every site."""
    forecaster = Forecaster.load(project.ws.candidate("mlp"))
    windows = Windows(project.panel, forecaster.problem)
    predictor = Predictor.load(project.ws.published / "mini--traffic--h6-3" / "1.0.0", project.trust)
    for origin in (150, 204, 333, 397):
        torch_says = forecast_panel(forecaster, windows, np.array([origin]))[0, :, :, 0]
        answer = predictor.forecast(
            sample_request(predictor.problem, project.panel, sites=predictor.problem.sites, origin=origin)
        )
        bundle_says = np.array([answer["forecasts"][site]["traffic"] for site in predictor.problem.sites]).T
        np.testing.assert_allclose(bundle_says, torch_says, rtol=1e-4)


def test_int8_is_measured_and_offered_because_it_loses_little(project):
    done = project.published
    assert done.int8_offered
    assert done.mae_int8 <= 1.02 * done.mae_fp32
    assert done.int8_bytes < done.model_bytes
    folder = project.ws.published / done.name / done.semantic
    predictor = Predictor.load(folder, project.trust, precision="int8")
    assert predictor.forecast(project.request())["precision"] == "int8"


def test_publishing_again_changes_nothing(project):
    before = project.published
    assert publish(project.params, project.ws) == before
    assert store.versions(project.ws.published, before.name) == ["1.0.0"]


@pytest.mark.parametrize(
    ("fp32", "int8", "small_bytes", "offered", "reason"),
    [
        (10.0, 10.2, 50, True, "3 operations; MAE 10 becomes 10.2, 100 bytes become 50"),
        (10.0, 9.9, 50, True, "3 operations; MAE 10 becomes 9.9, 100 bytes become 50"),
        (10.0, 10.21, 50, False, "MAE 10 becomes 10.21, more than 2.0% worse (publish.max_int8_loss)"),
        (10.0, 10.0, 120, False, "MAE 10 becomes 10, but the file grows from 100 to 120 bytes: too little of it are weights"),
    ],
)
def test_int8_must_lose_little_and_be_smaller(fp32, int8, small_bytes, offered, reason):
    assert worth_offering(fp32, int8, 100, small_bytes, 0.02, "3 operations") == (offered, reason)


def test_int8_that_is_not_asked_for_is_not_made(project, tmp_path):
    ws = elsewhere(project, tmp_path)
    without = project.params.model_copy(update={"publish": project.params.publish.model_copy(update={"int8": False})})
    bare = publish(without, ws)
    assert (bare.mae_int8, bare.int8_bytes, bare.int8_offered) == (None, None, False)
    assert bare.int8_reason == "not asked for (publish.int8)"
    assert media.MODEL_INT8 not in verify(ws.bundle, project.trust).layers
    assert bare.semantic.startswith("0.0.0+")
    assert bare.latest  # nothing else was served


def test_a_challenger_that_lost_is_published_but_not_the_latest(project, tmp_path):
    ws = elsewhere(project, tmp_path, semantic="1.0.0")
    assert publish(project.params, ws).latest
    registered = Registered.read(ws.registration)
    registered.model_copy(update={"semantic": "1.1.0", "champion": False}).save(ws.registration)
    lost = publish(project.params, ws)
    assert (lost.semantic, lost.latest) == ("1.1.0", False)
    assert store.pointer(ws.published, lost.name).version == "1.0.0"
    assert store.serve_version(ws.published, lost.name, "1.1.0") == "1.1.0"
    assert unpublish(ws, lost.name, "1.1.0") == "1.0.0"


def test_without_a_registration_nobody_who_serves_is_replaced(project, tmp_path):
    ws = elsewhere(project, tmp_path, semantic="1.0.0")
    assert publish(project.params, ws).latest
    ws.registration.unlink()
    unregistered = publish(project.params, ws)
    assert unregistered.semantic.startswith("0.0.0+")
    assert not unregistered.latest
    assert store.pointer(ws.published, unregistered.name).version == "1.0.0"


def test_a_number_that_is_taken_by_other_content_gets_the_digest_added(project, tmp_path):
    ws = elsewhere(project, tmp_path, semantic="1.0.0")
    first = publish(project.params, ws)
    other = project.params.model_copy(update={"publish": project.params.publish.model_copy(update={"int8": False})})
    second = publish(other, ws)
    assert first.semantic == "1.0.0"
    assert second.semantic.startswith("1.0.0+")
    assert store.versions(ws.published, first.name) == ["1.0.0", second.semantic]


def test_a_request_is_made_from_the_last_rows_that_are_there(project):
    request = sample_of(project.ws, sites=("c4",))
    assert request["bundle"] == "mini--traffic--h6-3"
    assert request["time"] == "2013-11-03T17:40:00Z"  # 2013-10-31T23:00Z and 400 steps of 10 min
    assert set(request["history"]) == {f"c{i}" for i in range(9)}
    assert request["history"]["c4"]["traffic"][3] is None
    assert request["lags"]["c4"]["traffic"]["144"][-1] == pytest.approx(float(project.panel.values("traffic")[400 + 2 - 144, 4]))
    with pytest.raises(BundleError, match="nothing is published yet"):
        sample_of(replace(project.ws, root=project.ws.root / "empty"))


def elsewhere(project, folder, semantic=None):
    """The same run in another project, without what was published."""
    import shutil

    ws = replace(project.ws, root=folder)
    shutil.copytree(project.ws.run_folder, ws.run_folder, ignore=shutil.ignore_patterns("bundle", "publish", "registration.json"))
    shutil.copytree(project.ws.panel("mini"), ws.panel("mini"))
    shutil.copytree(project.ws.keys, ws.keys)
    weights = project.ws.run_folder / "publish" / "model.onnx"
    ws.onnx("mlp").parent.mkdir(parents=True)
    shutil.copy(weights, ws.onnx("mlp"))  # as scoring leaves it: not exported a second time
    if semantic:
        registered = Registered.read(project.ws.registration).model_copy(update={"semantic": semantic})
        registered.save(ws.registration)
    return ws
