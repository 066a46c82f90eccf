"""`cellwright plan edge`: what it prints, what it reads, what it refuses."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cellwright.capacity.area import area_of
from cellwright.capacity.config import read
from cellwright.errors import ParamsError, WrongUse
from flows.cli import app


def command(*arguments):
    return CliRunner().invoke(app, ["plan", "edge", *map(str, arguments)])


def square(west=9.0, south=45.0, side=0.1):
    ring = [[west, south], [west + side, south], [west + side, south + side], [west, south + side], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_tables_say_plainly_what_it_takes():
    shown = command("--simulate", "--edges", 500, "--max-requests", 200).stdout
    assert "42.9 Tbit/s per km²" in shown
    assert "435 by rate, 1 by disk: rate binds" in shown
    assert "Simulated: 200 requests at 10 edges" in shown
    for lever in ("device_cache", "delta", "staggering", "multicast", "quantisation", "all together"):
        assert lever in shown


def test_tables_keep_apart_what_the_arrivals_and_what_the_levers_bring():
    shown = command("--arrivals", "poisson", "--edges", 1, "--size", 1e9).stdout
    assert "all at once" in shown
    assert "80 Tbit/s" in shown  # 10,000 × 1 GB × 8 in 1 s
    assert "1.33 Tbit/s" not in shown  # and not the mean of 60 s in its place
    assert "with 1 edge; the devices of an edge share its link" in shown
    assert "a device alone gets 5 Gbit/s: 625 MB in time" in shown


@pytest.mark.parametrize("over", [("--density", 1e9, "--area", 5e8), ("--density", 1e-9, "--area", 1e-9), ("--deadline", 1e-9)])
@pytest.mark.parametrize("arrivals", ["at_once", "poisson", "burst", "diurnal"])
def test_the_ends_of_every_range_can_be_planned(over, arrivals):
    assert command(*over, "--arrivals", arrivals, "--edges", 1).exit_code == 0


def test_json_holds_si_units_and_the_configuration():
    found = json.loads(command("--density", 5000, "--size", 3.2e6, "--lever", "quantisation", "--json").stdout)
    assert found["plan"]["plain"]["peak_bit_s_km2"] == 128e9
    assert found["plan"]["need"]["peak_bit_s"] == 32e9
    assert found["config"]["levers"]["use"] == ["quantisation"]
    assert found["cases"]["densities"][3]["bit_s_km2"] == 42.88e12
    assert found["simulation"] is None


def test_json_has_no_infinity(tmp_path):
    path = written(tmp_path / "plan.yaml", "plan_edge: {levers: {device_cache_share: 1.0, use: [device_cache]}}")
    found = json.loads(command("-c", path, "--simulate", "--json").stdout)
    assert found["plan"]["need"]["reduction"] is None
    assert found["plan"]["outcome"]["in_time"] == found["simulation"]["simulated"]["in_time"] == 1.0
    assert "nothing left" in command("-c", path).stdout


def test_a_file_and_options_over_it(tmp_path):
    path = written(
        tmp_path / "plan.yaml", "plan_edge: {area_km2: 4, devices_per_km2: 100, arrivals: {kind: poisson, duration_s: 30}}"
    )
    config = read(path, {"devices_per_km2": 50})
    assert (config.area_km2, config.devices_per_km2, config.arrivals.duration_s) == (4, 50, 30)


def test_the_area_of_a_polygon(tmp_path):
    # a tenth of a degree at 45° N: R² × radians(0.1) × (sin 45.1° - sin 45°) = 87.35 km²
    assert area_of(written(tmp_path / "a.json", square())) == pytest.approx(87.35, rel=1e-3)
    hole = square()
    hole["coordinates"].append(square(9.02, 45.02, 0.05)["coordinates"][0])
    features = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": g} for g in (square(), hole)],
    }
    smaller = area_of(written(tmp_path / "b.json", features))
    assert smaller == pytest.approx(87.35 * (2 - 0.25), rel=1e-3)


def test_a_border_is_straight_in_longitude_and_latitude(tmp_path):
    # an eighth of the sphere cut by the line from (0, 0) to (90, 90): below it, sines of 0 to 90° average 2 / pi
    half = {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [90, 90], [0, 0]]]}
    assert area_of(written(tmp_path / "a.json", half)) == pytest.approx(6371.0072**2 * math.pi / 2 * 2 / math.pi, rel=1e-9)


def test_a_polygon_beside_the_file_replaces_the_area(tmp_path):
    written(tmp_path / "area.geojson", square())
    config = read(written(tmp_path / "plan.yaml", "plan_edge: {area_file: area.geojson}"))
    assert config.area_km2 == pytest.approx(87.35, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "Point", "coordinates": [9, 45]}, "expected a polygon, found Point"),
        ([1, 2], "expected a polygon, found list"),
        ({"type": "FeatureCollection", "features": []}, "no polygon with an area"),
        ({"type": "Polygon", "coordinates": [[[9, 45], [10, 45], [10, 46], [9, 46]]]}, "ring"),
        ({"type": "Polygon", "coordinates": [[[9, 145], [10, 145], [10, 146], [9, 145]]]}, "degrees"),
        ({"type": "Polygon", "coordinates": [["x"]]}, "coordinates|longitude"),
        ("{", "as GeoJSON"),
    ],
)
def test_a_file_that_is_no_area_is_refused(tmp_path, content, said):
    with pytest.raises(ParamsError, match=said):
        area_of(written(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"devices_per_km": 3}, "did you mean 'devices_per_km2'"),
        ({"deadline_s": 0}, "deadline_s: .* greater than 0, found 0"),
        ({"deadline_s": 1e-320}, "deadline_s: must be at least 1e-09"),
        ({"devices_per_km2": 1e300}, "devices_per_km2: .*1000000000, found 1e[+]300"),
        ({"area_km2": 6e8}, "area_km2: .*510100000"),
        ({"arrivals": {"kind": "sometimes"}}, "arrivals: .*at_once.*, found 'sometimes'"),
        ({"arrivals": {"duration_s": 3}}, "arrivals: say which `kind` it is"),
        ({"levers.use": ["magic"]}, "levers.use.0: .*device_cache"),
        ({"catalogue.size": {"kind": "listed", "sizes": [{"size_bytes": 1, "share": 0.4}]}}, "add up to 1, found 0.4"),
        ({"catalogue.size": {"kind": "log_uniform", "low_bytes": 2, "high_bytes": 1}}, "must not exceed"),
        ({"arrivals": {"kind": "burst", "at_s": 90}}, "within duration_s"),
        ({"catalogue.models": 10_000_000}, "less than or equal to 100000"),
        ({"area_km2": float("nan")}, "area_km2"),
        ({"area_km2": float("inf")}, "area_km2"),
    ],
)
def test_what_cannot_be_meant_is_refused(over, said):
    with pytest.raises(ParamsError, match=said):
        read(None, over)


@pytest.mark.parametrize(
    ("content", "said"), [("other: 1", "section `plan_edge:`"), ("plan_edge: [", "cannot read"), ("plan_edge: 3", "section")]
)
def test_a_file_that_is_no_plan_is_refused(tmp_path, content, said):
    with pytest.raises(ParamsError, match=said):
        read(written(tmp_path / "plan.yaml", content))


def test_the_example_of_the_guide_can_be_planned(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    found = json.loads(command("-c", written(tmp_path / "plan.yaml", example), "--json").stdout)
    assert found["config"]["levers"]["use"] == ["delta", "staggering"]
    assert found["plan"]["outcome"]["in_time"] > 0.99


def test_a_missing_file_and_two_areas_are_refused(tmp_path):
    assert isinstance(command("-c", tmp_path / "none.yaml").exception, ParamsError)
    both = command("--area", 1, "--area-file", tmp_path / "none.geojson").exception
    assert isinstance(both, WrongUse)
