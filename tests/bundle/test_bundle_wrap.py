"""File bundles: any file, signed and carried as forecasting bundles are; those stay exactly as they were."""

import hashlib

import pytest

from cellwright.bundle import media, store
from cellwright.bundle.layout import About, read_layer, verify
from cellwright.bundle.wrap import File, wrap
from cellwright.errors import BundleError

WEIGHTS = b"any bytes at all, a pickle even" * 1000


def about(version="1.0.0", name="third-party"):
    return About(name, version, "A model", "unknown", "", 0, None, None)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(WEIGHTS)
    return path


def test_a_file_is_wrapped_signed_and_read_back(tmp_path, weights, key, trust):
    made = wrap(tmp_path / "out", weights, "opaque", about(), key)
    manifest = verify(tmp_path / "out", trust)
    assert manifest == made
    assert (manifest.name, manifest.version, manifest.format, manifest.forecasts) == ("third-party", "1.0.0", "opaque", False)
    assert read_layer(tmp_path / "out", manifest, "model.bin") == WEIGHTS


def test_a_known_hash_gives_the_same_bundle_without_reading_the_file_again(tmp_path, weights, key, trust):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    one = wrap(tmp_path / "one", weights, "opaque", about(), key)
    two = wrap(tmp_path / "two", File(weights, sha256=digest), "opaque", about(), key)
    assert one == two == verify(tmp_path / "two", trust)


def test_a_wrong_hash_is_found_by_whoever_verifies(tmp_path, weights, key, trust):
    wrap(tmp_path / "out", File(weights, sha256="0" * 64), "opaque", about(), key)
    with pytest.raises(BundleError, match="SHA-256"):
        verify(tmp_path / "out", trust)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\x00b", "x" * 201])
def test_a_name_that_is_none_is_refused_and_nothing_written(tmp_path, weights, key, name):
    with pytest.raises(BundleError, match="cannot be a file"):
        wrap(tmp_path / "out", File(weights, name=name or " "), "opaque", about(), key)
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused(tmp_path, weights, key):
    with pytest.raises(BundleError, match="there are: onnx, opaque, safetensors"):
        wrap(tmp_path / "out", weights, "pickle", about(), key)


def test_a_forecasting_bundle_has_no_format_annotation_and_still_needs_all_its_layers(make, trust, key, tmp_path, contents):
    _, manifest = make()
    assert (manifest.format, manifest.forecasts) == (media.FORECAST, True)
    del contents["problem.json"]
    with pytest.raises(BundleError, match=r"missing problem\.json"):
        make("1.3.0", tmp_path / "lacking")


def test_a_store_takes_both_kinds(tmp_path, weights, key, trust, make):
    layout, forecasting = make()
    plain = wrap(tmp_path / "out", weights, "safetensors", about(), key)
    store.place(tmp_path / "store", layout, forecasting, activate=True)
    store.place(tmp_path / "store", tmp_path / "out", plain, activate=True)
    assert store.latest(tmp_path / "store", "third-party", trust)[1].format == "safetensors"
    assert store.latest(tmp_path / "store", forecasting.name, trust)[1].forecasts
