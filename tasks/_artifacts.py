"""What the tasks show in the Prefect UI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellwright.federation.results import Round
from cellwright.results import Leaderboard, Validated


def leaderboard_rows(board: Leaderboard) -> list[dict[str, Any]]:
    """The leaderboard as rows of a table artifact."""
    shown = [k for k in ("mae", "rmse", "latency_p99_ms", "bundle_bytes", "train_energy_j") if k in board.kpi_titles]
    return [
        {
            "rank": row.rank,
            "model": row.title,
            "score": round(row.score, 3),
            **{_header(board, k): _rounded(row.kpis.get(k)) for k in shown},
            "status": row.status,
            "champion": "★" if row.key == board.choice.key else "",
        }
        for row in board.rows
    ]


def round_rows(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The rounds of a federation as rows of a table artifact."""
    return [
        {
            "round": r.round,
            "owners counted": sum(o.outcome in ("counted", "late") for o in r.owners),
            "validation MAE": _rounded(r.mae),
            "validation MSE": _rounded(r.mse),
            "learning rate": _rounded(r.learning_rate),
            "ε": _rounded(r.epsilon),
            "kB up": round(r.up_bytes / 1000, 1),
            "kB down": round(r.down_bytes / 1000, 1),
            "events": "; ".join([*r.events, *([r.decision] if r.decision else [])]),
        }
        for r in rounds
    ]


def validation_markdown(found: Validated) -> str:
    """The validation's results as a short page: the verdict and every expectation."""
    lines = [f"## {found.dataset}: {'accepted' if found.passed else 'refused'}", "", "| | expectation | found |", "|-|-|-|"]
    lines += [f"| {'✓' if c.passed else '✗'} | {_cell(c.title)} | {_cell(c.observed)} |" for c in found.checks]
    return "\n".join([*lines, "", *(f"Not checked: {_cell(line)}" for line in found.not_checked)])


def _header(board: Leaderboard, kpi: str) -> str:
    unit = board.kpi_units.get(kpi, "")
    return f"{board.kpi_titles[kpi]} ({unit})" if unit else board.kpi_titles[kpi]


def _rounded(value: float | None) -> float | str:
    return "–" if value is None else float(f"{value:.4g}")


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
