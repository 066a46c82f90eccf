"""What `cellwright run` prints at its end."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from cellwright.ranking.table import render
from cellwright.results import Leaderboard, Registered
from cellwright.workspace import Workspace


def summary(ws: Workspace) -> RenderableType:
    """Leaderboard, champion, energy, and three commands to look further."""
    board = Leaderboard.read(ws.leaderboard)
    registered = Registered.read(ws.registration)
    return Group(
        render(board),
        Text(),
        Text(f"registered  {registered.model_name} {registered.semantic or ''}: {registered.reason}"),
        Text(),
        Text("look further:"),
        Text("  cellwright up                     Prefect UI on http://127.0.0.1:4200, MLflow UI on http://127.0.0.1:5000"),
        Text("  mlflow ui --backend-store-uri sqlite:///.cellwright/mlflow.db"),
        Text(f"  xdg-open {ws.report.relative_to(ws.root)}"),
    )
