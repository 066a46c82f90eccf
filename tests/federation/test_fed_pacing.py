"""How many steps a node is told to do, from what its rounds took."""

import pytest

from cellwright.federation.pacing import Pacing


def test_a_node_that_was_never_heard_of_is_told_all_steps():
    assert Pacing().steps("a", 20, 10.0) == 20


def test_reported_speed_bounds_the_steps_with_a_margin():
    pacing = Pacing.reported({"slow": 1.0, "fast": 0.1})
    assert pacing.steps("slow", 20, 10.0) == 9  # a tenth of the deadline is kept free
    assert pacing.steps("fast", 20, 10.0) == 20


def test_nobody_is_told_no_step_at_all():
    assert Pacing.reported({"a": 100.0}).steps("a", 20, 10.0) == 1


def test_two_rounds_of_different_length_tell_steps_from_links():
    pacing = Pacing()
    pacing.took("a", 10, 12.0)
    pacing.took("a", 4, 6.0)  # a second a step, and two whatever it does
    assert pacing.paces["a"].per_step_s == pytest.approx(1.0)
    assert pacing.paces["a"].fixed_s == pytest.approx(2.0)
    assert pacing.steps("a", 20, 10.0) == 7


def test_a_node_that_slows_down_is_noticed():
    pacing = Pacing.reported({"a": 0.1})
    for _ in range(6):
        pacing.took("a", 20, 20.0)
    assert pacing.paces["a"].per_step_s == pytest.approx(1.0, rel=0.02)
    assert pacing.steps("a", 20, 10.0) == 9


def test_a_node_that_missed_the_deadline_does_at_most_half_as_much():
    pacing = Pacing()
    pacing.missed("a", 20, 10.0)
    assert pacing.steps("a", 20, 10.0) == 9
    pacing.missed("a", 9, 10.0)
    assert pacing.steps("a", 20, 10.0) == 4


def test_what_a_node_says_of_itself_does_not_replace_what_was_seen():
    pacing = Pacing()
    pacing.took("a", 10, 10.0)
    pacing.told("a", 1e-6)
    assert pacing.paces["a"].per_step_s == pytest.approx(1.0)


def test_it_can_be_kept():
    pacing = Pacing.reported({"b": 0.3})
    pacing.took("a", 10, 12.0)
    again = Pacing.restored(pacing.state())
    assert again == pacing
