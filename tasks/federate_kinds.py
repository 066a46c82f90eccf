"""A vertical or a transfer federation, in a process of its own."""

from __future__ import annotations

import re

from prefect import task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from cellwright.processes import run_step
from tasks._run import opened, say, transient

_LINE = re.compile(r"federate (\w+) (?:epoch|round) (\d+):")


@task(
    cache_policy=NO_CACHE,
    task_run_name="federate {kind}",
    tags=["federate"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=24 * 3600,
)
def train_kind(root: str, run: str, kind: str) -> str:
    """Train, with progress and a table of what came of it in the UI; returns that in a sentence."""
    from cellwright.federation.alignment.told import most_lines, rows, sentence

    params, ws = opened(root, run)
    most = most_lines(params, kind)
    progress = create_progress_artifact(
        progress=0.0, key=f"federation-{kind}-{params.dataset}".lower(), description=f"Training of {run}"
    )
    done = 0

    def on_line(line: str) -> None:
        nonlocal done
        found = _LINE.match(line)
        if found is not None:
            done += 1
            update_progress_artifact(progress, progress=min(100.0, 100.0 * done / most))
        if found is None or int(found[2]) == 1 or int(found[2]) % 10 == 0:
            say(line)

    run_step(ws, f"federate_{kind}", on_line=on_line)
    update_progress_artifact(progress, progress=100.0)
    create_table_artifact(
        rows(ws, kind), key=f"federation-{kind}-result-{params.dataset}".lower(), description=f"What {run} came to"
    )
    told = sentence(ws, kind)
    say(f"federate {told}")
    return told
