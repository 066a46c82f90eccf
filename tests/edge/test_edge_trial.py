"""A version under trial lies warm beside the champion; promoting it or taking it back is one step either way."""

import pytest

from cellwright.bundle import store
from cellwright.edge.shelf import Shelf
from cellwright.errors import BundleError


@pytest.fixture
def tried(shelf, another):
    """A store whose 1.0.0 serves and whose 1.1.0 is tried out."""
    layout, manifest = another("1.1.0", shift=5.0)
    store.place(shelf, layout, manifest, activate=False)
    store.try_out(shelf, name(shelf), store.Trial(version="1.1.0", digest=manifest.digest, weight=0.1, since_s=0.0))
    return shelf


def name(shelf):
    return store.names(shelf)[0]


def test_both_versions_are_warm(tried, project):
    edge = Shelf(tried, project.trust)
    edge.refresh()
    now = edge.snapshot
    assert now.latest[name(tried)] == "1.0.0"
    assert now.predictors[name(tried)].manifest.version == "1.0.0"
    assert now.trials[name(tried)].predictor.manifest.version == "1.1.0"
    assert now.trials[name(tried)].trial.weight == 0.1


def test_promotion_serves_the_very_model_that_was_tried(tried, project):
    edge = Shelf(tried, project.trust)
    edge.refresh()
    warm = edge.snapshot.trials[name(tried)].predictor
    store.end_trial(tried, name(tried), promote=True)
    assert edge.refresh()
    assert edge.snapshot.predictors[name(tried)] is warm
    assert edge.snapshot.trials == {}
    assert store.pointer(tried, name(tried)).previous == ("1.0.0",)


def test_a_trial_taken_back_leaves_the_champion_as_it_was(tried, project):
    edge = Shelf(tried, project.trust)
    edge.refresh()
    champion = edge.snapshot.predictors[name(tried)]
    store.end_trial(tried, name(tried), promote=False)
    assert edge.refresh()
    assert edge.snapshot.predictors[name(tried)] is champion
    assert edge.snapshot.trials == {}


def test_a_version_that_is_unpublished_is_tried_no_more(tried):
    store.unpublish(tried, name(tried), "1.1.0")
    assert store.trial(tried, name(tried)) is None


def test_a_damaged_trial_is_named_and_the_champion_answers(tried, project):
    (tried / name(tried) / "trial.json").write_text("{}")
    edge = Shelf(tried, project.trust)
    edge.refresh()
    assert edge.snapshot.trials == {}
    assert "damaged" in edge.snapshot.refused[f"{name(tried)} (trial)"]
    assert edge.snapshot.predictors[name(tried)].manifest.version == "1.0.0"


@pytest.mark.parametrize(("version", "why"), [("1.0.0", "no other version"), ("9.0.0", "is not here")])
def test_what_cannot_be_tried_is_refused(tried, version, why):
    digest = store.pointer(tried, name(tried)).digest
    with pytest.raises(BundleError, match=why):
        store.try_out(tried, name(tried), store.Trial(version=version, digest=digest, weight=0.5, since_s=0.0))
