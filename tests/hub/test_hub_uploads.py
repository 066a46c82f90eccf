"""Uploads: resumed at any byte, checked while they come, refused without a trace; formats never opened by what could run code."""

import hashlib
import io
import json
import pickle
import shutil
import tarfile
import time
import zipfile

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwright.bundle import media
from cellwright.bundle.keys import public_pem
from cellwright.bundle.layout import About, pack
from cellwright.bundle.wrap import wrap
from cellwright.errors import HubError, WrongUse
from cellwright.hub import contract as c
from cellwright.hub.core import LOCAL
from cellwright.hub.doors.uploads import TUS
from cellwright.hub.formats import onnx, safetensors
from cellwright.hub.refusals import Conflict, HubRefused, NotFound, TooLarge
from cellwright.hub.service import open_hub

CONTENT = bytes(range(256)) * 40


def form(content=CONTENT, **more):
    return c.UploadForm(**{"model": "m", "version": "1.0.0", "format": "opaque", "bytes": len(content), **more})


def left(hub):
    """What lies in the hub's folder of a refused upload."""
    return [*hub.folder.glob("uploads/*"), *hub.folder.glob("staging/*"), *hub.folder.glob("blobs/*/*")]


def test_every_format_is_taken_in_and_comes_back_as_it_was(company, store, kit):
    contents = {
        "onnx": kit.onnx(),
        "safetensors": kit.tensors(w=np.ones((3, 4), dtype=np.float32), empty=np.zeros((0, 2), dtype=np.int64)),
        "opaque": pickle.dumps({"a": 1}),
    }
    for format_, content in contents.items():
        release = store(company, format_, content=content, format=format_, sha256=hashlib.sha256(content).hexdigest())
        assert release.format == format_
        [(name, digest)] = release.layers.items()
        assert company.file(format_, "1.0.0", f"blobs/sha256/{digest[7:]}") == content
        assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert name == {"onnx": "model.onnx", "safetensors": "model.safetensors", "opaque": "model.bin"}[format_]
    assert company.me().usage.releases == 3


def test_an_upload_goes_on_where_it_was_and_says_where_that_is(company):
    upload = company.open_upload(form())
    assert company.send_chunk(upload.id, 0, CONTENT[:100]) == 100
    with pytest.raises(Conflict, match="at byte 100, sent was from byte 50"):
        company.send_chunk(upload.id, 50, CONTENT[50:60])
    assert company.upload_offset(upload.id) == 100
    assert company.send_chunk(upload.id, 100, b"") == 100
    assert company.send_chunk(upload.id, 100, CONTENT[100:]) == len(CONTENT)
    assert company.release("m", "1.0.0").layers == {"model.bin": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"}
    with pytest.raises(NotFound):
        company.upload_offset(upload.id)


def test_the_client_goes_on_with_an_upload_of_an_earlier_process(company, tmp_path):
    upload = company.open_upload(form())
    company.send_chunk(upload.id, 0, CONTENT[:5000])
    (tmp_path / "f").write_bytes(b"?" * 5000 + CONTENT[5000:])  # what was sent is not sent again
    release = company.upload(tmp_path / "f", form(), chunk_bytes=1000)
    assert release.layers["model.bin"] == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_a_hub_that_starts_anew_goes_on_at_the_very_byte(tmp_path):
    with open_hub(tmp_path / "hub") as first:
        upload = first.open_upload(LOCAL, form(sha256=hashlib.sha256(CONTENT).hexdigest()))
        with first.arriving(LOCAL, upload.id, 0) as arriving:
            arriving.add(CONTENT[:777])
    from cellwright.hub import uploads

    uploads._STATES.__init__()  # what a process remembers is gone with it
    with open_hub(tmp_path / "hub") as second:
        assert second.upload(LOCAL, upload.id).offset == 777
        with second.arriving(LOCAL, upload.id, 777) as arriving:
            arriving.add(CONTENT[777:])
            assert arriving.finish() is not None


def test_two_connections_cannot_send_one_upload(hub):
    upload = hub.open_upload(LOCAL, form())
    with (
        hub.arriving(LOCAL, upload.id, 0),
        pytest.raises(Conflict, match="another connection"),
        hub.arriving(LOCAL, upload.id, 0),
    ):
        pass


def test_a_whole_upload_whose_end_was_not_answered_is_finished_by_an_empty_chunk(hub):
    upload = hub.open_upload(LOCAL, form())
    with hub.arriving(LOCAL, upload.id, 0) as arriving:
        arriving.add(CONTENT)  # killed here
    assert hub.models(LOCAL) == ()
    with hub.arriving(LOCAL, upload.id, len(CONTENT)) as arriving:
        assert arriving.finish().bytes > len(CONTENT)


def test_a_kill_between_blobs_and_rows_leaves_nothing_half_visible(hub, monkeypatch):
    upload = hub.open_upload(LOCAL, form())
    with hub.arriving(LOCAL, upload.id, 0) as arriving:
        arriving.add(CONTENT)
        with monkeypatch.context() as patch:
            patch.setattr(hub, "_commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                arriving.finish()
    assert hub.models(LOCAL) == ()
    assert hub.collect() == 0  # the blobs are claimed
    with hub.arriving(LOCAL, upload.id, len(CONTENT)) as arriving:
        release = arriving.finish()
    assert all(b"".join(hub.content(hub.file(LOCAL, "m", "1.0.0", f.path))) for f in release.files)


def test_tus_headers_alone_are_understood(company):
    import base64

    def pair(key, value):
        return f"{key} {base64.b64encode(value.encode()).decode()}"

    metadata = ", ".join(
        pair(k, v) for k, v in {"model": "m", "version": "1.0.0", "format": "opaque", "figures": '{"latency_ms": 2.5}'}.items()
    )
    headers = {**TUS, "Upload-Length": str(len(CONTENT)), "Upload-Metadata": metadata}
    made = company.http.post("/v1/uploads", headers=headers)
    assert (made.status_code, made.headers["Tus-Resumable"]) == (201, "1.0.0")
    sent = company.http.patch(
        made.headers["Location"],
        content=CONTENT,
        headers={**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
    )
    assert sent.headers["Cellwright-Release"] == "/v1/models/m/versions/1.0.0"
    assert company.release("m", "1.0.0").figures.latency_ms == 2.5
    assert "creation" in company.http.options("/v1/uploads").headers["Tus-Extension"]
    for wrong in (
        {**headers, "Upload-Length": "x"},
        {**headers, "Upload-Metadata": "model !"},
        {**headers, "Tus-Resumable": "2.0"},
    ):
        assert company.http.post("/v1/uploads", headers=wrong).status_code == 422
    wrong_kind = company.http.patch(made.headers["Location"], content=b"x", headers={**TUS, "Upload-Offset": "0"})
    assert wrong_kind.status_code == 422


@pytest.mark.parametrize("sent", [CONTENT + b"!", CONTENT[:-1] + b"!"])
def test_other_bytes_or_more_than_announced_are_refused_and_nothing_stays(company, hub, tmp_path, sent):
    upload = company.open_upload(form(sha256=hashlib.sha256(CONTENT).hexdigest()))
    with pytest.raises(HubRefused, match=r"SHA-256|more than the"):
        company.send_chunk(upload.id, 0, sent)
    assert left(hub) == []
    assert company.uploads() == ()
    assert company.models() == ()
    assert company.me().usage.bytes == 0


def test_a_version_that_is_there_cannot_be_uploaded_again(company, store):
    store(company, "m")
    with pytest.raises(Conflict, match="versions never change"):
        company.open_upload(form())


def test_of_two_uploads_of_one_version_the_second_is_refused_at_its_end(company, hub):
    one, two = company.open_upload(form()), company.open_upload(form(CONTENT[:10]))
    company.send_chunk(one.id, 0, CONTENT)
    with pytest.raises(Conflict, match="versions never change"):
        company.send_chunk(two.id, 0, CONTENT[:10])
    assert company.uploads() == ()
    assert company.release("m", "1.0.0").bytes > len(CONTENT)


def archived(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, content in members:
            found = tarfile.TarInfo(info) if isinstance(info, str) else info
            found.size = len(content)
            archive.addfile(found, io.BytesIO(content))
    return out.getvalue()


def special(kind, name="index.json", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture(scope="module")
def plain_hub(tmp_path_factory):
    """One for all uploads that leave nothing behind."""
    with open_hub(tmp_path_factory.mktemp("plain") / "hub") as opened:
        yield opened


def torch_zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
    return out.getvalue()


@pytest.mark.parametrize(
    ("format_", "content", "why"),
    [
        ("onnx", pickle.dumps({"w": [1.0] * 1000}), "is a pickle.*format 'opaque'"),
        ("safetensors", pickle.dumps({"w": [1.0] * 1000}), "is a pickle.*format 'opaque'"),
        ("onnx", torch_zip(), "zip archive.*format 'opaque'"),
        ("safetensors", torch_zip(), "zip archive.*format 'opaque'"),
        ("modelpack", torch_zip() * 5, "zip archive.*format 'opaque'"),
        ("onnx", b"\x0a" + b"\xff" * 300, "ONNX and is not whole"),
        ("onnx", b"hello world, this is text", "ONNX and is not whole"),
        ("safetensors", b"hello world, this is text", "length of a JSON header"),
        ("modelpack", b"\x1f\x8b" + bytes(600), "compressed"),
        ("modelpack", bytes(1024), "no tar archive"),
        ("modelpack", archived([("../../etc/passwd", b"x")]), r"holds '\.\./\.\./etc/passwd'"),
        ("modelpack", archived([("/index.json", b"x")]), "holds '/index.json'"),
        ("modelpack", archived([("blobs/sha256/../../x", b"x")]), "no OCI image layout"),
        ("modelpack", archived([("index.json", b"x"), ("index.json", b"y")]), "twice"),
        ("modelpack", archived([(special(tarfile.SYMTYPE), b"")]), "link, a device"),
        ("modelpack", archived([(special(tarfile.LNKTYPE), b"")]), "link, a device"),
        ("modelpack", archived([(special(tarfile.CHRTYPE), b"")]), "link, a device"),
        ("modelpack", archived([(special(tarfile.FIFOTYPE), b"")]), "link, a device"),
        ("modelpack", archived([(special(tarfile.GNUTYPE_SPARSE), b"")]), "special kind"),
        ("modelpack", archived([(f"blobs/sha256/{n:064x}", b"") for n in range(200)]), "more than 64 files"),
        ("modelpack", archived([("index.json", b"{}")]), "lacks oci-layout|oci-layout"),
        ("modelpack", archived([("index.json", b"x" * 600)])[:1100], "cut off"),
        ("modelpack", archived([("index.json", b"x")]) + b"tail" * 200, "follows its end mark|cut off"),
    ],
)
def test_what_is_not_what_it_says_is_refused_and_nothing_stays(plain_hub, format_, content, why):
    upload = plain_hub.open_upload(LOCAL, form(content, format=format_))
    with plain_hub.arriving(LOCAL, upload.id, 0) as arriving, pytest.raises(HubRefused, match=why):
        arriving.add(content) or arriving.finish()
    assert left(plain_hub) == []
    assert plain_hub.models(LOCAL) == ()
    assert plain_hub.audit(LOCAL, limit=1000)[-1].action == "upload refuse"


def test_a_pickle_is_refused_at_its_first_bytes_long_before_the_last(company):
    upload = company.open_upload(form(bytes=10**9, format="onnx"))
    with pytest.raises(HubRefused, match="is a pickle"):
        company.send_chunk(upload.id, 0, pickle.dumps(list(range(1000))))
    assert company.uploads() == ()


def external(data_location=1, where="initializer"):
    from onnx import TensorProto, helper

    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = data_location
    tensor.external_data.add(key="location", value="/etc/passwd")
    if where == "initializer":
        graph = helper.make_graph([], "g", [], [], [tensor])
    else:
        inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "inner", [], [])
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], "g", [], [])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("where", ["initializer", "subgraph"])
def test_weights_in_other_files_are_refused_wherever_they_hide(tmp_path, where):
    (tmp_path / "m.onnx").write_bytes(external(where=where))
    with pytest.raises(HubRefused, match="external data"):
        onnx.check(tmp_path / "m.onnx")


def test_an_operator_that_onnx_does_not_know_is_refused(tmp_path, kit):
    import onnx as library

    model = library.load_from_string(kit.onnx())
    model.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(HubRefused, match="NoSuchOperator"):
        onnx.check(tmp_path / "m.onnx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_model_is_refused_or_sound_but_never_breaks_the_check(tmp_path, kit, data):
    """Whatever bytes are changed: HubRefused or nothing."""
    check, content = data.draw(
        st.sampled_from(
            [(onnx.check, kit.onnx()), (safetensors.check, kit.tensors(a=np.arange(6.0), b=np.ones((2, 2)))), (None, None)][:2]
        )
    )
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    changed = changed[: data.draw(st.integers(1, len(changed)))]
    (tmp_path / "damaged").write_bytes(changed)
    try:
        check(tmp_path / "damaged")
    except HubRefused:
        return


@pytest.mark.parametrize(
    ("header", "data", "why"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 7, "cut off"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 9, "appended"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8, "takes 8 bytes, its type and shape 12"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8, "gaps or overlaps"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4, "whole numbers"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4, "whole numbers"),
        ({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4, "unknown type"),
        ({"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}}, b"\0" * 4, "its type and shape"),
        ({"a": [1]}, b"", "not of dtype"),
        ({"__metadata__": {"a": 1}}, b"", "not texts"),
        ([1], b"", "length of a JSON header"),
    ],
)
def test_unsound_safetensors_headers_are_refused(tmp_path, kit, header, data, why):
    (tmp_path / "f").write_bytes(kit.broken(json.dumps(header).encode(), data))
    with pytest.raises(HubRefused, match=why):
        safetensors.check(tmp_path / "f")


def test_a_name_twice_in_a_safetensors_header_is_refused(tmp_path, kit):
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    (tmp_path / "f").write_bytes(kit.broken(b"{" + entry + b"," + entry + b"}", b"x"))
    with pytest.raises(HubRefused, match="twice"):
        safetensors.check(tmp_path / "f")


@pytest.fixture
def layout(tmp_path, tenant_key):
    """layout(signer): a tenant's own signed ModelPack of a safetensors file."""

    def made(signer=tenant_key, content=None, name="pack", version="2.0.0"):
        folder = tmp_path / "layout"
        shutil.rmtree(folder, ignore_errors=True)
        source = tmp_path / "w.safetensors"
        from safetensors.numpy import save

        source.write_bytes(content if content is not None else save({"w": np.arange(4.0)}))
        wrap(folder, source, "safetensors", About(name, version, "Pack", "x", "", 0, None, None), signer)
        return folder

    return made


def test_a_tenants_own_signed_modelpack_is_kept_as_it_is(company, store, kit, layout, tenant_key, hub):
    content = kit.tar(layout())
    with pytest.raises(HubRefused, match="not trusted here"):
        store(company, "pack", "2.0.0", content, "modelpack")
    key = company.add_key(public_pem(tenant_key.public_key()).decode())
    release = store(company, "pack", "2.0.0", content, "modelpack")
    assert (release.signed_by, release.format) == (key.id, "safetensors")
    index = (layout() / "index.json").read_bytes()
    assert company.file("pack", "2.0.0", "index.json") == index
    company.remove_key(key.id)
    assert [k.pem for k in hub.keys("company-a")] == [hub.key_pem]


def test_a_key_is_believed_for_its_own_tenant_only(company, clients, store, kit, layout, tenant_key):
    company.add_key(public_pem(tenant_key.public_key()).decode())
    with pytest.raises(HubRefused, match="not trusted here"):
        store(clients("company-b"), "pack", "2.0.0", kit.tar(layout()), "modelpack")


def test_a_modelpack_under_another_name_tampered_with_or_with_false_weights_is_refused(
    company, store, kit, layout, tenant_key, hub
):
    company.add_key(public_pem(tenant_key.public_key()).decode())
    with pytest.raises(HubRefused, match=r"is pack 2\.0\.0, the upload is for other 2\.0\.0"):
        store(company, "other", "2.0.0", kit.tar(layout()), "modelpack")
    changed = bytearray(kit.tar(layout()))
    place = changed.index(b'{"w"')
    changed[place + 2] = ord("v")
    with pytest.raises(HubRefused, match="SHA-256"):
        store(company, "pack", "2.0.0", bytes(changed), "modelpack")
    with pytest.raises(HubRefused, match="is a pickle"):
        store(company, "pack", "2.0.0", kit.tar(layout(content=pickle.dumps([1] * 200))), "modelpack")
    assert left(hub) == []


def test_a_forecasting_bundle_is_taken_in(company, store, kit, tenant_key, tmp_path):
    contents = {name: b"text of it" for name in media.LAYERS if name != media.MODEL_INT8} | {media.MODEL: kit.onnx()}
    manifest = pack(tmp_path / "b", contents, About("city--traffic", "1.2.0", "GRU", "gru", "", 5, None, None), tenant_key)
    company.add_key(public_pem(tenant_key.public_key()).decode())
    release = store(company, "city--traffic", "1.2.0", kit.tar(tmp_path / "b"), "modelpack")
    assert (release.format, release.digest) == ("forecast", manifest.digest)


def test_quotas_of_bytes_models_and_open_uploads(company, operator, store):
    operator.put_tenant("company-a", c.TenantForm(quota=c.Quota(bytes=9_000, models=1, uploads=1)))
    with pytest.raises(TooLarge, match="9,000 bytes"):
        company.open_upload(form())
    kept = company.open_upload(form(CONTENT[:100]))
    with pytest.raises(TooLarge, match="1 open uploads"):
        company.open_upload(form(CONTENT[:10], version="1.0.1"))
    company.cancel_upload(kept.id)
    store(company, "m", content=CONTENT[:100])
    with pytest.raises(TooLarge, match="1 models"):
        store(company, "n", content=CONTENT[:100])
    assert company.me().usage.models == 1


def test_an_upload_that_nobody_goes_on_with_is_thrown_away(hub, company):
    upload = company.open_upload(form())
    hub.clock = lambda: time.time() + hub.settings.upload_lifetime_s + 1
    with pytest.raises(NotFound):
        company.upload_offset(upload.id)
    assert hub.expire_uploads() == 1
    assert left(hub) == []


def test_blobs_of_deleted_releases_go_and_shared_ones_stay(hub, company, clients, store):
    other = clients("company-b")
    store(company, "m", content=CONTENT)
    store(other, "n", content=CONTENT)
    count = len(left(hub))
    company.delete_model("m")
    assert len(left(hub)) < count
    assert other.file("n", "1.0.0", f"blobs/sha256/{hashlib.sha256(CONTENT).hexdigest()}") == CONTENT
    other.delete_release("n", "1.0.0")
    assert left(hub) == []


def test_a_connection_that_breaks_within_a_chunk_keeps_what_was_written(served, company, hub):
    content = CONTENT * 300  # 3 MB
    upload = company.open_upload(form(content, sha256=hashlib.sha256(content).hexdigest()))
    path = hub.folder / "uploads" / upload.id

    def breaking():
        yield content[: 2 << 20]
        while path.stat().st_size < 1 << 20:
            time.sleep(0.01)
        raise httpx.ReadError("the line broke")

    kind = {"Content-Type": "application/offset+octet-stream", "Content-Length": str(len(content))}
    with pytest.raises(httpx.HTTPError):
        company.http.patch(f"/v1/uploads/{upload.id}", content=breaking(), headers={**TUS, "Upload-Offset": "0", **kind})
    for _ in range(500):  # until the hub has noticed
        try:
            company.send_chunk(upload.id, at := company.upload_offset(upload.id), content[at:])
            break
        except Conflict:
            time.sleep(0.01)
    assert at >= 1 << 20
    assert company.release("m", "1.0.0").bytes > len(content)


def test_a_full_disk_is_told_and_the_upload_waits(hub, company, monkeypatch):
    import errno

    upload = company.open_upload(form())
    real = type(hub.blobs).put

    def full(self, *_):
        from cellwright.files import explained

        with explained(self.folder):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(hub.blobs), "put", full)
    from cellwright.hub.refusals import DiskFull

    with pytest.raises(DiskFull, match="no room left"):
        company.send_chunk(upload.id, 0, CONTENT)
    assert company.models() == ()
    monkeypatch.setattr(type(hub.blobs), "put", real)
    assert company.send_chunk(upload.id, len(CONTENT), b"") == len(CONTENT)
    assert company.release("m", "1.0.0").bytes > len(CONTENT)


def through(hub):
    """A release in and out of whatever the blobs lie in."""
    upload = hub.open_upload(LOCAL, form())
    with hub.arriving(LOCAL, upload.id, 0) as arriving:
        arriving.add(CONTENT)
        release = arriving.finish()
    file = hub.file(LOCAL, "m", "1.0.0", f"blobs/sha256/{hashlib.sha256(CONTENT).hexdigest()}")
    assert b"".join(hub.content(file)) == CONTENT
    assert b"".join(hub.content(file, 10, 300)) == CONTENT[10:300]
    assert set(hub.blobs.known()) == {f.sha256 for f in release.files}
    hub.delete_model(LOCAL, "m")
    assert list(hub.blobs.known()) == []
    hub.check()
    with pytest.raises(HubError, match="restore it"):
        hub.content(file)


def test_blobs_by_url(tmp_path):
    with open_hub(tmp_path / "hub", blobs="memory://models/hub") as hub:
        through(hub)
    assert not list((tmp_path / "hub").glob("blobs*"))


@pytest.mark.slow
def test_blobs_in_an_object_store(tmp_path, monkeypatch):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        names = {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="models")
        with open_hub(tmp_path / "hub", blobs="s3://models/hub") as hub:
            through(hub)
    finally:
        server.stop()


def test_a_place_for_blobs_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(WrongUse, match="nosuch"):
        open_hub(tmp_path / "hub", blobs="nosuch://models")
