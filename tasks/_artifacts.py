"""What the tasks show in the Prefect UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellwright.files import read_json
from cellwright.results import Leaderboard


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


def validation_markdown(results: Path) -> str:
    """The validation's results as a short page: the verdict and every expectation."""
    content = read_json(results)
    lines = [
        f"## {content['dataset']}: {'accepted' if content['success'] else 'refused'}",
        "",
        "| | expectation | found |",
        "|-|-|-|",
    ]
    lines += [
        f"| {'✓' if e['success'] else '✗'} | {_cell(e['expectation'])} | {_cell(e['observed'])} |"
        for e in content["expectations"]
    ]
    return "\n".join(lines)


def _header(board: Leaderboard, kpi: str) -> str:
    unit = board.kpi_units.get(kpi, "")
    return f"{board.kpi_titles[kpi]} ({unit})" if unit else board.kpi_titles[kpi]


def _rounded(value: float | None) -> float | str:
    return "–" if value is None else float(f"{value:.4g}")


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
