"""The generated city: same bytes each time, growth without rewriting, and a truth that is what it says it is."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cellwright.data.city import Change, CityOptions, exact, floor, generate, land, process
from cellwright.errors import ParamsError

SMALL = {"days": 4, "grid": [6, 8]}


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def traffic(options: CityOptions) -> np.ndarray:
    """(rows, sites), with what was lost left in."""
    days = process.days(options, land.build(options))
    return np.concatenate([day.features["traffic_mbps"] for day in days])


def test_the_same_options_give_the_same_bytes(tmp_path):
    generate(tmp_path / "a", SMALL)
    generate(tmp_path / "b", SMALL)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert sorted(hashes(tmp_path / "a")) == [f"2026-01-0{d}.parquet" for d in (5, 6, 7, 8)] + ["site.json"]


def test_another_seed_is_another_city(tmp_path):
    generate(tmp_path / "a", SMALL)
    generate(tmp_path / "b", SMALL | {"seed": 8})
    assert not set(hashes(tmp_path / "a").values()) & set(hashes(tmp_path / "b").values())


def test_more_days_and_later_changes_leave_the_earlier_files_alone(tmp_path):
    generate(tmp_path / "short", SMALL)
    later = [
        {"kind": "layer", "day": 5, "size": 0.5, "row": 0, "column": 0},
        {"kind": "stadium", "day": 6, "size": 1, "row": 0.5, "column": 0.5},
    ]
    generate(tmp_path / "long", SMALL | {"days": 8, "changes": later})
    short, long = hashes(tmp_path / "short"), hashes(tmp_path / "long")
    days = [name for name in short if name.endswith(".parquet")]
    assert len(days) == 4
    assert all(short[name] == long[name] for name in days)


def test_values_of_two_days_are_those_of_the_day_this_was_written():
    """Pins the process itself, apart from Parquet: if this fails, the data version of every city changes."""
    values = traffic(CityOptions(days=2, grid=(4, 4)))
    assert hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16] == "33edee8848ffcb7f"


def test_columns_units_and_bounds(tmp_path):
    generate(tmp_path, SMALL)
    table = pq.read_table(tmp_path / "2026-01-06.parquet")
    assert {f.name: str(f.type) for f in table.schema} == {
        "time_ms": "int64", "site": "string", "traffic_mbps": "float", "users": "float", "prb_share": "float", "mcs": "float"
    }  # fmt: skip
    frame = table.to_pandas()
    about = json.loads((tmp_path / "site.json").read_text())
    lost = round(0.0005 * 144 * 48)
    assert 144 * 48 - lost <= len(frame) <= 144 * 48 - 1
    assert frame.time_ms.min() == about["start_ms"] + 86_400_000
    assert sorted(frame.site.unique()) == about["sites"]
    for feature in about["features"]:
        values = frame[feature["name"]]
        assert values.min() >= feature["low"]
        assert feature["high"] is None or values.max() <= feature["high"]
    assert np.allclose(frame.traffic_mbps * 100, np.rint(frame.traffic_mbps * 100), atol=0.01)
    assert np.array_equal(frame.users, np.rint(frame.users))


def test_an_outage_is_a_stretch_of_zeros_where_site_json_says(tmp_path):
    generate(tmp_path, {"days": 12, "grid": [5, 5], "missing_share": 0})
    about = json.loads((tmp_path / "site.json").read_text())
    frame = pq.read_table(sorted(tmp_path.glob("*.parquet"))).to_pandas()
    assert len(frame) == 12 * 144 * 25
    assert about["outages"]
    down = np.zeros(len(frame), dtype=bool)
    for outage in about["outages"]:
        assert outage["stop_ms"] - outage["start_ms"] >= 3 * 600_000
        down |= ((frame.site == outage["site"]) & frame.time_ms.between(outage["start_ms"], outage["stop_ms"] - 1)).to_numpy()
    assert np.array_equal((frame.traffic_mbps == 0).to_numpy(), down)


def test_business_rests_on_sunday_and_homes_stay_up_in_the_evening():
    options = CityOptions(days=7)
    cells, values = land.build(options), traffic(CityOptions(days=7))
    business, homes = cells.use == land.BUSINESS, cells.use == land.RESIDENTIAL
    noon, evening = 11 * 6, 20 * 6
    assert values[6 * 144 + noon][business].mean() < 0.4 * values[144 + noon][business].mean()
    assert values[144 + evening][homes].mean() > 1.5 * values[144 + noon][homes].mean()


def test_a_layer_changes_its_sites_and_no_others_from_its_day_on():
    change = Change("layer", day=2, size=0.6, row=0.0, column=0.0, rows=0.5, columns=0.5)
    before, after = (traffic(CityOptions(days=4, grid=(6, 6), changes=c)) for c in ((), (change,)))
    block = change.block((6, 6))
    others = np.setdiff1d(np.arange(36), block)
    assert block == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert np.array_equal(before[: 2 * 144], after[: 2 * 144])
    assert np.array_equal(before[:, others], after[:, others])
    assert 1.4 < after[2 * 144 :, block].mean() / before[2 * 144 :, block].mean() < 1.8


def test_an_offload_takes_its_share_of_demand_away():
    change = Change("layer", day=1, size=-0.5, row=0.0, column=0.0)
    before, after = (traffic(CityOptions(days=2, grid=(4, 4), changes=c)) for c in ((), (change,)))
    assert 0.45 < after[144:, 0].mean() / before[144:, 0].mean() < 0.7  # over a half: the cell saturates less


def test_a_new_stadium_brings_crowds_that_its_neighbours_feel_later_and_less():
    change = Change("stadium", day=0, size=2.0, row=0.5, column=0.5)
    options = CityOptions(days=10, grid=(9, 9), changes=(change,))
    site = change.block(options.grid)[0]
    quiet, loud = (traffic(CityOptions(days=10, grid=(9, 9), changes=c)) for c in ((), (change,)))
    gain = loud - quiet
    assert gain[:, site].sum() > gain[:, site + 1].sum() > gain[:, site + 2].sum() > 0
    first = [int(np.flatnonzero(gain[:, s] > 0.5)[0]) for s in (site, site + 1, site + 2)]
    assert first == sorted(first)
    assert first[2] - first[0] >= 3
    assert not gain[:, site + 3].any()


def test_activity_in_offices_follows_homes_half_an_hour_later():
    """Over many mornings, homes' activity at 8:00 must show in the commuters' cells at 8:30 beyond what they had at 8:00."""
    options = CityOptions(days=150, grid=(10, 10), changes=())
    cells = land.build(options)
    rises, sources = [], []
    work = cells.commutes[0] == 1
    for day in process.days(options, cells):
        at, then = 8 * 6, 8 * 6 + 3
        expected = process.memory(options) ** 3 * day.activity[at][work]
        rises.append(day.activity[then][work] - expected)
        sources.append(day.activity[at][cells.arriving][:, work].mean(axis=0))
    assert np.corrcoef(np.concatenate(rises), np.concatenate(sources))[0, 1] > 0.1


def test_the_noise_floor_is_below_every_forecaster_and_rises_with_the_horizon():
    options = CityOptions(days=20, grid=(8, 8), changes=())
    cells = land.build(options)
    days = list(process.days(options, cells))
    found = floor.measure(options, cells, days[floor.kept_from(options) :])
    assert found is not None
    ideal, filtered = found["floor"], found["filtered"]
    values = np.concatenate([d.features["traffic_mbps"] for d in days]).astype(float)
    good = ~np.concatenate([d.down for d in days])
    origins = np.arange(found["first_row"], len(values) - 2)
    errors = [np.abs(values[origins + h] - values[origins - 1])[good[origins + h]].mean() for h in range(3)]
    assert ideal["mae"] < filtered["mae"] < np.mean(errors)
    assert ideal["mae_by_step"] == sorted(ideal["mae_by_step"])
    assert ideal["rmse"] > ideal["mae"]


def test_the_floor_is_the_conditional_median_of_simulated_futures():
    """One cell's exact median against 40,000 futures drawn from the same state."""
    options = CityOptions()
    phi, new, burst, demand, capacity, state = process.memory(options), process.innovation(options), 0.1, 80.0, 90.0, 0.2
    rng = np.random.default_rng(1)
    futures = state
    for _ in range(3):
        futures = phi * futures + new * rng.standard_normal(40_000)
    carried = exact.saturate(demand * exact.growth(futures + burst * rng.standard_normal(40_000)), np.float64(capacity))
    median = exact.saturate(demand * exact.growth(np.float64(phi**3 * state)), np.float64(capacity))
    assert np.median(carried) == pytest.approx(float(median), rel=0.003)


def test_random_numbers_have_mean_zero_and_variance_one():
    drawn = exact.normal(exact.stream(3, 1), 200_000)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn**3).mean()) < 0.02


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dayz": 3}, "did you mean 'days'"),
        ({"days": 0}, "days ≥ 1"),
        ({"cadence_s": 7}, "divides 1,800"),
        ({"grid": [1, 5]}, "at least 2 × 2"),
        ({"start": "2026-01-05T01:00"}, "midnight"),
        ({"start": "soon"}, "a date like"),
        ({"changes": [{"kind": "flood", "day": 1, "size": 1, "row": 0, "column": 0}]}, "'layer' or 'stadium'"),
        ({"changes": [{"kind": "layer", "day": 1}]}, "missing"),
        ({"changes": [{"kind": "layer", "dai": 1}]}, "did you mean 'day'"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, says):
    with pytest.raises(ParamsError, match=says):
        generate(tmp_path / "city", options)
    assert not (tmp_path / "city").exists()


def test_other_cadences_and_short_cities_say_when_there_is_no_floor(tmp_path):
    generate(tmp_path / "a", {"days": 1, "grid": [3, 3], "cadence_s": 1800})
    assert json.loads((tmp_path / "a" / "site.json").read_text())["noise_floor_detail"]["steps"] == 1
    assert len(pq.read_table(tmp_path / "a" / "2026-01-05.parquet")) == 48 * 9
