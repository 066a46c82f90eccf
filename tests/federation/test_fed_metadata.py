"""Metadata of raw data: what an owner tells and what it keeps, versions, updates, exchange and sealed keeping (M.3387 10.1, 10.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Parcel
from cellwright.federation.data.book import MetadataBook
from cellwright.federation.data.keyring import FileKey
from cellwright.federation.data.metadata import LEVELS, Disclosure, describe, metadata_of, parcel_of
from cellwright.federation.data.sealed import SealedStore
from cellwright.panel import Feature, Panel, PanelSchema, Segment


def panel_of(values: np.ndarray, **changes: object) -> Panel:
    """One feature in percent, 0 to 100, every 15 minutes from 2026-01-01."""
    schema = PanelSchema(
        dataset="lab",
        sites=tuple(f"cell-{i}" for i in range(values.shape[1])),
        features=(Feature(name="prb", unit="%", low=0, high=100),),
        targets=("prb",),
        cadence_s=900,
        clock="utc",
        start_ms=1_767_225_600_000,
        rows=len(values),
        segments=(Segment(name="all", start=0, stop=len(values)),),
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema.model_copy(update=changes), {"prb": values})


LOAD = np.random.default_rng(0).uniform(20, 60, (400, 3)).astype(np.float32)


@pytest.fixture
def book(tmp_path: Path) -> MetadataBook:
    return MetadataBook(SealedStore(tmp_path / "sealed", FileKey(tmp_path / "key")))


def test_the_form_of_the_data_is_told_and_no_value_of_them():
    holes = LOAD.copy()
    holes[:12, 0] = np.nan
    told = describe(panel_of(holes), "a", Disclosure())
    assert (told.owner, told.dataset, told.targets, told.cadence_s, told.rows, told.sites) == ("a", "lab", ("prb",), 900, 400, 3)
    assert (told.first, told.last) == ("2026-01-01T00:00:00+00:00", "2026-01-05T03:45:00+00:00")
    assert told.feature("prb").unit == "%"
    assert told.feature("prb").missing_share == 0.01
    assert told.feature("prb").quantiles is None
    assert told.feature("prb").withheld == "the owner withholds them"
    assert told.site_names is None
    assert told.epsilon is None
    with pytest.raises(Refused, match="'a' has no feature 'users'; it has prb"):
        told.feature("users")


def test_on_a_relative_clock_rows_are_told():
    told = describe(panel_of(LOAD, clock="relative", start_ms=0), "a", Disclosure())
    assert (told.first, told.last) == ("row 0", "row 399")


def test_quantiles_and_sites_are_told_only_if_the_owner_says_so():
    told = describe(panel_of(LOAD), "a", Disclosure(quantiles="exact", site_names=True))
    assert told.site_names == ("cell-0", "cell-1", "cell-2")
    np.testing.assert_allclose(told.feature("prb").quantiles, np.quantile(LOAD, LEVELS), rtol=1e-6)


def test_noisy_quantiles_are_near_and_differ_from_the_exact_ones_and_from_each_other():
    exact = np.quantile(LOAD, LEVELS)
    noisy = [
        describe(panel_of(LOAD), "a", Disclosure(quantiles="noisy", epsilon=2), rng=np.random.default_rng(i)) for i in range(20)
    ]
    found = np.array([told.feature("prb").quantiles for told in noisy])
    assert np.abs(found.mean(axis=0) - exact).max() < 1
    assert (np.diff(found, axis=1) >= 0).all()
    assert len({told.version for told in noisy}) == 20
    assert noisy[0].epsilon == 2


def test_less_privacy_budget_means_more_noise():
    def error(epsilon: float) -> float:
        found = [
            describe(panel_of(LOAD), "a", Disclosure(quantiles="noisy", epsilon=epsilon), rng=np.random.default_rng(i))
            .feature("prb")
            .quantiles
            for i in range(30)
        ]
        return float(np.abs(np.array(found) - np.quantile(LOAD, LEVELS)).mean())

    assert error(0.01) > 5 * error(1)


def test_the_exponential_mechanism_keeps_its_promise_on_neighbouring_data():
    """One value of one site changes from one end to the other: no output gets more than exp(ε) as likely (within counting error)."""
    epsilon, draws = 2.0, 6000
    counts = []
    for value in (0.0, 100.0):
        values = np.array([[10.0], [90.0], [value]], np.float32)
        rng = np.random.default_rng(1)
        panel, disclosure = panel_of(values), Disclosure(quantiles="noisy", epsilon=epsilon)
        median = [describe(panel, "a", disclosure, rng=rng).feature("prb").quantiles[2] for _ in range(draws // 10)]  # type: ignore[index]
        counts.append(np.histogram(median, bins=4, range=(0, 100))[0] / (draws // 10))
    low, high = counts
    assert (np.maximum(low, high) <= np.exp(epsilon) * np.minimum(low, high) + 0.05).all()
    assert np.abs(low - high).max() > 0.01  # it does tell something


def test_noise_needs_bounds_that_are_not_taken_from_the_data():
    open_ended = panel_of(LOAD, features=(Feature(name="prb", unit="%", low=0),))
    told = describe(open_ended, "a", Disclosure(quantiles="noisy"))
    assert told.feature("prb").quantiles is None
    assert "needs bounds" in told.feature("prb").withheld
    given = describe(open_ended, "a", Disclosure(quantiles="noisy", bounds={"prb": (0, 50)}))
    assert max(given.feature("prb").quantiles) <= 50  # type: ignore[type-var]


def test_without_any_measurement_there_is_nothing_to_tell():
    told = describe(panel_of(np.full((4, 1), np.nan, np.float32)), "a", Disclosure(quantiles="exact"))
    assert told.feature("prb").withheld == "nothing was measured"
    assert told.feature("prb").missing_share == 1
    with pytest.raises(FederationError, match="no data to describe: 0 rows"):
        describe(panel_of(np.zeros((0, 1), np.float32)), "a", Disclosure())


def test_they_travel_as_a_parcel_and_alterations_are_refused():
    told = describe(panel_of(LOAD), "a", Disclosure(quantiles="exact"))
    parcel = parcel_of(told)
    assert not parcel.arrays
    assert not parcel.blobs
    assert metadata_of(parcel, sender="a") == told
    text = str(parcel.values["metadata"])
    for bad, why in (
        (text.replace('"rows":400', '"rows":40000'), "altered"),
        (text.replace('"rows":400', '"rows":-1'), "cannot be read"),
        (text.replace('"rows":400', '"rows":400,"raw":[1,2]'), "cannot be read"),
        ("x" * (2**20 + 1), "at most"),
        (b"\x80", "as a text"),
    ):
        with pytest.raises(Refused, match=why):
            metadata_of(Parcel(values={"metadata": bad}))  # type: ignore[dict-item]
    with pytest.raises(Refused, match="'b' sent metadata of 'a'"):
        metadata_of(parcel, sender="b")


def test_the_version_is_the_hash_of_what_is_told():
    one, same = (describe(panel_of(LOAD), "a", Disclosure()) for _ in range(2))
    assert one == same
    grown = describe(panel_of(np.concatenate([LOAD, LOAD])), "a", Disclosure())
    assert grown.version != one.version


def test_a_panel_that_grows_is_described_anew_and_one_that_does_not_spends_nothing(book):
    disclosure = Disclosure(quantiles="noisy", epsilon=0.5)
    first = book.update(panel_of(LOAD[:300]), "a", disclosure)
    assert book.update(panel_of(LOAD[:300]), "a", disclosure) == first
    assert book.spent_epsilon("a") == 0.5
    grown = book.update(panel_of(LOAD), "a", disclosure)
    assert (grown.rows, grown.previous) == (400, first.version)
    assert book.history("a") == (first, grown)
    assert book.newest("a") == grown
    assert book.spent_epsilon("a") == 1.0
    withheld = book.update(panel_of(LOAD), "a", Disclosure())
    assert (withheld.disclosure, withheld.previous) == ("withheld", grown.version)


def test_the_coordinator_keeps_everyones_sealed_and_each_version_once(book):
    told = {owner: describe(panel_of(LOAD), owner, Disclosure()) for owner in "ab"}
    for owner in "abaab":
        assert book.take(parcel_of(told[owner]), sender=owner) == told[owner]
    assert book.owners() == ("a", "b")
    assert len(book.history("a")) == 1
    newer = describe(panel_of(LOAD[:100]), "a", Disclosure(), previous=told["a"].version)
    book.take(parcel_of(newer), sender="a")
    assert [one.rows for one in book.history("a")] == [400, 100]
    assert book.newest("c") is None
    raw = b"".join(path.read_bytes() for path in book.store.folder.rglob("*.sealed"))
    assert b"prb" not in raw
