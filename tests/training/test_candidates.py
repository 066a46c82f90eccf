"""From params.yaml to candidates: what is merged in which order, and what is refused."""

from dataclasses import replace

import pytest

from cellwright.data.calendar import NAMES
from cellwright.errors import ParamsError, UnknownName
from cellwright.training.candidates import resolve


def resolved(make_params, panel, key="mlp", **sections):
    return resolve(make_params(**sections), panel.schema, key)


def test_the_problem_is_what_params_and_the_data_set_say(make_params, panel):
    problem = resolved(make_params, panel, problem={"features": ["users"], "lags": [48]}).problem
    assert (problem.inputs, problem.nodes, problem.outputs, problem.grid) == ("patch", 9, 1, (3, 3))
    assert problem.features == ("traffic", "users", "traffic@48", "valid")
    assert problem.targets == ("traffic",)
    assert problem.known == NAMES
    assert problem.season == 48


def test_settings_and_options_override_what_train_says(make_params, panel):
    own = {"mlp": {"inputs": "all", "lags": [], "learning_rate": 0.5, "options": {"hidden": 9}}}
    candidate = resolved(make_params, panel, problem={"lags": [48]}, train={"settings": own, "weight_decay": 0.25})
    assert (candidate.problem.inputs, candidate.problem.nodes, candidate.problem.lags) == ("all", 4, ())
    assert candidate.problem.grid == (2, 2)
    assert candidate.options.hidden == 9
    assert (candidate.settings.learning_rate, candidate.settings.weight_decay) == (0.5, 0.25)
    found = resolve(make_params(train={"settings": own}), panel.schema, "mlp", options={"hidden": 5})
    assert found.options.hidden == 5


def test_a_network_names_the_lags_it_needs(make_params, panel):
    assert resolved(make_params, panel, "seasonal_naive").problem.lags == (48,)


def test_a_data_set_without_a_grid_gets_no_patches(make_params, panel):
    schema = panel.schema.model_copy(update={"grid": None})
    assert resolve(make_params(), schema, "mlp").problem.inputs == "site"
    with pytest.raises(ParamsError, match="'toy' lie on no grid; use 'site' or 'all'"):
        resolve(make_params(problem={"inputs": "patch"}), schema, "mlp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden": 9}, r"train\.settings\.mlp\.options: unknown option 'hiden'; did you mean 'hidden'\?"),
        ({"hidden": "wide"}, r"train\.settings\.mlp\.options\.hidden: expected int, found 'wide'"),
        ({"hidden": 0}, r"hidden must be at least 1, not 0"),
    ],
)
def test_a_bad_option_is_named(make_params, panel, options, message):
    with pytest.raises(ParamsError, match=message):
        resolved(make_params, panel, train={"settings": {"mlp": {"options": options}}})


def test_unknown_names_say_which_there_are(make_params, panel):
    with pytest.raises(UnknownName, match=r"no model 'mpl'.*Did you mean 'mlp'"):
        resolved(make_params, panel, "mpl")
    with pytest.raises(UnknownName, match=r"no preset of 'mlp' 'huge'"):
        resolved(make_params, panel, "mlp:huge")
    with pytest.raises(UnknownName, match=r"no target 'trafic'. There are: traffic, users. Did you mean 'traffic'"):
        resolved(make_params, panel, problem={"targets": ["trafic"]})
    with pytest.raises(UnknownName, match="no feature 'weather'"):
        resolved(make_params, panel, problem={"features": ["weather"]})


def test_a_lag_that_is_not_known_in_time_is_refused(make_params, panel):
    with pytest.raises(ParamsError, match=r"mlp: lag 2 is shorter than the horizon of 3 steps"):
        resolved(make_params, panel, problem={"lags": [2]})


def test_inputs_that_a_network_does_not_take_are_refused(make_params, panel, monkeypatch):
    from models import mlp

    monkeypatch.setattr(mlp.Network, "inputs", ("site",))
    with pytest.raises(ParamsError, match=r"train\.settings\.mlp\.inputs is 'all', but MLP takes site"):
        resolved(make_params, panel, train={"settings": {"mlp": {"inputs": "all"}}})


def test_a_preset_lies_between_defaults_and_own_options(make_params, panel, monkeypatch):
    from models import mlp

    monkeypatch.setattr(mlp.Network, "presets", {"small": {"hidden": 8, "depth": 1}})
    candidate = resolved(make_params, panel, "mlp:small", train={"settings": {"mlp:small": {"options": {"depth": 3}}}})
    assert (candidate.options.hidden, candidate.options.depth) == (8, 3)
    assert (candidate.preset, candidate.title) == ("small", "MLP (small)")
    assert replace(candidate, preset=None).title == "MLP"
