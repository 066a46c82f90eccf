"""Telemetry of one's own through the main job: refused where it breaks an expectation, versioned as it grows."""

from __future__ import annotations

import math
import re

import pytest


def export(project, name: str, *, first_h: int, hours: int, missing: dict[str, int] | None = None) -> None:
    """Three cells with a daily rhythm; the first so many rows of the cells in `missing` are left out."""
    lines = ["time,cell,dl_mbps"]
    for hour in range(first_h, first_h + hours):
        for number, cell in enumerate(("A", "B", "C")):
            if hour - first_h >= (missing or {}).get(cell, 0):
                value = 50 + 30 * math.sin(hour / 24 * 2 * math.pi) + 7 * math.sin(hour * (number + 1))
                lines.append(f"2026-02-{1 + hour // 24:02d} {hour % 24:02d}:00,{cell},{value:.3f}")
    (project.exports / name).write_text("\n".join(lines) + "\n")


def test_data_with_too_much_missing_are_refused_before_anything_is_trained(own_project):
    export(own_project, "february.csv", first_h=0, hours=96, missing={"B": 24})
    done = own_project.cellwright("run", "--dataset", "exported", "--set", "train.models=[persistence]")
    assert done.returncode == 1
    error = " ".join(done.stderr.partition("error: ")[2].split())
    failed = (
        "exported: 1 of 8 expectations failed: expect_column_values_to_be_between [Missing share of dl_mbps] for 1 of 3 sites"
    )
    assert error.startswith(failed), error
    assert re.search(r"\bB\b", error.removeprefix(failed)), error
    assert "Traceback" not in done.stderr
    assert not (own_project.root / "artifacts").exists()


@pytest.mark.slow
def test_a_folder_that_grows_makes_a_new_version_and_only_then(own_project):
    arguments = ("run", "--dataset", "exported", "--set", "train.models=[persistence]", "--only-new")
    export(own_project, "first.csv", first_h=0, hours=120)
    first = own_project.cellwright(*arguments)
    assert first.returncode == 0, first.stderr
    assert "120 rows × 3 sites" in first.stderr

    again = own_project.cellwright(*arguments)
    assert again.returncode == 1
    assert "error: exported: nothing new since 2026-02-05T23:00:00+01:00 at " in again.stderr
    assert len(list((own_project.root / "artifacts").iterdir())) == 1

    export(own_project, "second.csv", first_h=120, hours=24)
    second = own_project.cellwright(*arguments)
    assert second.returncode == 0, second.stderr
    assert "144 rows × 3 sites" in second.stderr
    versions = [re.search(r"version (\w+) \(made\)", done.stderr) for done in (first, second)]
    assert len({v and v[1] for v in versions}) == 2
    assert len(list((own_project.root / "artifacts").iterdir())) == 2
