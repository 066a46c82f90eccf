"""`cellwright table`: the recipe for the full grids, tried on a small generated grid in the same files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

ROWS, COLUMNS, DAYS = 8, 8, 9
START_MS = 1_383_260_400_000  # 2013-11-01 00:00 in Milan, the first interval of the real files
DAY = 144


def write_grid(folder: Path) -> None:
    """Daily files as Telecom Italia published them: a row a square, interval and country, blanks where nothing was counted."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    load = 50 + 150 * rng.random(ROWS * COLUMNS)
    for day in range(DAYS):
        lines = []
        for step in range(DAY):
            wave = 1 + 0.8 * np.sin(2 * np.pi * (step - 50) / DAY)
            time = START_MS + (day * DAY + step) * 600_000
            for square, mean in enumerate(load, 1):
                internet = mean * wave * (1 + 0.1 * rng.standard_normal())
                lines.append(f"{square}\t{time}\t39\t0.1\t\t0.2\t0.3\t{internet:.6f}\n{square}\t{time}\t0\t\t\t\t0.01\t\n")
        date = np.datetime64("2013-11-01") + day
        (folder / f"sms-call-internet-mi-{date}.txt").write_text("".join(lines))


def shrink(project) -> None:
    """The recipe as it is, but for Milan alone, on a grid of 8 × 8, with four models and seconds instead of half hours."""
    catalogue = project.root / "data" / "catalogue.yaml"
    text = catalogue.read_text()
    assert "options: {rows: 100, columns: 100}" in text
    catalogue.write_text(text.replace("options: {rows: 100, columns: 100}", f"options: {{rows: {ROWS}, columns: {COLUMNS}}}"))
    path = project.root / "benchmarks" / "recipes" / "full-grids.yaml"
    recipe = yaml.safe_load(path.read_text())
    part = recipe["parts"][0]
    part["seeds"] = part["seeds"][:2]
    part["set"]["train"] |= {"models": ["persistence", "ridge", "gru", "histm"], "budget_s": 2, "batch": 256}
    part["set"]["score"] |= {"latency_repeats": 5, "energy_forecasts": 20, "bootstrap": 100, "replay_s": 0}
    part["set"]["energy"] = {"idle_s": 0}
    path.write_text(yaml.safe_dump({**recipe, "parts": [part]}))


@pytest.fixture
def grid(own_project):
    write_grid(own_project.root / "data" / "downloads" / "milan")
    shrink(own_project)
    return own_project


def test_the_recipe_of_the_full_grids_on_a_small_one(grid):
    command = ("table", "benchmarks/recipes/full-grids.yaml", "--results", "tables")
    done = grid.cellwright(*command, timeout_s=280)
    assert done.returncode == 0, done.stderr
    (page,) = (grid.root / "tables").glob("*-full-grids.md")
    table = json.loads(page.with_suffix(".json").read_text())
    (part,) = table["parts"]
    assert (part["title"], part["data"]["sites"], part["seeds"]) == ("milan", ROWS * COLUMNS, [7, 8])
    rows = {row["key"]: row for row in part["rows"]}
    assert set(rows) == {"persistence", "ridge", "gru", "histm"}
    assert rows["histm"]["nodes"] == 11 * 11
    assert rows["histm"]["kpis"]["ssim"]["mean"] > 0
    assert rows["ridge"]["seeds"] == [7], "least squares draw nothing: another seed says nothing new"
    assert rows["gru"]["seeds"] == [7, 8]
    assert rows["gru"]["kpis"]["mae"]["deviation"] is not None
    assert rows["gru"]["to_ridge"]["other"] == "ridge"
    assert rows["gru"]["windows_per_s"] > 0
    best = min(rows.values(), key=lambda row: row["validation_mae"]["mean"])
    assert part["rows"][0]["key"] == best["key"]
    assert f"| {rows['histm']['title']} | patch, 121 nodes |" in page.read_text()
    assert "Best single model" in done.stdout
    assert re.search(r"milan, seed 8: 3 models", done.stderr)

    again = grid.cellwright(*command)
    assert again.returncode == 0, again.stderr
    assert not re.search(r"\d\d:\d\d:\d\d  (train|score) ", again.stderr), "what is done is not done again"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"title": "x", "parts": []}, "parts: Tuple should have at least 1 item"),
        ({"title": "x", "parts": [{"dataset": "town", "sets": {}}]}, "parts.0.sets: Extra inputs are not permitted"),
        ({"title": "x", "columns": ["speed"], "parts": [{"dataset": "town"}]}, "there is no KPI 'speed'"),
        ({"title": "x", "parts": [{"dataset": "town"}, {"dataset": "town"}]}, "two parts are called the same"),
        ({"title": "x", "parts": [{"dataset": "town", "set": {"train": {"budget": 3}}}]}, "did you mean 'budget_s'?"),
        (
            {"title": "x", "parts": [{"dataset": "town", "set": {"normalise": {"max_gap": 1}}}]},
            "'normalise' makes a data version",
        ),
    ],
)
def test_a_wrong_recipe_is_told_before_anything_starts(project, tmp_path: Path, wrong, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(wrong))
    done = project.cellwright("table", str(path))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "starting Prefect" not in done.stderr
