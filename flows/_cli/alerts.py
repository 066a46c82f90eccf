"""The automation that tells a webhook of failed, refused and drifted runs. Run as a program: it speaks to the server."""

from __future__ import annotations

import sys
from datetime import timedelta

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture

from flows._hooks import FAILED, REFUSED
from tasks.observe import DRIFT

NAME = "cellwright alerts"
_MESSAGE = (
    '{"event": {{ event.event | tojson }}, "resource": {{ event.resource.name | tojson }}, '
    '"payload": {{ event.payload | tojson }}}'
)


def create(url: str) -> None:
    """Create the automation, or point the present one at `url`."""
    block = Webhook(url=url, method="POST", allow_private_urls=True)  # type: ignore[arg-type]
    identifier = block.save("cellwright-alerts", overwrite=True)
    automation = Automation(
        name=NAME,
        description="Tells a webhook of runs that failed, data that was refused, and drift that was found.",
        trigger=EventTrigger(expect={FAILED, REFUSED, DRIFT}, posture=Posture.Reactive, threshold=1, within=timedelta(0)),
        actions=[CallWebhook(block_document_id=identifier, payload=_MESSAGE)],
    )
    try:
        present = Automation.read(name=NAME)
    except ValueError:
        automation.create()
    else:
        present.trigger, present.actions = automation.trigger, automation.actions
        present.update()


if __name__ == "__main__":
    create(sys.argv[1])
