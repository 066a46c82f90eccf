"""Requests: the arrays are those that windows of a panel give, and every mistake is told."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.bundle.problem import served
from cellwright.data.windows import Windows
from cellwright.edge.answer import answer
from cellwright.edge.request import RequestError, calendar, parse
from cellwright.edge.sample import sample_request
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from models._contract import Problem

ROWS, SITES = 60, 6
INDEX = {f"s{i}": i for i in range(SITES)}


def small_panel(clock: str, seed: int = 0) -> Panel:
    rng = np.random.default_rng(seed)
    values = {name: rng.uniform(0, 9, (ROWS, SITES)).astype(np.float32) for name in ("a", "b")}
    for array in values.values():
        array[rng.random((ROWS, SITES)) < 0.1] = np.nan
    schema = PanelSchema(
        dataset="d",
        sites=tuple(INDEX),
        features=(Feature(name="a", unit="Mbit/s"), Feature(name="b", unit="1")),
        targets=("a",),
        cadence_s=900,
        clock=clock,
        timezone="Europe/Rome" if clock == "utc" else "UTC",
        start_ms=1_383_260_400_000 if clock == "utc" else 0,
        rows=ROWS,
        segments=(Segment(name="one", start=0, stop=35), Segment(name="two", start=35, stop=ROWS)),
        grid=(2, 3),
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, values)


def problem_of(inputs: str, lags: tuple[int, ...], targets: tuple[str, ...], known: tuple[str, ...]) -> Problem:
    others = tuple(f for f in ("a", "b") if f not in targets)
    channels = tuple(f"{t}@{lag}" for lag in lags for t in targets)
    nodes = {"site": 1, "patch": 9, "all": SITES}[inputs]
    return Problem(
        history=4,
        horizon=2,
        cadence_s=900,
        inputs=inputs,
        nodes=nodes,
        outputs=SITES if inputs == "all" else 1,
        features=(*targets, *others, *channels, *(("valid",) if inputs == "patch" else ())),
        targets=targets,
        known=known,
        lags=lags,
    )


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.sampled_from(["site", "patch", "all"]),
    lags=st.sampled_from([(), (5,), (8, 3)]),
    targets=st.sampled_from([("a",), ("b", "a")]),
    known=st.sampled_from([(), ("hour_sin", "weekend")]),
    clock=st.sampled_from(["utc", "relative"]),
    origin=st.sampled_from([*range(4, 34), *range(39, 59)]),
    sites=st.lists(st.sampled_from(sorted(INDEX)), min_size=1, unique=True),
)
def test_a_request_gives_the_arrays_that_windows_give(inputs, lags, targets, known, clock, origin, sites):
    panel, problem = small_panel(clock), problem_of(inputs, lags, targets, known)
    windows = Windows(panel, problem)
    request = sample_request(served(problem, panel.schema, windows.neighbours, {}), panel, sites=tuple(sites), origin=origin)
    described = served(problem, panel.schema, windows.neighbours, {})
    asked = parse(json.loads(json.dumps(request)), described, INDEX, calendar(described))
    centres = np.zeros(1, np.int64) if inputs == "all" else np.array([INDEX[s] for s in sites])
    raw = windows.raw(np.full(len(centres), origin), centres)
    np.testing.assert_array_equal(asked.history, raw.history)
    np.testing.assert_array_equal(asked.known, raw.known)
    np.testing.assert_array_equal(asked.site, centres)


@pytest.fixture(scope="module")
def one_site():
    panel = small_panel("utc")
    return served(problem_of("site", (5,), ("a",), ("hour",)), panel.schema, None, {}), panel


def good() -> dict:
    return {
        "time": "2013-11-01T12:00:00+01:00",
        "site": "s1",
        "history": {"s1": {"a": [1, 2.5, None, 4], "b": [1, 2, 3, 4]}},
        "lags": {"s1": {"a": {"5": [1, 2, 3, 4]}}},
    }


def test_a_request_by_hand(one_site):
    asked = parse(good(), one_site[0], INDEX, calendar(one_site[0]))
    np.testing.assert_array_equal(asked.history[0, :, 0], [[1, 1, 1], [2.5, 2, 2], [np.nan, 3, 3], [4, 4, 4]])
    np.testing.assert_allclose(asked.known[0, :, 0] * 24, [11, 11.25, 11.5, 11.75, 12, 12.25], rtol=1e-6)
    assert asked.first_ms == 1_383_303_600_000
    assert parse(good() | {"time": 1_383_303_600_000}, one_site[0], INDEX, calendar(one_site[0])).first_ms == 1_383_303_600_000


def test_a_site_without_any_measurement_is_null(one_site):
    asked = parse(good() | {"history": {"s1": None}, "lags": {"s1": None}}, one_site[0], INDEX, calendar(one_site[0]))
    assert np.isnan(asked.history).all()


def without(key):
    return {k: v for k, v in good().items() if k != key}


def history(**changed):
    return good() | {"history": {"s1": {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4]} | changed}}


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ([1], 400, "expected a JSON object .* found a list"),
        (good() | {"horizon": 3}, 400, "unknown key 'horizon'; known are bundle, exogenous, history"),
        (without("site"), 400, "either 'site'"),
        (good() | {"sites": ["s1"]}, 400, "either 'site'"),
        (good() | {"site": "nowhere"}, 404, "knows no site 'nowhere'; it knows 6, such as s0, s1, s2"),
        (good() | {"site": 7}, 400, "must be a name"),
        (without("site") | {"sites": []}, 400, "not empty"),
        (without("site") | {"sites": ["s1", "s1"]}, 400, "twice"),
        (without("time"), 400, "start of the first forecast step: expected ISO 8601 .* found nothing"),
        (good() | {"time": "yesterday"}, 400, "must be ISO 8601 like"),
        (good() | {"time": "2013-11-01T12:00:00"}, 400, r"has no offset.*write 2013-11-01T12:00:00Z or"),
        (good() | {"time": True}, 400, "found True"),
        (good() | {"time": -1}, 400, "outside of what can be forecast"),
        (without("history"), 400, "'history' must be an object"),
        (good() | {"history": {"s2": None}}, 400, "'history' lacks site 's1', which the model looks at"),
        (good() | {"history": {"s1": None, "x": None}}, 400, "names site 'x'"),
        (good() | {"history": {"s1": [1, 2, 3, 4]}}, 400, "'history.s1' must be an object"),
        (history(a=[1, 2, 3]), 400, "'history.s1.a' must be a list of 4 values, oldest first; found 3 values"),
        (history(a="1234"), 400, "'history.s1.a' must be a list of 4 values"),
        (history(a=[1, 2, "3", 4]), 400, r"'history.s1.a\[2\]' must be a number or null .* found '3'"),
        (history(a=[1, 2, True, 4]), 400, r"\[2\]' must be a number"),
        (history(a=[1, 2, 1e39, 4]), 400, r"\[2\]' must be a number"),
        (history(a=[1, 2, 10**400, 4]), 400, r"\[2\]' must be a number"),
        (history(c=[1, 2, 3, 4]), 400, "unknown key 'c'; known are a, b"),
        (good() | {"history": {"s1": {"a": [1, 2, 3, 4]}}}, 400, "'history.s1' lacks b; expected a, b"),
        (without("lags"), 400, "'lags' must be an object"),
        (good() | {"lags": {"s1": {"a": {"6": [1, 2, 3, 4]}}}}, 400, "'lags.s1.a' lacks 5"),
        (good() | {"lags": {"s1": {"a": [1]}}}, 400, "must be an object, lag -> values"),
    ],
)
def test_each_mistake_is_told(one_site, request_, status, message):
    with pytest.raises(RequestError, match=message) as told:
        parse(request_, one_site[0], INDEX, calendar(one_site[0]))
    assert told.value.status == status


def test_lags_that_nobody_wants_are_not_taken(one_site):
    panel = one_site[1]
    bare = served(problem_of("site", (), ("a",), ()), panel.schema, None, {})
    with pytest.raises(RequestError, match="this bundle has none"):
        parse(good(), bare, INDEX, calendar(bare))


def test_a_relative_clock_takes_no_dates():
    panel = small_panel("relative")
    problem = served(problem_of("site", (), ("a",), ()), panel.schema, None, {})
    with pytest.raises(RequestError, match="milliseconds since the first row"):
        parse(without("lags"), problem, INDEX, calendar(problem))
    asked = parse(without("lags") | {"time": 900_000}, problem, INDEX, calendar(problem))
    assert answer(asked, np.zeros((1, 2, 1, 1, 1)), problem, INDEX, calendar(problem))["times"] == [900_000, 1_800_000]


def test_an_answer_by_hand(one_site):
    problem = one_site[0].model_copy(update={"quantiles": (0.1, 0.5, 0.9), "targets": ("a", "b")})
    asked = parse(good(), one_site[0], INDEX, calendar(one_site[0]))
    forecast = np.arange(12, dtype=float).reshape(1, 2, 1, 2, 3)  # step, target, quantile
    found = answer(asked, forecast, problem, INDEX, calendar(problem))
    assert found == {
        "times": ["2013-11-01T11:00:00Z", "2013-11-01T11:15:00Z"],
        "units": {"a": "Mbit/s", "b": "1"},
        "forecasts": {"s1": {"a": [1.0, 7.0], "b": [4.0, 10.0]}},
        "quantiles": {
            "s1": {
                "a": {"0.1": [0.0, 6.0], "0.5": [1.0, 7.0], "0.9": [2.0, 8.0]},
                "b": {"0.1": [3.0, 9.0], "0.5": [4.0, 10.0], "0.9": [5.0, 11.0]},
            }
        },
    }
    with pytest.raises(RequestError, match="gives no number"):
        answer(asked, forecast * np.nan, problem, INDEX, calendar(problem))
