"""Publishing as one transaction: a failure later in the flow takes registration, bundle, hub and rollout back.

A task that fails and is tried again would take its siblings back at once, though it succeeds with the next attempt: Prefect rolls a
transaction back when any attempt in it fails. So no task is retried in here; the flow's own Retry begins again with what stood before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.transactions import Transaction, transaction

from cellwright.params import Params
from cellwright.results import Published, Registered
from cellwright.steps.publication import Standing, alone, note, settle, take_back
from cellwright.workspace import Workspace
from tasks._run import say
from tasks.publish import publish_bundle, publish_to_hub
from tasks.register import register_run
from tasks.rollout import want_rollout


@contextmanager
def publication(params: Params, ws: Workspace) -> Iterator[Callable[[], None]]:
    """What is published in the block stays only if the block ends well. One run publishes a model at a time; what is yielded lets
    others in before the block ends.

    Raises:
        WorkspaceError: another run publishes the same model.
    """
    with alone(params, ws) as let_others:
        standing = note(params, ws)
        with transaction() as undoable:
            undoable.stage(standing, on_rollback_hooks=[_hook(params, ws, standing)])
            yield let_others
        settle(ws)


def register_and_publish(params: Params, ws: Workspace, *, promote: bool) -> tuple[Registered, Published]:
    """Register the run's choice and publish its bundle to the edge and the hub; inside `publication`.

    Where a rollout decides (rollout.mode), the version lies ready and answers nothing yet.
    """
    root, run = str(ws.root), ws.run
    registered = _once(register_run)(root, run, promote)
    published = _once(publish_bundle)(root, run)
    if params.hub.url is not None:
        publish_to_hub(root, run, published, in_use=registered.champion)
    return registered, published


def ask_for_rollout(params: Params, ws: Workspace, registered: Registered, published: Published) -> None:
    """Where the version won and its rollout decides: ask for that, once the flow is done."""
    if registered.awaits_rollout:
        want_rollout(params.dataset, ws.run, published.name, published.semantic)


def _once(task: Any) -> Any:
    return task.with_options(retries=0)


def _hook(params: Params, ws: Workspace, standing: Standing) -> Any:
    def taken_back(undoable: Transaction) -> None:
        for problem in take_back(params, ws, standing, "taken back: a later step of the flow failed"):
            say(f"publish  could not be taken back: {problem}")
        say(f"publish  taken back: {standing.name} is as it was before ({standing.latest or 'nothing'} serves)")

    taken_back.log_on_run = False  # type: ignore[attr-defined]
    return taken_back
