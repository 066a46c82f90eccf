"""docs/m3387.md is in step with the code, with the tests, and with the mutations that show its rows; nothing of them is run here."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "m3387.md"
MUTATIONS = yaml.safe_load((REPOSITORY / "benchmarks" / "m3387_mutations.yaml").read_text())
# How often each clause says "is required", "is recommended" and "can optionally"; counted by hand in M.3387 (03/2024), clauses 8 to 10.
STATEMENTS = {
    "8.1": (1, 0, 0), "8.1.1": (1, 0, 0), "8.1.2": (1, 0, 0), "8.2": (1, 0, 0), "8.3": (1, 0, 0), "8.3.1": (1, 0, 0),
    "8.3.2": (1, 0, 0), "8.3.3": (1, 0, 0), "8.3.4": (1, 0, 0), "8.4": (1, 0, 0), "8.4.1": (1, 0, 0), "8.4.2": (0, 1, 0),
    "8.5": (1, 0, 0), "9.1": (1, 0, 0), "9.2": (1, 0, 0), "9.3": (1, 0, 0), "9.4": (3, 0, 0), "9.5": (1, 1, 0),
    "10.1": (3, 0, 1), "10.2": (1, 0, 0), "10.3": (1, 0, 0), "10.4": (1, 0, 0), "10.5": (1, 1, 0),
}  # fmt: skip
STRENGTHS = ("required", "recommended", "optional")
LINK = re.compile(r"\[[^\]]+\]\(\.\./([^)#]+)\)(?::: ?|: |::)((?:`[^`]+`(?:, )?)+)")


class Row(NamedTuple):
    """A line of a table of the page."""

    id: str
    strength: str  # "" of an interface or a step of the appendix
    where: str
    shown: str
    met: str


def sections() -> dict[str, list[list[str]]]:
    """The cells of each table's lines, by the heading above it."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| row ", "| clause ")):
            found[heading].append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def rows() -> list[Row]:
    """All rows but those of the table of counts."""
    lines = [cells for heading, table in sections().items() if not heading.startswith("How many") for cells in table]
    return [Row(cells[0], cells[1] if cells[1] in STRENGTHS else "", *cells[-3:]) for cells in lines]


def named(cell: str) -> list[tuple[str, str]]:
    """(file, name) of all that a cell links to."""
    return [(path, name) for path, names in LINK.findall(cell) for name in re.findall(r"`([^`]+)`", names)]


@cache
def defined(path: str) -> frozenset[str]:
    """Functions and classes of a file; methods by their own name, and as Class.method and Class::method."""
    found: set[str] = set()
    for node in ast.parse((REPOSITORY / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        for inside in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inside, ast.FunctionDef):
                found |= {inside.name, f"{node.name}.{inside.name}", f"{node.name}::{inside.name}"}
    return frozenset(found)


def clause(row: str) -> str:
    return re.match(r"[\d.]+", row)[0]  # type: ignore[index]


ROWS = rows()
NORMATIVE = [row for row in ROWS if row.strength]


def test_every_statement_of_clauses_8_to_10_has_a_row_of_its_strength():
    stated = {(clause(row.id), row.id.partition("-")[0], row.strength) for row in NORMATIVE}
    found = Counter((clause_, strength) for clause_, _statement, strength in stated)
    assert {c: tuple(found[c, s] for s in STRENGTHS) for c in STATEMENTS} == STATEMENTS
    assert {clause(row.id) for row in NORMATIVE} == set(STATEMENTS)
    assert len({statement for _clause, statement, _strength in stated}) == 30


def test_the_page_states_the_numbers():
    (table,) = [table for heading, table in sections().items() if heading.startswith("How many")]
    assert {cells[0]: tuple(map(int, cells[1:4])) for cells in table} == STATEMENTS
    assert [row for cells in table for row in cells[4].split(", ")] == [row.id for row in NORMATIVE]
    total = [sum(counts[i] for counts in STATEMENTS.values()) for i in range(3)]
    text = PAGE.read_text()
    assert f"{total[0]} are required, {total[1]} recommended, {total[2]} optional: {sum(total)} in all" in text
    assert f"in {len(NORMATIVE)} rows" in text
    assert f"{len(MUTATIONS)} times in all" in text


def test_rows_are_each_once_and_each_says_whether_it_is_met():
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert all(row.met.startswith(("yes", "partly")) for row in ROWS)
    partly = ", ".join(row.id for row in ROWS if row.met.startswith("partly"))
    assert f"Met partly: {partly}." in PAGE.read_text()
    assert {row.id for row in ROWS if row.id.startswith("I")} == {
        "I1-request", "I1-model", "I2-down", "I2-up", *(f"I.3-{step}" for step in range(1, 7)),
    }  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_code_and_tests_that_a_row_names_exist(row):
    code, tests = named(row.where), named(row.shown)
    assert code
    assert tests
    for path, name in [*code, *tests]:
        assert (REPOSITORY / path).is_file(), path
        assert name in defined(path), f"{path} has no {name}"
    assert all(path.startswith("tests/") and "test_" in name for path, name in tests)


def test_links_lead_somewhere():
    text = PAGE.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (PAGE.parent / target).exists(), target


def test_every_row_has_a_mutation_and_every_mutation_a_row():
    assert {m["row"] for m in MUTATIONS} == {row.id for row in ROWS}
    shown = {row.id: {f"{path}::{name}" for path, name in named(row.shown)} for row in ROWS}
    for mutation in MUTATIONS:
        assert mutation["tests"]
        assert {test.partition("[")[0] for test in mutation["tests"]} <= shown[mutation["row"]], mutation["row"]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m['row']}: {m['what']}")
def test_what_a_mutation_takes_out_is_there_once_and_can_be_taken_out(mutation):
    source = (REPOSITORY / mutation["file"]).read_text()
    assert source.count(mutation["find"]) == 1
    compile(source.replace(mutation["find"], mutation["put"]), mutation["file"], "exec")


def test_the_last_run_killed_every_mutation():
    """It is run again (python benchmarks/m3387.py) when a row or a mutation is added."""
    text = sorted((REPOSITORY / "benchmarks" / "results").glob("*-m3387.md"))[-1].read_text()
    assert "Without any mutation the tests pass." in text
    results = {
        tuple(cells[:2]): cells[3]
        for cells in (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    }
    for m in MUTATIONS:
        assert results.get((m["row"], f"`{m['file']}`: {m['what']}")) == "killed", (m["row"], m["what"])
