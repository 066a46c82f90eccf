"""On real data the reference errors of the published protocol come out to two decimals."""

import gzip

import numpy as np
import pytest

from cellwright.data.split import split
from cellwright.data.windows import Windows
from cellwright.forecaster import forecast_panel
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import check
from cellwright.training.candidates import resolve
from cellwright.training.fit import fit

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def milan(mirror):
    with gzip.open(mirror / "milan-5x5" / "milan_grid_data.csv.gz", "rt") as file:
        values = np.loadtxt(file, delimiter=",")
    schema = PanelSchema(
        dataset="milan-5x5",
        sites=tuple(f"{i}" for i in range(25)),
        features=(Feature(name="internet", unit="a.u."),),
        targets=("internet",),
        cadence_s=600,
        clock="utc",
        timezone="Europe/Rome",
        start_ms=1_383_260_400_000,
        rows=len(values),
        segments=(Segment(name="all", start=0, stop=len(values)),),
        grid=(5, 5),
        licence="ODbL-1.0",
        attribution="Telecom Italia Open Big Data (Milan)",
    )
    return Panel.from_arrays(schema, {"internet": values}), values


@pytest.mark.parametrize(
    ("key", "mae", "rmse"), [("persistence", 24.32, 38.00), ("seasonal_naive", 39.56, 59.49), ("ridge", 21.60, 32.68)]
)
def test_reference_errors(milan, key, mae, rmse):
    panel, values = milan
    params = check({}, "test")
    candidate = resolve(params, panel.schema, key)
    spans = split(params.split, 0, len(values))
    forecaster = fit(candidate, panel, spans).forecaster
    windows = Windows(panel, candidate.problem)
    origins = windows.origins(*spans.test)
    assert len(origins) == 430
    error = forecast_panel(forecaster, windows, origins)[..., 0] - np.stack([values[t : t + 3] for t in origins])
    assert (round(np.abs(error).mean(), 2), round(np.sqrt((error**2).mean()), 2)) == (mae, rmse)
