"""What happens between the parts of a federation: other requests beside it, other parameters, interruptions, ends without a model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cellwright.errors import FederationError, ParamsError, TrainingError, UnknownName
from cellwright.federation import federate
from cellwright.federation.deciding import decided
from cellwright.federation.results import Federated, Round
from cellwright.files import write_json
from cellwright.forecaster import Forecaster
from cellwright.panel import Panel
from cellwright.registry.card import _training
from cellwright.runs import run_name
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


@pytest.fixture
def plain(make_params):
    """Parameters without the measuring of contributions, and further ones of the federation."""
    return lambda **more: make_params(federation={"contribution": False, **more})


def interrupted(params, ws, key=KEY, *, after=1) -> None:
    def stop(line: dict[str, float]) -> None:
        if line["epoch"] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(params, ws, key, on_epoch=stop)


def result(ws, key=KEY) -> Federated:
    return Federated.read(ws.candidate(key) / federate.RESULT)


def requests(params, ws, key=KEY):
    with federate.fmlms(federate.bed(params, ws, key)) as service:
        return service.requests()


def test_a_request_of_a_dead_process_gives_way_to_one_that_needs_its_nodes(ws, plain):
    nodes = [f"- {{name: {n}, roles: [data_owner], capacity: {{cpus: 1}}}}" for n in ("north", "east", "south", "west")]
    cloud = "- {name: cloud, roles: [coordinator], layer: cloud, security: 5, capacity: {cpus: 8}}"
    (ws.root / "nodes.yaml").write_text("\n".join(["nodes:", cloud, *nodes]))
    params = plain(nodes="nodes.yaml")
    interrupted(params, ws)
    other = replace(ws, run="other")
    train(params, other, KEY)
    statuses = {r.request.name: r.status for r in requests(params, ws)}
    assert statuses == {"run-fedavg:gru": "cancelled", "other-fedavg:gru": "finished"}
    assert train(params, ws, KEY).epochs == 3  # and goes on where it was
    assert [r.status for r in requests(params, ws)].count("finished") == 2


def test_other_owners_under_the_same_name_begin_anew(ws, plain):
    interrupted(plain(), ws)
    train(plain(owners=2), ws, KEY)
    assert len(result(ws).owners) == 2


def test_another_topology_under_the_same_name_is_built(ws, plain):
    interrupted(plain(), ws)
    train(plain(topology="hierarchy", regions=2), ws, KEY)
    assert result(ws).topology["kind"] == "hierarchy"


def test_a_training_that_failed_goes_on_as_its_new_request(ws, plain):
    params = plain()
    bed = federate.bed(params, ws, KEY)

    def fail(record: Round) -> None:
        if record.round == 2:
            raise FederationError("the disk is full")

    with pytest.raises(FederationError, match="disk"):
        federate.trained(bed, federate.planned(bed), on_round=fail)
    made = federate.planned(bed)
    outcome = federate.trained(bed, made)
    assert len(outcome.rounds) == 3
    assert outcome.topology.request == made.request


def test_an_owner_without_data_does_not_keep_an_asynchronous_training_from_being_judged(tmp_path, panel, plain):
    values = panel.values("traffic").copy()
    values[:, 2] = np.nan
    ws = Workspace(tmp_path, "run")
    Panel.from_arrays(panel.schema, {"traffic": values, "users": panel.values("users")}).save(ws.panel("tiny"))
    trained = train(plain(rounds=4), ws, "fedbuff:gru")
    assert trained.validation_loss is not None


def test_a_training_that_its_client_cancelled_is_no_candidate(ws, plain):
    params = plain()

    def cancel(line: dict[str, float]) -> None:
        with federate.fmlms(federate.bed(params, ws, KEY)) as service:
            service.cancel(next(r.id for r in service.requests() if r.status == "running"))

    with pytest.raises(TrainingError, match=r"stopped after 1 rounds.*cancelled by its client"):
        train(params, ws, KEY, on_epoch=cancel)
    assert train(params, ws, KEY).epochs == 3  # asked for again, it goes on


def test_a_budget_that_allows_no_round_makes_no_model(ws, plain):
    tight = {"central_dp": {"noise_multiplier": 0.3, "epsilon": 0.01}}
    params = plain(privacy=["central_dp"], privacy_options=tight)
    with pytest.raises(TrainingError, match=r"no round was run.*privacy budget"):
        train(params, ws, KEY)
    assert [r.status for r in requests(params, ws)] == ["failed"]


def test_the_model_that_reached_its_target_is_the_one_that_is_kept(ws, plain):
    bed = federate.bed(plain(target={"mae": 1e9}), ws, KEY)
    outcome = federate.trained(bed, federate.planned(bed))
    assert (outcome.status, len(outcome.rounds)) == ("target", 1)
    assert all(e.count for e in outcome.evaluations.values())


def test_the_sites_of_an_owner_that_is_not_fit_to_train_are_forecast_all_the_same(ws, plain):
    cpus = {"north": 2, "east": 2, "south": 2, "west": 0.5}
    nodes = [f"- {{name: {n}, roles: [data_owner], capacity: {{cpus: {c}}}}}" for n, c in cpus.items()]
    cloud = "- {name: cloud, roles: [coordinator], layer: cloud, security: 5, capacity: {cpus: 8}}"
    (ws.root / "nodes.yaml").write_text("\n".join(["nodes:", cloud, *nodes]))
    params = plain(nodes="nodes.yaml")
    said = []
    train(params, ws, KEY, say=said.append)
    assert any("1 of 4 owners do not train, first 'west' (resources" in line for line in said)
    assert {o.owner: (o.trained, o.rounds) for o in result(ws, KEY).owners} == {
        "north": (True, 3), "east": (True, 3), "south": (True, 3), "west": (False, 0)
    }  # fmt: skip
    assert Forecaster.load(ws.candidate(KEY)).about["sites"] == ["north", "east", "south", "west"]
    assert [r.status for r in requests(params, ws)] == ["finished"]


def test_forests_are_joined_through_the_auditor(ws, plain):
    trained = train(plain(), ws, "bagging:trees")
    assert trained.status == "closed form"
    assert {o.rounds for o in result(ws, "bagging:trees").owners} == {1}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("fedavg:ridge", "use fedgram:ridge"),
        ("fedgram:gru", "use fedavg:gru"),
        ("fedgram:trees", "use bagging:trees"),
        ("fedavg:persistence", "by itself"),
    ],
)
def test_a_rule_that_cannot_join_the_model_is_refused_before_anything_begins(ws, make_params, key, words):
    with pytest.raises(ParamsError, match=words):
        check_models(make_params(train={"models": [key]}))
    with pytest.raises(TrainingError, match=words):
        train(make_params(), ws, key)


def test_an_unknown_rule_is_told_the_rules_there_are(make_params):
    with pytest.raises(UnknownName, match=r"no model 'fedfoo'.*<rule>:<model>; rules: .*fedavg"):
        check_models(make_params(train={"models": ["fedfoo:gru"]}))


def test_the_model_card_tells_of_the_federation_and_its_privacy_budget(ws, plain):
    tight = {"local_dp": {"noise_multiplier": 3.0, "clip_norm": 0.5, "epsilon": 100}}
    trained = train(plain(privacy=["local_dp"], privacy_options=tight, batch=16, learning_rate=0.003), ws, KEY)
    words = _training(trained)
    assert "3 rounds" in words
    assert "Federation: FedAvg, 4 owners, synchronous, runtime local" in words
    assert f"ε {result(ws).epsilon:.3g} at δ" in words
    assert (trained.settings["learning_rate"], trained.settings["batch"]) == (0.003, 16)


def test_owners_of_clusters_are_not_told_a_contribution_that_nobody_measured(ws, make_params):
    params = make_params(federation={"rule": "clustered", "compare": False})
    found = federate_step(params, ws)
    assert {o.contribution for o in found.owners} == {None}
    assert federate_step(params, ws) == found  # found again
    other = make_params(federation={"rule": "clustered", "compare": False, "rounds": 1})
    assert federate_step(other, ws).rounds == 1  # other parameters, another training


def test_another_file_of_nodes_is_another_run(tmp_path, plain):
    params = plain(nodes="nodes.yaml")
    names = set()
    for content in ("", "nodes:\n- {name: a, roles: [data_owner]}\n", "nodes:\n- {name: b, roles: [data_owner]}\n"):
        (tmp_path / "nodes.yaml").write_text(content)
        names.add(run_name(params, "data", tmp_path))
    assert len(names) == 3


@pytest.mark.parametrize(
    ("privacy", "topology", "rule"),
    [
        (["secure_aggregation"], "star", "fedavg"),
        (["central_dp"], "hierarchy", "fedavg"),
        (["local_dp"], "hierarchy", "hierarchical"),
    ],
)
def test_what_is_chosen_goes_with_the_privacy_that_is_asked_for(ws, make_params, privacy, topology, rule):
    params = make_params(federation={"rule": "auto", "model": "auto", "privacy": privacy, "topology": topology})
    chosen = decided(params, ws).params.federation
    assert chosen.model == "gru"  # few windows ask for ridge, whose sums no mechanism protects
    assert chosen.rule in (rule, "fedprox" if rule == "fedavg" else rule)


@pytest.mark.parametrize("after", [2, 5])
def test_contributions_are_of_all_rounds_wherever_a_process_was_interrupted(ws, tmp_path, make_params, panel, after):
    params, whole = make_params(federation={"rounds": 5, "contribution_rounds": 2}), Workspace(tmp_path / "whole", "run")
    panel.save(whole.panel("tiny"))
    train(params, whole, "fedavgm:gru")
    interrupted(params, ws, "fedavgm:gru", after=after)
    train(params, ws, "fedavgm:gru")
    ours, theirs = (result(w, "fedavgm:gru").owners for w in (ws, whole))
    assert [o.contribution for o in ours] == pytest.approx([o.contribution for o in theirs])
    assert any(o.contribution for o in ours)


def started(ws) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(ws.candidate(KEY) / federate.JOB / "start.safetensors")


def as_champion(ws, run: str) -> Workspace:
    """A run whose initial model was decided to be what another run came to (registry/start.py keeps that in the run's folder)."""
    later = Workspace(ws.root, run)
    write_json(
        later.run_folder / "initial_model.json",
        {"folder": str(ws.candidate(KEY)), "sentence": "the owners start from tiny 1.0.0"},
    )
    return later


def test_9_1_the_initial_model_is_the_registrys_where_it_is_asked_for(ws, plain):
    first = train(plain(rounds=2), ws, KEY)
    later, said = as_champion(ws, "later"), []
    trained = train(plain(rounds=1, initial="champion"), later, KEY, say=said.append)
    network = {n.removeprefix("network."): t.numpy() for n, t in Forecaster.load(ws.candidate(KEY)).state_dict().items()}
    begun = {json.loads(name)[-1]: array for name, array in started(later).items()}
    assert begun.keys() <= network.keys()
    assert all(np.array_equal(array, network[name]) for name, array in begun.items())
    assert trained.validation_loss < first.validation_loss * 1.05
    assert trained.notes["initial model"] == said[0] == "the owners start from tiny 1.0.0"
    assert train(plain(rounds=1, initial="champion"), later, KEY) == trained  # found again, not trained from other weights


def test_a_champion_of_another_form_is_no_initial_model_and_that_is_said(ws, plain, make_params):
    train(plain(rounds=1), ws, KEY)
    later, said = as_champion(ws, "later"), []
    wider = {"models": ["gru"], "settings": {"gru": {"options": {"hidden": 12}}}, "device": "cpu"}
    params = make_params(train=wider, federation={"contribution": False, "rounds": 1, "initial": "champion"})
    trained = train(params, later, KEY, say=said.append)
    assert "its options is" in trained.notes["start"]
    assert "fresh weights instead" in said[0]


def test_without_a_champion_the_seed_decides_and_that_is_said(ws, plain):
    said = []
    trained = train(plain(rounds=1, initial="champion"), ws, KEY, say=said.append)
    assert "no champion yet" in trained.notes["initial model"]
    assert "no champion yet" in said[0]
