"""Service request management (M.3387 8.5): classes, the queue with ageing, preemption at round boundaries, shared nodes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.federation.management.records import Capacity, DataNeeds, ServiceRequest, Submitted
from cellwright.federation.management.scheduling import BOUND_S, Scheduler, classify, fitting, order

START = datetime(2026, 1, 1, tzinfo=UTC)


def asked(name="r", **more):
    return ServiceRequest(name=name, data=DataNeeds(dataset="city"), **{"least_owners": 1} | more)


def submitted(name, at_s=0.0, **more):
    request = asked(name, **more)
    return Submitted(id=name, client="c", request=request, status="queued", submitted=START + timedelta(seconds=at_s))


def at(seconds):
    return START + timedelta(seconds=seconds)


def scheduler(*waiting, **cpus):
    made = Scheduler({name: Capacity(cpus=count) for name, count in (cpus or {"n1": 1}).items()}, fitting)
    for one in waiting:
        made.add(one)
    return made


def begin(scheduler_, now_s=0.0):
    start = scheduler_.next(at(now_s))
    assert start is not None
    scheduler_.begin(scheduler_.waiting[start.id], start.nodes)
    return start.id


@pytest.mark.parametrize(
    ("more", "name", "points"),
    [
        ({"priority": "high", "importance": 10, "delay_bound_s": 600}, "urgent", 80),
        ({"priority": "high", "importance": 10}, "urgent", 60),
        ({"priority": "high", "importance": 0}, "high", 40),
        ({"priority": "medium", "importance": 5, "delay_bound_s": 3600}, "high", 40),
        ({}, "normal", 30),
        ({"priority": "low", "importance": 5, "delay_bound_s": 3601}, "background", 10),
    ],
)
def test_classification_by_importance_priority_and_delay(more, name, points):
    found = classify(asked(**more))
    assert (found.name, found.points) == (name, points)
    assert found.words.startswith(f"{name}: ")


def test_the_queue_is_by_priority_then_by_time():
    queue = scheduler(
        submitted("late", 5), submitted("early", 1), submitted("low", 0, priority="low"), submitted("high", 9, priority="high")
    ).queue()
    assert [s.id for s in queue] == ["high", "early", "late", "low"]
    assert [s.position for s in queue] == [1, 2, 3, 4]


def test_ageing_brings_a_low_request_ahead_of_newer_high_ones_after_the_stated_time():
    low = submitted("low", 0, priority="low", importance=0)
    urgent = {"priority": "high", "importance": 10, "delay_bound_s": 60}
    before, after = submitted("before", BOUND_S - 1, **urgent), submitted("after", BOUND_S + 1, **urgent)
    assert [s.id for s in scheduler(low, before, after).queue()] == ["before", "low", "after"]


kinds = st.fixed_dictionaries(
    {
        "priority": st.sampled_from(["high", "medium", "low"]),
        "importance": st.integers(0, 10),
        "delay_bound_s": st.sampled_from([None, 60, 3000]),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3 * BOUND_S), kinds), min_size=2, max_size=12))
def test_nobody_starts_before_a_request_that_waited_the_bound_longer(arrivals):
    waiting = [submitted(f"r{i}", at_s, **more) for i, (at_s, more) in enumerate(arrivals)]
    made, started = scheduler(), []
    now, step = 0.0, BOUND_S / 4  # one node; each holds it for as long
    while len(started) < len(waiting):
        for one in waiting:
            if one.id not in started and one.id not in made.running and one.submitted <= at(now):
                made.add(one)
        if (start := made.next(at(now))) is not None:
            made.begin(made.waiting[start.id], start.nodes)
            started.append(start.id)
            made.end(start.id)
        now += step
    moments = {one.id: one.submitted for one in waiting}
    for rank, first in enumerate(started):
        for later in started[rank + 1 :]:
            assert (moments[first] - moments[later]).total_seconds() <= BOUND_S


def test_two_requests_run_side_by_side_where_the_nodes_have_room_for_both():
    made = scheduler(submitted("a"), submitted("b", 1), submitted("c", 2), n1=2, n2=2)
    assert [begin(made), begin(made)] == ["a", "b"]
    assert made.next(at(3)) is None  # both nodes are full
    made.end("a")
    assert begin(made, 4) == "c"


def test_a_small_request_may_pass_a_large_one_that_does_not_fit_until_that_has_waited_the_bound():
    made = scheduler(submitted("runs", owners=("n1",)), n1=1, n2=1)
    begin(made)
    made.add(submitted("large", 1, least_owners=2))
    made.add(submitted("small", 2))
    assert begin(made, 3) == "small"
    made.end("small")
    made.add(submitted("small2", 4))
    assert made.next(at(1 + BOUND_S)) is None  # n2 is kept for the large one
    made.end("runs")
    assert begin(made, 2 + BOUND_S) == "large"


def test_a_starved_request_stops_those_behind_it_at_their_next_round():
    made = scheduler(submitted("long", 0))
    begin(made)
    made.add(submitted("older", -1))
    assert made.should_preempt("long", 1, at(5)) is None
    assert made.should_preempt("long", 1, at(BOUND_S)).by == "older"


def test_an_urgent_request_preempts_at_the_round_boundary_and_not_before_the_first():
    made = scheduler(submitted("calm", 0, priority="low"))
    begin(made)
    made.add(submitted("rush", 10, priority="high", importance=10))
    assert made.should_preempt("calm", 0, at(11)) is None
    found = made.should_preempt("calm", 1, at(11))
    assert found.by == "rush"
    assert found.words.startswith("after round 1, for a request that goes first (urgent")


def test_a_request_of_the_same_class_does_not_preempt():
    made = scheduler(submitted("first", 0, importance=5))
    begin(made)
    made.add(submitted("second", 1, importance=9))
    assert classify(made.waiting["second"].request).points > classify(asked()).points
    assert made.should_preempt("first", 3, at(2)) is None


def test_preemption_takes_no_more_than_is_needed_last_in_order_first():
    low = {"priority": "low"}
    made = scheduler(submitted("a", 0, owners=("n1",), **low), submitted("b", 1, owners=("n2",), **low), n1=1, n2=1)
    begin(made), begin(made)
    made.add(submitted("rush", 2, priority="high", importance=10))  # one node is enough for it
    assert made.should_preempt("a", 1, at(3)) is None
    assert made.should_preempt("b", 1, at(3)).by == "rush"


def test_what_was_preempted_does_not_take_the_nodes_back_before_the_one_it_paused_for():
    low = {"priority": "low"}
    a, b = submitted("a", 0, owners=("n1",), **low), submitted("b", 1, owners=("n2",), **low)
    made = scheduler(a, b, n1=1, n2=1)
    begin(made), begin(made)
    made.add(submitted("rush", 2, priority="high", importance=10, least_owners=2))
    assert made.should_preempt("b", 1, at(3)) is not None
    made.end("b")
    made.add(b)
    assert made.next(at(3)) is None  # n2 waits for n1
    assert made.should_preempt("a", 1, at(4)) is not None
    made.end("a")
    made.add(a)
    assert begin(made, 4) == "rush"


def test_preemption_that_would_not_help_does_not_happen():
    made = scheduler(submitted("calm", 0, priority="low"))
    begin(made)
    made.add(submitted("rush", 10, priority="high", importance=10, least_owners=2))  # there is one node
    assert made.should_preempt("calm", 1, at(11)) is None


@given(kinds, kinds, st.floats(0, BOUND_S), st.floats(0, 5 * BOUND_S))
def test_two_requests_never_preempt_each_other_in_turn(one, other, gap_s, later_s):
    first, second = submitted("first", 0, **one), submitted("second", gap_s, **other)
    now = at(gap_s + later_s)

    def preempts(waits, runs):
        made = scheduler(runs)
        made.begin(runs, ("n1",))
        made.add(waits)
        return made.should_preempt(runs.id, 1, now) is not None

    assert not (preempts(first, second) and preempts(second, first))


def test_an_exclusive_request_shares_with_nobody():
    made = scheduler(submitted("alone", 0, exclusive=True), submitted("other", 1), n1=4)
    assert begin(made) == "alone"
    assert made.next(at(2)) is None
    made.end("alone")
    assert begin(made, 3) == "other"
    made.add(submitted("again", 4, exclusive=True, priority="low"))
    assert made.next(at(5)) is None  # "other" is there


def test_the_order_does_not_depend_on_the_time_it_is_looked_at():
    one, other = submitted("one", 0, priority="low"), submitted("other", 100, priority="high")
    assert order(other) < order(one)
    assert order(submitted("much-later", 3 * BOUND_S, priority="high")) > order(one)
