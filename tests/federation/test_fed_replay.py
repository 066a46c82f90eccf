"""A message is taken once; where several are under way at once, one may overtake another, but nothing that must keep its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.errors import FederationError, Refused
from cellwright.federation import messages
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.replay import WIDTH, Taken
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.contract import Evaluation, Instruction, NodeState, Parcel, Usage
from cellwright.federation.regional import RegionalCoordinator
from cellwright.federation.runtimes.local import open_channel


def take(taken: Taken, sequence: object, *, ordered: bool = False, request: str = "r") -> None:
    taken.take({"sequence": sequence, "request": request}, request="r", kind="train", ordered=ordered)


@given(st.permutations(range(30)))
def test_in_whatever_order_they_come_each_is_taken_once(order):
    taken = Taken()
    for sequence in order:
        take(taken, sequence)
    for sequence in order:
        with pytest.raises(Refused, match="replay"):
            take(taken, sequence)


@given(st.lists(st.integers(0, 300), max_size=400))
def test_nothing_is_taken_twice_however_long_ago_it_was_and_what_is_kept_is_bounded(sequences):
    taken, seen = Taken(), set()
    for sequence in sequences:
        try:
            take(taken, sequence)
        except Refused:
            assert sequence in seen or sequence < max(seen)
            continue
        assert sequence not in seen
        seen.add(sequence)
        assert len(taken.above) <= WIDTH
        taken = Taken.read(taken.kept())


def test_one_that_is_older_than_all_that_are_remembered_counts_as_a_replay():
    taken = Taken()
    for sequence in range(10, 11 + WIDTH):
        take(taken, sequence)
    assert (taken.floor, len(taken.above)) == (10, WIDTH)
    for sequence in (3, 10):
        with pytest.raises(Refused, match="replay"):
            take(taken, sequence)


def test_what_keeps_its_place_is_not_overtaken_and_nothing_older_comes_after_it():
    taken = Taken()
    take(taken, 5)
    with pytest.raises(Refused, match="sequence 4, after 5 was seen"):
        take(taken, 4, ordered=True)
    take(taken, 8, ordered=True)
    with pytest.raises(Refused, match="replay"):
        take(taken, 7)
    take(taken, 9)


def test_only_whole_numbers_of_this_request_are_taken_and_what_was_kept_is_read_with_care():
    for wrong in ("7", 7.0, True, None):
        with pytest.raises(Refused, match="whole number"):
            take(Taken(), wrong)
    with pytest.raises(Refused, match="of request 'other'"):
        take(Taken(), 1, request="other")
    assert Taken.read(7) == Taken(7)  # as it was kept before there were windows
    assert Taken.read([7, 9, 12]) == Taken(7, [9, 12])
    for damaged in ([], ["a"], {}, "7"):
        with pytest.raises(Refused, match="deploy the request again"):
            Taken.read(damaged)


def judged(key: Signer, sequence: int, round_: int = 1) -> Parcel:
    told = messages.evaluated(Evaluation("a", "validation", 1, 1.0, 1.0, 1.0), Usage(0.0, 0.0, None, None), round_)
    return key.sign(told, sender="a", sequence=sequence, request="r", kind="evaluate")


@pytest.mark.parametrize("overtaking", [False, True])
def test_the_auditor_takes_replies_out_of_order_only_where_nodes_are_not_waited_for(overtaking):
    key = Signer.generate()
    rules = Rules(overtaking=overtaking, max_staleness=5)
    auditor = Auditor(rules, {"a": key.public}, None, Form(None), request="r")
    later, sooner = judged(key, 7), judged(key, 6)
    assert auditor.check("evaluate", "a", later, round_=1).accepted
    assert auditor.check("evaluate", "a", sooner, round_=1).rule == ("" if overtaking else "replay")
    again = Auditor(rules, {"a": key.public}, None, Form(None), request="r")
    again.restore(auditor.state())
    for parcel in (later, sooner):
        assert again.check("evaluate", "a", parcel, round_=1).rule == "replay"
        assert auditor.check("evaluate", "a", parcel, round_=1).rule == "replay"


def test_a_node_answers_an_evaluation_that_overtook_its_training_and_neither_twice(toy):
    """A SuperNode answers each message in a process of its own; which of two gets the node's memory first is chance."""
    cloud, state, told = Signer.generate(), NodeState(), {"sender": "cloud", "request": toy.TASK.request}
    region = RegionalCoordinator(
        "rsu",
        open_channel({"a": toy.Puller("a", 0.0)}),
        codec=codec("none"),
        signer=Signer.generate(),
        coordinator_key=cloud.public,
    )
    task, start = messages.deploy(toy.TASK), toy.initial()
    train = cloud.sign(messages.train(Instruction(1, start, toy.settings().local)), sequence=2, kind="train", **told)
    evaluate = cloud.sign(messages.evaluate(start, "validation", 1), sequence=3, kind="evaluate", **told)
    region.answer("deploy", cloud.sign(task, sequence=1, kind="deploy", **told), state)
    region.answer("evaluate", evaluate, state)
    region.answer("train", train, state)
    for kind, parcel in (
        ("evaluate", evaluate),
        ("train", train),
        ("deploy", cloud.sign(task, sequence=1, kind="deploy", **told)),
    ):
        with pytest.raises(FederationError, match="replay"):
            region.answer(kind, parcel, state)
    region.answer("deploy", cloud.sign(task, sequence=5, kind="deploy", **told), state)
    late = cloud.sign(messages.train(Instruction(1, start, toy.settings().local)), sequence=4, kind="train", **told)
    with pytest.raises(FederationError, match="replay"):  # signed before the task was deployed anew
        region.answer("train", late, state)
