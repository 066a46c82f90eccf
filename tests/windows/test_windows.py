"""Windows: which there are, what they hold, and that they never see what they must not."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.data.split import split
from cellwright.data.windows import Windows, patch_neighbours
from cellwright.errors import DataError, ParamsError
from cellwright.panel import Flag
from cellwright.params import Split

NAN = np.nan


def telling(rows, sites):
    """row · 100 + site"""
    return (np.arange(rows)[:, None] * 100 + np.arange(sites)).astype(np.float32)


def test_a_split_is_floor_shares_of_the_rows():
    assert split(Split(), 0, 4320) == ((0, 3456), (3456, 3888), (3888, 4320))
    assert split(Split(), 100, 117) == ((100, 113), (113, 114), (114, 117))  # 13.6, 1.7, the rest
    with pytest.raises(ParamsError, match=r"must be 1, found 0\.9"):
        split(Split(train=0.7), 0, 10)


def test_origins_of_a_span_reach_back_before_it(make_panel, make_problem):
    windows = Windows(make_panel(telling(20, 2)), make_problem())
    assert windows.origins(0, 20).tolist() == list(range(4, 19))
    assert windows.origins(10, 14).tolist() == [10, 11, 12]


def test_a_site_window_holds_its_rows(make_panel, make_problem):
    raw = Windows(make_panel(telling(20, 3)), make_problem(known=("hour",))).raw(np.array([4, 10]), np.array([0, 2]))
    assert raw.history[:, :, 0, 0].tolist() == [[0, 100, 200, 300], [602, 702, 802, 902]]
    assert raw.target[:, :, 0, 0].tolist() == [[400, 500], [1002, 1102]]
    assert raw.mask.all()
    assert raw.known[0, :, 0] * 144 == pytest.approx([0, 1, 2, 3, 4, 5], abs=1e-4)  # from midnight, history and horizon


def test_a_window_of_all_sites_holds_every_site_and_feature(make_panel, make_problem):
    panel = make_panel({"traffic": telling(20, 3), "users": -telling(20, 3)})
    problem = make_problem(inputs="all", nodes=3, outputs=3, features=("traffic", "users"))
    raw = Windows(panel, problem).raw(np.array([7]), np.array([0]))
    assert raw.history.shape == (1, 4, 3, 2)
    assert raw.history[0, 0].tolist() == [[300, -300], [301, -301], [302, -302]]
    assert raw.target[0, 1, :, 0].tolist() == [800, 801, 802]


def test_windows_are_views_of_the_panel(make_panel, make_problem):
    panel = make_panel(telling(20, 3))
    windows = Windows(panel, make_problem())
    assert all(np.shares_memory(c.view, panel.values("traffic")) for c in windows._channels)
    assert all(np.shares_memory(view, panel.values("traffic")) for view in windows._targets)


def test_a_lag_channel_ends_with_the_values_that_far_before_the_targets(make_panel, make_problem):
    problem = make_problem(features=("traffic", "traffic@6"), lags=(6,))
    windows = Windows(make_panel(telling(30, 1)), problem)
    lagged = windows.raw(np.array([20]), np.array([0])).history[0, :, 0, 1]
    assert lagged[-2:].tolist() == [1400, 1500]  # targets are rows 20 and 21
    assert lagged.tolist() == [1200, 1300, 1400, 1500]


def test_a_lag_as_short_as_the_horizon_still_knows_only_the_past(make_panel, make_problem):
    problem = make_problem(history=8, features=("traffic", "traffic@2"), lags=(2,))
    windows = Windows(make_panel(telling(30, 2)), problem)
    last = windows.origins(0, 30)[-1:]
    assert windows.raw(last, np.array([1])).history[0, -1, 0, 1] == 2701  # the newest row before the origin 28


def test_lags_before_the_segment_are_missing_and_training_leaves_those_windows_out(make_panel, make_problem):
    problem = make_problem(features=("traffic", "traffic@8"), lags=(8,))
    windows = Windows(make_panel(telling(30, 1), segments=[(0, 10), (10, 30)]), problem)
    lagged = windows.raw(np.array([18]), np.array([0])).history[0, :, 0, 1]
    np.testing.assert_array_equal(lagged, [NAN, NAN, 1000, 1100])  # rows 8 and 9 lie in another segment
    assert windows.origins(0, 30).tolist() == [4, 5, 6, 7, 8, *range(14, 29)]
    assert windows.origins(0, 30, whole_lags=True).tolist() == list(range(20, 29))


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(1, 12), min_size=1, max_size=5), st.data())
def test_no_window_crosses_a_segment_or_leaves_its_span(make_panel_static, history, horizon, lengths, data):
    edges = np.cumsum([0, *lengths])
    rows = int(edges[-1])
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    panel, problem = make_panel_static(rows, list(pairwise(edges)), history, horizon)
    expected = [
        t
        for t in range(history, rows)
        if t >= start and t + horizon <= stop and any(a <= t - history and t + horizon <= b for a, b in pairwise(edges))
    ]
    windows = Windows(panel, problem)
    if expected:
        assert windows.origins(start, stop).tolist() == expected
    else:
        with pytest.raises(DataError):
            windows.origins(start, stop)


@pytest.fixture(scope="module")
def make_panel_static():
    """hypothesis wants fixtures that live longer than one example."""
    from cellwright.panel import Feature, Panel, PanelSchema, Segment
    from models._contract import Problem

    def make(rows, segments, history, horizon):
        schema = PanelSchema(
            dataset="toy",
            sites=("a",),
            features=(Feature(name="t", unit="1"),),
            targets=("t",),
            cadence_s=600,
            clock="relative",
            start_ms=0,
            rows=rows,
            segments=tuple(Segment(name=str(a), start=int(a), stop=int(b)) for a, b in segments),
            licence="",
            attribution="",
        )
        panel = Panel.from_arrays(schema, {"t": np.zeros((rows, 1), np.float32)})
        return panel, Problem(history, horizon, 600, "site", 1, 1, ("t",), ("t",))

    return make


def test_masks_tell_what_was_really_measured(make_panel, make_problem):
    values, flags = telling(20, 1), np.zeros((20, 1), np.uint8)
    values[9] = NAN
    flags[8:12, 0] = [Flag.MISSING | Flag.FILLED, Flag.MISSING, Flag.OUTLIER, Flag.OUTAGE]
    windows = Windows(make_panel(values, flags={"traffic": flags}), make_problem())
    raw = windows.raw(np.array([8, 10]), np.array([0, 0]))
    assert raw.mask[:, :, 0, 0].tolist() == [[False, False], [True, False]]  # an outlier counts: it was measured
    np.testing.assert_array_equal(raw.history[1, :, 0, 0], [600, 700, 800, NAN])


def test_neighbours_of_a_corner_and_of_the_middle():
    table = patch_neighbours((3, 4), 3)
    assert table.shape == (12, 9)
    assert table[0].tolist() == [-1, -1, -1, -1, 0, 1, -1, 4, 5]
    assert table[5].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert table[11].tolist() == [6, 7, -1, 10, 11, -1, -1, -1, -1]
    assert (table[:, 4] == np.arange(12)).all()
    with pytest.raises(ParamsError, match=r"must be odd.*found 4"):
        patch_neighbours((3, 3), 4)


def test_a_patch_is_missing_and_invalid_outside_of_the_grid(make_panel, make_problem):
    values = telling(20, 4)
    values[5, 1] = NAN
    problem = make_problem(inputs="patch", nodes=9, features=("traffic", "valid"), grid=(3, 3))
    raw = Windows(make_panel(values, grid=(2, 2)), problem).raw(np.array([8]), np.array([0]))
    np.testing.assert_array_equal(raw.history[0, 0, :, 0], [NAN, NAN, NAN, NAN, 400, 401, NAN, 402, 403])
    assert raw.history[0, 0, :, 1].tolist() == [0, 0, 0, 0, 1, 1, 0, 1, 1]
    assert raw.history[0, 1, :, 1].tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 1]  # site 1 was not measured in row 5
    assert raw.target[0, :, 0, 0].tolist() == [800, 900]


def test_a_history_longer_than_the_data_says_so(make_panel, make_problem):
    windows = Windows(make_panel(telling(20, 1)), make_problem(history=30))
    with pytest.raises(DataError, match=r"history 30 and horizon 2 need 32 unbroken rows, the longest stretch has 20; shorten"):
        windows.origins(0, 20)


def test_patches_want_a_grid(make_panel, make_problem):
    with pytest.raises(DataError, match="sites on a grid"):
        Windows(make_panel(telling(20, 4)), make_problem(inputs="patch", nodes=9, features=("traffic", "valid")))
