"""Nothing after a cut reaches what lies before it: not the windows, not the calendar, not the scaler."""

import numpy as np
import pytest

from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import Windows

CUT = 60
SITES = 4


@pytest.fixture
def pair(make_panel):
    """The same telemetry, and one where every row from the cut on was changed, flags included."""
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 30, (100, SITES)).astype(np.float32)
    changed, flags = values.copy(), np.zeros(values.shape, np.uint8)
    changed[CUT:] *= -1000
    flags[CUT:] = 1
    return make_panel(values, grid=(2, 2)), make_panel(changed, flags={"traffic": flags}, grid=(2, 2))


@pytest.mark.parametrize("inputs", ["site", "patch", "all"])
def test_training_windows_know_nothing_of_later_rows(pair, make_problem, inputs):
    nodes = {"site": 1, "patch": 9, "all": SITES}[inputs]
    valid = ("valid",) if inputs == "patch" else ()
    problem = make_problem(
        inputs=inputs,
        nodes=nodes,
        outputs=SITES if inputs == "all" else 1,
        features=("traffic", "traffic@6", *valid),
        lags=(6,),
        known=("hour", "week_sin"),
    )
    both = [Windows(panel, problem) for panel in pair]
    origins = both[0].origins(0, CUT)
    assert origins.max() + problem.horizon == CUT
    for site in range(SITES):
        before, after = (w.raw(origins, np.full(len(origins), site)) for w in both)
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_history_of_a_window_ends_before_its_target(pair, make_problem):
    """The last training window does not see the row it is to forecast, the first later one sees it."""
    problem = make_problem(features=("traffic", "traffic@2"), lags=(2,))
    both = [Windows(panel, problem) for panel in pair]
    histories = [w.raw(np.array([CUT, CUT + 1]), np.array([0, 0])).history for w in both]
    np.testing.assert_array_equal(histories[0][0], histories[1][0])
    assert (histories[0][1] != histories[1][1]).any()


def test_scalers_know_nothing_of_later_rows(pair, make_problem):
    before, after = (fit_scaler(panel, make_problem(), "standard", (0, CUT)) for panel in pair)
    np.testing.assert_array_equal(before.center, after.center)
    np.testing.assert_array_equal(before.scale, after.scale)
