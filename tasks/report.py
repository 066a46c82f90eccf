"""The page that shows it all."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from tasks._run import opened, say


@task(cache_policy=NO_CACHE, task_run_name="report", tags=["report"], timeout_seconds=3600)
def write_report(root: str, run: str) -> str:
    """Write the report; its path is an artifact in the UI."""
    from cellwright.steps.report import report

    params, ws = opened(root, run)
    path = report(params, ws)
    create_link_artifact(link=path.as_uri(), link_text=f"Report of {run}", key=f"report-{params.dataset}")
    say(f"report   {path.relative_to(ws.root)}")
    return str(path)
