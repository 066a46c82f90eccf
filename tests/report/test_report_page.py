"""The page: whole, escaped, complete, and drawn by a real browser without a network."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest

from cellwright.errors import CellwrightError
from cellwright.params import Params, check
from cellwright.results import Leaderboard
from cellwright.steps.report import report
from cellwright.workspace import Workspace

_spec = importlib.util.spec_from_file_location("example_run", Path(__file__).parent / "example_run.py")
example_run = importlib.util.module_from_spec(_spec)
sys.modules["example_run"] = example_run
_spec.loader.exec_module(example_run)
Example, Made = example_run.Example, example_run.Made

SECTIONS = {
    "choice",
    "leaderboard",
    "energy",
    "forecasts",
    "errors",
    "calibration",
    "differences",
    "training",
    "tried",
    "data",
    "reproduce",
}
HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}<a href="javascript:alert(3)">'


class Page(example_run.Page):
    """A page of the report."""

    @property
    def charts(self) -> dict:
        return json.loads(self.scripts[0])


def made(tmp_path: Path, example=None, params: Params | None = None) -> Page:
    ws = example_run.build(tmp_path, example or Example())
    return Page(report(params or Params(), ws).read_text())


def figures(charts: dict) -> list[dict]:
    found = [charts[name] for name in ("energy", "steps", "curves", "differences", "reliability", "pit") if charts[name]]
    return [*found, *(layer["figure"] for layer in charts["sites"]), charts["forecasts"]["figure"]]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return made(tmp_path_factory.mktemp("run"))


def test_it_loads_nothing_and_is_small(tmp_path):
    path = report(Params(), example_run.build(tmp_path, Example()))
    text, page = path.read_text(), Page(path.read_text())
    assert path.stat().st_size < 6_000_000
    assert not [a for _, a in page.elements if a.get("src") or ((a.get("href") or "#")[0] != "#" and a.get("href") != "data:,")]
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert styles
    assert not [s for s in styles if "url(" in s or "@import" in s]
    assert "default-src 'none'" in text


def test_every_section_is_there(page):
    assert {a["id"] for tag, a in page.elements if tag == "section"} == SECTIONS
    links = {a["href"].removeprefix("#") for tag, a in page.elements if tag == "a"}
    assert links <= SECTIONS


def test_it_says_who_won_why_and_what_failed(page):
    assert "TCN was chosen: as accurate as PatchTST" in page.text
    assert "out of memory at epoch 3" in page.text
    assert "does not beat ridge" in page.text
    assert "0123456789abcdef0123456789abcdef.dir" in page.text
    assert "6.50 Mbit/s" in page.text


def test_columns_have_one_unit_and_the_best_is_marked(page):
    assert "Training energy J" in page.text.replace("\n", " ")
    best = [a for tag, a in page.elements if tag == "td" and (a.get("class") or "").startswith("best")]
    assert "0.8" in {a["data-value"] for a in best}


def test_every_chart_is_one_that_plotly_knows(page):
    charts = page.charts
    assert len(figures(charts)) == 10
    for figure in figures(charts):
        go.Figure(figure, skip_invalid=False)
    assert [layer["label"] for layer in charts["sites"]] == ["TCN", "Ridge regression", "TCN minus Ridge regression"]


def test_the_front_goes_down_as_energy_goes_up(page):
    front = page.charts["energy"]["data"][0]
    assert front["x"] == sorted(front["x"])
    assert front["y"] == sorted(front["y"], reverse=True)


def test_forecasts_lie_on_their_own_times_and_masked_truth_is_a_gap(page):
    found = page.charts["forecasts"]
    assert found["times"]["1"][0] == "2013-11-19 00:00:00"  # row 864 of half hours from midnight of 1 November in Rome
    assert found["times"]["3"][0] == "2013-11-19 01:00:00"
    assert found["times"]["1"][2] == found["times"]["3"][0]
    masked = [values["truth"] for key, values in found["values"].items() if None in values["truth"]]
    assert all(line[5:9] == [None] * 4 for line in masked)


def test_hostile_names_stay_text(tmp_path):
    candidates = (
        Made("mlp", HOSTILE, 9.0, 5.0, reason=HOSTILE, paper=HOSTILE),
        Made("ridge", "Ridge" + HOSTILE, 11.0, 1.0, status="closed form", epochs=0),
    )
    example = Example(
        sites=2,
        grid=None,
        names=(HOSTILE, "b"),
        targets=("t<b>" + HOSTILE.replace("/", ""),),
        unit=HOSTILE,
        licence=HOSTILE,
        attribution=HOSTILE,
        candidates=candidates,
        failures=(("gru", HOSTILE),),
        chosen="mlp",
        choice_sentence=HOSTILE,
    )
    page = made(tmp_path, example)
    assert [tag for tag, _ in page.elements if tag in ("img", "iframe", "object")] == []
    assert len(page.scripts) == 3
    assert not [a for _, a in page.elements for name in a if name.startswith("on")]
    assert "49" not in page.text.replace("0.49", "").split()
    drawn = json.dumps(figures(page.charts))
    assert "<img" not in drawn
    assert "<a " not in drawn
    assert "<script" not in drawn


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        (Example(), "heatmap"),
        (Example(grid=None, coordinates=True), "scatter"),
        (Example(grid=None), "bar"),
    ],
)
def test_sites_are_drawn_as_the_data_set_lays_them_out(tmp_path, example, kind):
    layers = made(tmp_path, example).charts["sites"]
    assert {layer["figure"]["data"][0]["type"] for layer in layers} == {kind}


def test_a_map_is_row_major(tmp_path):
    example = Example(grid=(2, 8))
    layer = made(tmp_path, example).charts["sites"][0]["figure"]["data"][0]
    assert (len(layer["z"]), len(layer["z"][0])) == (2, 8)
    assert layer["customdata"][1][0] == "cell-008"


def test_a_relative_clock_counts_days(tmp_path):
    page = made(tmp_path, Example(clock="relative"))
    assert page.charts["forecasts"]["times_title"] == "days since the first row"
    assert page.charts["forecasts"]["times"]["1"][0] == 18.0
    assert "row 0 to row 959" in page.text


def test_several_targets_can_be_chosen(tmp_path):
    page = made(tmp_path, Example(targets=("down", "up")))
    assert {key.split("/")[1] for key in page.charts["forecasts"]["values"]} == {"0", "1"}
    assert "target" in {a.get("data-pick") for _, a in page.elements}


def test_without_energy_cpu_time_is_drawn_and_said(tmp_path):
    candidates = (Made("mlp", "MLP", 9.0, None), Made("tcn", "TCN", 9.5, 3.0))
    chart = made(tmp_path, Example(candidates=candidates, chosen="mlp")).charts["energy"]
    assert chart["layout"]["xaxis"]["title"]["text"] == "CPU time of training (s, log scale)"


def test_a_single_closed_form_is_a_page_too(tmp_path):
    lone = (Made("ridge", "Ridge", 9.0, 3.0, status="closed form", epochs=0),)
    page = made(tmp_path, Example(candidates=lone, failures=(), chosen="ridge"))
    assert page.charts["curves"] is None
    assert page.charts["differences"] is None
    assert "There is no other candidate to compare with." in page.text
    assert "Nothing failed" in page.text


def test_a_candidate_that_lies_far_above_waits_in_the_legend(tmp_path):
    candidates = (*example_run.CANDIDATES, Made("seasonal_naive", "Seasonal naive", 60.0, 0.5, "closed form", 0))
    page = made(tmp_path, Example(candidates=candidates))
    shown = {trace["name"]: trace.get("visible", True) for trace in page.charts["steps"]["data"]}
    assert shown["Seasonal naive"] == "legendonly"
    assert shown["TCN"] is True
    assert "Far above and not drawn:" in page.text


def test_calibration_is_told_as_shares_of_the_truth(page):
    """Shares 0.03, 0.07, 0.14, 0.24 … at levels 0.025, 0.1, 0.25, 0.5 …: below them lie 0.03, 0.1, 0.24, 0.48 of the truth."""
    drawn = {trace["name"]: trace for trace in page.charts["reliability"]["data"]}
    assert set(drawn) == {"TCN", "PatchTST", "Ridge regression"}
    assert drawn["TCN"]["y"] == pytest.approx([0.5, 0, -1, -2, -3, -2, -1.5], abs=1e-4)
    bars = page.charts["pit"]["data"][0]
    assert bars["y"] == pytest.approx(
        [0.03 / 0.025, 0.07 / 0.075, 0.14 / 0.15, 0.96, 0.96, 0.16 / 0.15, 0.08 / 0.075, 1.6], rel=1e-3
    )
    assert sum(bars["width"]) == pytest.approx(1)
    assert "48.0 % 78.0 % 93.0 %" in page.text


def test_what_was_never_calibrated_is_said_to_be_so(tmp_path):
    assert "No candidate has calibrated intervals" in made(tmp_path, Example(calibrated=False)).text


def test_presets_have_files_of_their_own(tmp_path):
    candidates = (Made("vmrnn:b", "VMRNN (b)", 9.0, 3.0), Made("ridge", "Ridge", 11.0, 1.0, "closed form", 0))
    assert "VMRNN (b)" in made(tmp_path, Example(candidates=candidates, chosen="vmrnn:b")).text


def test_further_kpis_are_there_when_they_are_asked_for(tmp_path):
    weighted = check({"rank": {"weights": {"mae": 1.0}}}, "test")
    page = made(tmp_path, Example(), weighted)
    assert [a for tag, a in page.elements if tag == "th" and a.get("class") == "more"] == []
    assert [a for tag, a in page.elements if "data-toggle" in a] == []


def test_what_is_hidden_is_asked_for_group_by_group(tmp_path):
    ws = example_run.build(tmp_path, Example())
    board = Leaderboard.read(ws.leaderboard)
    rows = [row.model_copy(update={"kpis": {**row.kpis, "pit_error": 0.1, "gini_error": 0.2}}) for row in board.rows]
    more = {"pit_error": "PIT error", "gini_error": "Gini of site errors"}
    board.model_copy(
        update={
            "rows": rows,
            "kpi_titles": {**board.kpi_titles, **more},
            "kpi_units": {**board.kpi_units, **dict.fromkeys(more, "1")},
            "kpi_lower_is_better": {**board.kpi_lower_is_better, **dict.fromkeys(more, True)},
            "kpi_groups": {"pit_error": "calibration", "gini_error": "fairness"},
        }
    ).save(ws.leaderboard)
    page = Page(report(check({"rank": {"weights": {"pit_error": 1.0}}}, "test"), ws).read_text())
    assert [a["data-toggle"] for _, a in page.elements if "data-toggle" in a] == ["fairness"]
    hidden = [a for tag, a in page.elements if tag == "th" and a.get("class") == "more"]
    assert [a["data-group"] for a in hidden] == ["fairness"]
    assert "fairness (1)" in page.text


def test_missing_scores_say_which_step_makes_them(tmp_path):
    ws = example_run.build(tmp_path, Example())
    (ws.scores / "truth.npz").unlink()
    with pytest.raises(CellwrightError, match="cellwright step score"):
        report(Params(), ws)


def test_without_a_leaderboard_there_is_no_report(tmp_path):
    with pytest.raises(CellwrightError, match=r"leaderboard\.json is missing"):
        report(Params(), Workspace(tmp_path, "none"))


@pytest.fixture
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    return found


def test_a_browser_draws_every_chart_without_a_network(tmp_path, browser):
    path = report(Params(), example_run.build(tmp_path, Example()))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=8000",
    ]
    blocked = ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]
    done = subprocess.run(
        [browser, *options, *blocked, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    drawn = Page(done.stdout)
    charts = [a for _, a in drawn.elements if "js-plotly-plot" in (a.get("class") or "")]
    assert {a["data-chart"] for a in charts} == {
        "energy",
        "forecasts",
        "steps",
        "sites",
        "differences",
        "curves",
        "reliability",
        "pit",
    }
