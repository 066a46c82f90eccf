"""The local runtime: Flower's Grid in this process, on a virtual clock. Times are worked out by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from cellwright.errors import FederationError, Refused, UnknownName
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.management.records import Link
from cellwright.federation.runtimes import wire
from cellwright.federation.runtimes.apps import client_app, server_app
from cellwright.federation.runtimes.channel import LEFT, FlowerChannel
from cellwright.federation.runtimes.local import LocalGrid, open_channel

FOREVER = float("inf")


class Small:
    """A node that counts its messages in its state, adds 1 to what it is sent and reports as many steps as it was told."""

    def __init__(self, name: str) -> None:
        self.name, self.public_key, self.seen = name, f"key of {name}", []

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        self.seen.append(kind)
        state.arrays["count"] = state.arrays.get("count", np.zeros(1)) + 1
        for array in parcel.arrays.values():
            np.add(array, 1, out=array)
        if kind == "refuse":
            raise Refused("not from you")
        if kind == "crash":
            raise KeyError("weights")
        values = {"steps": parcel.values.get("steps", 0), "kind": kind, "count": float(state.arrays["count"][0])}
        return Parcel(parcel.arrays, dict(parcel.blobs), values)


def small(*names: str) -> dict[str, Small]:
    return {name: Small(name) for name in names}


def train(channel: FlowerChannel, steps: int = 1, *names: str) -> dict[str, str]:
    return channel.send(
        "train", {n: Parcel({"w/a": np.zeros(3, np.float32)}, values={"steps": steps}) for n in names or channel.nodes()}
    )


def test_nodes_say_their_names_and_keys() -> None:
    channel = open_channel(small("b", "a"))
    assert channel.nodes() == ("a", "b")
    assert channel.public_keys() == {"a": "key of a", "b": "key of b"}
    assert channel.now() == 0


@pytest.mark.parametrize("kind", ["train", "evaluate", "deploy", "stage_keys", "anything"])
def test_every_kind_reaches_the_node_and_comes_back(kind: str) -> None:
    channel = open_channel(small("a"))
    tickets = channel.send(kind, {"a": Parcel({"x": np.arange(2.0)}, {"b": b"\0"}, {"round": 3})})
    reply = channel.receive(tickets, until=FOREVER)["a"]
    assert reply.error is None
    assert reply.parcel is not None
    assert reply.parcel.values["kind"] == kind
    np.testing.assert_array_equal(reply.parcel.arrays["x"], [1, 2])
    assert reply.parcel.blobs == {"b": b"\0"}


def test_bytes_of_a_reply_are_those_of_both_records() -> None:
    channel = open_channel(small("a"))
    asked = Parcel({"x": np.zeros(100, np.float32)}, values={"round": 3})
    reply = channel.receive(channel.send("train", {"a": asked}), until=FOREVER)["a"]
    assert reply.parcel is not None
    assert reply.sent_bytes == wire.size(wire.pack(asked))
    assert reply.received_bytes == wire.size(wire.pack(reply.parcel))


def test_nobody_shares_memory_with_a_node() -> None:
    channel, sent = open_channel(small("a", "b")), np.zeros(3, np.float32)
    tickets = channel.send("train", {n: Parcel({"w": sent}) for n in ("a", "b")})
    np.testing.assert_array_equal(sent, 0)  # the nodes added 1 to theirs
    replies = channel.receive(tickets, until=FOREVER)
    replies["a"].parcel.arrays["w"][:] = 9
    np.testing.assert_array_equal(replies["b"].parcel.arrays["w"], 1)


def test_a_node_remembers_what_it_kept_in_its_state() -> None:
    channel = open_channel(small("a", "b"))
    for expected in (1.0, 2.0, 3.0):
        reply = channel.receive(train(channel, 1, "a"), until=FOREVER)["a"]
        assert reply.parcel.values["count"] == expected
    assert set(channel.states()) == {"a"}
    np.testing.assert_array_equal(channel.states()["a"].arrays["count"], [3.0])


def test_states_can_be_given_to_other_nodes_of_the_same_names() -> None:
    first = open_channel(small("a", "b"))
    first.receive(train(first), until=FOREVER)
    second = open_channel(small("a", "b"))
    second.receive(train(second, 1, "b"), until=FOREVER)
    second.receive(train(second, 1, "b"), until=FOREVER)
    states = first.states()
    second.restore({"a": states["a"]})
    counts = {n: r.parcel.values["count"] for n, r in second.receive(train(second), until=FOREVER).items()}
    assert counts == {"a": 2.0, "b": 1.0}  # b forgot what `states` does not hold
    with pytest.raises(UnknownName):
        second.restore({"c": NodeState()})


def test_a_refusal_comes_back_in_its_own_words_and_leaves_no_trace() -> None:
    channel = open_channel(small("a"))
    reply = channel.receive(channel.send("refuse", {"a": Parcel()}), until=FOREVER)["a"]
    assert (reply.parcel, reply.error) == (None, "not from you")
    assert channel.states() == {}


def test_an_exception_in_a_node_is_an_error_reply(caplog: pytest.LogCaptureFixture) -> None:
    channel = open_channel(small("a"))
    reply = channel.receive(channel.send("crash", {"a": Parcel()}), until=FOREVER)["a"]
    assert reply.error == "KeyError: 'weights'"
    assert "node a could not answer a 'query.crash' message" in caplog.text


def test_a_reply_comes_after_the_way_there_the_steps_and_the_way_back() -> None:
    link = Link(source="a", target="c", bandwidth_bps=8_000, delay_ms=250)
    channel = open_channel(small("a", "b"), speeds={"a": 2.0, "b": 0.5}, links={"a": link})
    asked = Parcel({"w/a": np.zeros(3, np.float32)}, values={"steps": 3})
    reply = channel.receive(channel.send("train", {"a": asked, "b": asked}), until=FOREVER)
    assert reply["b"].seconds == 3 * 0.5  # when it came, not when all were there
    assert reply["a"].seconds == channel.now()
    there, back = wire.size(wire.pack(asked)), wire.size(wire.pack(reply["a"].parcel))
    assert channel.now() == pytest.approx(0.25 + there / 1000 + 3 * 2.0 + 0.25 + back / 1000)


def test_lost_packets_are_sent_again_which_takes_their_share_of_time() -> None:
    def seconds(loss: float) -> float:
        link = Link(source="a", target="c", bandwidth_bps=8_000, loss=loss)
        channel = open_channel(small("a"), links={"a": link})
        channel.receive(train(channel), until=1e6)
        return channel.now()

    assert seconds(0.5) == pytest.approx(2 * seconds(0.0))
    assert seconds(1.0) == 1e6  # nothing ever comes


def test_only_training_takes_simulated_steps() -> None:
    channel = open_channel(small("a"), speeds={"a": 2.0})
    channel.receive(channel.send("evaluate", {"a": Parcel(values={"steps": 5})}), until=FOREVER)
    assert channel.now() == 0


def test_what_has_not_come_by_the_deadline_can_be_asked_for_again() -> None:
    channel = open_channel(small("fast", "slow"), speeds={"fast": 1.0, "slow": 10.0})
    tickets = train(channel)
    assert list(channel.receive(tickets, until=5.0)) == ["fast"]
    assert channel.now() == 5.0
    late = channel.receive({"slow": tickets["slow"]}, until=FOREVER)
    assert list(late) == ["slow"]
    assert late["slow"].seconds == channel.now() == 10.0
    assert channel.receive(tickets, until=FOREVER) == {}  # each is given once


def test_receive_returns_as_soon_as_enough_have_come() -> None:
    channel = open_channel(small("a", "b", "c"), speeds={"a": 3.0, "b": 1.0, "c": 2.0})
    tickets = train(channel)
    assert list(channel.receive(tickets, until=FOREVER, least=2)) == ["b", "c"]
    assert channel.now() == 2.0
    assert list(channel.receive(tickets, until=FOREVER)) == ["a"]
    assert channel.now() == 3.0


def test_a_busy_node_does_one_thing_after_the_other() -> None:
    channel = open_channel(small("a"), speeds={"a": 4.0})
    first, second = train(channel), train(channel)
    channel.receive(first, until=FOREVER)
    assert channel.now() == 4.0
    channel.receive(second, until=FOREVER)
    assert channel.now() == 8.0


def test_a_node_that_vanishes_mid_round_delays_nothing_beyond_the_deadline() -> None:
    channel = open_channel(small("a", "b"), speeds={"a": 1.0, "b": 4.0})
    tickets = train(channel)
    channel.grid.fail("b", after_s=2.0)
    assert list(channel.receive(tickets, until=30.0)) == ["a"]
    assert channel.now() == 30.0
    assert channel.nodes() == ("a",)


def test_a_node_that_fails_later_still_answers_what_it_had_done() -> None:
    channel = open_channel(small("a"), speeds={"a": 1.0})
    channel.grid.fail("a", after_s=1.5)
    assert channel.receive(train(channel), until=9.0)["a"].error is None
    tickets = train(channel, 1, "a")
    assert channel.receive(tickets, until=9.0) == {}  # it vanished at 1.5, the reply would have come at 2


def test_a_node_that_is_gone_answers_with_an_error_and_may_come_back() -> None:
    nodes = small("a", "b")
    channel = open_channel(nodes)
    channel.grid.fail("b")
    reply = channel.receive(train(channel, 1, "a", "b"), until=FOREVER)
    assert (reply["a"].error, reply["b"].error, reply["b"].sent_bytes) == (None, LEFT, 0)
    assert nodes["b"].seen == []
    channel.grid.recover("b")
    assert channel.receive(train(channel), until=FOREVER)["b"].error is None


def test_a_link_that_is_down_cuts_its_node_off_until_it_is_up() -> None:
    channel = open_channel(small("a", "b"), links={"b": Link(source="b", target="c", up=False)})
    assert channel.nodes() == ("a",)
    channel.grid.set_link("b", Link(source="b", target="c", delay_ms=500))
    assert channel.nodes() == ("a", "b")
    channel.receive(train(channel), until=FOREVER)
    assert channel.now() == 1.0
    channel.grid.set_speed("a", 7.0)
    channel.receive(train(channel, 1, "a"), until=FOREVER)
    assert channel.now() == 8.0


@pytest.mark.parametrize("act", [lambda g: g.fail("x"), lambda g: g.recover("x"), lambda g: g.set_speed("x", 1.0)])
def test_a_node_that_there_is_not_is_named(act: Callable[[LocalGrid], None]) -> None:
    with pytest.raises(UnknownName, match="'x'"):
        act(open_channel(small("a")).grid)


def test_on_the_wall_clock_nothing_is_simulated() -> None:
    channel = open_channel(small("a"), speeds={"a": 1e6}, clock="wall")
    start = channel.now()
    assert channel.receive(train(channel), until=start + 60)["a"].error is None
    assert channel.now() - start < 60


def test_two_nodes_cannot_go_by_one_name(caplog: pytest.LogCaptureFixture) -> None:
    channel = FlowerChannel(LocalGrid(client_app(lambda _context: Small("same")), ["a", "b"]))
    assert channel.nodes() == channel.nodes() == ("same",)
    (words,) = channel.turned_away()
    assert "claims to be 'same'" in words
    assert caplog.text.count(words) == 1  # it is not asked again
    assert channel.turned_away() == ()
    with pytest.raises(FederationError, match="calls itself"):
        open_channel({"a": Small("b")})


def test_a_node_that_cannot_start_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    def start(context: Context) -> Small:
        if context.node_config["name"] == "broken":
            raise FederationError("its panel is damaged")
        return Small(str(context.node_config["name"]))

    channel = FlowerChannel(LocalGrid(client_app(start), ["broken", "fine"]))
    assert channel.nodes() == ("fine",)
    assert "its panel is damaged" in caplog.text


def test_a_kind_must_be_an_identifier() -> None:
    channel = open_channel(small("a"))
    with pytest.raises(FederationError, match="identifier"):
        channel.send("not a kind", {"a": Parcel()})


def test_the_server_app_of_the_deployed_runtime_runs_on_this_grid_too() -> None:
    met = []
    app = server_app(lambda channel, config: met.append((channel.nodes(), config["folder"])))
    grid = open_channel(small("a", "b")).grid
    app(grid, Context(1, 1, {}, RecordDict(), {"folder": "here"}))
    assert met == [(("a", "b"), "here")]


def test_flowers_own_strategy_runs_a_whole_training_over_it() -> None:
    """A Grid like any other: FedAvg samples nodes, sends and aggregates; node i of 2 and 3 adds i, weighs i: + (4 + 9) / 5 a round."""
    app = ClientApp()

    @app.train()
    def add(message: Message, context: Context) -> Message:
        arrays = [a.numpy() + context.node_id for a in message.content["arrays"].values()]
        content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": context.node_id})}
        return Message(RecordDict(content), reply_to=message)

    grid = LocalGrid(app, ["a", "b"])
    result = FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(2)]), num_rounds=3, train_config=ConfigRecord())
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], [7.8, 7.8])
