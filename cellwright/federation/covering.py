"""Sites of owners that did not train: one forecaster for all needs their scalers too (M.3387 9.1).

Owners that were not selected, or that fell out before they took the task, are sent it once the training is over. They answer as every
owner does when a task is deployed, with their scaler, and are asked for nothing but that and their test error. Who cannot be reached, or
refuses, is told of with the reason: its sites are then normalised by the mean of the other sites' scalers, and the result says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cellwright.federation.contract import Parcel, Value
from cellwright.federation.initial import CENTER
from cellwright.federation.ledger import Ledger
from cellwright.federation.post import Post

UNREACHED = "it could not be reached when the training was over"


@dataclass(frozen=True)
class Covered:
    """What owners that did not train answered."""

    answers: Mapping[str, Parcel] = field(default_factory=dict)  # to "deploy"
    missing: Mapping[str, str] = field(default_factory=dict)  # owner -> why its scaler is not known


def cover(
    post: Post, owners: Iterable[str], deployment: Mapping[str, Value], ledger: Ledger, *, round_: int, wait_s: float
) -> Covered:
    """Send owners the task for their scaler's sake.

    Args:
        deployment: values of the "deploy" parcel: the task, and what goes with it.
        round_: the last one that ended.
        wait_s: how long they are waited for, on the channel's clock.
    """
    wanted = sorted(set(owners))
    if not wanted:
        return Covered()
    here = set(post.channel.nodes())
    parcel = Parcel(values={**deployment, "role": "data_owner"})
    asked = {owner: parcel for owner in wanted if owner in here}
    came = post.ask("deploy", asked, ledger, round_=round_, wait_s=wait_s)
    ledger.told(came.parcels)
    missing = {owner: UNREACHED for owner in wanted if owner not in here}
    missing |= {owner: f"it did not answer within {wait_s:g} s" for owner in asked if owner not in came.parcels}
    missing |= {**came.refused, **came.failed}
    missing |= {owner: "its answer held no scaler" for owner, reply in came.parcels.items() if not _told(reply)}
    return Covered(came.parcels, missing)


def _told(reply: Parcel) -> bool:
    """Whether an answer tells a scaler, or that there is nothing to scale."""
    return CENTER in reply.arrays or reply.values.get("empty") is True
