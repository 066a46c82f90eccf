"""3GPP TR 22.874, 6.2, as examples/tourist_guide.py tells it: hub, network and two edges as processes, a phone that moves."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# small models and a long deadline: a busy machine must not decide whether promises hold, the network's rates must
SMALL = {"bytes": 400_000, "deadline_s": 2.0, "slow": 2.0, "held_within_s": 60.0}


@pytest.fixture(scope="module")
def stories():
    """The example's package, as the script that runs it sees it."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from tourist_guide import story

        yield story
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tourist_guide", "road_anomalies")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def told(stories, tmp_path_factory):
    """The story of small models, with what it printed."""
    lines = []
    found = stories.tell(stories.Sizes(**SMALL), say=lines.append, folder=tmp_path_factory.mktemp("guide"))
    return found, "\n".join(lines)


def row(told, what):
    return next(row.fetched for row in told[0].rows if row.what == what)


def test_every_promise_of_the_nine_steps_holds(told):
    found, text = told
    assert found.broken == ()
    assert [f"Step {n}" in text for n in range(1, 10)] == [True] * 9


def test_quality_of_service_decides_whether_the_deadline_is_met(told):
    fast, slow = row(told, "with QoS"), row(told, "without QoS")
    assert (fast.met, slow.met) == (True, False)
    assert (fast.qos.state, slow.qos) == ("available", None)
    assert fast.transfer.received_bytes == slow.transfer.received_bytes


def test_the_download_goes_on_at_the_next_edge(told):
    moved = row(told, "moving")
    assert [stop.name for stop in moved.edges] == ["commercial", "resort"]
    assert (moved.name, moved.version) == ("model-b", "1.0.0")
    assert moved.transfer.received_bytes < 1.02 * SMALL["bytes"] + 65_536


def test_a_fine_tuned_version_comes_as_a_patch(told):
    new = row(told, "new version")
    assert (new.version, new.delta) == ("2.0.0", "weights")
    assert new.transfer.received_bytes < 0.1 * SMALL["bytes"]


def test_the_weights_are_a_sound_file_of_the_size_asked_for(stories, tmp_path):
    from safetensors import safe_open
    from tourist_guide import weights

    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    weights.write(first, 1_000_000, seed=3)
    weights.write(second, 1_000_000, seed=3, tuned=4)
    assert first.stat().st_size == second.stat().st_size == 1_000_000
    with safe_open(first, "numpy") as before, safe_open(second, "numpy") as after:
        assert list(before.keys()) == sorted(f"{name}.weight" for name in weights.LAYERS)
        moved = [name for name in before.keys() if (before.get_tensor(name) != after.get_tensor(name)).any()]  # noqa: SIM118
    assert moved == ["fc8.weight"]


def test_vgg_16_has_its_weights(stories):
    from tourist_guide import weights

    assert sum(weights.LAYERS.values()) == 138_344_128  # without the 13,416 biases of its 138,357,544 parameters


@pytest.mark.slow
def test_a_story_that_breaks_its_word_does_not_end_with_0(stories, tmp_path):
    """A deadline that no network can meet."""
    lines = []
    asked = ["--bytes", "400000", "--deadline", "0.02", "--folder", str(tmp_path)]
    assert stories.main(asked, say=lines.append) == 1
    assert any("[FAILED] verified" in line or "broke off" in line for line in lines)
