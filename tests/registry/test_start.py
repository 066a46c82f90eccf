"""Where the candidates of a run start from: decided once, from who is champion and what it was trained on."""

import pytest

from cellwright.registry.champions import champion
from cellwright.registry.start import initial, start
from cellwright.results import DataVersion
from cellwright.steps.register import register
from cellwright.versioning import data_version
from cellwright.workspace import Workspace

MODEL = "tiny--traffic--h4-2"


@pytest.fixture
def strong(project, store) -> Workspace:
    return Workspace(project, "strong")


def asked(make_params, *models, warm_start="champion"):
    settings = {"models": models or ("ridge", "mlp"), "warm_start": warm_start}
    return make_params("ridge", "mlp").model_copy(update={"train": make_params("ridge", "mlp").train.model_copy(update=settings)})


def newer(ws) -> DataVersion:
    return data_version(ws, "tiny").model_copy(update={"hash": "another"})


def test_the_champions_model_starts_from_its_weights_on_new_data_alone(strong, make_params):
    later = Workspace(strong.root, "later")
    assert start(asked(make_params, warm_start="none"), later, newer(strong)).folders == {}
    assert "no champion yet" in start(asked(make_params), Workspace(strong.root, "first"), newer(strong)).sentence
    register(make_params("ridge", "mlp"), strong, promote=True)
    found = start(asked(make_params), later, newer(strong))
    assert found.folders == {"mlp": str(champion(strong, MODEL))}
    assert found.sentence == f"MLP starts from the weights of {MODEL} 1.0.0"
    same = start(asked(make_params), Workspace(strong.root, "same"), data_version(strong, "tiny"))
    assert (same.folders, "this very data version" in same.sentence) == ({}, True)
    without = start(asked(make_params, "ridge"), Workspace(strong.root, "without"), newer(strong))
    assert (without.folders, "not among the candidates" in without.sentence) == ({}, True)


def test_a_resumed_run_starts_from_what_it_started_from(strong, make_params):
    early = Workspace(strong.root, "early")
    before = start(asked(make_params), early, newer(strong))
    register(make_params("ridge", "mlp"), strong, promote=True)
    assert start(asked(make_params), early, newer(strong)) == before


def federated(make_params, initial):
    plain = make_params("ridge", "mlp")
    return plain.model_copy(update={"federation": plain.federation.model_copy(update={"initial": initial})})


def test_a_federation_starts_from_the_champion_where_it_is_asked_to(strong, make_params):
    asked_for = federated(make_params, "champion")
    early, later = Workspace(strong.root, "early"), Workspace(strong.root, "later")
    assert initial(federated(make_params, "seed"), later).folder is None
    before = initial(asked_for, early)
    assert (before.folder, "no champion yet" in before.sentence) == (None, True)
    register(make_params("ridge", "mlp"), strong, promote=True)
    found = initial(asked_for, later)
    assert found.folder == str(champion(strong, MODEL))
    assert found.sentence.endswith(f"the registry's champion, {MODEL} 1.0.0")
    assert initial(asked_for, early) == before  # a run that is resumed starts from what it started from
