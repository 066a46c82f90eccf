"""What whoever means ill can try: trickle, stall, poll without end, overflow, race; and what a tenant must not learn that way."""

import hashlib
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from cellwright.bundle.keys import key_id, public_pem
from cellwright.bundle.layout import About, verify
from cellwright.bundle.wrap import wrap
from cellwright.edge.guard import Guard
from cellwright.edge.request import RequestError
from cellwright.errors import HubRefused
from cellwright.hub import contract as c
from cellwright.hub import places, publishing, tables
from cellwright.hub.core import LOCAL
from cellwright.hub.formats import safetensors
from cellwright.hub.grant import TakenBack, check
from cellwright.hub.refusals import NotFound, TooLarge
from cellwright.hub.service import open_hub
from cellwright.hub.tenants import public_key
from cellwright.web import bounded, running


def opaque(model="m", size=4, **more):
    return c.UploadForm(model=model, version="1.0.0", format="opaque", bytes=size, **more)


def opened(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def received(line, most):
    """Bytes that still come until the connection ends."""
    got = 0
    try:
        while got < most and (part := line.recv(1 << 20)):
            got += len(part)
    except ConnectionError:
        return got
    return got


def test_a_body_that_trickles_is_cut_off_though_it_is_never_silent(hub, company, clients, monkeypatch):
    from cellwright.errors import HubError
    from cellwright.hub import api
    from cellwright.web.running import Listening, Service

    upload = company.open_upload(opaque(size=10_000))
    token = company.http.headers["Authorization"]
    monkeypatch.setattr(bounded, "PACE_BYTES_S", 1_000_000)
    app = api.create_app(hub, part_s=0.3)
    with running.in_thread(Service(app, "the hub", HubError), Listening()) as url, opened(url) as line:
        head = f"PATCH /v1/uploads/{upload.id} HTTP/1.1\r\nHost: h\r\nAuthorization: {token}\r\nUpload-Offset: 0\r\n"
        line.sendall(f"{head}Content-Type: application/offset+octet-stream\r\nContent-Length: 10000\r\n\r\n".encode())
        sent = 0
        line.settimeout(0.05)
        answer = b""
        while not answer and sent < 600:  # a byte each 50 ms: no part is late
            line.sendall(b"x")
            sent += 1
            try:
                answer = line.recv(100)
            except TimeoutError:
                continue
        assert b" 408 " in answer
    assert 0 < company.upload_offset(upload.id) < 600


def test_whoever_takes_nothing_of_an_answer_is_cut_off(hub, company, store, monkeypatch):
    from cellwright.hub.serve import in_thread

    store(company, "m", content=bytes(64 << 20))
    monkeypatch.setattr(running, "_STALLED_S", 0.3)
    token = company.http.headers["Authorization"]
    path = f"/v1/models/m/versions/1.0.0/files/blobs/sha256/{hashlib.sha256(bytes(64 << 20)).hexdigest()}"
    with in_thread(hub) as url, opened(url) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {token}\r\n\r\n".encode())
        time.sleep(2)
        assert received(line, 64 << 20) < 64 << 20


def test_an_edge_that_polls_again_and_again_ends_its_own_oldest_polls(edge):
    east = edge("east")
    now = east.desired("east").revision
    took: list[float] = []

    def poll():
        started = time.monotonic()
        with httpx.Client(base_url=east.url, headers=east.http.headers, timeout=60) as client:
            assert client.get(f"/v1/edges/east/desired?revision={now}&wait_s=8").status_code == 304
        took.append(time.monotonic() - started)

    polls = [threading.Thread(target=poll) for _ in range(6)]
    for thread in polls:
        thread.start()
    for thread in polls:
        thread.join()
    assert sum(seconds < 7 for seconds in took) == 4


def test_an_edge_uses_up_its_own_requests_and_nobody_elses(edge, operator):
    operator.put_tenant("operator", c.TenantForm(quota=c.Quota(requests_per_minute=20)))
    east = edge("east")
    answers = [east.http.get("/v1/edges/east/desired").status_code for _ in range(50)]
    assert answers[-1] == 429
    assert operator.edges()[0].name == "east"


def test_a_tenants_token_cannot_be_an_edges(hub, company):
    with pytest.raises(HubRefused, match="scope edge is for tokens of the tenant 'operator'"):
        hub.new_token(LOCAL, "company-a", c.TokenForm(name="east", scopes=("edge",)))


def test_an_edge_that_was_deleted_and_comes_back_never_has_an_old_revision_again(edge, operator, company, store):
    east = edge("east")
    store(company, "m")
    company.place("r", c.PlacementForm(model="m"))
    company.publish("m", c.Publication(version="1.0.0"))
    before = east.desired("east")
    operator.delete_edge("east")
    company.unpublish("m")
    time.sleep(0.002)
    east.register_edge("east", c.EdgeForm(url="https://e", location=c.Location(longitude=0, latitude=0), disk_bytes=1))
    assert east.desired("east").revision > before.revision


def test_a_release_whose_upload_was_given_up_while_it_was_checked_is_not_made(hub, company):
    """Its blobs were claimed no more and could have been collected: a release without bytes."""
    who = hub.authenticate(company.http.headers["Authorization"].removeprefix("Bearer "))
    upload = hub.open_upload(who, opaque())
    real = hub.blobs.put

    def meanwhile(sha256, source):
        real(sha256, source)
        with hub.store.read() as connection:
            there = connection.execute(sa.select(tables.uploads.c.id)).first()
        if there:
            hub.cancel_upload(who, upload.id)
            hub.collect()

    hub.blobs.put = meanwhile
    with hub.arriving(who, upload.id, 0) as arriving:
        arriving.add(b"abcd")
        with pytest.raises(NotFound, match="given up or has expired"):
            arriving.finish()
    assert company.models() == ()
    hub.blobs.put = real
    assert hub.collect() > 0
    assert list(hub.folder.glob("blobs/*/*")) == []


def test_a_shape_that_multiplies_to_more_than_a_float_holds_is_refused(tmp_path, kit):
    shape = ",".join(["4611686018427387904"] * 60)
    header = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'.encode()
    (tmp_path / "f").write_bytes(kit.broken(header, b"\0" * 4))
    with pytest.raises(HubRefused, match="more than any file has"):
        safetensors.check(tmp_path / "f")


def test_files_that_a_kill_left_without_their_rows_are_swept(hub, company):
    kept = company.open_upload(opaque())
    (hub.folder / "staging" / "gone").mkdir(parents=True)
    (hub.folder / "uploads" / "gone").write_bytes(b"x")
    assert hub.expire_uploads() == 2
    assert [p.name for p in hub.folder.glob("uploads/*")] == [kept.id]


def test_whoever_gets_a_name_that_was_free_again_learns_nothing_of_who_had_it(hub, clients, operator):
    first = clients("company-x")
    first.put_area("a", c.AreaForm(geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}))
    report = c.FetchReport(
        id="r" * 8,
        tenant="company-x",
        model="m",
        version="1.0.0",
        device="d",
        time_s=1.0,
        outcome="activated",
        seconds=1,
        bytes=1,
        rate_bit_s=8,
    )
    assert first.report([report]) == 1
    assert first.audit() != ()
    old = first.grant(c.GrantAsk(device="ue"))
    operator.delete_tenant("company-x")
    time.sleep(0.002)
    second = clients("company-x")
    assert (second.fetches(), second.audit(), second.areas()) == ((), (), ())
    with hub.store.read() as connection:
        since = connection.execute(
            sa.select(tables.tenants.c.grants_from_s).where(tables.tenants.c.name == "company-x")
        ).scalar_one()
    assert check(old.grant, public_key(hub.key_pem), time.time()).not_before_s < since


def test_grants_that_were_taken_back_are_refused_by_edges_and_new_ones_believed(hub, edge, company, store):
    east = edge("east")
    store(company, "m")
    company.place("r", c.PlacementForm(model="m"))
    company.publish("m", c.Publication(version="1.0.0"))
    old, before = company.grant(c.GrantAsk(device="ue")), east.desired("east")
    time.sleep(0.002)
    since = company.revoke_grants()
    time.sleep(0.002)
    state = east.desired("east", revision=before.revision)
    assert state.tenants[0].grants_from_s == since
    guard = Guard(lambda: public_key(hub.key_pem))
    guard.taken_back = lambda tenant: {t.tenant: TakenBack(t.grants_from_s) for t in state.tenants}[tenant]

    class Asked:
        def __init__(self, grant):
            self.headers = {"Authorization": f"Bearer {grant}"}

    with pytest.raises(RequestError, match="taken back"):
        guard.tenant(Asked(old.grant), "company-a", "m")
    assert guard.tenant(Asked(company.grant(c.GrantAsk(device="ue")).grant), "company-a", "m").subject == "ue"


def test_areas_of_a_tenant_are_bounded_together_and_one_can_be_changed_at_the_bound(company, kit, monkeypatch):
    company.put_area("a", c.AreaForm(geometry=kit.resort))
    monkeypatch.setattr(places, "_MOST_AREAS", 1)
    company.put_area("a", c.AreaForm(geometry=kit.commercial))
    with pytest.raises(HubRefused, match="at most 1 areas"):
        company.put_area("b", c.AreaForm(geometry=kit.resort))
    monkeypatch.setattr(places, "_MOST_AREA_CHARACTERS", 100)
    with pytest.raises(TooLarge, match="characters together"):
        company.put_area("a", c.AreaForm(geometry=kit.commercial))


def test_methods_that_clients_invent_are_one_label(served, operator):
    for number in range(5):
        httpx.request(f"X{number}", f"{served}/v1/models")
    text = operator.http.get("/metrics").text
    assert 'method="(other)"' in text
    assert 'method="X1"' not in text


def test_who_is_not_known_cannot_make_the_hub_read_a_body(served):
    """The refusal comes before the body: what is announced is never sent."""
    with opened(served) as line:
        line.sendall(b"POST /v1/fetches HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n")
        assert b" 401 " in line.recv(100)


def test_an_audit_log_that_was_replaced_is_found_by_a_head_kept_elsewhere(hub, company, operator, store):
    store(company, "m")
    head = operator.verify_audit().head
    store(company, "n")
    assert operator.verify_audit(head).ok
    verdict = operator.verify_audit("0" * 63 + "1")
    assert (verdict.ok, "replaced" in verdict.reason) == (False, True)
    with pytest.raises(HubRefused):
        operator.verify_audit("no hash")


@pytest.fixture
def bundle(tmp_path, tenant_key, kit):
    """bundle(content): a published layout."""

    def made(value=1.0):
        source = tmp_path / "w.safetensors"
        source.write_bytes(kit.tensors(w=np.full(4, value)))
        about = About("pack", "2.0.0", "Pack", "x", "", 0, None, None)
        wrap(tmp_path / "published" / "pack" / "2.0.0", source, "safetensors", about, tenant_key)
        return tmp_path / "published" / "pack" / "2.0.0"

    return made


def test_a_published_bundle_is_pushed_once_and_other_content_under_its_version_is_refused(bundle, company, hub, tenant_key, edge):
    east = edge("east")
    trust = {key_id(tenant_key.public_key()): tenant_key.public_key()}
    token = company.http.headers["Authorization"].removeprefix("Bearer ")
    digest = verify(bundle(), trust).digest
    company.put_model("pack", c.ModelForm())
    company.place("everywhere", c.PlacementForm(model="pack"))
    done = publishing.push(bundle(), company.url, token, trust, figures=c.Figures(task="traffic forecast"))
    assert (done.version, done.edges) == ("2.0.0", ("east",))
    assert east.desired("east").tenants[0].models[0].versions[0].digest == digest
    rows = len(hub.audit(LOCAL, limit=1000))
    assert publishing.push(bundle(), company.url, token, trust) == done
    assert len(hub.audit(LOCAL, limit=1000)) == rows  # nothing was sent, nothing changed
    believed = company.keys()
    assert [k.pem for k in believed].count(public_pem(tenant_key.public_key()).decode()) == 1
    with pytest.raises(HubRefused, match="other content"):
        publishing.push(bundle(2.0), company.url, token, trust)


def test_a_hub_of_version_1_is_brought_up_to_date(tmp_path):
    from cellwright.database import migrate
    from cellwright.hub.store import PURPOSE

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'hub.db'}")
    with engine.begin() as connection:
        migrate(connection, PURPOSE, "0001")
        connection.execute(sa.text("INSERT INTO tenants VALUES ('company-a', '', '{}', 1.0)"))
    engine.dispose()
    with open_hub(tmp_path) as hub:
        assert hub.tenant("company-a").created_s == 1.0
        assert hub.revoke_grants(LOCAL, "company-a") > 1.0


@pytest.mark.parametrize("lifetime_s", [5e-324, 1e-9])
def test_a_grant_that_would_end_as_it_begins_is_refused(company, lifetime_s):
    answer = company.http.post("/v1/grants", json={"device": "ue", "lifetime_s": lifetime_s})
    assert answer.status_code == 422


def test_a_token_for_longer_than_time_is_counted_is_refused_and_not_made(hub, operator):
    answer = operator.http.post("/v1/tenants/operator/tokens", json={"name": "x", "scopes": ["edge"], "lifetime_s": 1e300})
    assert answer.status_code == 422
    assert [token.name for token in hub.tokens("operator")] == ["ci"]
