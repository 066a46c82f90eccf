"""A whole federation in this process: request, plan, rounds, conclusion; interrupted, cancelled, compared, closed form."""

from __future__ import annotations

import numpy as np
import pytest

from cellwright.data.split import spans
from cellwright.errors import FederationError, ParamsError, TrainingError
from cellwright.federation import federate
from cellwright.federation.alignment.horizontal import AlignmentReport
from cellwright.federation.audit.chain import verify_log
from cellwright.federation.comparison import errors
from cellwright.federation.results import Federated, Round
from cellwright.federation.search import FOUND, Found
from cellwright.forecaster import Forecaster
from cellwright.steps.federate import federate as federate_step
from cellwright.steps.train import train
from cellwright.training.checks import check_models
from cellwright.workspace import Workspace

KEY = "fedavg:gru"


@pytest.fixture
def ws(tmp_path, panel) -> Workspace:
    ws = Workspace(tmp_path, "run")
    panel.save(ws.panel("tiny"))
    return ws


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One federation that ran through, its workspace and what it came to; do not write into it."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("fed_conftest", Path(__file__).with_name("conftest.py"))
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    ws = Workspace(tmp_path_factory.mktemp("finished"), "run")
    tiny.tiny_panel().save(ws.panel("tiny"))
    params = tiny.tiny_params()
    return params, ws, train(params, ws, KEY)


def test_a_federated_candidate_is_trained_as_any_other(finished):
    params, ws, trained = finished
    assert (trained.status, trained.epochs, trained.title) == ("max_epochs", 3, "GRU by FedAvg")
    assert trained.energy is not None
    assert trained.energy.source == "modelled"
    lines = (ws.candidate(KEY) / "history.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert train(params, ws, KEY) == trained  # found, not trained again


def test_the_forecaster_has_the_error_that_the_owners_measured_on_their_own(finished, panel):
    params, ws, _ = finished
    found = Federated.read(ws.candidate(KEY) / federate.RESULT)
    test = spans(params.split, panel.schema).test
    absolute, count = errors(Forecaster.load(ws.candidate(KEY)), panel, test)
    for i, owner in enumerate(("north", "east", "south", "west")):
        own = next(o for o in found.owners if o.owner == owner)
        assert own.mae == pytest.approx(absolute[i] / count[i], rel=1e-4)
    assert found.mae == pytest.approx(absolute.sum() / count.sum(), rel=1e-4)


def test_what_each_owner_did_is_counted(finished):
    _, ws, _ = finished
    found = Federated.read(ws.candidate(KEY) / federate.RESULT)
    rounds = [Round.model_validate_json(line) for line in (ws.candidate(KEY) / federate.ROUNDS).read_text().splitlines()]
    assert [o.rounds for o in found.owners] == [3, 3, 3, 3]
    assert found.up_bytes == sum(r.up_bytes for r in rounds) > 0
    assert found.energy.energy_j == pytest.approx(sum(o.energy_j for o in found.owners))
    assert sum(o.contribution for o in found.owners) > 0
    assert sum(o.reward for o in found.owners) <= params_pot(finished) + 1e-9


def test_what_is_not_training_is_counted_apart(finished):
    """Deployment, contribution and test send messages of their own; the leaderboard's time is that of the rounds alone."""
    _, ws, trained = finished
    found = Federated.read(ws.candidate(KEY) / federate.RESULT)
    parts = {part.name: part for part in found.parts}
    assert list(parts) == ["deployment", "training", "contribution", "test"]
    assert (parts["training"].up_bytes, parts["training"].down_bytes) == (found.up_bytes, found.down_bytes)
    assert all(part.up_bytes > 0 and part.down_bytes > 0 and part.wall_s > 0 for part in found.parts)
    assert found.everything_bytes == (sum(p.up_bytes for p in found.parts), sum(p.down_bytes for p in found.parts))
    assert sum(p.wall_s for p in found.parts) <= found.wall_s
    assert trained.train_s == parts["training"].wall_s < found.wall_s
    training = parts["training"]
    assert training.owners_energy_j == pytest.approx(found.energy.energy_j)
    assert training.auditor_energy_j > 0  # every message was checked
    assert trained.energy.energy_j == pytest.approx(training.energy_j)
    assert found.everything_j == pytest.approx(sum(p.energy_j for p in found.parts))
    assert {p.energy_source for p in found.parts} == {"modelled"}


def params_pot(finished) -> float:
    return finished[0].federation.reward_pot


def test_the_owners_data_are_aligned_before_training(finished):
    _, ws, _ = finished
    report = AlignmentReport.model_validate_json((ws.candidate(KEY) / federate.JOB / "alignment.json").read_bytes())
    assert report.fit == ("east", "north", "south", "west")
    assert "traffic" in [feature.name for feature in report.standard.features]


def test_the_log_verifies_and_any_altered_byte_is_found(finished, tmp_path):
    _, ws, _ = finished
    found = Federated.read(ws.candidate(KEY) / federate.RESULT)
    log = ws.candidate(KEY) / found.audit_log
    assert verify_log(log).head == found.audit_head
    copy = tmp_path / log.name
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    assert not verify_log(copy, head=found.audit_head).ok


def test_the_client_gets_the_model_and_the_nodes_are_rated(finished):
    params, ws, _ = finished
    bed = federate.bed(params, ws, KEY)
    with federate.fmlms(bed) as service:
        (request,) = service.requests()
        file, content = service.model(request.id)
        rated = service.statuses()
    assert request.status == "finished"
    assert len(content) == file.model_bytes
    assert {rated[o].rounds for o in bed.groups} == {3}
    assert any(rated[o].reward > 0 for o in bed.groups)


def test_an_interrupted_federation_ends_with_the_same_weights(finished, ws):
    params, done, _ = finished

    def stop(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(params, ws, KEY, on_epoch=stop)
    resumed = train(params, ws, KEY)
    assert resumed.epochs == 3
    ours, theirs = (Forecaster.load(w.candidate(KEY)).state_dict() for w in (ws, done))
    assert all(np.array_equal(ours[name].numpy(), theirs[name].numpy()) for name in theirs)
    with federate.fmlms(federate.bed(params, ws, KEY)) as service:
        assert len(service.requests()) == 1  # the interrupted request went on


def test_a_cancelled_request_ends_at_the_next_round(ws, params):
    bed = federate.bed(params, ws, KEY)
    made = federate.planned(bed)

    def cancel(record: Round) -> None:
        with federate.fmlms(bed) as service:
            service.cancel(made.request, reason="not needed any more")

    outcome = federate.trained(bed, made, on_round=cancel)
    assert (outcome.status, len(outcome.rounds)) == ("stopped", 1)
    assert "not needed" in outcome.reason


def test_a_plan_that_was_told_is_told_once_more_only_where_that_is_asked_for(ws, params):
    bed, told = federate.bed(params, ws, KEY), {"first": [], "again": [], "known": []}
    federate.planned(bed, say=told["first"].append, again=False)  # nothing was told before
    federate.planned(bed, say=told["again"].append)
    federate.planned(bed, say=told["known"].append, again=False)
    assert "4 owners chosen, 0 left out" in told["first"]
    assert (told["again"], told["known"]) == (told["first"], [])


def test_too_few_nodes_says_who_was_left_out(ws, make_params):
    params = make_params(federation={"least_owners": 5})
    with pytest.raises(FederationError, match="at least 5 data owners, found 4"):
        federate.planned(federate.bed(params, ws, KEY))


def test_ridge_of_summed_statistics_is_ridge_of_all_data(ws, make_params):
    params = make_params(train={"models": ["ridge"]})
    train(params, ws, "fedgram:ridge")
    bed = federate.bed(params, ws, "fedgram:ridge")
    found = federate.compared(bed)
    assert found.mae == pytest.approx(found.mae_central, rel=1e-4)


def test_owners_with_models_of_their_own_are_reported_and_not_ranked(ws, make_params):
    params = make_params(federation={"rule": "personalised", "model": "gru", "compare": False})
    found = federate_step(params, ws)
    assert found.status in ("rounds", "converged")
    assert all(o.mae is not None for o in found.owners)
    with pytest.raises(ParamsError, match="no leaderboard can hold"):
        check_models(make_params(train={"models": ["personalised:gru"]}))


def test_owners_that_keep_their_scalers_publish_no_one_model(ws, make_params):
    with pytest.raises(Exception, match="share_scalers"):
        train(make_params(federation={"share_scalers": False, "contribution": False}), ws, KEY)


def test_a_hierarchy_aggregates_at_its_edges(ws, make_params):
    params = make_params(federation={"topology": "hierarchy", "regions": 2, "contribution": False})
    train(params, ws, "hierarchical:gru")
    found = Federated.read(ws.candidate("hierarchical:gru") / federate.RESULT)
    assert sorted(map(len, found.topology["regions"].values())) == [2, 2]


def test_a_search_tries_short_federations_and_the_best_trains(ws, make_params):
    search = {"search_trials": 4, "search_rounds": 1, "rounds": 1, "learning_rate": 1e-6, "contribution": False}
    params = make_params(federation=search)
    said = []
    train(params, ws, KEY, say=said.append)
    found = Found.model_validate_json((ws.candidate(KEY) / FOUND).read_bytes())
    assert found.trials == 4
    assert found.learning_rate > 1e-6  # with that nothing is learnt
    assert found.validation_loss < found.default_loss
    (round_,) = (ws.candidate(KEY) / federate.ROUNDS).read_text().splitlines()
    assert Round.model_validate_json(round_).learning_rate == found.learning_rate
    assert any("trial 4 of 4" in line for line in said)


def test_there_is_no_search_under_privacy(ws, make_params):
    params = make_params(federation={"search_trials": 2, "privacy": ["local_dp"], "contribution": False})
    with pytest.raises(TrainingError, match="search_trials is 2, but privacy is local_dp"):
        train(params, ws, KEY)
