"""The step `scorecard` on candidates that were really trained, scored and ranked."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cellwright.data.windows import Windows
from cellwright.errors import TrainingError
from cellwright.kpis import inputs_for_90
from cellwright.kpis._bed import Bed, forecast, mae_of, spread
from cellwright.kpis._contract import names
from cellwright.kpis._probe_robustness import gappy, in_other_units, noisy, outage, shifted
from cellwright.kpis._probes import PROBES, probe_of
from cellwright.kpis._retrained import RECORD, Judged, Retrained, again
from cellwright.panel import Panel
from cellwright.registry.trace import kpi_points
from cellwright.report import record as records
from cellwright.report.scorecard import markdown, table
from cellwright.results import Leaderboard, Probed, Scorecard
from cellwright.steps.rank import rank
from cellwright.steps.report import report
from cellwright.steps.scorecard import finalists, scorecard
from cellwright.steps.train import train
from cellwright.workspace import Workspace

CARD = {"finalists": 2, "windows": 300, "budget_s": 1.0, "attribution_windows": 16, "attribution_steps": 16}


@pytest.fixture(scope="module")
def carded(scored_run, make_params, tmp_path_factory) -> tuple[Workspace, Scorecard, list[str]]:
    """A copy of the scored run: ranked and probed, with what was said meanwhile."""
    root = shutil.copytree(scored_run.root, tmp_path_factory.mktemp("carded") / "project")
    ws, params, lines = replace(scored_run, root=root), make_params(scorecard=CARD), []
    rank(params, ws)
    return ws, scorecard(params, ws, on_progress=lines.append), lines


def of(card: Scorecard, key: str) -> Probed:
    return next(finalist for finalist in card.finalists if finalist.key == key)


@pytest.fixture
def own(carded, tmp_path) -> Workspace:
    return replace(carded[0], root=shutil.copytree(carded[0].root, tmp_path / "project"))


@pytest.fixture
def bed(carded, make_params) -> Bed:
    return Bed.open(make_params(scorecard=CARD), carded[0], "mlp")


def test_every_finalist_has_every_dear_kpi_or_a_reason(carded):
    ws, card, lines = carded
    board = Leaderboard.read(ws.leaderboard)
    assert Scorecard.read(ws.scorecard) == card
    assert [f.key for f in card.finalists] == finalists(board, 2)
    assert card.finalists[0].key == board.choice.key
    assert len(lines) == 2
    assert all(re.match(r".+: MAE noise [+-]\d+%, missing values", line) for line in lines)
    for finalist in card.finalists:
        assert set(finalist.kpis) == set(names("probe"))
        assert set(finalist.reasons) == {k for k, v in finalist.kpis.items() if v is None}
        assert finalist.reasons["generalisation_transfer"] == "scorecard.transfer_to names no other data set"
        assert finalist.kpis["robustness_units"] > 10
        assert finalist.kpis["units_noticed"] == 1
        assert finalist.kpis["return_per_site_day"] > 0
        assert 0 < finalist.kpis["inputs_for_90"] <= 1
    assert {f.kpis["rank_stability"] for f in card.finalists} <= {-1.0, 1.0}  # two of them on two folds


def test_what_is_known_is_not_probed_again_and_what_is_missing_alone_is(own, carded, make_params):
    params, folder = make_params(scorecard=CARD), own.probes("mlp")
    files = sorted(folder.rglob("*.json"))
    assert {f.stem for f in folder.glob("*.json")} == set(PROBES)
    assert {f.parent.name for f in files if f.name == "retrained.json"} == {"seed-0", "seed-1", "fold-0", "fold-1", "area"}
    before = {f: f.stat().st_mtime_ns for f in files}
    lines: list[str] = []
    assert scorecard(params, own, on_progress=lines.append) == carded[1]
    assert lines == []
    (folder / "retraining.json").unlink()
    (folder / "retrained" / "fold-1" / "retrained.json").unlink()
    again = scorecard(params, own, on_progress=lines.append)
    assert len(lines) == 1
    touched = {f.relative_to(folder).as_posix() for f in files if f.stat().st_mtime_ns != before[f]}
    assert touched == {"retraining.json", "retrained/fold-1/retrained.json"}
    assert of(again, "mlp").kpis["seed_spread"] == of(carded[1], "mlp").kpis["seed_spread"]


def test_a_finalist_that_cannot_be_probed_is_listed_and_stops_nobody_else(own, make_params):
    (own.candidate("mlp") / "forecaster.safetensors").write_bytes(b"half a file")
    card = scorecard(make_params(scorecard=CARD), own)
    broken, whole = (next(f for f in card.finalists if (f.key == "mlp") is wanted) for wanted in (True, False))
    assert set(broken.kpis.values()) == {None}
    assert "missing or damaged" in broken.reasons["robustness_noise"]
    assert whole.kpis["robustness_noise"] is not None
    assert whole.reasons["rank_stability"].startswith("no other finalist")


def test_without_a_budget_nothing_is_retrained_and_without_finalists_nothing_is_probed(own, make_params):
    shutil.rmtree(own.run_folder / "probes")
    card = scorecard(make_params(scorecard={**CARD, "budget_s": 0, "finalists": 1}), own)
    assert card.finalists[0].kpis["seed_spread"] is None
    assert "scorecard.budget_s is 0" in card.finalists[0].reasons["seed_spread"]
    assert not list(own.probes("mlp").rglob("retrained.json"))
    assert scorecard(make_params(scorecard={"finalists": 0}), own).finalists == []


def test_another_data_set_is_forecast_with_its_own_scale(own, make_params):
    here = Panel.open(own.panel("small"))
    louder = here.schema.model_copy(update={"dataset": "louder"})
    Panel.from_arrays(louder, {"traffic": here.values("traffic") * 1000}).save(own.panel("louder"))
    slower = here.schema.model_copy(update={"dataset": "slower", "cadence_s": 900.0})
    Panel.from_arrays(slower, {"traffic": here.values("traffic")}).save(own.panel("slower"))

    def card(name: str):
        return of(scorecard(make_params(scorecard={**CARD, "budget_s": 0, "transfer_to": name}), own), "mlp")

    home, away = card("small"), card("louder")
    assert away.kpis["generalisation_transfer"] == pytest.approx(home.kpis["generalisation_transfer"], rel=1e-3)
    assert away.kpis["generalisation_transfer"] < 1.2
    assert "name one of the same cadence" in card("slower").reasons["generalisation_transfer"]
    assert "'nowhere' is not here" in card("nowhere").reasons["generalisation_transfer"]
    Panel.from_arrays(louder, {"traffic": here.values("traffic") ** 2}).save(own.panel("louder"))
    assert card("louder").kpis["generalisation_transfer"] != away.kpis["generalisation_transfer"]  # its data are others now


def trained_without_positions(tmp_path, panel: Panel, params) -> Bed:
    """An mlp of the nine sites, none of which says where it lies."""
    ws = Workspace(tmp_path, "run")
    values = {"traffic": panel.values("traffic")}
    Panel.from_arrays(panel.schema.model_copy(update={"grid": None}), values).save(ws.panel("small"))
    train(params, ws, "mlp")
    return Bed.open(params, ws, "mlp")


def test_neighbours_by_correlation_are_found_anew_on_other_sites(tmp_path, small_panel, make_params):
    card = {**CARD, "folds": 0, "transfer_to": "small"}
    bed = trained_without_positions(tmp_path, small_panel, make_params(problem={"neighbours": 3}, scorecard=card))
    found = probe_of("retraining").probe(bed)
    assert found.reasons.keys() == {"rank_stability"}
    assert found.evidence.area_mae > 0
    assert found.evidence.area_whole_mae > 0
    assert probe_of("transfer").probe(bed).evidence.transfer_mae == pytest.approx(mae_of(bed.forecaster, bed.test))


def test_halves_that_are_too_small_for_the_means_leave_the_other_retrainings_alone(tmp_path, small_panel, make_params):
    params = make_params(problem={"neighbours": 6}, scorecard={**CARD, "folds": 0})
    bed = trained_without_positions(tmp_path, small_panel, params)
    found = probe_of("retraining").probe(bed)
    assert len(found.evidence.seed_maes) == 2
    assert found.evidence.area_mae is None
    assert "half of the area has 4 sites" in found.reasons["generalisation_area"]
    first = Retrained.read(bed.ws.probes("mlp") / "retrained" / "seed-0" / RECORD)
    assert first.maes.keys() == {"validation"}
    assert first.reasons["there"].startswith("half of the area has 5 sites")


def test_a_series_that_changed_is_trained_with_again(tmp_path, small_panel, make_params):
    series = tmp_path / "weather.csv"
    series.write_text("time,temperature\n0,1\n60000000,2\n")
    params = make_params(problem={"exogenous": [f"{series}:temperature"]}, scorecard=CARD)
    bed, trainings = trained_without_positions(tmp_path, small_panel, params), []

    def judge(forecaster) -> Judged:
        trainings.append(forecaster)
        return Judged({"validation": 1.0})

    for _ in range(2):
        again(bed, 0.1)("seed-0", bed.candidate, bed.panel, bed.spans, judge)
    assert len(trainings) == 1
    series.write_text("time,temperature\n0,1\n60000000,3\n")
    again(bed, 0.1)("seed-0", bed.candidate, bed.panel, bed.spans, judge)
    assert len(trainings) == 2


def test_windows_are_spread_evenly_and_alike_each_time(bed):
    windows = Windows(bed.panel, bed.forecaster.problem)
    origins, places = spread(windows, *bed.spans.test, 30, np.random.default_rng(1))
    again, _ = spread(windows, *bed.spans.test, 30, np.random.default_rng(1))
    assert (origins == again).all()
    assert len(origins) == 30
    assert (np.diff(origins) >= 0).all()
    assert origins[0] < bed.spans.test.start + 12
    assert origins[-1] > bed.spans.test.stop - 12
    assert len(set(places.tolist())) > 4


def test_disturbances_are_what_they_say(bed):
    sample, rng = bed.test, np.random.default_rng(1)
    there = ~np.isnan(sample.history)
    valid = bed.forecaster.problem.features.index("valid")
    noise = (noisy(bed, sample, rng).history - sample.history)[..., 0][there[..., 0]]
    deviation = bed.panel.values("traffic")[: bed.spans.train.stop].std(axis=0).mean()
    assert noise.std() == pytest.approx(0.1 * deviation, rel=0.05)
    holes = gappy(bed, sample, rng)
    assert np.isnan(holes.history[..., 0][there[..., 0]]).mean() == pytest.approx(0.1, abs=0.02)
    assert (holes.history[..., valid] == ~np.isnan(holes.history[..., 0])).all()
    assert shifted(bed, sample).target == pytest.approx(sample.target * 1.2, nan_ok=True)
    assert in_other_units(bed, sample).history[..., 0] == pytest.approx(sample.history[..., 0] * 1000, nan_ok=True)
    assert (in_other_units(bed, sample).history[..., valid] == sample.history[..., valid]).all()


def test_an_outage_takes_the_last_hour_of_the_site_or_of_its_neighbours(bed):
    sample, found = bed.test, outage(bed, bed.test)
    assert set(found) == {f"{what} is read of {whose}" for what in ("0", "nothing") for whose in ("the site", "its neighbours")}
    lost = found["nothing is read of the site"].history  # an hour is the whole history: 6 steps of 10 minutes
    assert np.isnan(lost[:, :, 4, 0]).all()
    assert np.array_equal(np.delete(lost, 4, axis=2), np.delete(sample.history, 4, axis=2), equal_nan=True)
    zero = found["0 is read of its neighbours"].history
    assert np.array_equal(zero[:, :, 4], sample.history[:, :, 4], equal_nan=True)
    assert set(np.unique(np.delete(zero[..., 0], 4, axis=2)[~np.isnan(np.delete(sample.history[..., 0], 4, axis=2))])) == {0.0}


def test_persistence_leans_on_the_newest_value_and_on_nothing_else(carded, make_params):
    bed = Bed.open(make_params(scorecard=CARD), carded[0], "persistence")
    tables = {t.of: dict(zip(t.names, t.values, strict=True)) for t in probe_of("importance").probe(bed).importance}
    assert list(tables["step"]) == [f"−{k}" for k in range(1, 7)]
    assert [name for name, value in tables["step"].items() if abs(value) > 1e-9] == ["−1"]
    assert [name for name, value in tables["feature"].items() if abs(value) > 1e-9] == ["traffic"]
    assert set(tables["feature"]) == {"traffic", "calendar"}
    assert list(tables["site"]) == list(bed.panel.schema.sites)  # it takes all sites at once
    assert inputs_for_90.compute(probe_of("gradients").probe(bed).evidence) == 1 / (6 * 9)


def test_the_sample_is_forecast_as_the_score_was(bed, carded):
    from cellwright.kpis._spans import read_arrays

    kept = read_arrays(carded[0].score("mlp", ".npz"))["test_forecast"]
    origins = read_arrays(carded[0].scores / "truth.npz")["test_origins"]
    windows = Windows(bed.panel, bed.forecaster.problem)
    drawn, places = spread(windows, *bed.spans.test, 300, bed.rng)
    found = forecast(bed.forecaster, bed.test)[:, :, 0]
    assert found == pytest.approx(kept[np.searchsorted(origins, drawn), :, places], rel=1e-4)
    assert mae_of(bed.forecaster, bed.test) > 0


def test_the_report_and_mlflow_are_told(carded, make_params):
    ws, card, _ = carded
    page = report(make_params(scorecard=CARD), ws).read_text()
    assert 'id="scorecard"' in page
    assert "growth of MAE when every input is blurred by noise" in page
    assert json.loads(re.search(r'id="charts">(.*?)</script>', page, re.S)[1])["importance"]["importance-step"]
    record = records.read(ws)
    shown = table(card, record)
    assert [g.title for g in shown.groups] == ["robustness", "stability", "generalisation", "interpretability", "cost and return"]
    assert "Latency jitter" in {line.title for g in shown.groups for line in g.lines}
    points = {p.name: p.value for p in kpi_points(record.champion, 0)}
    assert points["scorecard/inputs_for_90"] == card.finalists[0].kpis["inputs_for_90"]
    assert "scorecard/generalisation_transfer" not in points
    assert "| **stability** |" in markdown(card)
    assert "names no other data set" in markdown(card)


def test_a_network_of_all_sites_says_why_it_has_no_other_area(carded, make_params):
    bed = Bed.open(make_params(scorecard={**CARD, "transfer_to": "small"}), carded[0], "persistence")
    found = probe_of("retraining").probe(bed)
    assert "it sees all sites at once" in found.reasons["generalisation_area"]
    assert len(set(found.evidence.seed_maes)) == 1  # a closed form
    assert len(found.evidence.fold_maes["persistence"]) == 2
    with pytest.raises(TrainingError, match="it sees all sites at once"):
        probe_of("transfer").probe(bed)
    assert "every site" in probe_of("robustness").probe(bed).notes["robustness_outage"]
