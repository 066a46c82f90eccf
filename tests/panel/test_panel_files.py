"""A panel on disk: it comes back as it was, grows without touching earlier days, and says what is wrong with its files."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwright.errors import FormatError, UnknownName, WorkspaceError
from cellwright.files import whole_folder
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment

DAY = 144


def panel(rows: int, sites: int = 3, *, clock: str = "utc", segments: tuple[Segment, ...] | None = None, **changed) -> Panel:
    rng = np.random.default_rng(1)
    schema = PanelSchema(
        dataset="small",
        sites=tuple(f"s{i}" for i in range(sites)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0), Feature(name="users", unit="users")),
        targets=("traffic",),
        clock=clock,
        start_ms=0 if clock == "relative" else 1_383_260_400_000,  # 2013-10-31 23:00 UTC
        rows=rows,
        segments=segments or (Segment(name="all", start=0, stop=rows),),
        **{"cadence_s": 600, "licence": "none", "attribution": "test", **changed},
    )
    values = rng.random((2, 10_000, sites), dtype=np.float32)[:, :rows].copy()
    values[0, rows // 2, 0] = np.nan
    return Panel.from_arrays(schema, {"traffic": values[0], "users": values[1]})


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def same(a: Panel, b: Panel) -> bool:
    return a.schema == b.schema and all(
        np.array_equal(a.values(f.name), b.values(f.name), equal_nan=True) and np.array_equal(a.flags(f.name), b.flags(f.name))
        for f in a.schema.features
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 150),
    sites=st.integers(1, 5),
    cadence_s=st.sampled_from([0.25, 600, 3600, 86_400]),
    clock=st.sampled_from(["utc", "relative"]),
    cuts=st.sets(st.integers(1, 149), max_size=4),
)
def test_a_panel_comes_back_as_it_was(tmp_path_factory, rows, sites, cadence_s, clock, cuts):
    folder = tmp_path_factory.mktemp("panel") / "p"
    edges = [0, *sorted(c for c in cuts if c < rows), rows]
    segments = tuple(Segment(name=f"part {i}", start=a, stop=b) for i, (a, b) in enumerate(pairwise(edges)))
    made = panel(rows, sites, clock=clock, cadence_s=cadence_s, segments=segments)
    made.save(folder)
    assert same(Panel.open(folder), made)


def test_files_are_named_by_day_and_cut_at_utc_midnight(tmp_path):
    panel(6 + DAY + 10).save(tmp_path / "p")
    assert [p.name for p in sorted((tmp_path / "p").iterdir())] == ["2013-10-31.arrow", "2013-11-01.arrow", "2013-11-02.arrow"]
    panel(DAY + 1, clock="relative").save(tmp_path / "r")
    assert [p.name for p in sorted((tmp_path / "r").iterdir())] == ["day-00000.arrow", "day-00001.arrow"]


def test_equal_panels_have_equal_bytes(tmp_path):
    panel(300).save(tmp_path / "a")
    panel(300).save(tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_growing_leaves_the_bytes_of_earlier_days(tmp_path):
    panel(6 + 2 * DAY).save(tmp_path / "p")
    before = digests(tmp_path / "p")
    whole = panel(6 + 4 * DAY)
    values = {f.name: whole.values(f.name).copy() for f in whole.schema.features}
    flags = {f.name: whole.flags(f.name).copy() for f in whole.schema.features}
    first = panel(6 + 2 * DAY)
    for name in ("traffic", "users"):
        values[name][: 6 + 2 * DAY], flags[name][: 6 + 2 * DAY] = first.values(name), first.flags(name)
    Panel.from_arrays(whole.schema, values, flags).save(tmp_path / "p")
    after = digests(tmp_path / "p")
    assert {n: after[n] for n in before} == before
    assert len(after) == len(before) + 2
    assert Panel.open(tmp_path / "p").schema == whole.schema


def test_rows_are_read_from_their_days_alone(tmp_path):
    made = panel(6 + 3 * DAY)
    made.save(tmp_path / "p")
    opened = Panel.open(tmp_path / "p")
    np.testing.assert_array_equal(opened.values("traffic", 100, 200), made.values("traffic")[100:200])
    one_day = opened.values("users", 6, 6 + DAY)
    assert not one_day.flags.owndata  # mapped, not copied
    assert opened.flags("traffic", 5, 5).shape == (0, 3)
    assert opened.values("users").dtype == np.float32


def test_adjacency_and_coordinates_survive(tmp_path):
    made = panel(10, coordinates=((9.1, 45.4), (9.2, 45.4), (9.3, 45.4)), adjacency=((0, 1, 0.5), (1, 0, 0.25)))
    made.save(tmp_path / "p")
    assert Panel.open(tmp_path / "p").schema.adjacency == ((0, 1, 0.5), (1, 0, 0.25))


def test_good_is_what_was_really_measured():
    made = panel(10)
    assert not made.good("traffic")[5, 0]
    assert made.flags("traffic")[5, 0] == Flag.MISSING
    assert made.good("users").all()


def test_unknown_feature_names_those_there_are():
    with pytest.raises(UnknownName, match=r"traffic, users\. Did you mean 'traffic'\?"):
        panel(3).values("trafic")


@pytest.mark.parametrize("keep", [0, 8, 1000, -20])
def test_a_cut_off_file_is_named(tmp_path, keep):
    panel(300).save(tmp_path / "p")
    victim = tmp_path / "p" / "2013-11-01.arrow"
    victim.write_bytes(victim.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"2013-11-01\.arrow is not a whole Arrow file"):
        Panel.open(tmp_path / "p")


def test_a_missing_day_is_noticed(tmp_path):
    panel(6 + 3 * DAY).save(tmp_path / "p")
    (tmp_path / "p" / "2013-11-02.arrow").unlink()
    with pytest.raises(FormatError, match=r"2013-11-03\.arrow should begin at .* a file before it is missing"):
        Panel.open(tmp_path / "p")


def test_a_file_of_another_panel_is_noticed(tmp_path):
    panel(6 + 2 * DAY).save(tmp_path / "p")
    panel(6 + 2 * DAY, attribution="somebody else").save(tmp_path / "q")
    (tmp_path / "q" / "2013-11-02.arrow").rename(tmp_path / "p" / "2013-11-02.arrow")
    with pytest.raises(FormatError, match="belong to different panels"):
        Panel.open(tmp_path / "p")


def test_an_arrow_file_of_something_else_is_refused(tmp_path):
    table = pa.table({"x": [1]})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(FormatError, match="not of a panel"):
        Panel.open(tmp_path)


def test_no_panel_says_what_to_run(tmp_path):
    with pytest.raises(FormatError, match="step normalise"):
        Panel.open(tmp_path)


def test_arrays_of_another_shape_are_refused():
    made = panel(5)
    values = {"traffic": np.zeros((5, 3)), "users": np.zeros((5, 3))}
    with pytest.raises(FormatError, match=r"users: expected \(5, 3\) values \(rows, sites\), found \(5, 4\)"):
        Panel.from_arrays(made.schema, {**values, "users": np.zeros((5, 4))})
    with pytest.raises(FormatError, match=r"traffic\.flags: expected \(5, 3\)"):
        Panel.from_arrays(made.schema, values, {"traffic": np.zeros((1, 3), np.uint8)})
    with pytest.raises(FormatError, match="users: the schema has this feature"):
        Panel.from_arrays(made.schema, {"traffic": values["traffic"]})


def test_segments_need_different_names(tmp_path):
    twice = (Segment(name="t", start=0, stop=5), Segment(name="t", start=5, stop=10))
    with pytest.raises(FormatError, match="segments need different names"):
        panel(10, segments=twice).save(tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_what_a_kill_between_two_renamings_left_aside_comes_back(tmp_path):
    """The old folder was moved away, the new one never came: the next writer finds the old one in its place, even if it fails."""
    made = panel(3)
    made.save(tmp_path / "p")
    (tmp_path / "p").rename(tmp_path / ".p.old")
    with pytest.raises(RuntimeError, match="killed again"), whole_folder(tmp_path / "p"):
        raise RuntimeError("killed again")
    assert same(Panel.open(tmp_path / "p"), made)


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WorkspaceError, match="cannot write"):
        panel(3).save(tmp_path / "taken" / "p")
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_read_only_folder_is_said(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    as_root = os.geteuid() == 0  # root may write anywhere: become nobody for a moment
    try:
        if as_root:
            os.seteuid(65534)
        with pytest.raises(WorkspaceError, match="make the folder writable"):
            panel(3).save(folder / "p")
    finally:
        if as_root:
            os.seteuid(0)
