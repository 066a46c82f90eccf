"""The layout: standard, deterministic, and refused as soon as one byte of it is another."""

import hashlib
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwright.bundle import dsse, media
from cellwright.bundle.keys import key_id
from cellwright.bundle.layout import read_layer, verify
from cellwright.bundle.manifest import canonical
from cellwright.errors import BundleError


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def blob(folder, described):
    return folder / "blobs" / "sha256" / described["digest"].removeprefix("sha256:")


def document(folder, described):
    return json.loads(blob(folder, described).read_bytes())


def put(folder, content):
    """Store a document as a blob; returns its digest and size."""
    raw = canonical(content)
    digest = hashlib.sha256(raw).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(raw)
    return {"digest": f"sha256:{digest}", "size": len(raw)}


def forge(folder, change, resign_with=None):
    """What an attacker does who can write every file: change the model manifest and make all hashes fit again."""
    index = json.loads((folder / "index.json").read_bytes())
    described, signature = index["manifests"]
    manifest, seal = document(folder, described), document(folder, signature)
    blob(folder, described).unlink()
    blob(folder, signature).unlink()
    change(manifest)
    described |= put(folder, manifest)
    plain = {k: described[k] for k in ("mediaType", "digest", "size")}
    if resign_with is not None:
        blob(folder, seal["layers"][0]).unlink()
        envelope = dsse.seal(media.OCI_DESCRIPTOR, canonical(plain), resign_with)
        digest = hashlib.sha256(envelope).hexdigest()
        (folder / "blobs" / "sha256" / digest).write_bytes(envelope)
        seal["layers"][0] |= {"digest": f"sha256:{digest}", "size": len(envelope)}
    seal["subject"] = plain
    signature |= put(folder, seal)
    (folder / "index.json").write_bytes(canonical(index))


def test_it_is_an_oci_image_layout_of_a_modelpack_model(make, contents):
    folder, manifest = make()
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_bytes())
    model, signature = index["manifests"]
    assert model["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert model["digest"] == manifest.digest == f"sha256:{hashlib.sha256(blob(folder, model).read_bytes()).hexdigest()}"
    document_of_model = document(folder, model)
    assert document_of_model["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    kinds = {d["annotations"]["org.cncf.model.filepath"]: d["mediaType"] for d in document_of_model["layers"]}
    assert kinds["model.onnx"] == "application/vnd.cncf.model.weight.v1.raw"
    assert kinds["problem.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert kinds["card.md"] == "application/vnd.cncf.model.doc.v1.raw"
    config = document(folder, document_of_model["config"])
    assert config["modelfs"] == {"type": "layers", "diffIds": [d["digest"] for d in document_of_model["layers"]]}
    assert config["config"]["paramSize"] == "12.3k"
    referrer = document(folder, signature)
    assert referrer["subject"]["digest"] == model["digest"]
    assert {name: read_layer(folder, manifest, name) for name in contents} == contents


def test_equal_contents_give_equal_bytes(make, tmp_path):
    one, _ = make(folder=tmp_path / "one")
    two, _ = make(folder=tmp_path / "two")
    assert files_of(one) == files_of(two)


def test_the_signature_covers_what_dsse_says_it_does():
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_verify_returns_who_signed(make, key, trust):
    folder, _ = make()
    manifest = verify(folder, trust)
    assert (manifest.name, manifest.version) == ("city--traffic--h6-3", "1.2.0")
    assert manifest.signed_by == key_id(key.public_key())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_byte_anywhere_is_refused(make, trust, tmp_path, data):
    folder, _ = make(folder=tmp_path / "flipped")
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    if path.name == "oci-layout" and bytes(content).strip() == b'{"imageLayoutVersion":"1.0.0"}':
        return
    try:
        manifest = verify(folder, trust)
    except BundleError:
        return
    # Only the index lies outside of the signature, and only its free words may differ: everything it leads to is the same.
    assert path.name == "index.json"
    assert manifest == make(folder=tmp_path / "whole")[1]


def test_a_changed_model_is_named(make, trust):
    folder, manifest = make()
    (folder / manifest.layers["model.onnx"].blob).write_bytes(b"CONTENT of model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: expected SHA-256 \w{12}…, found \w{12}…"):
        verify(folder, trust)
    with pytest.raises(BundleError, match=r"model\.onnx: expected SHA-256"):
        read_layer(folder, manifest, "model.onnx")


def test_a_changed_manifest_with_fitting_hashes_is_refused(make, trust):
    folder, _ = make()
    forge(folder, lambda manifest: manifest["annotations"].update({media.VERSION: "9.9.9"}))
    with pytest.raises(BundleError, match=r"changed after signing"):
        verify(folder, trust)


def test_a_bundle_signed_by_another_key_is_refused(make, trust):
    folder, _ = make(signer=Ed25519PrivateKey.generate())
    with pytest.raises(BundleError, match=r"signed by key \w{16}, which is not trusted here .* --trust"):
        verify(folder, trust)
    with pytest.raises(BundleError, match=r"trusted: none"):
        verify(folder, {})


def test_a_signature_under_a_trusted_keys_name_is_refused(make, key, trust):
    folder, _ = make()
    forge(folder, lambda manifest: None, resign_with=Ed25519PrivateKey.generate())
    index = json.loads((folder / "index.json").read_bytes())
    seal = document(folder, index["manifests"][1])
    envelope = document(folder, seal["layers"][0])
    envelope["signatures"][0]["keyid"] = key_id(key.public_key())
    blob(folder, seal["layers"][0]).unlink()
    blob(folder, index["manifests"][1]).unlink()
    seal["layers"][0] |= put(folder, envelope)
    index["manifests"][1] |= put(folder, seal)
    (folder / "index.json").write_bytes(canonical(index))
    with pytest.raises(BundleError, match=r"signature of key \w{16} does not fit"):
        verify(folder, trust)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["layers"][0]["annotations"].update({media.FILEPATH: "../../etc/passwd"}),
            r"'\.\./\.\./etc/passwd' .* refused",
        ),
        (
            lambda m: m["layers"][0].update({"mediaType": "application/x-python-pickle"}),
            r"application/x-python-pickle is not a layer",
        ),
        (lambda m: m["layers"][0].update({"digest": "sha256:../../../../etc/passwd"}), r"layers\.0\.digest"),
        (lambda m: m["layers"][0].update({"size": 5 * 1024**3}), r"layers\.0\.size"),
        (lambda m: m["layers"][0].update({"urls": ["http://example.org/model.onnx"]}), r"layers\.0\.urls"),
        (lambda m: m["layers"].pop(0), r"missing model\.onnx"),
        (lambda m: m["annotations"].update({media.TITLE: "../other"}), r"'\.\./other' is not a bundle's name"),
        (lambda m: m["annotations"].update({media.VERSION: "latest"}), r"'latest' is not a version"),
        (lambda m: m["config"].update({"mediaType": "application/json"}), r"unknown media type"),
    ],
)
def test_even_a_trusted_key_cannot_sign_what_a_bundle_may_not_be(make, key, trust, change, message):
    folder, _ = make()
    forge(folder, change, resign_with=key)
    with pytest.raises(BundleError, match=message):
        verify(folder, trust)


def test_a_link_in_the_layout_is_refused(make, trust, tmp_path):
    folder, manifest = make()
    path = folder / manifest.layers["model.onnx"].blob
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link or a special file"):
        verify(folder, trust)


def test_a_stray_file_and_a_missing_one_are_named(make, trust):
    folder, manifest = make()
    (folder / "blobs" / "payload.pkl").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"blobs/payload\.pkl, which its manifest does not name"):
        verify(folder, trust)
    (folder / "blobs" / "payload.pkl").unlink()
    (folder / manifest.layers["kpis.json"].blob).unlink()
    with pytest.raises(BundleError, match=r"lacks kpis\.json"):
        verify(folder, trust)


def test_an_endless_index_is_not_read(make, trust):
    folder, _ = make()
    os.truncate(folder / "index.json", 10_000_000)
    with pytest.raises(BundleError, match="larger than 262144 bytes"):
        verify(folder, trust)


def test_no_bundle_at_all(tmp_path, trust):
    with pytest.raises(BundleError, match="there is no bundle"):
        verify(tmp_path / "nothing", trust)


def test_nothing_is_left_where_packing_fails(make, tmp_path):
    with pytest.raises(BundleError, match="is not a version"):
        make("1.2", folder=tmp_path / "half")
    assert not list(tmp_path.iterdir())
