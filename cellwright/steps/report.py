"""Step `report`: one self-contained HTML page of the run."""

from __future__ import annotations

from pathlib import Path

from cellwright.params import Params
from cellwright.workspace import Workspace


def report(params: Params, ws: Workspace) -> Path:
    """Write report.html from the run's leaderboard, candidates and scores. Returns its path.

    Raises:
        CellwrightError: the run has no leaderboard, or its scores are missing.
    """
    from cellwright.files import write_text
    from cellwright.registry.lineage import git_commit
    from cellwright.report import record
    from cellwright.report.forecasts import picture
    from cellwright.report.page import page

    found = record.read(ws)
    write_text(ws.report, page(params, ws, found, picture(ws, found), git_commit(ws.root)))
    return ws.report
