"""A node's side of signed messages: it answers only what the coordinator newly asked, and signs what it says (M.3387 9.4, 10.1).

What was seen and sent last is in the node's state, and outlives any task: nothing can be replayed. A "train" and an "evaluate" that are
under way together may overtake each other; all else is answered only if it is newer than all before.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cellwright.federation.contract import NodeState, Parcel

if TYPE_CHECKING:
    from cellwright.federation.owner_kit import OwnerKit

SEEN, SENT = "seen", "sent"  # blobs of the state
_REQUESTS_KEPT = 256  # whose last sequences are remembered


def check_sender(kit: OwnerKit, kind: str, parcel: Parcel, state: NodeState, request: str) -> None:
    """Signed by the coordinator, of this request and kind, and not seen before; where the kit knows the coordinator's key.

    Raises:
        Refused: it is not.
    """
    if kit.coordinator_key is None:
        return
    from cellwright.federation.audit.replay import OVERTAKEN, Taken
    from cellwright.federation.audit.signing import verify

    verify(parcel, kit.coordinator_key)
    seen: dict[str, object] = json.loads(state.blobs.get(SEEN, b"{}"))
    taken = Taken.read(seen.pop(request, -1))
    taken.take(parcel.values, request=request, kind=kind, ordered=kind not in OVERTAKEN)
    seen[request] = taken.kept()
    state.blobs[SEEN] = json.dumps(dict(list(seen.items())[-_REQUESTS_KEPT:])).encode()


def signed_reply(kit: OwnerKit, name: str, kind: str, reply: Parcel, state: NodeState, request: str) -> Parcel:
    """The reply of the node `name` under its signature, where the kit has a key."""
    if kit.signer is None:
        return reply
    sequence = max(int(state.blobs.get(SENT, b"0")) + 1, time.time_ns() // 1000)  # above all before, also where a state was lost
    state.blobs[SENT] = str(sequence).encode()
    return kit.signer.sign(reply, sender=name, sequence=sequence, request=request, kind=kind)
