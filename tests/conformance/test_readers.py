"""Every reader keeps to `cellwright/data/readers/_contract.py`. A new one fails until a sample of its format stands below."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellwright.catalogue import Entry
from cellwright.data.normalise import build
from cellwright.data.readers._contract import SEGMENT, SITE, TIME, Layout, ReaderOptions
from cellwright.errors import FormatError, UnknownName
from cellwright.families import member, members
from cellwright.params import Normalise

FAMILY = "cellwright.data.readers"


def entry(reader: str, features: dict[str, Any] | None = None, **more: Any) -> Entry:
    features = features or {"mbps": {"unit": "Mbit/s"}}
    base = {"name": "sample", "title": "Sample", "files": "x", "cadence_s": 600, "targets": list(features)[:1]}
    return Entry.model_validate({**base, "reader": reader, "features": features, **more})


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


# A sample a reader: the entry, its files, and what must come out: feature -> (rows, sites).
Sample = tuple[Entry, list[Path], dict[str, list[list[float]]]]
NAN = float("nan")


def long(folder: Path) -> Sample:
    file = lines(folder / "a.csv", "t,cell,mbps", "2026-01-01 00:00,a,1", "2026-01-01 00:10,a,2", "2026-01-01 00:10,b,3")
    return entry("long", options={"time": "t", "site": "cell"}), [file], {"mbps": [[1, NAN], [2, 3]]}


def wide(folder: Path) -> Sample:
    file = lines(folder / "a.csv", "t,a:mbps,b:mbps,a:n", "2026-01-01 00:00,1,5,7", "2026-01-01 00:10,2,,8")
    features = {"mbps": {"unit": "Mbit/s"}, "users": {"unit": "users", "column": "n"}}
    return (
        entry("wide", features, options={"time": "t", "split": ":"}),
        [file],
        {"mbps": [[1, 5], [2, NAN]], "users": [[7, NAN], [8, NAN]]},
    )


def matrix(folder: Path) -> Sample:
    data = lines(folder / "grid.csv", "1,2,3,4", "5,6,7,8")
    near = lines(folder / "adj.csv", "0,1,0,0", "1,0,0,0", "0,0,0,.5", "0,0,.5,0")
    options = {"start": "2026-01-01T00:00", "rows": [1, 2], "columns": [8, 9], "adjacency": "adj.csv"}
    return entry("matrix", options=options), [data, near], {"mbps": [[1, 2, 3, 4], [5, 6, 7, 8]]}


def milan_sms(folder: Path) -> Sample:
    """Squares 1 and 2 of a 1 × 2 grid; Italy and Greece in one interval; blanks; square 2 silent in the second interval."""
    one, two = 1383260400000, 1383261000000
    file = lines(
        folder / "sms-call-internet-mi-2013-11-01.txt",
        f"1\t{one}\t39\t0.5\t\t\t0.25\t10.5",
        f"1\t{one}\t30\t\t\t\t\t2",
        f"2\t{one}\t39\t\t1.5\t\t\t",
        f"1\t{two}\t39\t1\t1\t1\t1\t7",
    )
    features = {name: {"unit": "a.u."} for name in ("internet", "sms_in", "sms_out", "call_out")}
    expected = {
        "internet": [[12.5, 0], [7, NAN]],
        "sms_in": [[0.5, 0], [1, NAN]],
        "sms_out": [[0, 1.5], [1, NAN]],
        "call_out": [[0.25, 0], [1, NAN]],
    }
    return entry("milan_sms", features, options={"rows": 1, "columns": 2}), [file], expected


def gnb_prb(folder: Path) -> Sample:
    """Two UEs, one silence of 100 s of both; time stamps a few ms off; unnamed empty columns."""
    head = "Timestamp,,sum_granted_prbs,,dl_mcs"
    files = [
        lines(folder / "trial6_t1_002.csv", head, "1000,,5,,1", "1251,,6,,2", "101000,,7,,3"),
        lines(folder / "trial6_t1_003.csv", head, "1249,,8,,4", "101001,,9,,5"),
    ]
    features = {"prbs": {"unit": "PRB", "column": "sum_granted_prbs"}, "dl_mcs": {"unit": "index"}}
    described = entry("gnb_prb", features, cadence_s=0.25, snap_s=0.125, clock="relative")
    return described, files, {"prbs": [[5, NAN], [6, 8], [7, 9]], "dl_mcs": [[1, NAN], [2, 4], [3, 5]]}


def ran_updates(folder: Path) -> Sample:
    daily = lines(folder / "daily.csv", "UUID,day,DL,UL", "b,-1,1,2", "b,0,3,4", "a,-1,5,6", "c,0,7,8")
    carriers = lines(
        folder / "carriers.csv",
        "UUID,antennaID,urbanization,technology,event_type",
        "a,1,Urban,4G,5G addition",
        "b,2,Urban,4G,5G addition",
        "c,3,Rural,4G,5G addition",
    )
    features = {"dl": {"unit": "σ", "column": "DL"}}
    options = {"carriers": "carriers.csv", "urbanization": ["Urban"]}
    described = entry("ran_updates", features, options=options, cadence_s=86_400, clock="relative")
    return described, [daily, carriers], {"dl": [[5, 1], [NAN, 3]]}


def lte_kpi(folder: Path) -> Sample:
    file = lines(
        folder / "a.csv", "DT,E_RRC_SETUP_FR", "2016-01-01 00:00:00,0.1", "2016-01-01 01:00:00,", "2016-01-01 02:00:00,0.3"
    )
    features = {"rrc": {"unit": "%", "column": "E_RRC_SETUP_FR"}}
    return entry("lte_kpi", features, cadence_s=3600, timezone="Europe/Berlin"), [file], {"rrc": [[0.1], [NAN], [0.3]]}


def generated(folder: Path) -> Sample:
    about = {"sites": ["r0c1", "r0c0"], "grid": [1, 2], "coordinates": [[1, 0], [0, 0]], "noise_floor": {"mbps": 0.5}}
    (folder / "site.json").write_text(json.dumps(about))
    frame = pl.DataFrame({TIME: [0, 0, 600_000], SITE: ["r0c0", "r0c1", "r0c0"], "mbps": [1.0, 2.0, 3.0]})
    frame.write_parquet(folder / "1970-01-01.parquet")
    return entry("generated"), [folder / "1970-01-01.parquet", folder / "site.json"], {"mbps": [[2, 1], [NAN, 3]]}


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    f.__name__: f for f in (long, wide, matrix, milan_sms, gnb_prb, ran_updates, lte_kpi, generated)
}


@pytest.fixture(params=members(FAMILY))
def reader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_reader_has_a_sample(reader):
    assert reader in SAMPLES, f"add a sample of what '{reader}' reads to {Path(__file__).name}"


def test_the_module_says_what_it_is(reader):
    module = member(FAMILY, reader, what="reader")
    assert module.title
    assert module.__doc__
    assert issubclass(module.Options, ReaderOptions)
    for name, field in module.Options.model_fields.items():
        assert field.annotation is not None, name


def test_frames_are_in_the_long_form(reader, tmp_path):
    described, files, _ = SAMPLES[reader](tmp_path)
    module = member(FAMILY, reader, what="reader")
    parts = module.frames(sorted(files), described, described.reader_options)
    assert parts
    for part in parts:
        schema = part.frame.collect_schema()
        assert schema[TIME] == pl.Int64
        assert schema[SITE] == pl.String
        assert schema.get(SEGMENT, pl.String) == pl.String
        brought = set(schema.names()) - {TIME, SITE, SEGMENT}
        assert brought
        assert brought <= set(described.features)
        assert all(schema[name] == pl.Float32 for name in brought)
        assert part.file in files


def test_the_layout_fits_the_sites(reader, tmp_path):
    described, files, _ = SAMPLES[reader](tmp_path)
    module = member(FAMILY, reader, what="reader")
    if not hasattr(module, "layout"):
        return
    layout = module.layout(sorted(files), described, described.reader_options)
    assert isinstance(layout, Layout)
    if layout.grid is not None:
        assert layout.sites is not None
        assert layout.grid[0] * layout.grid[1] == len(layout.sites)
    if layout.sites is not None and layout.coordinates is not None:
        assert set(layout.sites) <= set(layout.coordinates)


def test_the_sample_becomes_the_panel_worked_out_by_hand(reader, tmp_path):
    described, files, expected = SAMPLES[reader](tmp_path)
    panel = build(described, files, Normalise(max_gap=0)).panel
    for feature, values in expected.items():
        np.testing.assert_array_equal(panel.values(feature), np.array(values, np.float32), err_msg=feature)


def test_an_empty_file_is_a_format_error_that_names_it(reader, tmp_path):
    described, files, _ = SAMPLES[reader](tmp_path)
    victim = next(f for f in files if f.suffix != ".json")
    victim.write_text("")
    with pytest.raises(FormatError, match=rf"{victim.name} is empty"):
        build(described, files, Normalise())


def test_an_unknown_reader_says_which_there_are():
    with pytest.raises(UnknownName, match=r"no reader 'lon'.*Did you mean 'long'"):
        member(FAMILY, "lon", what="reader")


# what is particular to one of them


def test_long_with_a_column_that_names_the_feature(tmp_path):
    file = lines(
        tmp_path / "a.csv", "t;cell;kpi;v",
        "2026-01-01 00:00;7;dl;1", "2026-01-01 00:00;7;n;9", "2026-01-01 00:10;7;dl;2", "2026-01-01 00:00;12;dl;3",
        "2026-01-01 00:10;7;dl;2",
    )  # fmt: skip
    options = {"time": "t", "site": "cell", "feature": "kpi", "value": "v", "separator": ";"}
    described = entry("long", {"mbps": {"unit": "1", "column": "dl"}, "users": {"unit": "1", "column": "n"}}, options=options)
    built = build(described, [file], Normalise(max_gap=0))
    assert built.panel.schema.sites == ("7", "12")  # counted, not spelt
    np.testing.assert_array_equal(built.panel.values("mbps"), np.array([[1, 3], [2, NAN]], np.float32))
    np.testing.assert_array_equal(built.panel.values("users"), np.array([[9, NAN], [NAN, NAN]], np.float32))
    assert built.report.duplicates_equal == 1


def test_wide_with_one_feature(tmp_path):
    file = lines(tmp_path / "a.csv", "t,comment,A17,A18", "2026-01-01 00:00,x,1,2")
    panel = build(entry("wide", options={"time": "t", "ignore": ["comment"]}), [file], Normalise()).panel
    assert panel.schema.sites == ("A17", "A18")
    assert panel.values("mbps").tolist() == [[1, 2]]


def test_wide_says_what_is_missing(tmp_path):
    file = lines(tmp_path / "a.csv", "t,A17,A18", "2026-01-01 00:00,1,2")
    two = {"mbps": {"unit": "1"}, "users": {"unit": "1"}}
    with pytest.raises(FormatError, match=r"set options\.split"):
        build(entry("wide", two, options={"time": "t"}), [file], Normalise())
    with pytest.raises(FormatError, match="no column of the feature 'mbps'"):
        build(entry("wide", two, options={"time": "t", "split": ":"}), [file], Normalise())


def test_matrix_says_that_its_grid_is_another(tmp_path):
    described, files, _ = matrix(tmp_path)
    lines(files[0], "1,2,3", "4,5,6")
    with pytest.raises(FormatError, match=r"grid\.csv has 3 columns, its grid 4 squares"):
        build(described, files, Normalise())


def test_matrix_knows_its_neighbours_and_places(tmp_path):
    described, files, _ = matrix(tmp_path)
    schema = build(described, files, Normalise()).panel.schema
    assert schema.sites == ("1-8", "1-9", "2-8", "2-9")
    assert schema.grid == (2, 2)
    assert schema.coordinates == ((8, 1), (9, 1), (8, 2), (9, 2))
    assert schema.adjacency == ((0, 1, 1), (1, 0, 1), (2, 3, 0.5), (3, 2, 0.5))


def test_trentino_has_a_grid_with_holes(tmp_path):
    file = lines(tmp_path / "sms-call-internet-tn-2013-11-01.txt", "118\t0\t39\t\t\t\t\t1", "2\t0\t39\t\t\t\t\t2")
    described = entry("milan_sms", {"internet": {"unit": "a.u."}}, options={"rows": 98, "columns": 117, "complete": False})
    schema = build(described, [file], Normalise()).panel.schema
    assert schema.sites == ("2", "118")
    assert schema.grid is None
    assert schema.coordinates == ((1, 0), (0, 1))


def test_milan_refuses_files_of_another_kind(tmp_path):
    described, files, _ = milan_sms(tmp_path)
    stray = lines(tmp_path / "MItoMI-2013-11-01.txt", "1\t2")
    with pytest.raises(FormatError, match="is not called sms-call-internet-mi-YYYY-MM-DD"):
        build(described, [*files, stray], Normalise())
    lines(files[0], "1\t0\t39\t1")
    with pytest.raises(FormatError, match="has 4 tab-separated columns, expected 8"):
        build(described, files, Normalise())


def test_a_grid_with_a_silent_square_names_it(tmp_path):
    described, files, _ = milan_sms(tmp_path)
    lines(files[0], "1\t0\t39\t\t\t\t\t1")
    with pytest.raises(FormatError, match=r"1 of 2 sites have no value of the target 'internet' in all 1 intervals: 2\."):
        build(described, files, Normalise())


def test_gnb_trials_become_segments_that_end_at_a_silence(tmp_path):
    described, files, _ = gnb_prb(tmp_path)
    schema = build(described, files, Normalise()).panel.schema
    assert [(s.name, s.start, s.stop) for s in schema.segments] == [("t1", 0, 2), ("t1-2", 2, 3)]
    assert (schema.clock, schema.start_ms, schema.sites) == ("relative", 0, ("ue-002", "ue-003"))


def test_ran_updates_says_when_no_carrier_is_left(tmp_path):
    described, files, _ = ran_updates(tmp_path)
    none = described.model_copy(update={"options": {"carriers": "carriers.csv", "urbanization": ["Sea"]}})
    with pytest.raises(FormatError, match="no carrier has urbanization"):
        build(none, files, Normalise())


def test_generated_needs_its_site_file_and_keeps_its_noise_floor(tmp_path):
    described, files, _ = generated(tmp_path)
    schema = build(described, files, Normalise()).panel.schema
    assert schema.noise_floor == {"mbps": 0.5}
    assert schema.coordinates == ((1, 0), (0, 0))
    with pytest.raises(FormatError, match=r"site\.json is missing"):
        build(described, files[:1], Normalise())
