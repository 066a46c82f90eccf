"""Bring a data set to its newest version: ingest, normalise and validate, through DVC."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from cellwright import versioning
from cellwright.catalogue import load_catalogue
from cellwright.errors import DataError, ExpectationFailed
from cellwright.results import DataVersion, Validated
from cellwright.steps.ingest import news
from cellwright.workspace import Workspace
from tasks._artifacts import validation_markdown
from tasks._run import say, transient


@task(
    cache_policy=NO_CACHE,
    task_run_name="data: {dataset}",
    tags=["data"],
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=transient,
    timeout_seconds=6 * 3600,
)
def prepare_data(root: str, dataset: str, *, only_new: bool = False) -> DataVersion:
    """Reproduce the data stages and publish the validation as an artifact. Files of your own are looked at for news first.

    Raises:
        NothingNew: `only_new` was asked, and there is nothing since the last version.
        DataError: a source, a file or an expectation; training does not start.
    """
    ws = Workspace(Path(root))
    results = ws.validation(dataset) / "results.json"
    begun = time.time()
    try:
        if news(ws, load_catalogue(ws.catalogue).entry(dataset), only_new=only_new):
            versioning.refresh(ws, dataset, on_line=_progress)
        computed = versioning.reproduce(ws, dataset, on_line=_progress)
    except DataError as error:
        if results.is_file() and results.stat().st_mtime >= begun:
            _publish(results, dataset)
            raise ExpectationFailed(str(error)) from error  # DVC tells of a stage's error in words only
        raise
    _publish(results, dataset)
    version = versioning.data_version(ws, dataset)
    state = "made" if computed else "unchanged"
    say(f"data     {dataset}: {version.rows:,} rows × {version.sites:,} sites, version {version.hash[:8]} ({state}), validated")
    return version


def _publish(results: Path, dataset: str) -> None:
    """The validation as an artifact in the UI."""
    page = validation_markdown(Validated.read(results))
    create_markdown_artifact(page, key=f"validation-{dataset}", description=f"Validation of {dataset}")


def _progress(line: str) -> None:
    if line.startswith("Running stage"):
        stage = line.split("'")[1].removeprefix("data/dvc.yaml:")
        say(f"data     {stage.replace('@', ' ')} …")
