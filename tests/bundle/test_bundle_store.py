"""The store: versions never change, `latest` moves whole, and taking back leads to the version before."""

import pytest

from cellwright.bundle import store
from cellwright.errors import BundleError
from cellwright.workspace import Workspace

NAME = "city--traffic--h6-3"


@pytest.fixture
def published(make, tmp_path):
    folder = tmp_path / "published"

    def publish(version: str, *, activate: bool = True, **changed: bytes):
        layout, manifest = make(version, folder=tmp_path / "layout", **changed)
        return store.place(folder, layout, manifest, activate=activate)

    publish.folder, publish.make = folder, make
    return publish


def test_the_latest_is_the_one_published_last(published, trust):
    published("1.0.0")
    path = published("1.1.0")
    assert store.latest(published.folder, NAME, trust)[0] == path
    assert store.versions(published.folder, NAME) == ["1.0.0", "1.1.0"]
    assert store.names(published.folder) == [NAME]


def test_the_first_one_is_the_latest_even_if_it_need_not_be(published):
    published("1.0.0", activate=False)
    published("1.1.0", activate=False)
    assert store.pointer(published.folder, NAME).version == "1.0.0"


def test_a_version_cannot_be_published_with_other_content(published):
    published("1.0.0")
    assert published("1.0.0") == published.folder / NAME / "1.0.0"
    with pytest.raises(BundleError, match=r"1\.0\.0 is published already with other content"):
        published("1.0.0", model__onnx=b"another")


def test_versions_are_ordered_by_their_numbers(published):
    for version in ("1.10.0", "1.9.0", "0.0.0+1a2b3c4d"):
        published(version)
    assert store.versions(published.folder, NAME) == ["0.0.0+1a2b3c4d", "1.9.0", "1.10.0"]


def test_taking_back_leads_to_what_was_the_latest_before(published, trust):
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        published(version)
    assert store.unpublish(published.folder, NAME, "1.1.0") == "1.2.0"
    assert store.unpublish(published.folder, NAME, "1.2.0") == "1.0.0"
    assert store.latest(published.folder, NAME, trust)[1].version == "1.0.0"
    assert store.unpublish(published.folder, NAME, "1.0.0") is None
    assert store.names(published.folder) == []
    with pytest.raises(BundleError, match="nothing is published as"):
        store.latest(published.folder, NAME, trust)
    with pytest.raises(BundleError, match=r"1\.0\.0 is not published; there are: none"):
        store.unpublish(published.folder, NAME, "1.0.0")


def test_rolling_back_moves_the_pointer_only(published, trust):
    for version in ("1.0.0", "1.1.0"):
        published(version)
    assert store.serve_version(published.folder, NAME, "1.0.0") == "1.0.0"
    assert store.latest(published.folder, NAME, trust)[1].version == "1.0.0"
    assert store.versions(published.folder, NAME) == ["1.0.0", "1.1.0"]
    with pytest.raises(BundleError, match=r"3\.0\.0 is not published; there are: 1\.0\.0, 1\.1\.0"):
        store.serve_version(published.folder, NAME, "3.0.0")


@pytest.mark.parametrize("pointer", ["{", '{"version": "../../keys", "digest": ""}', '{"version": 3}'])
def test_a_damaged_pointer_leads_nowhere(published, trust, pointer):
    published("1.0.0")
    (published.folder / NAME / "latest.json").write_text(pointer)
    with pytest.raises(BundleError, match=r"latest\.json is damaged"):
        store.latest(published.folder, NAME, trust)


def test_names_that_are_no_names_are_not_looked_for(published, trust):
    published("1.0.0")
    with pytest.raises(BundleError):
        store.latest(published.folder, "../published/" + NAME, trust)
    assert store.bundle_name("../süd/x+y--h6-3") == "_s_d_x+y--h6-3"


def test_old_versions_are_retired_but_never_the_latest(published, tmp_path):
    ws = Workspace(tmp_path)
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0"):
        layout, manifest = published.make(version, folder=tmp_path / "layout")
        store.place(ws.published, layout, manifest, activate=True)
    store.serve_version(ws.published, NAME, "1.0.0")
    would = store.retire(ws, keep=2, dry=True)
    assert [path.name for path, _ in would] == ["1.1.0"]
    assert would[0][1] > 1000
    assert store.versions(ws.published, NAME) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]
    assert store.retire(ws, keep=2, dry=False) == would
    assert store.versions(ws.published, NAME) == ["1.0.0", "1.2.0", "1.3.0"]
    assert store.pointer(ws.published, NAME).previous == ("1.2.0", "1.3.0")
