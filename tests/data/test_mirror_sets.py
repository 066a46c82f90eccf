"""The data sets that ship, normalised from their real sources."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cellwright.panel import Flag, Panel
from cellwright.params import check
from cellwright.results import Normalised
from cellwright.steps.ingest import ingest
from cellwright.steps.normalise import normalise
from cellwright.workspace import Workspace

CATALOGUE = Path(__file__).parents[2] / "data" / "catalogue.yaml"


def made(
    root: Path, dataset: str, mirror: Path | None = None, catalogue: str | None = None
) -> tuple[Panel, Normalised, Workspace]:
    (root / "data").mkdir()
    shutil.copy(CATALOGUE, root / "data")
    if catalogue is not None:
        (root / "data" / "catalogue.yaml").write_text(catalogue)
    ws = Workspace(root)
    params = check({"dataset": dataset, "ingest": {"mirror": mirror and str(mirror)}}, "test")
    ingest(params, ws)
    report = normalise(params, ws)
    return Panel.open(ws.panel(dataset)), report, ws


@pytest.mark.shared
def test_milan_5x5(tmp_path, mirror):
    panel, report, ws = made(tmp_path, "milan-5x5", mirror)
    values = panel.values("internet")
    assert values.shape == (4320, 25)
    assert values.dtype == np.float32
    assert report.first == "2013-11-01T00:00:00+01:00"
    assert panel.schema.start_ms == 1_383_260_400_000
    assert panel.schema.grid == (5, 5)
    assert values.min() == pytest.approx(10.5, abs=0.05)
    assert values.mean() == pytest.approx(202.3, abs=0.05)
    assert values.max() == pytest.approx(3136, abs=0.5)
    assert panel.good("internet").all()
    for row, column in ((1444, 12), (1445, 12), (3000, 16)):  # over 15 standard deviations from the mean
        assert panel.flags("internet")[row, column] == Flag.OUTLIER
    assert panel.schema.adjacency is not None
    assert (0, 1, pytest.approx(0.96926, abs=1e-5)) in panel.schema.adjacency
    assert sorted(p.name for p in ws.raw("milan-5x5").iterdir()) == ["milan_41_45_41_45_adj_mx.csv", "milan_grid_data.csv"]


@pytest.mark.shared
def test_gnb_prb(tmp_path, mirror):
    panel, report, _ = made(tmp_path, "gnb-prb", mirror)
    assert panel.schema.sites == ("ue-002", "ue-003")
    assert panel.schema.clock == "relative"
    assert {s.name for s in panel.schema.segments} == {"t1", "t1-2", "t2", "t3", "t4", "t5", "t6"}
    first = panel.schema.segments[0]
    assert (first.name, first.start) == ("t1", 0)
    assert panel.values("granted_prbs")[0, 0] == 24  # t1/002's first row
    assert panel.values("dl_rate_mbps")[0, 0] == pytest.approx(0.00395181)
    assert np.isnan(panel.values("granted_prbs")[0, 1])  # t1/003 begins 2 s later
    assert panel.values("granted_prbs")[8, 1] == 39
    assert report.duplicates_equal + report.duplicates_conflicting < 50
    assert report.features["granted_prbs"].masked < 0.02 * 2 * report.rows


@pytest.mark.shared
def test_ran_updates(tmp_path, mirror):
    panel, report, _ = made(tmp_path, "ran-updates", mirror)
    assert (report.rows, report.sites) == (126, 882)
    missing = (panel.flags("dl_zscore") & Flag.MISSING) > 0
    assert int((~missing).sum()) == 110_585
    assert int((~missing).all(axis=0).sum()) == 789
    values = panel.values("dl_zscore")
    assert float(np.nanmean(values[62:])) < float(np.nanmean(values[:62])) - 0.5  # traffic moves to the new layer
    assert report.features["dl_zscore"].outage == 0


@pytest.mark.shared
def test_lte_kpi(tmp_path, mirror):
    panel, report, _ = made(tmp_path, "lte-kpi", mirror)
    assert panel.schema.sites == ("network",)
    assert report.first == "2016-01-01T00:00:00+01:00"
    assert report.last == "2020-01-01T23:00:00+01:00"
    assert report.rows == 4 * 8760 + 24 + 24  # four years, a leap day, and 1 January 2020
    measured = (panel.flags("rrc_setup_failure_pct") & Flag.MISSING) == 0
    assert int(measured.sum()) == 34_946


@pytest.mark.shared
def test_the_same_panel_from_the_mirror_twice(tmp_path, mirror):
    bytes_of = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _, _, ws = made(tmp_path / name, "milan-5x5", mirror)
        bytes_of.append({p.name: p.read_bytes() for p in ws.panel("milan-5x5").iterdir()})
    assert bytes_of[0] == bytes_of[1]


def test_city_with_its_known_outages(tmp_path):
    text = re.sub(r"generator_options: \{.*?\}", "generator_options: {seed: 7, days: 10, grid: [6, 6]}", CATALOGUE.read_text())
    panel, report, ws = made(tmp_path, "city", catalogue=text)
    assert panel.schema.grid == (6, 6)
    assert (report.rows, report.sites) == (1440, 36)
    assert panel.schema.coordinates is not None
    known = json.loads((ws.raw("city") / "site.json").read_text())
    down = np.zeros((1440, 36), bool)
    for outage in known["outages"]:
        start, stop = ((outage[k] - panel.schema.start_ms) // 600_000 for k in ("start_ms", "stop_ms"))
        down[start:stop, panel.schema.sites.index(outage["site"])] = True
    arrived = (panel.flags("traffic_mbps") & Flag.MISSING) == 0
    found = (panel.flags("traffic_mbps") & Flag.OUTAGE) > 0
    assert down.any()
    assert (found & ~down).sum() == 0
    assert (found & down).sum() >= 0.9 * (down & arrived).sum()
