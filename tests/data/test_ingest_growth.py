"""Ingesting files of one's own: what is new is taken, what changed is refused, and nothing new is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cellwright.errors import FormatError, NothingNew, SourceError, UnknownName
from cellwright.steps.ingest import ingest


def day(telemetry, number: int, rows: int = 144):
    return telemetry(np.ones((rows, 2)) * (number + 1), start=np.datetime64("2026-01-05") + number)


def test_a_folder_that_grows(project, telemetry):
    own = project()
    own.write(day(telemetry, 0), "d0.csv")
    own.write(day(telemetry, 1), "d1.csv")
    first = ingest(own.params(), own.ws)
    assert (first.files, first.new, first.grown) == (2, ["d0.csv", "d1.csv"], [])
    assert first.last == "2026-01-06T23:50:00+00:00"
    with pytest.raises(NothingNew, match=r"own: nothing new since 2026-01-06T23:50:00\+00:00 at in"):
        ingest(own.params(), own.ws, only_new=True)
    own.write(day(telemetry, 2), "d2.csv")
    second = ingest(own.params(), own.ws, only_new=True)
    assert (second.files, second.new) == (3, ["d2.csv"])


def test_without_only_new_an_unchanged_source_is_no_error(project, telemetry):
    own = project()
    own.write(day(telemetry, 0))
    ingest(own.params(), own.ws)
    again = ingest(own.params(), own.ws)
    assert (again.files, again.new) == (1, [])


def test_the_manifest_is_the_same_for_the_same_files(project, telemetry):
    own = project()
    own.write(day(telemetry, 0))
    ingest(own.params(), own.ws)
    manifest = own.ws.raw("own") / "ingested.json"
    first = manifest.read_bytes()
    (entry,) = json.loads(first)["files"]
    assert (entry["name"], entry["size_bytes"]) == ("a.csv", (own.ws.root / "in" / "a.csv").stat().st_size)
    manifest.unlink()
    ingest(own.params(), own.ws)
    assert manifest.read_bytes() == first


def test_a_glob_and_a_file_that_is_still_written(project, telemetry):
    own = project(files="in/d*.csv")
    own.write(day(telemetry, 0, rows=50), "d0.csv")
    own.write(day(telemetry, 5), "other.csv")
    assert ingest(own.params(), own.ws).files == 1
    own.write(day(telemetry, 0, rows=80), "d0.csv")  # the same rows and more
    grown = ingest(own.params(), own.ws, only_new=True)
    assert (grown.new, grown.grown) == ([], ["d0.csv"])
    assert own.normalised()[0].schema.rows == 80


def test_a_file_that_changed_under_its_name_is_refused_and_the_old_one_kept(project, telemetry):
    own = project()
    own.write(day(telemetry, 0), "d0.csv")
    ingest(own.params(), own.ws)
    before = (own.ws.raw("own") / "d0.csv").read_bytes()
    own.write(day(telemetry, 7), "d0.csv")
    with pytest.raises(SourceError, match=r"d0\.csv changed under its old name.*Give new data a new file"):
        ingest(own.params(), own.ws)
    assert (own.ws.raw("own") / "d0.csv").read_bytes() == before


def test_a_single_file_that_changed_is_taken_anew(project, telemetry):
    own = project(files="in/a.csv")
    own.write(day(telemetry, 0))
    ingest(own.params(), own.ws)
    own.write(day(telemetry, 7))
    assert ingest(own.params(), own.ws).new == ["a.csv"]
    assert own.normalised()[0].values("mbps")[0, 0] == 8


def test_a_file_that_left_the_source_is_kept(project, telemetry):
    own = project()
    own.write(day(telemetry, 0), "d0.csv")
    own.write(day(telemetry, 1), "d1.csv")
    ingest(own.params(), own.ws)
    (own.ws.root / "in" / "d0.csv").unlink()
    own.write(day(telemetry, 2), "d2.csv")
    assert ingest(own.params(), own.ws).files == 3


def test_a_new_file_that_cannot_be_read_is_not_taken(project, telemetry):
    own = project()
    own.write(day(telemetry, 0), "d0.csv")
    ingest(own.params(), own.ws)
    (own.ws.root / "in" / "d1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(FormatError, match=r"d1\.parquet cannot be read"):
        ingest(own.params(), own.ws)
    assert sorted(p.name for p in own.ws.raw("own").iterdir()) == ["d0.csv", "ingested.json"]


def test_nothing_there_says_where_it_was_looked_for(project):
    own = project()
    with pytest.raises(SourceError, match=r"there is no file at .*/in \(files: in\)"):
        ingest(own.params(), own.ws)


def test_normalising_before_ingesting_says_what_to_run(project):
    from cellwright.steps.normalise import normalise

    own = project()
    with pytest.raises(SourceError, match="step ingest"):
        normalise(own.params(), own.ws)


def test_an_unknown_data_set_says_which_there_are(project):
    own = project()
    with pytest.raises(UnknownName, match=r"no data set 'city'\. There are: own"):
        ingest(own.params().model_copy(update={"dataset": "city"}), own.ws)


def test_a_damaged_manifest_is_said(project, telemetry):
    own = project()
    own.write(day(telemetry, 0))
    ingest(own.params(), own.ws)
    (own.ws.raw("own") / "ingested.json").write_text("{")
    with pytest.raises(SourceError, match=r"ingested\.json is damaged"):
        ingest(own.params(), own.ws)


def test_two_files_of_one_name_are_refused(project, telemetry):
    own = project(files="in/*/a.csv")
    for folder in ("x", "y"):
        (own.ws.root / "in" / folder).mkdir()
        own.write(day(telemetry, 0), f"{folder}/a.csv")
    with pytest.raises(SourceError, match=r"two files at .* have the same name"):
        ingest(own.params(), own.ws)
