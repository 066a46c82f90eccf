"""The model card says what a user of the model has to know."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from cellwright.bundle.contents import lineage
from cellwright.params import check
from cellwright.registry.card import model_card
from cellwright.report import record
from cellwright.training.own_model import public

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


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("gru", "gru"),
        ("vmrnn:b", "vmrnn:b"),
        ("nets/mine.py:small", "nets/mine.py:small"),
        ("/srv/secret/mine.py", "mine.py"),
        ("/srv/se:cret/mine.py:small", "mine.py:small"),
        ("~/secret/mine.py", "mine.py"),
        ("../secret/mine.py", "mine.py"),
        ("neuralforecast:NHITS", "neuralforecast:NHITS"),
    ],
)
def test_folders_outside_of_the_project_are_not_told(key, told):
    assert public(key) == told


def test_neither_card_nor_lineage_say_where_an_own_model_lies(tmp_path):
    found = record.read(example_run.build(tmp_path, example_run.Example()))
    own = {"key": "/srv/secret/mine.py:small", "model": "/srv/secret/mine.py"}
    trained = found.champion.trained.model_copy(update=own)
    pairs = [pair.model_copy(update={"other": "/srv/secret/other.py"}) for pair in found.champion.scored.test_pairs]
    assert pairs
    text = model_card(trained, found.champion.scored.model_copy(update={"test_pairs": pairs}), found.board, found.schema)
    assert "secret" not in text
    assert "candidate `mine.py:small`" in text
    told = lineage(check({}, "test"), trained, None, "run", None).decode()
    assert "secret" not in told
    assert json.loads(told)["candidate"]["model"] == "mine.py"


def test_names_cannot_become_html(tmp_path):
    text = card(tmp_path, licence="<script>alert(1)</script>", attribution="a\n# heading", unit="<b>")
    assert "<script" not in text
    assert "<b>" not in text
    assert "\n# heading" not in text
