"""Registering real runs: what MLflow then knows, that twice is once, and who is champion."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellwright.errors import RegistryError, UnknownName
from cellwright.forecaster import Forecaster
from cellwright.registry.champions import champion, list_champions, present, promote, rollback
from cellwright.registry.contest import CannotCompare
from cellwright.registry.match import match
from cellwright.registry.runs import log_benchmark
from cellwright.registry.store import reading, writing
from cellwright.report import record as records
from cellwright.results import Registered, Trained
from cellwright.steps.register import register
from cellwright.workspace import Workspace

MODEL = "tiny--traffic--h4-2"


@pytest.fixture
def weak(project, store) -> Workspace:
    return Workspace(project, "weak")


@pytest.fixture
def strong(project, store) -> Workspace:
    return Workspace(project, "strong")


def weak_params(make_params):
    return make_params("persistence")


def strong_params(make_params):
    return make_params("ridge", "mlp")


def runs(ws: Workspace, kind: str) -> list:
    with reading(ws) as client:
        experiment = client.get_experiment_by_name("tiny · traffic · 4→2")
        return client.search_runs([experiment.experiment_id], filter_string=f"tags.kind = '{kind}'")


def test_the_first_run_becomes_champion_and_is_told_in_full(strong, make_params, capfd):
    capfd.readouterr()
    found = register(strong_params(make_params), strong, promote=True)
    assert capfd.readouterr() == ("", "")
    assert (found.model_name, found.version, found.semantic, found.champion) == (MODEL, "1", "1.0.0", True)
    assert Registered.read(strong.registration) == found
    board = records.read(strong).board
    (parent,) = runs(strong, "benchmark")
    children = {run.data.tags["candidate"]: run for run in runs(strong, "candidate")}
    assert set(children) == {"ridge", "mlp"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id} == {found.run_id}
    mlp = children["mlp"]
    assert mlp.info.run_name == "MLP"
    assert mlp.data.params["settings.batch"] == "64"
    assert mlp.data.metrics["test/mae"] == pytest.approx(board.rows[0].kpis["mae"])
    assert mlp.data.tags["data.version"] == parent.data.tags["data.version"] == board.data.hash
    (dataset,) = mlp.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("tiny", board.data.hash)
    assert parent.data.params["problem.history"] == "4"


def test_epochs_and_system_metrics_have_steps(strong, make_params):
    register(strong_params(make_params), strong, promote=True)
    run = next(run for run in runs(strong, "candidate") if run.data.tags["candidate"] == "mlp")
    with reading(strong) as client:
        losses = client.get_metric_history(run.info.run_id, "training/validation_loss")
        memory = client.get_metric_history(run.info.run_id, "system/process_memory_megabytes")
    told = records.read(strong).candidate("mlp").history
    assert [(m.step, m.value) for m in losses] == [(e["epoch"], pytest.approx(e["validation_loss"])) for e in told]
    assert all(m.value > 10 for m in memory)


def test_what_is_registered_serves_without_pickle(strong, make_params, tmp_path):
    import mlflow.onnx
    import onnxruntime

    register(strong_params(make_params), strong, promote=True)
    with reading(strong) as client:
        version = client.get_model_version_by_alias(MODEL, "champion")
        location = Path(
            client.get_logged_model(version.source.removeprefix("models:/")).artifact_location.removeprefix("file://")
        )
    files = {path.relative_to(location).as_posix() for path in location.rglob("*") if path.is_file()}
    assert {"MLmodel", "model.onnx", "model-card.md", "forecaster/forecaster.safetensors"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    session = onnxruntime.InferenceSession(mlflow.onnx.load_model(str(location)).SerializeToString())
    forecaster = Forecaster.load(location / "forecaster")
    problem = forecaster.problem
    shapes = {i.name: i.shape[1:] for i in session.get_inputs()}
    assert shapes["history"] == [problem.history, problem.nodes, len(problem.features)]
    assert "Licence: CC0 1.0" in version.description
    assert version.tags["semantic"] == "1.0.0"


def test_registering_again_changes_nothing(strong, make_params):
    first = register(strong_params(make_params), strong, promote=True)
    again = register(strong_params(make_params), strong, promote=True)
    assert replace_reason(again) == replace_reason(first)
    assert len(runs(strong, "benchmark")) == 1
    assert len(runs(strong, "candidate")) == 2
    assert list_champions(strong)[0].versions == 1


def replace_reason(found: Registered) -> Registered:
    return found.model_copy(update={"reason": ""})


def test_an_interrupted_registration_is_continued(strong, make_params):
    settings = strong_params(make_params)
    with writing(strong) as client:
        logged = log_benchmark(client, settings, strong, records.read(strong))
        client.update_run(logged.candidates["mlp"], status="RUNNING")
        client.update_run(logged.run_id, status="RUNNING")
    found = register(settings, strong, promote=True)
    assert found.run_id == logged.run_id
    assert {run.info.run_id for run in runs(strong, "candidate")} == set(logged.candidates.values())
    assert {run.info.status for run in runs(strong, "candidate")} == {"FINISHED"}


def test_the_alias_moves_only_to_who_beats_the_champion_and_can_be_rolled_back(weak, strong, make_params):
    assert register(weak_params(make_params), weak, promote=True).champion
    better = register(strong_params(make_params), strong, promote=True)
    assert (better.champion, better.version, better.semantic) == (True, "2", "1.1.0")
    assert "more accurate on the validation span" in better.reason
    worse = register(weak_params(make_params), weak, promote=True)
    assert (worse.champion, worse.version) == (False, "1")
    assert "less accurate" in worse.reason
    (now,) = list_champions(strong)
    assert (now.version, now.challenger, now.model, now.versions) == ("2", "1", "MLP", 2)
    assert now.test_mae is not None
    assert now.test_mae.endswith("Mbit/s")
    assert rollback(strong, MODEL).version == "1"
    with pytest.raises(RegistryError, match="had no champion before"):
        rollback(strong, MODEL)
    assert promote(strong, MODEL, "2").version == "2"
    assert rollback(strong, MODEL).version == "1"


def test_without_promotion_a_version_is_a_challenger(strong, make_params):
    found = register(strong_params(make_params), strong, promote=False)
    assert (found.version, found.champion) == ("1", False)
    (model,) = list_champions(strong)
    assert (model.version, model.challenger) == (None, "1")
    with pytest.raises(RegistryError, match="has no champion yet"):
        champion(strong, MODEL)


def test_the_champions_forecaster_can_be_fetched_and_forecasts_as_before(strong, make_params):
    register(strong_params(make_params), strong, promote=True)
    folder = champion(strong, MODEL)
    assert present(strong_params(make_params), strong).folder == folder
    fetched, own = Forecaster.load(folder), Forecaster.load(strong.candidate("mlp"))
    for name, tensor in own.state_dict().items():
        np.testing.assert_array_equal(fetched.state_dict()[name].numpy(), tensor.numpy())


def test_who_knows_other_sites_is_not_compared(strong, make_params):
    settings = strong_params(make_params)
    register(settings, strong, promote=True)
    found = records.read(strong)
    grown = found.schema.model_copy(update={"sites": (*found.schema.sites, "new")})
    with pytest.raises(CannotCompare, match="knows 4 sites, this run 5"):
        match(settings, strong, replace(found, schema=grown), "1", champion(strong, MODEL))


@pytest.mark.parametrize(("rows", "span"), [((0, 385), "validation span is rows 384"), ((432, 480), "test span is rows 432")])
def test_who_was_trained_on_the_rows_it_is_judged_on_is_not_compared(strong, make_params, tmp_path, rows, span):
    settings = strong_params(make_params)
    register(settings, strong, promote=True)
    folder = Path(shutil.copytree(champion(strong, MODEL), tmp_path / "seen"))
    trained = Trained.read(folder / "candidate.json")
    assert trained.train_rows == (0, 384)
    trained.model_copy(update={"train_rows": rows}).save(folder / "candidate.json")
    with pytest.raises(CannotCompare, match=rf"was trained on rows {rows[0]} – {rows[1]}, this run's {span}"):
        match(settings, strong, records.read(strong), "1", folder)
    trained.model_copy(update={"train_rows": None}).save(folder / "candidate.json")  # as records were before
    assert match(settings, strong, records.read(strong), "1", folder).validation.tie


def test_a_match_against_oneself_is_a_tie_without_width(strong, make_params):
    settings = strong_params(make_params)
    register(settings, strong, promote=True)
    contest = match(settings, strong, records.read(strong), "1", champion(strong, MODEL))
    assert contest.validation.difference == pytest.approx(0, abs=1e-5)
    assert contest.champion_mae == pytest.approx(records.read(strong).board.rows[0].validation_mae, rel=1e-5)


def test_names_that_are_not_there_say_which_are(strong, make_params):
    register(strong_params(make_params), strong, promote=True)
    with pytest.raises(UnknownName, match=f"There are: {MODEL}"):
        champion(strong, "tiny--traffic--h4")
    with pytest.raises(UnknownName, match="There are: 1"):
        promote(strong, MODEL, "7")


def test_an_area_has_a_model_of_its_own(strong, make_params):
    settings = strong_params(make_params)
    register(settings, strong, promote=True)
    north = register(settings, strong, promote=True, area="north")
    assert north.model_name == f"{MODEL}--north"
    assert north.champion
    assert [c.model_name for c in list_champions(strong)] == [MODEL, f"{MODEL}--north"]


def test_before_anything_is_registered_there_is_no_champion(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert list_champions(Workspace(tmp_path)) == ()
    assert not (tmp_path / ".cellwright").exists()
