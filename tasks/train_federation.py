"""Train where the data lie, then compare with training alone and on everyone's data."""

from __future__ import annotations

import re

from prefect import task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from cellwright.processes import run_step
from tasks._artifacts import round_rows
from tasks._run import opened, say, transient

_ROUND = re.compile(r"federate round (\d+):")


@task(
    cache_policy=NO_CACHE,
    task_run_name="federate",
    tags=["federate"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=24 * 3600,
)
def train_federation(root: str, run: str) -> str:
    """Run the rounds in a process of their own, with progress and a table of the rounds in the UI; returns the result in a sentence."""
    from cellwright.federation.results import Federated, Round
    from cellwright.steps.federate import key_of, sentence

    params, ws = opened(root, run)
    progress = create_progress_artifact(
        progress=0.0,
        key=f"federation-{params.dataset}".lower(),
        description=f"Rounds of {run}, of {params.federation.rounds} at most",
    )

    every = 1 if params.federation.runtime == "deployed" else 10  # rounds of seconds are worth a line each

    def on_line(line: str) -> None:
        found = _ROUND.match(line)
        if found is None:
            say(line)
            return
        number = int(found[1])
        update_progress_artifact(progress, progress=min(100.0, 100.0 * number / params.federation.rounds))
        if number % every == 0 or number == 1:
            say(line)

    run_step(ws, "federate", on_line=on_line)
    update_progress_artifact(progress, progress=100.0)
    folder = ws.candidate(key_of(params))
    rounds = [Round.model_validate_json(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    create_table_artifact(round_rows(rounds), key=f"federation-rounds-{params.dataset}".lower(), description=f"Rounds of {run}")
    return sentence(Federated.read(folder / "federation.json"))
