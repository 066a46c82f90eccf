"""A forecaster for all sites, where some owners did not train: they were not selected, or are gone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from cellwright.data.split import spans
from cellwright.federation import federate
from cellwright.federation.aggregation import rule
from cellwright.federation.comparison import errors
from cellwright.federation.compression import codec
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.owner_kit import deployed_values
from cellwright.federation.results import Federated
from cellwright.federation.runtimes.local import open_channel
from cellwright.forecaster import Forecaster
from cellwright.steps.federate import federate as federate_step
from cellwright.steps.train import train
from cellwright.workspace import Workspace

KEY = "fedavg:gru"
TWELVE = tuple(f"s{i:02d}" for i in range(12))


@pytest.fixture
def ws(tmp_path, make_panel) -> Workspace:
    ws = Workspace(tmp_path, "run")
    make_panel(sites=TWELVE).save(ws.panel("tiny"))
    return ws


@pytest.fixture
def few(make_params):
    return lambda **more: make_params(federation={"contribution": False, "rounds": 1, "compare": False, **more})


def test_five_of_twelve_train_and_all_sites_are_forecast(ws, few, make_panel):
    said, params = [], few(most_owners=5, model="gru", rule="fedavg")
    panel = make_panel(sites=TWELVE)
    trained = train(params, ws, KEY, say=said.append)
    assert any("7 of 12 owners do not train" in line and "asked for its scaler" in line for line in said)
    found = federate_step(params, ws, on_progress=said.append)
    assert "7 more were asked for their scalers alone" in said[-1]
    assert sum(o.trained for o in found.owners) == 5
    assert {o.rounds for o in found.owners if not o.trained} == {0}
    assert {o.scaler for o in found.owners} == {""}
    assert trained.reason.endswith("1 rounds with 5 owners")

    absolute, count = errors(Forecaster.load(ws.candidate(KEY)), panel, spans(params.split, panel.schema).test)
    own = {o.owner: o.mae for o in found.owners}
    assert [own[site] for site in TWELVE] == pytest.approx(
        absolute / count, rel=1e-4
    )  # those that did not train measured theirs too
    assert found.mae == pytest.approx(absolute.sum() / count.sum(), rel=1e-4)


def test_whoever_trains_the_scalers_are_the_owners_own(ws, few, tmp_path, make_panel):
    other = Workspace(tmp_path / "all", "run")
    make_panel(sites=TWELVE).save(other.panel("tiny"))
    scalers = []
    for where, params in ((ws, few(most_owners=3)), (other, few())):
        train(params, where, KEY)
        scalers.append(
            {n: t for n, t in Forecaster.load(where.candidate(KEY)).state_dict().items() if not n.startswith("network.")}
        )
    assert scalers[0]
    for name, tensor in scalers[0].items():
        np.testing.assert_array_equal(tensor.numpy(), scalers[1][name].numpy())


@pytest.mark.parametrize("selected", [True, False])
def test_an_owner_that_cannot_answer_is_told_of_and_its_site_takes_the_mean_of_the_others(ws, few, selected):
    """Its panel is gone: an owner that was to train is left out, and neither can tell its scaler."""
    bed = federate.bed(few() if selected else few(most_owners=4), ws, KEY)
    made = federate.planned(bed)
    lost = next(owner for owner in TWELVE if (owner in made.owners) == selected)
    shutil.rmtree(bed.panels[lost])
    outcome = federate.trained(bed, made)
    assert set(outcome.uncovered) == {lost}
    found, forecaster = federate.concluded(bed, made, outcome)
    why = {o.owner: o.scaler for o in found.owners}
    assert [owner for owner in TWELVE if why[owner]] == [lost]
    assert any(f"mean of the other sites' scalers, first '{lost}'" in line for line in found.explanation)
    assert next(o.mae for o in found.owners if o.owner == lost) is None  # nobody measured it
    assert forecaster.about["sites"] == list(TWELVE)
    assert Federated.read(bed.folder / federate.RESULT) == found


def covering(toy, nodes, **over):
    return Coordinator(
        open_channel(nodes),
        toy.TASK,
        rule(over.pop("rule", "fedavg")),
        toy.settings(rounds=1),
        codec=codec("none"),
        topology=toy.star("ab"),
        deploy=deployed_values({}, "none", {}, share_scalers=over.pop("share", True)),
        covered=("c", "d"),
    ).run(toy.initial())


def test_owners_that_do_not_train_are_asked_for_nothing_but_scaler_and_test_error(toy):
    nodes = {name: toy.Puller(name, 1.0) for name in "abc"}
    outcome = covering(toy, nodes)
    assert [kind for kind, _ in nodes["c"].seen] == ["deploy", "evaluate"]
    assert set(outcome.evaluations) == {"a", "b", "c"}
    assert outcome.uncovered["d"] == "it could not be reached when the training was over"
    assert outcome.uncovered["c"] == "its answer held no scaler"  # a toy has none


@pytest.mark.parametrize("over", [{"share": False}, {"rule": "personalised"}])
def test_nobody_is_asked_where_no_one_forecaster_comes_of_it(toy, over):
    nodes = {name: toy.Puller(name, 1.0) for name in "abc"}
    assert covering(toy, nodes, **over).uncovered == {}
    assert nodes["c"].seen == []
