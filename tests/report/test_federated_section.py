"""The federated section: there where something was trained federated, whole, escaped, readable for many owners, and by itself."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import plotly.graph_objects as go
import pytest
from typer.testing import CliRunner

from cellwright.errors import CellwrightError
from cellwright.federation.management.topology import drawn
from cellwright.params import Params, check
from cellwright.report.chart_owners import MOST_NAMED
from cellwright.report.federated import write_federation_page
from cellwright.report.topology_drawing import SIZE, drawing, sectors
from cellwright.steps.report import report


def _module(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


example_run, example_federation = _module("example_run"), _module("example_federation")
Example, Made, Told = example_run.Example, example_run.Made, example_federation.Told

KEY = "fedavgm:gru"
FEDERATED = Made(KEY, "GRU by FedAvgM", 9.5, 90.0)
HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}<a href="javascript:alert(3)">'


class Page(example_run.Page):
    """A page with a federated section."""

    @property
    def charts(self) -> list[dict]:
        return json.loads(self.scripts[0])["federations"]

    def having(self, name: str) -> list[dict]:
        return [attrs for _, attrs in self.elements if name in attrs]


def run_with(root: Path, *tolds, made=(FEDERATED,)):
    """A finished run with federated candidates beside those of the example."""
    ws = example_run.build(root, Example(candidates=(*example_run.CANDIDATES, *made)))
    for candidate, told in zip(made, tolds, strict=True):
        example_federation.write(ws.candidate(candidate.key), told)
    return ws


def page_of(root: Path, told) -> Page:
    return Page(report(Params(), run_with(root, told)).read_text())


def alone(folder: Path, told, unit: str = "Mbit/s") -> Page:
    example_federation.write(folder, told)
    return Page(write_federation_page(folder, folder / "page.html", unit).read_text())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return page_of(tmp_path_factory.mktemp("run"), Told(epsilon=0.5, lost=("cell-002",), decision="learning rate halved"))


def _trace(figure: dict, name: str) -> dict:
    return next(t for t in figure["data"] if t.get("name", "").startswith(name))


def test_a_run_without_a_federation_has_no_such_section(tmp_path):
    page = Page(report(Params(), example_run.build(tmp_path, Example())).read_text())
    assert "federated" not in {a.get("id") for _, a in page.elements}
    assert "#federated" not in {a.get("href") for _, a in page.elements}
    assert page.charts == []


def test_a_federated_candidate_has_its_section_and_a_way_to_it(page):
    assert "federated" in {a.get("id") for tag, a in page.elements if tag == "section"}
    assert "#federated" in {a.get("href") for tag, a in page.elements if tag == "a"}
    assert "GRU by FedAvgM" in page.text
    assert page.having("data-pick") == [] or "federation" not in {a["data-pick"] for a in page.having("data-pick")}


def test_errors_three_ways_are_read_first_with_their_units(page):
    """22 beside 20 is 10 % more, beside 25 12 % less."""
    assert "Test MAE, federated 22.0 Mbit/s 24.0 on the validation span" in page.text
    assert "Test MAE, centralised 20.0 Mbit/s federated is +10.0 %" in page.text
    assert "Test MAE, each owner alone 25.0 Mbit/s federated is −12.0 %" in page.text


def test_it_says_how_it_was_trained_and_what_it_cost(page):
    """4 owners, 6 rounds; one was lost in the third, so that 3·6 + 2 = 20 owner-rounds of 61,741 and 121,322 bytes and 0.8 J count."""
    assert "FedAvgM with 4 owners: done after 6 rounds, test MAE 22" in page.text
    assert "FedAvgM, synchronous; momentum 0.9" in page.text
    assert "4 with 4,006 windows" in page.text
    assert "Central differential privacy; ε 3.00 at δ = 1e-05 (per owner)" in page.text
    assert "1.23 MB up, 2.43 MB down" in page.text
    assert "1,234,820 B up, 2,426,440 B down" in {a["title"] for a in page.having("title")}
    assert "16.0 J, 3.00 mg CO₂ (modelled: CPU-seconds × watts of a busy core)" in page.text
    assert "star, version 2; rebuilt in 1 round" in page.text
    assert "ab" * 32 in page.text
    assert "15.0 s of rounds by the nodes' clock, 20.0 s of this machine" in page.text


def test_rounds_are_drawn_with_the_privacy_budget_and_what_happened(page):
    figure = page.charts[0]["rounds"]
    assert _trace(figure, "validation MAE")["y"] == [30, 25, 23.333, 22.5, 22, 21.667]
    assert _trace(figure, "privacy budget ε spent at δ = 1e-05")["y"] == [0.5, 1, 1.5, 2, 2.5, 3]
    assert (_trace(figure, "topology rebuilt")["x"], _trace(figure, "topology rebuilt")["y"]) == ([3], [23.333])
    assert _trace(figure, "other events")["text"] == ["learning rate halved"]
    assert _trace(figure, "updates lost")["y"] == [0, 0, 1, 0, 0, 0]
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [3]
    assert "Round 3: topology 2 after 1: cell-002 cannot be reached" in page.text
    tops = [figure["layout"][axis]["domain"] for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert all(low > high for (low, _), (_, high) in pairwise(tops))


def test_without_privacy_or_losses_there_is_the_error_alone(tmp_path):
    page = alone(tmp_path, Told())
    assert [t["name"] for t in page.charts[0]["rounds"]["data"]] == ["validation MAE over all owners"]
    assert "never rebuilt" in page.text
    assert "No node left, the topology was not rebuilt" in page.text


def test_a_classification_shows_how_well_events_are_told(tmp_path):
    figure = alone(tmp_path, Told(classified=True)).charts[0]["rounds"]
    assert {t["name"]: t["y"][0] for t in figure["data"][1:]} == {"precision": 0.7, "recall": 0.6, "AUC": 0.9}


def test_owners_lie_in_the_order_of_their_federated_error(page):
    figure = page.charts[0]["owners"]
    named = figure["layout"]["yaxis"]["ticktext"]
    mine, on_its_own = _trace(figure, "federated")["x"], _trace(figure, "alone")["x"]
    assert named[-1] == "cell-002"
    assert mine[-1] is None
    assert mine[:-1] == sorted(mine[:-1])
    assert on_its_own[:-1] == pytest.approx([1.1 * v for v in mine[:-1]], rel=1e-3)
    assert _trace(figure, "centralised")["x"][:-1] == pytest.approx([0.98 * v for v in mine[:-1]], rel=1e-3)
    assert len(_trace(figure, "contribution")["x"]) == 4


def test_the_table_of_owners_has_what_each_gave_and_cost(page):
    assert "cell-002 1,002 2 – " in page.text  # windows, rounds in which it counted, no error: it is gone
    assert re.search(r"cell-000 1,000 6 \d\d\.\d \d\d\.\d \d\d\.\d −?0\.\d+ −?0\.\d+ 25\.0 1\.00 1\.20 4\.80 370 728", page.text)
    assert "Sent kB" in page.text
    assert "Energy J, modelled" in page.text


def test_what_is_not_known_is_a_dash_and_never_nought(tmp_path):
    page = alone(tmp_path, Told(compared=False, metered=False))
    assert re.search(r"cell-000 1,000 6 \d\d\.\d – – – – – 1\.00 1\.20 – 370 728", page.text)
    assert "– (no owner metered it)" in page.text
    assert "no owner's energy was metered" in page.text
    assert "centralised 2" not in page.text
    assert [t["name"] for t in page.charts[0]["owners"]["data"] if "name" in t] == ["federated"]


def test_a_federation_that_did_no_round_says_so(tmp_path):
    page = alone(tmp_path, Told(rounds=0, reason="cancelled by its client"))
    assert page.charts[0]["rounds"] is None
    assert "No round was done." in page.text
    assert "0: cancelled by its client" in page.text


def test_every_chart_is_one_that_plotly_knows(tmp_path, page):
    many = alone(tmp_path, Told(owners=MOST_NAMED + 1, epsilon=0.1, lost=("cell-001",), classified=True))
    for figures in (*page.charts, *many.charts):
        for figure in figures.values():
            go.Figure(figure, skip_invalid=False)


def test_many_owners_are_drawn_by_rank_and_their_table_scrolls(tmp_path):
    path = tmp_path / "page.html"
    page = alone(tmp_path, Told(owners=882, regions=12))
    assert len([a for tag, a in page.elements if tag == "circle" and a["class"] == "node-owner"]) == 882
    assert "scroll tall" in {a.get("class") for _, a in page.elements}
    assert page.charts[0]["owners"]["layout"]["xaxis"]["title"]["text"] == "Rank of the owner by its federated MAE"
    assert "882 owners; the table scrolls" in page.text
    assert path.stat().st_size < 6_500_000


def test_few_owners_do_not_scroll(page):
    assert "scroll tall" not in {a.get("class") for _, a in page.elements}


def test_several_federated_candidates_can_be_chosen(tmp_path):
    made = (FEDERATED, Made("fedprox:tcn", "TCN by FedProx", 9.6, 80.0))
    ws = run_with(tmp_path, Told(), Told(key="fedprox:tcn"), made=made)
    page = Page(report(Params(), ws).read_text())
    assert "federation" in {a["data-pick"] for a in page.having("data-pick")}
    assert {a["data-federation"] for a in page.having("data-federation")} == {"0", "1"}
    assert len(page.charts) == 2


def test_hostile_names_stay_text(tmp_path):
    told = Told(names=(HOSTILE, "b" * 60), reason=HOSTILE, decision=HOSTILE, lost=(HOSTILE,))
    page = page_of(tmp_path, told)
    assert [tag for tag, _ in page.elements if tag in ("img", "iframe", "object")] == []
    assert len(page.scripts) == 3
    assert not [a for _, a in page.elements for name in a if name.startswith("on")]
    drawn = json.dumps(page.charts)
    assert all(tag not in drawn for tag in ("<img", "<a ", "<script"))


def test_a_star_has_its_owners_on_a_ring_round_the_coordinator():
    found = drawing(drawn("r", "star", "cloud", dict.fromkeys("abcd", "cloud"), auditor="watch"), {}, {"a": "test MAE 3"})
    dots = {dot.title.partition(":")[0]: dot for dot in found.dots}
    assert {name: dot.kind for name, dot in dots.items()} == {
        **dict.fromkeys("abcd", "owner"), "cloud": "coordinator", "watch": "auditor",
    }  # fmt: skip
    assert (dots["cloud"].x, dots["cloud"].y) == (SIZE / 2, SIZE / 2)
    away = [((dots[n].x - SIZE / 2) ** 2 + (dots[n].y - SIZE / 2) ** 2) ** 0.5 for n in "abcd"]
    assert away == pytest.approx([away[0]] * 4, abs=0.2)
    assert dots["a"].title == "a: test MAE 3"
    assert found.spokes.count("M") == 4
    assert found.trunks == ""


def test_a_hierarchy_has_its_owners_beyond_their_edges():
    topology = drawn("r", "hierarchy", "cloud", {"a": "east", "b": "east", "c": "west", "d": "cloud"})
    assert [(s.head, s.nodes) for s in sectors(topology, {})] == [("east", ("a", "b")), ("west", ("c",)), (None, ("d",))]
    found = drawing(topology, {"e": "lost, it cannot be reached"}, {})
    assert found.trunks.count("M") == 2
    assert found.spokes.count("M") == 4  # the one that is gone has no connection
    assert [dot.title for dot in found.dots if dot.kind == "gone"] == ["e: lost, it cannot be reached"]
    assert found.words == "hierarchy of version 1: coordinator cloud, 2 edges, 4 owners, 1 nodes gone"


@pytest.mark.parametrize(("owners", "edges"), [(1, 0), (60, 0), (61, 0), (882, 0), (882, 12), (3000, 40), (40, 40)])
def test_no_two_nodes_lie_on_each_other(owners, edges):
    parents = {f"o{i}": f"edge{i % edges}" if edges else "cloud" for i in range(owners)}
    found = drawing(drawn("r", "hierarchy" if edges else "star", "cloud", parents), {}, {})
    places = [(dot.x, dot.y, dot.radius) for dot in found.dots if dot.kind == "owner"]
    assert len(places) == owners
    assert all(0 <= x <= SIZE and 0 <= y <= SIZE for x, y, _ in places)
    places.sort()
    for i, (x, y, radius) in enumerate(places):
        near = [p for p in places[i + 1 : i + 200] if p[0] - x < 2 * radius]
        assert all((x - u) ** 2 + (y - v) ** 2 > (radius + r) ** 2 * 0.8 for u, v, r in near)


def test_rounds_that_are_missing_or_torn_are_named(tmp_path):
    ws = run_with(tmp_path, Told())
    path = ws.candidate(KEY) / "rounds.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(CellwrightError, match=r"rounds\.jsonl is not a file of rounds"):
        report(Params(), ws)
    path.unlink()
    with pytest.raises(CellwrightError, match=r"rounds\.jsonl is missing beside federation\.json"):
        report(Params(), ws)


def test_a_folder_without_a_federation_has_no_page(tmp_path):
    with pytest.raises(CellwrightError, match="holds no federation"):
        write_federation_page(tmp_path, tmp_path / "page.html")


def test_show_writes_the_page_of_a_federation_without_a_leaderboard(tmp_path, monkeypatch):
    from flows.cli import app

    ws = example_run.build(tmp_path, Example())
    example_federation.write(ws.candidate("personalised:gru"), Told(key="personalised:gru"))
    params = check({"dataset": "city"}, "test")
    (ws.run_folder / "params.json").write_text(params.model_dump_json(by_alias=True))
    ws.leaderboard.unlink()
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(tmp_path))
    done = CliRunner().invoke(app, ["federate", "show", "--html", str(tmp_path / "page.html")], catch_exceptions=False)
    assert done.exit_code == 0
    page = Page((tmp_path / "page.html").read_text())
    assert "Test MAE, federated 22.0 Mbit/s" in page.text
    assert not [a for _, a in page.elements if a.get("src") or ((a.get("href") or "#")[0] != "#" and a.get("href") != "data:,")]


def test_a_browser_draws_the_section_in_both_pages(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    ws = run_with(tmp_path / "run", Told())
    by_itself = write_federation_page(ws.candidate(KEY), tmp_path / "page.html", "Mbit/s")
    for path in (report(Params(), ws), by_itself):
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / path.stem}",
            "--virtual-time-budget=8000",
        ]
        blocked = ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]
        command = [browser, *options, *blocked, "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        names = {a["data-chart"] for _, a in Page(done.stdout).elements if "js-plotly-plot" in (a.get("class") or "")}
        assert {"federation-0-rounds", "federation-0-owners"} <= names
