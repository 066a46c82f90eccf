"""Numbers as people read them, and names that give way to each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.report.labels import offsets
from cellwright.report.words import escaped, exact, number, quantity, scale


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (20.9149, "20.9"),
        (0.92149, "0.921"),
        (1234.5, "1,234"),
        (-1.5, "−1.50"),
        (1e-5, "1.00e−05"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers_have_three_figures(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (5300.0, "J", "5.30 kJ"),
        (0.0443, "J", "44.3 mJ"),
        (0.582, "ms", "582 µs"),
        (640_000.0, "B", "640 kB"),
        (18_000.0, "1", "18.0 k"),
        (0.921, "1", "0.921"),
        (20.9, "Mbit/s", "20.9 Mbit/s"),
        (0.0, "J", "0 J"),
        (None, "J", "–"),
    ],
)
def test_quantities_take_the_scale_that_reads_best(value, unit, text):
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(600, "10 min"), (1800, "30 min"), (3600, "1 h"), (0.25, "250 ms"), (86_400, "24 h")]
)
def test_cadences_have_no_trailing_zeros(seconds, text):
    assert exact(seconds, "s") == text


@given(st.lists(st.floats(1e-9, 1e9), min_size=1), st.sampled_from(["J", "B", "s", "ms", "g", "1"]))
def test_a_column_has_one_scale_that_no_other_beats(values, unit):
    factor, _ = scale(values, unit)
    length = sum(len(number(v / factor)) for v in values)
    assert length <= sum(len(number(v / scale([values[0]], unit)[0])) for v in values)


def test_a_cell_of_markdown_stays_one_cell():
    assert escaped("a|b\n<img>") == "a\\|b &lt;img&gt;"


@given(st.lists(st.tuples(st.floats(50, 950), st.floats(50, 350)), max_size=6))
def test_names_of_scattered_points_do_not_overlap(points):
    scattered = [p for i, p in enumerate(points) if all(abs(p[0] - q[0]) > 120 or abs(p[1] - q[1]) > 60 for q in points[:i])]
    names = ["PatchTST"] * len(scattered)
    boxes = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(scattered, offsets(scattered, names, 1000, 400), strict=True)]
    for i, (x, y) in enumerate(boxes):
        assert all(abs(x - a) > 57 or abs(y - b) > 15 for a, b in boxes[:i])


def test_names_of_points_in_one_place_go_different_ways():
    found = offsets([(500, 200)] * 4, ["LSTM", "GRU", "MLP", "TCN"], 1000, 400)
    assert len(set(found)) == 4
