"""The leaderboard as a table in the terminal."""

import io

import pytest
from rich.console import Console

from cellwright.ranking.table import render
from cellwright.results import Choice, DataVersion, Failure, Leaderboard, Row

TITLES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "latency_p99_ms": "Latency p99",
    "train_energy_j": "Training energy",
    "bundle_bytes": "Bundle",
}
UNITS = {"mae": "Mbit/s", "rmse": "Mbit/s", "latency_p99_ms": "ms", "train_energy_j": "J", "bundle_bytes": "B"}


def row(rank: int, key: str, mae: float, **more) -> Row:
    kpis = {"mae": mae, "rmse": mae * 1.5, "latency_p99_ms": 0.4 * rank, "train_energy_j": 120.0 * rank, "bundle_bytes": 8e4}
    known = {"score": 1 / rank, "status": "converged", "beats_ridge": True, "on_front": False, "similar_to_champion": False}
    return Row(rank=rank, key=key, title=key.upper(), kpis=kpis, validation_mae=mae, **{**known, **more})


def board(**changes) -> Leaderboard:
    base = Leaderboard(
        run="city-1",
        data=DataVersion(dataset="city", hash="x", rows=8640, sites=400, first="a", last="b"),
        targets=["traffic"],
        unit="Mbit/s",
        history=6,
        horizon=3,
        test_windows=862,
        noise_floor={"traffic": 3.425},
        rows=[
            row(1, "gru", 4.2, similar_to_champion=True, on_front=True),
            row(2, "tcn", 4.19, similar_to_champion=True, status="budget"),
            row(3, "ridge", 4.56, beats_ridge=None, status="closed form"),
            row(4, "persistence", 5.0, beats_ridge=False),
        ],
        failures=[Failure(key="patchtst", reason="the train loss of epoch 3 is nan [0]")],
        choice=Choice(key="gru", sentence="GRU wins: so [it] says.", similar=["tcn"], decided_by="energy", block_steps=144),
        kpi_titles=TITLES,
        kpi_units=UNITS,
        kpi_lower_is_better=dict.fromkeys(TITLES, True),
        total_energy_j=268.34,
        energy_source="modelled",
        total_s=225.4,
    )
    return base.model_copy(update=changes)


def shown(leaderboard: Leaderboard, width: int = 100, *, everything: bool = False) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(render(leaderboard, everything=everything))
    return out.getvalue().splitlines()


def test_it_fits_a_hundred_columns_and_shows_every_row_and_figure():
    lines = shown(board())
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    gru = next(line for line in lines if "GRU ★ ◆" in line)
    for figure in ("1.00", "4.200", "6.300", "converged"):
        assert figure in gru
    assert any("TCN ≈" in line and "budget" in line for line in lines)
    assert any("city: 400 sites, 6 steps in, 3 out, traffic; errors over 862 test windows" in line for line in lines)


def test_it_tells_champion_noise_floor_energy_and_failures():
    text = " ".join(" ".join(shown(board())).split())
    assert "champion GRU wins: so [it] says." in text
    assert "noise floor 3.425" in text
    assert "energy 268.3 J for all trainings, modelled; 225.4 s of training" in text
    assert "failed patchtst: the train loss of epoch 3 is nan [0]" in text
    assert "dim: does not beat ridge" in text


def test_energy_that_is_not_known_is_said_not_shown_as_zero():
    rows = [r.model_copy(update={"kpis": {**r.kpis, "train_energy_j": None}}) for r in board().rows]
    rows[0] = rows[0].model_copy(update={"kpis": {**rows[0].kpis, "train_energy_j": 3.0}})
    text = "\n".join(shown(board(rows=rows, total_energy_j=None, energy_source=None)))
    assert "not known: no meter and no model on this machine" in text
    assert next(line for line in text.splitlines() if "TCN" in line).count("–") == 1


@pytest.mark.parametrize("floor", [None, {"another": 1.0}])
def test_without_a_noise_floor_there_is_no_such_row(floor):
    assert not any("noise floor" in line for line in shown(board(noise_floor=floor)))


def test_all_kpis_stand_under_their_groups_when_they_are_asked_for():
    more = {"crps": ("CRPS", "accuracy"), "pit_error": ("PIT error", "calibration"), "train_s": ("Training time", "cost")}
    rows = [
        r.model_copy(update={"kpis": {**r.kpis, **dict.fromkeys(more, 0.125)}, "coverage": {"0.5": 0.51, "0.95": 0.938}})
        for r in board().rows
    ]
    full = board(
        rows=rows,
        kpi_titles=TITLES | {k: title for k, (title, _) in more.items()},
        kpi_units=UNITS | dict.fromkeys(more, "1"),
        kpi_lower_is_better=dict.fromkeys([*TITLES, *more], True),
        kpi_groups=dict.fromkeys(TITLES, "accuracy") | {k: group for k, (_, group) in more.items()},
    )
    brief, lines = shown(full), shown(full, everything=True)
    assert not any("PIT error" in line for line in brief)
    assert max(map(len, lines)) <= 100
    headings = [line.strip() for line in lines if line.strip() in ("accuracy", "calibration", "cost")]
    assert headings == ["accuracy", "calibration", "cost"]
    assert any("51.0 %" in line and "93.8 %" in line for line in lines)
    assert sum("CRPS" in line for line in lines) == 1


def test_windows_that_were_left_out_are_told():
    assert any("862 test windows, one in 12" in line for line in shown(board(stride=12)))
