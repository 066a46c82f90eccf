"""Search: what it finds is used, it goes on where it was stopped, and it draws the same either way."""

import optuna
import pytest

from cellwright.data.split import split
from cellwright.errors import TrainingError
from cellwright.params import Split
from cellwright.steps.train import train
from cellwright.training import search as module
from cellwright.training.candidates import resolve
from cellwright.training.search import search
from cellwright.workspace import Workspace


@pytest.fixture
def searched(workspace, make_params, panel):
    def run(trials, run="test", key="ridge", **train):
        params = make_params(search={"trials": trials}, train={"max_epochs": 3, **train})
        spans = split(Split(), 0, panel.schema.rows)
        return search(params, Workspace(workspace.root, run), resolve(params, panel.schema, key), panel, spans)

    return run


def trials_of(workspace, run="test"):
    studies = optuna.get_all_study_summaries(workspace.optuna_uri)
    name = next(s.study_name for s in studies if s.study_name.startswith(f"{run}/"))
    return optuna.load_study(study_name=name, storage=workspace.optuna_uri).trials


def test_the_best_trial_s_options_are_used_and_recorded(workspace, make_params):
    trained = train(make_params(search={"trials": 4}), workspace, "ridge")
    trials = trials_of(workspace)
    best = min(trials, key=lambda t: t.value)
    assert trained.trials == len(trials) == 4
    assert trained.options == {"penalty": 100.0, "use_hour": True, "use_lags": True, **best.user_attrs["options"]}
    assert trained.validation_loss == pytest.approx(best.value, rel=1e-6)


def test_the_first_trial_is_the_candidate_as_it_is(workspace, searched):
    searched(1)
    assert trials_of(workspace)[0].user_attrs["options"] == {}


def test_a_search_that_was_stopped_draws_on_as_if_it_had_not_been(workspace, searched, monkeypatch):
    searched(5, "whole")
    real, calls = module.fit, []

    def killed_in_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "fit", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        searched(5, "cut")
    _, trials = searched(5, "cut")
    assert trials == 5
    whole, cut = ([t.params for t in trials_of(workspace, run) if "finished" in t.user_attrs] for run in ("whole", "cut"))
    assert whole == cut


def test_networks_are_searched_with_their_learning_rate(workspace, searched):
    candidate, trials = searched(5, key="mlp", windows_per_epoch=200)
    assert trials == 5
    drawn = [t for t in trials_of(workspace) if t.params]
    assert len(drawn) == 4
    assert all(1e-4 <= t.params["learning_rate"] <= 1e-2 for t in drawn)
    best = min((t for t in trials_of(workspace) if t.state.name == "COMPLETE"), key=lambda t: t.value)
    assert candidate.settings.learning_rate == best.user_attrs["learning_rate"]
    assert candidate.settings.budget_s == 60  # the final training has the candidate's own budget


def test_a_trial_that_is_worse_than_the_median_is_pruned(workspace, searched, monkeypatch):
    """The last one has a hopeless learning rate; three are always completed first, for a median to compare with."""
    rates = iter([1e-3, 2e-3, 3e-3, 1e-9])
    monkeypatch.setattr(module, "_rate", lambda trial, candidate: next(rates))
    searched(5, key="mlp", windows_per_epoch=200)
    states = [t.state.name for t in trials_of(workspace)]
    assert states[:3] == ["COMPLETE"] * 3
    assert states[-1] == "PRUNED"


def test_a_search_without_a_single_good_trial_fails_with_the_first_reason(searched):
    with pytest.raises(TrainingError, match=r"all 2 trials of the search failed: TrainingError: the train loss"):
        searched(2, key="mlp", learning_rate=1e30, gradient_clip=None, loss="mse", batch=8)
