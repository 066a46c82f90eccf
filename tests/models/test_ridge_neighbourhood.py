"""Ridge on many sites: above 500 it looks at the neighbourhood, and learns what only the neighbours tell."""

import numpy as np
import pytest

from cellwright.data.split import Spans
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import check
from cellwright.training.candidates import resolve
from cellwright.training.fit import fit
from models import ridge

EDGE, ROWS = 24, 90


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Waves that travel east, one site a step: the next value of a site is its western neighbour's last one."""
    rng = np.random.default_rng(0)
    source = rng.normal(100, 10, (EDGE, ROWS + EDGE))
    values = np.stack([source[:, EDGE - column : EDGE - column + ROWS] for column in range(EDGE)], axis=1)
    schema = PanelSchema(
        dataset="waves",
        sites=tuple(f"s{i}" for i in range(EDGE**2)),
        features=(Feature(name="traffic", unit="1"),),
        targets=("traffic",),
        cadence_s=600,
        clock="relative",
        start_ms=0,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        grid=(EDGE, EDGE),
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": values.transpose(2, 0, 1).reshape(ROWS, EDGE**2)})


@pytest.mark.parametrize(
    ("sites", "on_grid", "inputs"), [(500, True, "all"), (500, False, "all"), (501, True, "patch"), (501, False, "site")]
)
def test_what_ridge_looks_at(sites, on_grid, inputs):
    assert ridge.Network.preferred_inputs(sites, on_grid=on_grid) == inputs


def test_a_long_history_of_few_sites_is_too_much_for_all_at_once():
    assert ridge.Network.preferred_inputs(400, on_grid=True, values_per_site=144) == "patch"


def test_on_a_grid_of_576_sites_it_learns_from_the_neighbours(panel):
    """Half of the first column's error stays: nothing west of it is measured. Alone, a site knows nothing."""
    losses = {}
    for inputs in ("auto", "site"):
        asked = {"history": 2, "horizon": 1, "patch": 3, "inputs": inputs}
        params = check({"dataset": "waves", "problem": asked, "train": {"models": ["ridge"], "loss": "mae"}}, "test")
        candidate = resolve(params, panel.schema, "ridge")
        assert candidate.problem.inputs == ("patch" if inputs == "auto" else "site")
        losses[inputs] = fit(candidate, panel, Spans((0, 60), (60, 75), (75, 90))).validation_loss
    assert losses["site"] == pytest.approx(0.8, abs=0.05)  # mean |N(0, 1)|
    assert losses["auto"] < 0.1
