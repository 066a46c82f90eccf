"""The page of a vertical or a transfer federation: errors beside each other, bytes each way, energy with its source, the audit."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cellwright.federation.alignment.audit_summary import summary
from cellwright.federation.alignment.told import FILES
from cellwright.federation.alignment.transfer import Course, TransferResult
from cellwright.federation.alignment.vertical_spec import Epoch, Trial, VerticalResult
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.signing import Signer
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import check
from cellwright.report.kinds import write_kind_page
from cellwright.results import DataVersion
from cellwright.workspace import Workspace
from flows.cli import app

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}'


def _module(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Page(_module("example_run").Page):
    """A page that holds one federation of parties."""

    @property
    def chart(self) -> dict:
        return json.loads(self.scripts[0])["federations"][0]["lines"]


@pytest.fixture
def ws(tmp_path) -> Workspace:
    """A run on a panel of two sites, without a result yet."""
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    ws = Workspace(tmp_path, "tiny-1-vertical")
    schema = PanelSchema(
        dataset="tiny", sites=("a", "b"), features=(Feature(name="load", unit="Mbit/s"),), targets=("load",), cadence_s=600, clock="utc",
        start_ms=0, rows=4, segments=(Segment(name="all", start=0, stop=4),), licence="CC0", attribution="",
    )  # fmt: skip
    Panel.from_arrays(schema, {"load": np.ones((4, 2), np.float32)}).save(ws.held_panel("tiny"))
    first, last = "1970-01-01T00:00:00Z", "1970-01-01T00:30:00Z"
    DataVersion(dataset="tiny", hash="ab" * 16, rows=4, sites=2, first=first, last=last).save(ws.run_folder / "data.json")
    (ws.run_folder / "params.json").write_text(check({"dataset": "tiny"}, "test").model_dump_json(by_alias=True))
    return ws


def trial(mae: float, epochs: int, *, metered: bool = True) -> Trial:
    return Trial(
        status="epochs", best_epoch=epochs, mae_validation=mae - 1, mae=mae, mse=mae**2, messages=120, seconds=3.5,
        epochs=[
            Epoch(epoch=i, train_loss=1.0, validation_loss=1.0, validation_mae=mae - 1 + 1 / i, learning_rate=0.1)
            for i in range(1, epochs + 1)
        ],
        down_bytes={"gnb": 3_000_000, "ue": 1_000_000}, up_bytes={"gnb": 1_500_000, "ue": 2_500_000},
        cpu_s={"gnb": 2.0, "ue": 1.0}, energy_j={"gnb": 20.0, "ue": 10.0} if metered else {}, energy_source="modelled" if metered else None,
    )  # fmt: skip


def audited(ws: Workspace, kind: str):
    signer = Signer.generate()
    with AuditLog.open(ws.run_folder / kind / "audit.jsonl", signer) as log:
        for i in range(4):
            log.append(Record("vertical_step", "ue", 1, "00", "sent"))
            log.append(Record("vertical_step", "ue", 1, "00", "refused" if i == 3 else "accepted", "finite" if i == 3 else ""))
    return summary(ws.run_folder, log.path, signer.public)


def vertical(ws: Workspace, **more) -> VerticalResult:
    found = VerticalResult(
        active="gnb", passives=["ue"], model="mlp", seed=7, offered={"gnb": 310, "ue": 210}, common=200,
        windows={"train": 160, "validation": 20, "test": 20}, widths={"gnb": 8, "ue": 8},
        vertical=trial(18.0, 3), alone=trial(20.0, 4), pooled=trial(16.0, 2), align_bytes=64_000, align_seconds=1.5, align_energy_j=12.0,
        epsilon_embedding=None, delta=1e-5, audit=audited(ws, "vertical"),
    )  # fmt: skip
    return found.model_copy(update=more).save(ws.run_folder / FILES["vertical"])


def course(maes: list[float], **owners: float | None) -> Course:
    return Course(
        status="rounds", rounds=len(maes), mae=maes[-1] + 1, mse=4.0, mae_validation=maes, mae_by_owner=owners, down_bytes=2_000_000,
        up_bytes=1_000_000, energy_j=5.0, energy_source="modelled",
    )  # fmt: skip


def transfer(ws: Workspace, **more) -> TransferResult:
    found = TransferResult(
        dataset="tiny", model="mlp", body=["blocks.embed", "blocks.core"], frozen_rounds=1, taken=["x", "y"], adapted=["z"], fresh=["h"],
        taken_share=0.75, transfer=course([10.0, 8.0], a=9.0, b=None), alone=course([14.0, 11.0], a=12.0, b=11.0), source="city",
        before=course([30.0]), audit=audited(ws, "transfer"),
    )  # fmt: skip
    return found.model_copy(update=more).save(ws.run_folder / FILES["transfer"])


def page_of(ws: Workspace, kind: str) -> Page:
    return Page(write_kind_page(ws, kind, ws.root / "page.html").read_text())


class TestVertical:
    def test_errors_three_ways_with_their_units(self, ws):
        """18 beside 20 is 10 % less, beside 16 12.5 % more."""
        vertical(ws)
        page = page_of(ws, "vertical")
        assert "Test MAE, vertical 18.0 Mbit/s 17.0 on the validation span" in page.text
        assert "Test MAE, gnb alone 20.0 Mbit/s vertical is −10.0 %" in page.text
        assert "Test MAE, pooled data 16.0 Mbit/s vertical is +12.5 %" in page.text

    def test_the_overlap_in_counts_bytes_each_way_and_energy_with_its_source(self, ws):
        vertical(ws)
        page = page_of(ws, "vertical")
        assert "Windows in common 200 of 310 of gnb, 210 of ue" in page.text
        assert "Bytes 8.00 MB 4.00 MB up, 4.00 MB down" in page.text
        assert "Energy 30.0 J modelled" in page.text
        assert "ue holds features 210 8 1.00 MB 2.50 MB 1.00 s 10.0 J" in page.text
        assert "private set intersection by ECDH: 64.0 kB, 1.50 s, 12.0 J" in page.text

    def test_each_epoch_of_each_training_is_drawn(self, ws):
        vertical(ws)
        lines = {trace["name"]: trace["y"] for trace in page_of(ws, "vertical").chart["data"]}
        assert lines == {
            "vertical": [18, 17.5, 17.333],
            "gnb alone": [20, 19.5, 19.333, 19.25],
            "pooled data": [16, 15.5],
        }

    def test_the_audits_verdict(self, ws):
        found = vertical(ws)
        page = page_of(ws, "vertical")
        assert "3 messages of the parties accepted, 1 refused, 0 late or lost" in page.text
        assert "vertical/audit.jsonl: intact, 8 records" in page.text
        assert found.audit.head in page.text

    def test_a_log_that_was_altered_is_told(self, ws):
        vertical(ws)
        log = ws.run_folder / "vertical" / "audit.jsonl"
        log.write_text(log.read_text().replace('"refused"', '"accepted"'))
        assert "NOT intact: line 8: the record is not what was hashed" in page_of(ws, "vertical").text
        log.unlink()
        assert "NOT intact" in page_of(ws, "vertical").text

    def test_what_is_not_known_is_said(self, ws):
        vertical(ws, vertical=trial(18.0, 3, metered=False), alone=None, pooled=None, audit=None, align_energy_j=None)
        page = page_of(ws, "vertical")
        assert "no party metered it" in page.text
        assert "neither signed nor checked" in page.text
        assert "none: nothing bounds what embeddings tell" in page.text
        assert "Test MAE, gnb alone" not in page.text

    def test_names_are_text(self, ws):
        vertical(ws, passives=[HOSTILE])
        page = page_of(ws, "vertical")
        assert not [attrs for tag, attrs in page.elements if tag == "img"]
        assert HOSTILE in page.text


class TestTransfer:
    def test_errors_owners_and_trainings(self, ws):
        """9 beside 12 is 25 % less; 9 is the last round's 8 and 1."""
        transfer(ws)
        page = page_of(ws, "transfer")
        assert "Test MAE, transfer 9.00 Mbit/s 8.00 on the validation span, last round" in page.text
        assert "Test MAE, fresh weights 12.0 Mbit/s transfer is −25.0 %" in page.text
        assert "a 9.00 Mbit/s 12.0 Mbit/s −25.0 %" in page.text
        assert "b – 11.0 Mbit/s –" in page.text
        assert "Taken from the source 75 %" in page.text
        assert "Bytes 3.00 MB 1.00 MB up, 2.00 MB down" in page.text
        assert "owners of city 31.0 1 all rounds done 2.00 MB 1.00 MB 5.00 J" in page.text
        assert "15.0 J of all trainings (modelled)" in page.text
        assert "transfer/audit.jsonl: intact, 8 records" in page.text

    def test_the_rounds_of_the_source_are_not_drawn_beside_the_targets(self, ws):
        transfer(ws)
        lines = {trace["name"]: trace["y"] for trace in page_of(ws, "transfer").chart["data"]}
        assert lines == {"body of city": [10, 8], "fresh weights": [14, 11]}


class TestShow:
    def test_the_newest_federation_is_shown_and_written_as_a_page(self, ws, monkeypatch):
        vertical(ws)
        monkeypatch.setenv("CELLWRIGHT_ROOT", str(ws.root))
        out = ws.root / "shown.html"
        done = CliRunner().invoke(app, ["federate", "show", "--html", str(out)])
        assert done.exit_code == 0, done.output
        assert "3 messages accepted by the auditor, 1 refused" in " ".join(done.output.split())
        assert "cellwright audit verify tiny-1-vertical" in " ".join(done.output.split())
        assert "Vertical federation" in Page(out.read_text()).text

    def test_by_the_runs_name_as_json(self, ws, monkeypatch):
        found = transfer(ws)
        monkeypatch.setenv("CELLWRIGHT_ROOT", str(ws.root))
        done = CliRunner().invoke(app, ["federate", "show", "--run", "tiny-1-vertical", "--json"])
        assert json.loads(done.output) == found.model_dump(mode="json")
        assert "holds no federation" in str(CliRunner().invoke(app, ["federate", "show", "--run", "another"]).exception)
