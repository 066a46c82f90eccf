"""Names, semantic versions, the verdict of a contest and the points of a run: worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.errors import RegistryError
from cellwright.registry.contest import Contest, Cost, verdict
from cellwright.registry.names import experiment_name, model_name, next_semantic
from cellwright.registry.trace import Point, epoch_points, flat
from cellwright.results import Interval


def test_names_read_well():
    assert experiment_name("city", ["traffic_mbps"], 6, 3) == "city · traffic_mbps · 6→3"
    assert model_name("city", ["traffic_mbps"], 6, 3) == "city--traffic_mbps--h6-3"
    assert model_name("gnb", ["prb", "mcs"], 12, 4, "north") == "gnb--prb+mcs--h12-4--north"


@given(st.text(), st.lists(st.text(max_size=80), min_size=1, max_size=8))
def test_a_model_name_is_one_that_registry_and_bundle_take(dataset, targets):
    name = model_name(dataset, targets, 6, 3)
    assert len(name) <= 200
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")


def test_long_names_that_differ_late_stay_different():
    assert model_name("d", ["x" * 300 + "a"], 6, 3) != model_name("d", ["x" * 300 + "b"], 6, 3)


@pytest.mark.parametrize(
    ("existing", "bump", "expected"),
    [
        ([], "minor", "1.0.0"),
        (["1.0.0", "1.10.2", "1.9.9"], "minor", "1.11.0"),
        (["1.10.2"], "major", "2.0.0"),
        (["1.10.2"], "patch", "1.10.3"),
    ],
)
def test_the_next_version_is_above_the_highest(existing, bump, expected):
    assert next_semantic(existing, bump) == expected


def test_a_version_tag_that_someone_broke_is_named():
    with pytest.raises(RegistryError, match=r"like 1\.2\.3, found 'latest'"):
        next_semantic(["latest"], "minor")


THRIFTY, COSTLY = Cost(10.0, 5.0), Cost(20.0, 5.0)


def contest(low, difference, high, mine=THRIFTY, theirs=COSTLY, mae=10.0) -> Contest:
    pair = Interval(other="version 1", difference=difference, low=low, high=high, block_steps=6, samples=100)
    return Contest("1", pair, pair, mae, mine, theirs)


@pytest.mark.parametrize(
    ("given", "wins", "said"),
    [
        (contest(-2, -1, -0.5), True, "more accurate"),
        (contest(0.5, 1, 2), False, "less accurate"),
        (contest(-1, 0.2, 1), True, "less energy to train: 10.0 J against 20.0 J"),
        (contest(-1, -0.2, 1, mine=Cost(30.0, 1.0)), False, "no less energy"),
        (contest(0.01, 0.05, 0.09), True, "similar accuracy"),  # 0.05 of 10 is below 1 %
        (contest(0.01, 0.05, 0.09, mae=4.0), False, "less accurate"),  # of 4 it is above
        (contest(-1, 0, 1, mine=Cost(None, 3.0)), True, "less CPU time"),
        (contest(-1, 0, 1, mine=Cost(None, 9.0)), False, "no less CPU time"),
        (contest(-1, 0, 1, mine=Cost(20.0, 1.0)), False, "no less energy"),  # equal energy: the champion stays
    ],
)
def test_the_verdict_follows_the_rule_of_the_ranking(given, wins, said):
    found = verdict(given, similar_accuracy=0.01, unit="Mbit/s")
    assert found.wins is wins
    assert said in found.reason


def test_epochs_become_points_with_times_and_shares_of_a_core():
    history = [
        {"epoch": 1, "train_loss": 0.5, "validation_loss": None, "elapsed_s": 2.0, "cpu_s": 1.0, "rss_bytes": 3_000_000},
        {"epoch": 2, "train_loss": 0.25, "validation_loss": 0.5, "elapsed_s": 4.0, "cpu_s": 4.0, "rss_bytes": 4_000_000},
    ]
    assert list(epoch_points(history, 1000)) == [
        Point("training/train_loss", 0.5, 3000, 1),
        Point("system/process_memory_megabytes", 3.0, 3000, 1),
        Point("system/process_cpu_percent", 50.0, 3000, 1),
        Point("training/train_loss", 0.25, 5000, 2),
        Point("training/validation_loss", 0.5, 5000, 2),
        Point("system/process_memory_megabytes", 4.0, 5000, 2),
        Point("system/process_cpu_percent", 150.0, 5000, 2),
    ]


def test_a_clock_that_starts_again_after_a_resume_gives_no_impossible_share():
    history = [{"epoch": 1, "elapsed_s": 5.0, "cpu_s": 5.0}, {"epoch": 2, "elapsed_s": 6.0, "cpu_s": 1.0}]
    names = [(p.name, p.step) for p in epoch_points(history, 0)]
    assert names == [("system/process_cpu_percent", 1)]


def test_settings_become_dotted_parameters_without_what_is_absent():
    nested = {"a": {"b": 1, "c": None, "d": [1, 2], "e": []}, "f": "x", "g": ""}
    assert dict(flat(nested)) == {"a.b": "1", "a.d": "1, 2", "f": "x"}
