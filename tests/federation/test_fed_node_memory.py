"""A node that is asked two things at once answers one after the other: each process begins from what the one before left."""

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from flwr.app import Context, RecordDict

from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.privacy import mechanism
from cellwright.federation.runtimes import wire
from cellwright.federation.runtimes.apps import client_app
from cellwright.federation.runtimes.local import LocalGrid
from cellwright.federation.runtimes.memory import FolderMemory

MASKED = mechanism("secure_aggregation")


class Masking:
    """Seals what it is sent; two answers at once would both pass the barrier."""

    name = "a"

    def __init__(self) -> None:
        self.together = threading.Barrier(2)

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        with suppress(threading.BrokenBarrierError):
            self.together.wait(0.5)
        side = MASKED.owner_side(self.name, 1)
        side.restore(state.blobs["side"])
        sealed = side.seal(parcel.arrays["vector"])
        state.blobs["side"] = side.state()
        return Parcel(blobs=sealed)


def dealt() -> bytes:
    """An owner of two that may seal one vector."""
    names = ("a", "b")
    owners, side = {n: MASKED.owner_side(n, 1) for n in names}, MASKED.coordinator_side(names, 1)
    for stage in ("advertise", "share", "deal"):
        side.take(stage, {n: owners[n].answer(stage, message) for n, message in side.ask(stage, names).items()})
    return owners["a"].state()


def test_two_vectors_are_never_sealed_under_the_same_masks(tmp_path: Path) -> None:
    context = Context(1, 5, {"node": str(tmp_path)}, RecordDict(), {"request": "r"})
    FolderMemory().save(context, NodeState(blobs={"side": dealt()}))
    node, replies = Masking(), []
    app = client_app(lambda _: node, FolderMemory())
    grid = LocalGrid(app, ["a"])  # whom Flower's messages are from

    def ask(value: float) -> None:
        content = wire.pack(Parcel({"vector": np.full(4, value)}))
        message = grid.create_message(content, "train", 5, "1")
        message.metadata.__dict__["_message_id"] = f"m{value}"
        replies.append(app(message, context))

    threads = [threading.Thread(target=ask, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.has_error() for reply in replies) == [False, True]
    refused = next(reply for reply in replies if reply.has_error())
    assert "once a round" in refused.error.reason
