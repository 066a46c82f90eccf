"""The model card says what a user of the model has to know."""

import importlib.util
import sys
from pathlib import Path

from cellwright.registry.card import model_card
from cellwright.report import record

_spec = importlib.util.spec_from_file_location("example_run", Path(__file__).parent / "example_run.py")
example_run = importlib.util.module_from_spec(_spec)
sys.modules["example_run"] = example_run
_spec.loader.exec_module(example_run)


def card(tmp_path, **changed) -> str:
    found = record.read(example_run.build(tmp_path, example_run.Example(**changed)))
    return model_card(found.champion.trained, found.champion.scored, found.board, found.schema)


def test_it_has_use_figures_energy_data_training_limits_and_lineage(tmp_path):
    text = card(tmp_path)
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        f"## {h}"
        for h in (
            "Intended use",
            "Key figures",
            "Against the others",
            "Energy of training",
            "Data",
            "Training",
            "Limits",
            "Lineage",
        )
    ]
    assert "3 steps of 30 min ahead (1.5 h), from 6 steps" in text
    assert "- CPU: 2.10 kJ (modelled)" in text
    assert "- GPU: – (no meter)" in text
    assert "others ran at the same time, apportioned by CPU-seconds" in text
    assert "- Licence: CC0 1.0" in text
    assert "0123456789abcdef0123456789abcdef.dir" in text
    assert "| Training energy | 2.10 kJ |  | modelled |" in text


def test_a_budget_that_ended_training_is_a_limit(tmp_path):
    assert "ended by its budget" in card(tmp_path, chosen="lstm")
    assert "counted from its first row" in card(tmp_path / "b", clock="relative")


def test_names_cannot_become_html(tmp_path):
    text = card(tmp_path, licence="<script>alert(1)</script>", attribution="a\n# heading", unit="<b>")
    assert "<script" not in text
    assert "<b>" not in text
    assert "\n# heading" not in text
