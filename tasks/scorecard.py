"""Probe the finalists for the dear KPIs, in the worker processes that trained the candidates."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from cellwright.results import Scorecard
from cellwright.training.workers import Workers
from tasks._run import opened, say


@task(cache_policy=NO_CACHE, task_run_name="scorecard", tags=["scorecard"], timeout_seconds=6 * 3600)
def probe_finalists(root: str, run: str, workers: Workers | None = None) -> Scorecard:
    """Write the scorecard and show it as a table in the UI. A probe that fails is listed with its reason. `workers`: None: here."""
    from cellwright.report.scorecard import markdown
    from cellwright.steps.scorecard import scorecard

    params, ws = opened(root, run)
    card = scorecard(params, ws, workers, on_progress=lambda line: say(f"probe    {line}"))
    create_markdown_artifact(markdown(card), key=f"scorecard-{params.dataset}", description=f"Scorecard of {run}")
    return card
