"""Feature enrichment as configuration: holidays, neighbours, series joined by time; nothing of later reaches what lies before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from cellwright.data import exogenous, holidays, neighbours
from cellwright.data.scaler import fit_scaler
from cellwright.data.split import Spans
from cellwright.data.windows import Windows
from cellwright.errors import DataError, FormatError, ParamsError, UnknownName
from cellwright.forecaster import Forecaster, build
from cellwright.panel import Panel
from cellwright.params import Params, check
from cellwright.runs import run_name
from cellwright.training.candidates import resolve
from cellwright.training.fit import fit

NOVEMBER_MS = 1_383_260_400_000  # 2013-11-01 00:00 in Rome, a Friday and All Saints' Day
STEP_MS = 600_000
HOUR_MS = 3_600_000


def params_of(model: str = "mlp", **problem) -> Params:
    train = {"models": [model], "budget_s": 20, "max_epochs": 1, "batch": 64, "device": "cpu", "scaler": "log"}
    return check({"dataset": "toy", "problem": {"history": 4, "horizon": 2, "patch": 3, **problem}, "train": train}, "test")


def weather(folder: Path, values: list[float], every_ms: int = HOUR_MS, first_ms: int = NOVEMBER_MS) -> str:
    """An hourly CSV; returns its source."""
    times = [datetime.fromtimestamp((first_ms + i * every_ms) / 1000, UTC).isoformat() for i in range(len(values))]
    pl.DataFrame({"time": times, "temperature": values}).write_csv(folder / "weather.csv")
    return f"{folder / 'weather.csv'}:temperature"


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


# holidays


def test_a_holiday_begins_and_ends_at_local_midnight():
    """Epiphany of 2014 in Rome, an hour ahead of UTC."""
    times = [at(f"2014-01-{t}:00Z") for t in ("05T22:59", "05T23:00", "06T22:59", "06T23:00")]
    assert holidays.marks(np.array(times), "Europe/Rome", "IT").tolist() == [0, 1, 1, 0]


def test_a_region_has_its_own_holidays():
    ambrose = np.array([at("2013-12-07T12:00:00+01:00")])  # Milan's patron saint
    assert holidays.marks(ambrose, "Europe/Rome", "IT") == [0]
    assert holidays.marks(ambrose, "Europe/Rome", "IT-MI") == [1]


@pytest.mark.parametrize(
    ("code", "message"), [("XX", "no country .* 'XX'"), ("IT-QQ", "no region .* 'IT-QQ'.*IT-MI.*Or write IT")]
)
def test_an_unknown_code_says_which_there_are(code, message, make_panel):
    with pytest.raises(UnknownName, match=message):
        resolve(params_of(holidays=code), make_panel(np.ones((20, 2))).schema, "mlp")


def test_holidays_need_dates(make_panel):
    with pytest.raises(ParamsError, match=r"holidays is 'IT', but the clock of 'toy' is relative"):
        resolve(params_of(holidays="IT"), make_panel(np.ones((20, 2)), clock="relative").schema, "mlp")


def test_the_holiday_reaches_windows_with_and_without_the_calendar(make_panel):
    panel = make_panel(np.ones((150, 2)))  # All Saints' Day, and an hour of the day after
    for calendar in (True, False):
        problem = resolve(params_of(holidays="IT", calendar=calendar), panel.schema, "mlp").problem
        assert problem.known[-1] == "holiday"
        assert len(problem.known) == (7 if calendar else 1)
        known = Windows(panel, problem).raw(np.array([142]), np.array([0])).known
        assert known[0, :, -1].tolist() == [1, 1, 1, 1, 1, 1]  # rows 138 … 143
        assert Windows(panel, problem).raw(np.array([143]), np.array([0])).known[0, :, -1].tolist() == [1, 1, 1, 1, 1, 0]


# neighbours


def test_the_nearest_of_a_grid_by_hand():
    """3 × 3, row-major: of the corner first those beside it, then the one across, then the first of those two squares away."""
    table = neighbours.nearest(np.stack(np.divmod(np.arange(9), 3), 1).astype(float), 4)
    assert table[0].tolist() == [1, 3, 4, 2]
    assert table[4].tolist() == [1, 3, 5, 7]


def test_coordinates_tell_the_nearest_where_there_is_no_grid(make_panel):
    panel = make_panel(np.ones((20, 3)))
    placed = panel.schema.model_copy(update={"coordinates": ((0.0, 0.0), (10.0, 0.0), (1.0, 1.0))})
    problem = resolve(params_of(neighbours=1), placed, "mlp").problem
    assert neighbours.table_of(problem, placed).tolist() == [[2], [2], [0]]


def test_correlation_finds_who_is_alike():
    """Sites 0 and 2 rise together, 1 and 3 fall; the missing value of site 2 changes nothing of that."""
    rise = np.arange(8.0)
    values = np.stack((rise, -rise, rise**2, -(rise**2)), 1)
    values[3, 2] = np.nan
    assert neighbours.most_alike(values, 1).tolist() == [[2], [3], [0], [1]]


def test_a_mean_leaves_out_what_was_not_measured():
    values = np.array([[1.0, 2.0, 4.0], [np.nan, 2.0, np.nan]], np.float32)
    table = np.array([[1, 2], [0, 2], [0, 1]])
    np.testing.assert_array_equal(neighbours.means(values, table), [[3, 2.5, 1.5], [2, np.nan, 2]])


def test_the_means_reach_windows_of_every_kind(make_panel):
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 30, (30, 9)).astype(np.float32)
    panel = make_panel(values, grid=(3, 3))
    for inputs in ("site", "patch", "all"):
        problem = resolve(params_of(neighbours=4, inputs=inputs), panel.schema, "mlp").problem
        assert problem.features[:2] == ("traffic", "traffic~4")
        raw = Windows(panel, problem).raw(np.array([10]), np.array([4])).history
        around = values[6:10][:, [1, 3, 5, 7]].mean(1)
        np.testing.assert_allclose(raw[0, :, {"site": 0, "patch": 4, "all": 4}[inputs], 1], around, rtol=1e-6)


def test_there_must_be_as_many_neighbours(make_panel):
    with pytest.raises(ParamsError, match="neighbours is 2, but a site has 1 others"):
        resolve(params_of(neighbours=2), make_panel(np.ones((20, 2))).schema, "mlp")


def placeless(rows: int = 200) -> np.ndarray:
    """Four sites without positions: 0 and 2 alike, 1 and 3 alike; from row 150 on the other way round."""
    rng = np.random.default_rng(1)
    waves = 150 + 20 * rng.normal(size=(rows, 2))
    values = waves[:, [0, 1, 0, 1]] + rng.normal(size=(rows, 4))
    values[150:] = waves[150:][:, [0, 0, 1, 1]] + rng.normal(size=(rows - 150, 4))
    return values.astype(np.float32)


def test_neighbours_by_correlation_are_found_on_training_rows_and_kept_with_the_weights(make_panel, tmp_path):
    panel = make_panel(placeless())
    candidate = resolve(params_of(neighbours=1), panel.schema, "mlp")
    with pytest.raises(DataError, match="not known: it has no positions"):
        Windows(panel, candidate.problem)
    fitted = fit(candidate, panel, Spans((0, 140), (140, 170), (170, 200)))
    assert fitted.forecaster.problem.nearest == (2, 3, 0, 1)
    fitted.forecaster.save(tmp_path)
    loaded = Forecaster.load(tmp_path)
    raw = Windows(panel, loaded.problem).raw(np.array([160]), np.array([0])).history
    np.testing.assert_array_equal(raw[0, :, 0, 1], panel.values("traffic")[156:160, 2])


# series joined by time


def test_a_row_sees_the_last_value_at_or_before_its_time(tmp_path):
    spec = weather(tmp_path, [10.0, 20.0, 30.0])
    times = NOVEMBER_MS + np.array([-1, 0, HOUR_MS - 1, HOUR_MS, 2 * HOUR_MS, 9 * HOUR_MS])
    np.testing.assert_array_equal(exogenous.values(spec, times, "utc"), np.float32([np.nan, 10, 10, 20, 30, 30]))


def test_times_in_any_order_and_missing_values(tmp_path):
    """12:00 has no value, so 11:00 still holds; of the two at 11:00 the later row counts."""
    rows = ["time,other,temperature", "2013-11-01T12:00:00Z,1,", "2013-11-01T11:00:00Z,1,5", "2013-11-01T12:00:00+01:00,2,6.5"]
    (tmp_path / "w.csv").write_text("\n".join([*rows, "2013-11-01T10:00:00Z,3,4"]))
    times = np.array([at(f"2013-11-01T{t}:00Z") for t in ("10:30", "11:00", "12:30")])
    assert exogenous.values(f"{tmp_path / 'w.csv'}:temperature", times, "utc").tolist() == [4, 6.5, 6.5]


def test_what_is_no_finite_number_is_not_measured(tmp_path):
    (tmp_path / "w.csv").write_text(
        "time,temperature\n2013-11-01T10:00:00Z,4\n2013-11-01T11:00:00Z,inf\n2013-11-01T12:00:00Z,-inf\n2013-11-01T13:00:00Z,NaN\n"
    )
    times = np.array([at(f"2013-11-01T{hour}:00Z") for hour in range(10, 14)])
    assert exogenous.values(f"{tmp_path / 'w.csv'}:temperature", times, "utc").tolist() == [4, 4, 4, 4]


def test_parquet_and_epoch_milliseconds(tmp_path):
    stamps = [datetime(2013, 11, 1, h, tzinfo=UTC) for h in (1, 2)]
    frames = {
        "zoned": pl.DataFrame({"Timestamp": stamps, "wind": [1, 2]}),
        "counted": pl.DataFrame({"time": [round(s.timestamp() * 1000) for s in stamps], "wind": [1, 2]}),
    }
    for name, frame in frames.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
        found = exogenous.values(
            str(tmp_path / f"{name}.parquet"), np.array([at("2013-11-01T01:59Z"), at("2013-11-01T02:00Z")]), "utc"
        )
        assert found.tolist() == [1, 2]


def test_a_relative_clock_counts_from_the_first_row(tmp_path):
    (tmp_path / "w.csv").write_text("time,load\n0,1\n1200000,2\n")
    assert exogenous.values(str(tmp_path / "w.csv"), np.arange(4) * STEP_MS, "relative").tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("text", "spec", "error", "message"),
    [
        ("", "missing.csv:a", ParamsError, "there is no file .*missing.csv"),
        ("", "w.txt", ParamsError, "must be path.csv:column"),
        ("time,a,b\n", "w.csv", ParamsError, "has the columns a, b; name one"),
        ("time,a,b\n", "w.csv:c", UnknownName, "no column .* 'c'. There are: a, b"),
        ("time,a~1\n", "w.csv:a~1", ParamsError, "taken for another channel"),
        ("when,a\n", "w.csv:a", FormatError, "no time column: expected one of time, timestamp"),
        ("time,a\n2013-11-01T00:00:00,1\n", "w.csv:a", FormatError, "has no time zone"),
        ("time,a\n2013-11-01T00:00:00Z,warm\n", "w.csv:a", FormatError, "holds what is no number"),
        ("time,a\n1383260400,1\n", "w.csv:a", FormatError, "are these seconds"),
        ("time,a\n,1\n", "w.csv:a", FormatError, "1 rows have no time"),
        ("time,a\n2012-01-01T00:00:00Z,1\n", "w.csv:a", DataError, "2012-01-01 00:00 .* no overlap"),
        ("time,a\n2015-01-01T00:00:00Z,1\n", "w.csv:a", DataError, "no overlap"),
        ("time,a\n", "w.csv:a", DataError, "holds no value"),
    ],
)
def test_a_series_that_cannot_be_joined_is_told(tmp_path, text, spec, error, message):
    (tmp_path / "w.csv").write_text(text or "time,a\n")
    with pytest.raises(error, match=message):
        exogenous.values(f"{tmp_path}/{spec}", NOVEMBER_MS + np.arange(10) * STEP_MS, "utc")


def test_a_path_is_seen_from_the_project(tmp_path, monkeypatch):
    weather(tmp_path, [1.0])
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(tmp_path))
    assert exogenous.source_of("weather.csv").spec == "weather.csv:temperature"


def test_a_series_is_the_same_for_every_site_and_scaled_as_it_is(make_panel, tmp_path):
    """Frost has no logarithm: where telemetry is scaled in logarithms, a joined series is standardised."""
    panel = make_panel(np.random.default_rng(0).gamma(2, 30, (60, 4)).astype(np.float32), grid=(2, 2))
    spec = weather(tmp_path, [-4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0])
    candidate = resolve(params_of(exogenous=[spec]), panel.schema, "mlp")
    scaler = fit_scaler(panel, candidate.problem, "log", (0, 60))
    forecaster = build(candidate, scaler)
    raw = Windows(panel, candidate.problem).raw(np.array([10]), np.array([3]))
    channel = candidate.problem.features.index("temperature")
    assert raw.history[0, :, 0, channel].tolist() == [-2, -2, -2, -2]  # rows 6 … 9: from 01:00 on
    x = forecaster.normalise(torch.from_numpy(raw.history), torch.tensor([3]))
    assert scaler.center[:, channel].tolist() == [5.0] * 4
    torch.testing.assert_close(
        x[0, :, 0, channel], torch.full((4,), (-2 - 5) / np.std(np.arange(-4.0, 15, 2)), dtype=torch.float32)
    )


def test_a_channel_has_one_source(make_panel, tmp_path):
    schema = make_panel({"traffic": np.ones((20, 2)), "temperature": np.ones((20, 2))}).schema
    with pytest.raises(ParamsError, match="two channels called 'temperature'"):
        resolve(params_of(exogenous=[weather(tmp_path, [1.0])]), schema, "mlp")


def test_the_content_of_the_file_is_part_of_a_run_s_name(tmp_path):
    first, again, other = (run_name(params_of(exogenous=[weather(tmp_path, [v])]), "0") for v in (1.0, 1.0, 2.0))
    assert first == again != other
    (tmp_path / "weather.csv").unlink()
    with pytest.raises(ParamsError, match="there is no file"):
        run_name(params_of(exogenous=[f"{tmp_path}/weather.csv:temperature"]), "0")


# all together


def test_a_network_is_given_what_it_can_use(make_panel, tmp_path):
    panel = make_panel(np.ones((60, 9)), grid=(3, 3))
    params = params_of(holidays="IT", neighbours=4, exogenous=[weather(tmp_path, [1.0, 2.0])], lags=[6])
    mlp, ridge, persistence = (resolve(params, panel.schema, key).problem for key in ("mlp", "ridge", "persistence"))
    assert mlp.features[:4] == ("traffic", "temperature", "traffic~4", "traffic@6")
    assert ridge.features[:2] == ("traffic", "traffic@6")
    assert "holiday" in ridge.known
    assert ridge.exogenous == persistence.exogenous == ()
    assert "holiday" not in persistence.known


@pytest.mark.parametrize("inputs", ["site", "patch", "all"])
def test_nothing_of_later_reaches_what_lies_before(make_panel, tmp_path, inputs):
    """Telemetry, flags and the joined series are all changed from row 60, 10:00, on."""
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 30, (100, 9)).astype(np.float32)
    changed = values.copy()
    changed[60:] *= -1000
    folders = [tmp_path / name for name in ("before", "after")]
    raws, scalers = [], []
    for panel_values, folder in zip((values, changed), folders, strict=True):
        folder.mkdir()
        spec = weather(folder, [float(h) if h < 10 or folder.name == "before" else 1e6 for h in range(20)])
        panel = make_panel(panel_values, grid=(3, 3))
        problem = resolve(
            params_of(neighbours=4, exogenous=[spec], holidays="IT", lags=[6], inputs=inputs), panel.schema, "mlp"
        ).problem
        raws.append(_all_raw(panel, problem))
        scalers.append(fit_scaler(panel, problem, "standard", (0, 60)))
    for one, two in zip(raws[0], raws[1], strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(scalers[0].center, scalers[1].center)


def _all_raw(panel: Panel, problem) -> tuple[np.ndarray, np.ndarray]:
    """History and known of every window whose first target row is at most 60."""
    origins = np.arange(8, 61)
    sites = 1 if problem.inputs == "all" else 9
    raw = Windows(panel, problem).raw(np.repeat(origins, sites), np.tile(np.arange(sites), len(origins)))
    return raw.history, raw.known


def test_trees_learn_from_what_is_joined(make_panel, tmp_path):
    """Traffic doubles while it rains: nothing but the series says so."""
    rng = np.random.default_rng(2)
    rain = rng.integers(0, 2, 200).astype(float)
    wet = np.repeat(rain, 6)[:1200, None]
    values = (50 + 50 * np.roll(wet, 2) + rng.normal(0, 1, (1200, 2))).astype(np.float32)
    panel, spans = make_panel(values), Spans((0, 900), (900, 1200), (1100, 1200))
    losses = []
    for sources in ([], [weather(tmp_path, rain.tolist())]):
        params = params_of("trees", exogenous=sources, inputs="site", calendar=False)
        candidate = resolve(params, panel.schema, "trees")
        candidate = replace(candidate, options=replace(candidate.options, trees=40))
        losses.append(fit(candidate, panel, spans).validation_loss)
    assert losses[1] < 0.5 * losses[0]
