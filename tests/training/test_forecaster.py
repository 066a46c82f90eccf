"""The forecaster: raw telemetry in, raw units out, stored without pickle, the same after a round trip."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import Windows
from cellwright.errors import TrainingError
from cellwright.forecaster import FILE, Forecaster, build, forecast_panel
from cellwright.training.candidates import resolve

INPUTS = ["site", "patch", "all"]


@pytest.fixture
def make(make_params, panel):
    def made(key="mlp", inputs="auto", scaler="standard", clip=None, **problem):
        params = make_params(problem={"inputs": inputs, **problem}, train={"scaler": scaler, "clip": clip})
        candidate = resolve(params, panel.schema, key)
        torch.manual_seed(0)
        forecaster = build(candidate, fit_scaler(panel, candidate.problem, scaler, (0, 300), clip)).eval()
        return forecaster, Windows(panel, candidate.problem)

    return made


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("scaler", ["standard", "robust", "log", "none"])
def test_persistence_gives_the_last_raw_value_back(make, panel, inputs, scaler):
    forecaster, windows = make("persistence", inputs, scaler)
    origins = np.arange(50, 90)
    forecast = forecast_panel(forecaster, windows, origins, batch=64)
    assert forecast.shape == (40, 3, 4, 1)
    last = panel.values("traffic")[origins - 1]
    np.testing.assert_allclose(forecast[..., 0], np.repeat(last[:, None], 3, axis=1), rtol=2e-5, atol=1e-3)


def test_scaled_inputs_have_mean_0_and_deviation_1_a_site(make):
    forecaster, windows = make("mlp", "all")
    raw = windows.raw(np.arange(6, 301), np.zeros(295, np.int64))
    x = forecaster.normalise(torch.from_numpy(raw.history), torch.zeros(295, dtype=torch.int64))[:, -1, :, 0]
    assert x.mean(dim=0).abs().max() < 0.05
    assert (x.std(dim=0) - 1).abs().max() < 0.05


def test_a_target_is_scaled_as_the_forecast_is_scaled_back(make):
    for inputs in INPUTS:
        for scaler in ("standard", "log"):
            forecaster, windows = make("mlp", inputs, scaler)
            sites = np.array([0, 1, 2, 3])
            raw = windows.raw(np.arange(60, 64), sites)
            y = forecaster.normalise_target(torch.from_numpy(raw.target), torch.from_numpy(sites))
            back = forecaster.denormalise(y.unsqueeze(-1), torch.from_numpy(sites)).squeeze(-1)
            np.testing.assert_allclose(back.numpy(), raw.target, rtol=1e-4)


def test_missing_inputs_count_as_usual_ones_and_clipping_holds(make):
    forecaster, windows = make("mlp", "patch", clip=1.5)
    raw = windows.raw(np.array([35]), np.array([0]))  # rows 30 to 32 of site 1 are missing
    x = forecaster.normalise(torch.from_numpy(raw.history), torch.zeros(1, dtype=torch.int64))
    assert torch.isfinite(x).all()
    assert x[0, 1:4, 5].tolist() == [[0, 0]] * 3  # site 1 lies to the right of the centre; valid is 0
    assert x[0, 4, 5, 1] == 1
    assert x[..., 0].abs().max() <= 1.5


@pytest.mark.parametrize("inputs", INPUTS)
def test_every_site_is_forecast_as_if_asked_alone(make, inputs):
    forecaster, windows = make("mlp", inputs)
    origins = np.arange(100, 107)
    whole = forecast_panel(forecaster, windows, origins, batch=5)
    raw = windows.raw(origins[2:3], np.array([3]))
    with torch.inference_mode():
        alone = forecaster(torch.from_numpy(raw.history), torch.from_numpy(raw.known), torch.tensor([3]))
    np.testing.assert_allclose(whole[2, :, 3], alone[0, :, -1, :, 0].numpy(), rtol=1e-5)


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_round_trip_is_exact(make, tmp_path, inputs):
    forecaster, windows = make("lstm", inputs, "log", clip=4.0, lags=[48])
    forecaster.save(tmp_path)
    again = Forecaster.load(tmp_path)
    assert again.problem == forecaster.problem
    assert again.network.options == forecaster.network.options
    assert again.sites == ("a", "b", "c", "d")
    origins = np.arange(60, 100)
    np.testing.assert_array_equal(
        forecast_panel(forecaster, windows, origins), forecast_panel(again, windows, origins), strict=True
    )


def test_the_file_says_what_it_is_without_pickle(make, tmp_path):
    with safe_open(make()[0].save(tmp_path), framework="pt") as file:
        about = json.loads(file.metadata()["cellwright"])
    assert (about["model"], about["scaler"], about["options"]["hidden"]) == ("mlp", "standard", 128)


def test_a_damaged_or_missing_file_is_a_clear_error(make, tmp_path):
    with pytest.raises(TrainingError, match="missing or damaged"):
        Forecaster.load(tmp_path)
    make()[0].save(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(TrainingError, match="missing or damaged"):
        Forecaster.load(tmp_path)


def test_weights_of_another_form_are_refused(make, tmp_path):
    forecaster, _ = make()
    forecaster.about["options"]["hidden"] = 64
    forecaster.save(tmp_path)
    with pytest.raises(TrainingError, match="another form of model 'mlp'"):
        Forecaster.load(tmp_path)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_it_exports_and_onnx_runtime_answers_alike(make, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    forecaster, windows = make("mlp", "patch", "log", clip=5.0)
    raw = windows.raw(np.array([35, 60, 61]), np.array([0, 1, 3]))
    tensors = (torch.from_numpy(raw.history), torch.from_numpy(raw.known), torch.tensor([0, 1, 3]))
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(forecaster, tensors, dynamo=True, dynamic_shapes=({0: batch},) * 3, verbose=False)
    program.save(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    feeds = {i.name: t.numpy()[1:] for i, t in zip(session.get_inputs(), tensors, strict=True)}
    with torch.inference_mode():
        np.testing.assert_allclose(session.run(None, feeds)[0], forecaster(*tensors)[1:].numpy(), rtol=1e-4)
