"""The ClientApp that every node runs and the ServerApp that a coordinator runs; the same two in both runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import ServerApp

from cellwright.errors import CellwrightError
from cellwright.federation.contract import Node, Parcel, Value
from cellwright.federation.runtimes import wire
from cellwright.federation.runtimes.channel import CHALLENGE, HELLO, VOUCHED, FlowerChannel, kind_of
from cellwright.federation.runtimes.memory import ContextMemory, Memory

NodeFactory = Callable[[Any], Node]  # from Flower's Context: its node_config says whose node it is
Main = Callable[[FlowerChannel, Mapping[str, Value]], None]
_LONGEST_CHALLENGE = 64


@runtime_checkable
class Vouching(Protocol):
    """A node that can show who it is: it signs a challenge with its own key."""

    def vouch(self, challenge: str) -> str: ...


class NodeApp(ClientApp):
    """Answers every kind of message by asking the node: "train", "evaluate" and "query.<kind>" for any kind."""

    def __init__(self, node_factory: NodeFactory, memory: Memory | None = None) -> None:
        super().__init__()
        self._node_factory, self._memory = node_factory, memory or ContextMemory()
        self._kinds = {HELLO}
        self.train()(self._answer)
        self.evaluate()(self._answer)
        self.query(HELLO)(self._answer_hello)

    def __call__(self, message: Any, context: Any) -> Any:
        """Flower's entry: a kind of query that comes for the first time is registered, then Flower dispatches."""
        category, _, kind = message.metadata.message_type.partition(".")
        if category == "query" and kind not in self._kinds:
            self.query(kind)(self._answer)
            self._kinds.add(kind)
        return super().__call__(message, context)

    def _answer(self, message: Any, context: Any) -> Any:
        try:
            kind, parcel = kind_of(message.metadata.message_type), wire.unpack(message.content)
            with self._memory.held(context):
                state = self._memory.load(context)
                reply = wire.pack(self._node_factory(context).answer(kind, parcel, state))
                self._memory.save(context, state)
        except CellwrightError as error:  # in words, to the coordinator; nothing of the message is kept
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
        return Message(reply, reply_to=message)

    def _answer_hello(self, message: Any, context: Any) -> Any:
        try:
            node, challenge = self._node_factory(context), wire.unpack(message.content).values.get(CHALLENGE, "")
        except CellwrightError as error:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
        values: dict[str, Value] = {"name": node.name, "public_key": str(getattr(node, "public_key", ""))}
        if isinstance(node, Vouching):
            values[VOUCHED] = node.vouch(str(challenge)[:_LONGEST_CHALLENGE])
        return Message(wire.pack(Parcel(values=values)), reply_to=message)


def client_app(node_factory: NodeFactory, memory: Memory | None = None) -> Any:
    """The ClientApp of the node that `node_factory` makes from Flower's Context."""
    return NodeApp(node_factory, memory)


def server_app(main: Main) -> Any:
    """The ServerApp that hands `main` a channel to the nodes and the run's configuration."""
    app = ServerApp()

    @app.main()
    def run(grid: Any, context: Any) -> None:
        main(FlowerChannel(grid), context.run_config)

    return app
