"""What is told to people and other systems when a run fails or is refused: events they can subscribe to."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

FAILED = "cellwright.run.failed"
REFUSED = "cellwright.data.refused"


def notify(flow: Any, flow_run: Any, state: Any) -> None:
    """Emit an event for a failed run; data that broke an expectation has its own, so that it can be told to its owner."""
    message = str(state.message or "")
    if "NothingNew" in message:  # a scheduled run that found nothing is no alarm
        return
    kind = REFUSED if "ExpectationFailed" in message else FAILED
    emit_event(
        event=kind,
        resource={
            "prefect.resource.id": f"cellwright.flow.{flow.name}",
            "prefect.resource.name": flow_run.name,
            "cellwright.dataset": str((flow_run.parameters or {}).get("dataset") or ""),
        },
        payload={"flow_run": str(flow_run.id), "reason": message},
    )
