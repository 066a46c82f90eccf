"""From scores to a leaderboard and a champion."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from cellwright.results import Leaderboard
from tasks._artifacts import leaderboard_rows
from tasks._run import opened, say


@task(cache_policy=NO_CACHE, task_run_name="rank", tags=["rank"], timeout_seconds=3600)
def rank_candidates(root: str, run: str) -> Leaderboard:
    """Write the leaderboard and show it as a table in the UI."""
    from cellwright.steps.rank import rank

    params, ws = opened(root, run)
    board = rank(params, ws)
    dataset = board.data.dataset
    create_table_artifact(leaderboard_rows(board), key=f"leaderboard-{dataset}", description=f"Leaderboard of {run}")
    create_markdown_artifact(board.choice.sentence, key=f"choice-{dataset}", description="Why this model")
    say(f"rank     {board.choice.sentence}")
    return board
