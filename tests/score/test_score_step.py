"""The step `score` on candidates that were really trained."""

import json
import shutil

import numpy as np
import pytest

from cellwright.errors import ParamsError, TrainingError, UnknownName
from cellwright.kpis._contract import names
from cellwright.kpis._macs import count_macs
from cellwright.kpis._spans import read_arrays
from cellwright.results import Failure, Leaderboard, Scored, Trained
from cellwright.steps.rank import rank
from cellwright.steps.score import score
from cellwright.workspace import Workspace

MODELS = ["persistence", "ridge", "mlp"]


@pytest.fixture
def copy(scored_run: Workspace, tmp_path) -> Workspace:
    """A run of its own to spoil."""
    shutil.copytree(scored_run.root, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path, scored_run.run)


def test_every_candidate_has_a_score_with_every_kpi(scored_run):
    for key in MODELS:
        found = Scored.read(scored_run.score(key))
        assert set(found.validation) == set(found.test) == set(names("forecast"))
        assert set(found.cost) == set(names("cost"))
        absent = {name for name, value in {**found.test, **found.cost}.items() if value is None}
        assert absent == {"ssim"}  # the grid of 3 × 3 is smaller than its window
        assert len(found.mae_by_step) == 3
        assert len(found.mae_by_site) == 9


def test_errors_are_those_of_the_arrays_that_are_kept_and_masked_targets_do_not_count(scored_run):
    truth, kept = (read_arrays(p) for p in (scored_run.scores / "truth.npz", scored_run.score("persistence", ".npz")))
    found = Scored.read(scored_run.score("persistence"))
    assert truth["test_truth"].shape == (70, 3, 9, 1)  # 72 rows, horizon 3
    assert (~truth["test_mask"]).sum(axis=(0, 1)).ravel().tolist() == [0, 0, 0, 0, 5 * 3, 0, 0, 0, 0]  # five masked rows
    for span, kpis in (("validation", found.validation), ("test", found.test)):
        error = np.abs(kept[f"{span}_forecast"].astype(float) - truth[f"{span}_truth"])[truth[f"{span}_mask"]]
        assert kpis["mae"] == pytest.approx(error.mean(), rel=1e-6)
    assert found.test["mae"] == pytest.approx(np.mean(found.mae_by_step))


def test_persistence_forecasts_the_last_value_of_the_right_window(scored_run, small_panel):
    truth, kept = (read_arrays(p) for p in (scored_run.scores / "truth.npz", scored_run.score("persistence", ".npz")))
    traffic = small_panel.values("traffic")
    last, there = traffic[truth["test_origins"] - 1], truth["test_mask"][:, 0, :, 0]
    measured = np.isfinite(last)
    assert kept["test_forecast"][:, 2, :, 0][measured] == pytest.approx(last[measured], rel=1e-5)
    assert truth["test_truth"][:, 0, :, 0][there] == pytest.approx(traffic[truth["test_origins"]][there])


def test_pairs_are_against_ridge_and_the_best_and_never_against_itself(scored_run):
    found = {key: Scored.read(scored_run.score(key)) for key in MODELS}
    best = min(MODELS, key=lambda key: found[key].validation["mae"])
    for key, scored in found.items():
        others = [pair.other for pair in scored.validation_pairs]
        assert set(others) == {"ridge", best} - {key}
        assert [pair.other for pair in scored.test_pairs] == others
        for pair in scored.validation_pairs:
            assert pair.difference == pytest.approx(scored.validation["mae"] - found[pair.other].validation["mae"], rel=1e-6)
            assert pair.low <= pair.difference <= pair.high
            assert pair.block_steps == 35  # a day of 144 steps is more than half of 70 windows


def test_macs_are_those_of_the_matrix_products(scored_run):
    assert Scored.read(scored_run.score("persistence")).cost["macs"] == 0
    # 6 steps × 9 sites and 24 hours, to 3 steps × 9 sites
    assert Scored.read(scored_run.score("ridge")).cost["macs"] == (6 * 9 + 24) * 27


def test_macs_of_fused_layers_are_counted():
    import torch
    from torch import nn

    x = torch.zeros(1, 6, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert count_macs(lambda: nn.LSTM(8, 4, batch_first=True)(x)) == 6 * 4 * 4 * (8 + 4)
    assert count_macs(lambda: layer(x)) == 6 * 8 * 24 + 2 * 6 * 6 * 8 + 6 * 8 * 8 + 2 * 6 * 8 * 16


def test_sources_tell_what_is_not_measured_and_finalists_are_measured_serially(scored_run, make_params):
    board = rank(make_params(), scored_run)
    finalists = {board.choice.key, *board.choice.similar}
    for key in MODELS:
        sources = Scored.read(scored_run.score(key)).sources
        assert sources["energy_per_1000_j"] == "modelled"
        assert sources["train_energy_j"] == "modelled: apportioned by CPU-seconds" or key in finalists
        assert ("serially" in sources["train_energy_j"]) == (key in finalists)
        assert "mase" not in sources  # five days: scaled by the seasonal naive forecast


def test_what_is_scored_already_is_not_scored_again(copy, make_params):
    lines: list[str] = []
    before = {key: copy.score(key).read_bytes() for key in MODELS}
    onnx = copy.onnx("mlp").stat().st_mtime_ns
    score(make_params(), copy, on_progress=lines.append)
    assert lines == []
    assert {key: copy.score(key).read_bytes() for key in MODELS} == before
    assert copy.onnx("mlp").stat().st_mtime_ns == onnx


def test_a_damaged_candidate_is_listed_with_its_reason_and_stops_nobody_else(copy, make_params):
    (copy.candidate("mlp") / "forecaster.safetensors").write_bytes(b"half a file")
    card = copy.candidate("persistence") / "candidate.json"
    failed = Trained.read(card).model_copy(update={"status": "failed", "reason": "the train loss of epoch 2 is nan"})
    failed.save(card)
    scored = score(make_params(), copy)
    assert [s.key for s in scored] == ["ridge"]
    assert "missing or damaged" in Failure.read(copy.failed_score("mlp")).reason
    board = rank(make_params(), copy)
    assert {f.key: f.reason for f in board.failures}["persistence"] == "the train loss of epoch 2 is nan"
    assert {row.key for row in board.rows} == {"ridge"}


def test_when_nobody_can_be_scored_every_reason_is_told(copy, make_params):
    shutil.rmtree(copy.candidate("x").parent)
    with pytest.raises(TrainingError, match=r"no candidate could be scored.*mlp: .*candidate.json is missing"):
        score(make_params(), copy)
    with pytest.raises(TrainingError, match="no candidate has a score"):
        rank(make_params(), copy)


def test_the_leaderboard_ranks_chooses_and_is_kept(scored_run, make_params):
    board = rank(make_params(), scored_run)
    assert Leaderboard.read(scored_run.leaderboard) == board
    assert board.rows[0].key == board.choice.key
    assert [row.rank for row in board.rows] == [1, 2, 3]
    assert (board.unit, board.test_windows, board.horizon) == ("Mbit/s", 70, 3)
    assert board.kpi_units["mae"] == "Mbit/s"
    assert board.kpi_units["cost_train"] == "EUR"
    assert next(iter(board.kpi_titles)) == "mae"
    assert board.noise_floor == {"traffic": 2.39}
    assert board.total_energy_j > 0
    assert board.energy_source == "modelled"
    assert {row.beats_ridge for row in board.rows if row.key == "ridge"} == {None}
    assert any(row.on_front for row in board.rows)
    best = min(board.rows, key=lambda row: row.validation_mae)
    assert best.on_front


def test_the_choice_does_not_look_at_the_test_span(copy, make_params):
    before = rank(make_params(), copy).choice
    for key in MODELS:
        path = copy.score(key, ".npz")
        arrays = read_arrays(path)
        arrays["test_forecast"] = np.random.default_rng(1).random(arrays["test_forecast"].shape).astype(np.float32) * 1e6
        np.savez(path, **arrays)
        content = json.loads(copy.score(key).read_text())
        content["test"] = dict.fromkeys(content["test"], -1.0)
        copy.score(key).write_text(json.dumps(content))
    assert rank(make_params(), copy).choice == before


def test_weights_of_an_unknown_kpi_are_refused(scored_run, make_params):
    with pytest.raises(UnknownName, match="Did you mean 'mae'"):
        rank(make_params(rank={"weights": {"maee": 1}}), scored_run)
    with pytest.raises(ParamsError, match="measured for the finalists alone"):
        rank(make_params(rank={"weights": {"robustness_noise": 1}}), scored_run)
