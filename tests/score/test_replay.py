"""Training energy measured alone, by a training that is replayed."""

import pytest

from cellwright.data.split import split
from cellwright.energy.replay import CLOSED_FORM_LIMIT_S, replayed
from cellwright.results import Trained
from cellwright.training.candidates import resolve


def replay(run, make_params, panel, key, **changes):
    params = make_params(energy={"cpu_w_per_core": 10})
    trained = Trained.read(run.candidate(key) / "candidate.json").model_copy(update=changes)
    candidate = resolve(params, panel.schema, key)
    spans = split(params.split, 0, panel.schema.rows)
    return replayed(candidate, trained, panel, spans, params.energy, folder=run.candidate(key), seconds=30)


def test_the_replay_of_a_whole_training_is_scaled_by_one(trained_run, make_params, small_panel):
    """Thirty seconds are more than its two epochs take: all steps are run again."""
    found = replay(trained_run, make_params, small_panel, "mlp")
    steps = found.words.removeprefix("measured serially over ").split()
    assert steps[0] == steps[2]
    assert not found.reading.shared
    assert found.reading.cpu.energy_j == pytest.approx(10 * found.reading.cpu_s)


def test_a_replay_of_half_the_steps_is_scaled_to_all_of_them(trained_run, make_params, small_panel):
    found = replay(trained_run, make_params, small_panel, "mlp", epochs=1)
    seen, real = (int(w) for w in found.words.removeprefix("measured serially over ").split()[:3:2])
    assert real == 2 * seen
    assert found.words.endswith("steps, scaled")


def test_a_closed_form_is_measured_whole_or_not_at_all(trained_run, make_params, small_panel):
    assert replay(trained_run, make_params, small_panel, "ridge").words == "measured again, serially"
    assert replay(trained_run, make_params, small_panel, "ridge", train_s=CLOSED_FORM_LIMIT_S + 1) is None
