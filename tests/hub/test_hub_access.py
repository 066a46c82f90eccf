"""Who may do what; that a tenant can never see, name or time another's models; that the audit log cannot be altered unseen."""

import base64
import socket
import statistics
import time

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from cellwright.database import migration_sql
from cellwright.errors import HubError, WrongUse
from cellwright.hub import contract as c
from cellwright.hub import tables
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.grant import read
from cellwright.hub.meter import Meter
from cellwright.hub.refusals import HubRefused, NotAllowed, NotFound, NotKnown, TooMany
from cellwright.hub.service import open_hub
from cellwright.hub.store import PURPOSE, open_store
from cellwright.web.running import Listening, is_loopback


def test_a_token_is_kept_as_its_hash_and_ends_when_it_is_revoked_or_old(hub, clients):
    client = clients("company-a", name="one")
    assert client.me().name == "company-a"
    token = client.http.headers["Authorization"].removeprefix("Bearer ")
    assert token.split("_")[2].encode() not in b"".join(p.read_bytes() for p in hub.folder.glob("hub.db*"))
    hub.revoke_token(LOCAL, "company-a", "one")
    for wrong in (token, token[:-1], "cwh_x_y", "", "x" * 10_000, None):
        with HubClient(client.url, wrong) as asking, pytest.raises(NotKnown):
            asking.me()
    brief = clients("company-a", lifetime_s=1000)
    assert brief.me().name == "company-a"
    hub.clock = lambda: time.time() + 1001
    with pytest.raises(NotKnown, match="expired or was revoked"):
        brief.me()


DOORS = {
    "GET /v1/tenants": "operator",
    "PUT /v1/tenants/x": "operator",
    "POST /v1/tenants/x/tokens": "operator",
    "DELETE /v1/tenants/x": "operator",
    "GET /v1/audit/verify": "operator",
    "DELETE /v1/edges/x": "operator",
    "GET /v1/audit": "audit:read",
    "GET /metrics": "metrics:read",
    "DELETE /v1/grants/0123456789abcdef": "models:write",
    "DELETE /v1/devices/ue/grants": "models:write",
    "GET /v1/revocations": "models:write",
    "PUT /v1/models/m": "models:write",
    "DELETE /v1/models/m": "models:write",
    "POST /v1/uploads": "models:write",
    "GET /v1/uploads": "models:write",
    "POST /v1/keys": "models:write",
    "POST /v1/models/m/publication": "publish",
    "DELETE /v1/models/m/publication": "publish",
    "PUT /v1/areas/a": "placement:write",
    "PUT /v1/placement/r": "placement:write",
    "PUT /v1/edges/e": "edge",
    "PUT /v1/edges/e/heartbeat": "edge",
    "GET /v1/edges/e/desired": "edge",
    "POST /v1/match": "device",
    "POST /v1/grants": "device",
    "POST /v1/fetches": "edge",
    "GET /v1/models/m/versions/1.0.0/files/index.json": "models:read",
}


ALLIES = {"POST /v1/match": {"models:read"}, "POST /v1/grants": {"models:read"}, "POST /v1/fetches": {"device"}}
ALLIES |= {"GET /v1/models/m/versions/1.0.0/files/index.json": {"models:write", "publish"}}


def test_every_door_needs_its_scope(clients):
    every = ("models:read", "models:write", "placement:write", "audit:read", "metrics:read", "edge", "device", "publish", "truth")
    lacking = {}
    for door, scope in DOORS.items():
        method, path = door.split()
        others = tuple(s for s in every if s != scope and s not in ALLIES.get(door, set()))
        tenant = "operator" if {"edge", "metrics:read"} & set(others) else "company-a"  # these are always the operator's
        client = lacking.setdefault(others, None) or clients(tenant, *others, name="e")
        lacking[others] = client
        answer = client.http.request(method, path, json={})
        assert (door, answer.status_code) == (door, 403)
        assert "needs a token of scope" in answer.json()["detail"]
    whole = clients("operator", *every, name="e")
    for door, scope in DOORS.items():
        if scope != "operator":
            assert whole.http.request(*door.split(), json={}).status_code in (200, 204, 404, 422)


def test_leave_to_tell_the_truth_takes_a_token_for_that(clients):
    with pytest.raises(NotAllowed, match="scopes device and truth"):
        clients("company-a", "device", "models:read").grant(c.GrantAsk(device="ue", truth=True))
    for asked in (c.GrantAsk(device="oss", truth=True), c.GrantAsk(device="oss")):  # a grant lets models be fetched, too
        with pytest.raises(NotAllowed, match="scope device or models:read, this one has truth"):
            clients("company-a", "truth").grant(asked)
    source = clients("company-a", "device", "truth").grant(c.GrantAsk(device="oss", truth=True)).grant
    assert read(source).truth
    assert clients("operator", "operator").grant(c.GrantAsk(device="oss", truth=True)).grant
    plain = clients("company-a", "device").grant(c.GrantAsk(device="ue")).grant
    assert not read(plain).truth
    claims = plain.partition(".")[0]
    assert b"truth" not in base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))  # edges from before there was any take it


def test_no_door_but_the_public_ones_opens_without_a_token(served):
    nobody = HubClient(served, None).http
    paths = nobody.get("/openapi.json").json()["paths"]
    public = {"/healthz", "/readyz", "/v1/hub"}
    for path, methods in paths.items():
        for method in methods:
            if path not in public and method != "options":
                concrete = path.replace("{version}", "1.0.0").replace("{", "").replace("}", "")
                body = {"json": {}} if method in ("put", "post") else {}
                headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"} if method == "patch" else {}
                found = nobody.request(method, concrete, headers=headers, **body)
                assert (method, path, found.status_code) == (method, path, 401)
                assert found.headers["WWW-Authenticate"] == "Bearer"


def test_an_operators_token_is_for_the_operator(hub, company):
    with pytest.raises(HubRefused, match="tenant 'operator'"):
        hub.new_token(LOCAL, "company-a", c.TokenForm(name="x", scopes=("operator",)))


def answers(client, model):
    """Status and words of every door that names a model, without the name itself."""
    found = []
    for method, path, body in (
        ("GET", f"/v1/models/{model}", None),
        ("GET", f"/v1/models/{model}?owner=company-a", None),
        ("GET", f"/v1/models/{model}/versions/1.0.0", None),
        ("GET", f"/v1/models/{model}/versions/1.0.0?owner=company-a", None),
        ("GET", f"/v1/models/{model}/versions/1.0.0/files/index.json?owner=company-a", None),
        ("GET", f"/v1/models/{model}/publication?owner=company-a", None),
        ("POST", f"/v1/models/{model}/publication", {"version": "1.0.0"}),
        ("DELETE", f"/v1/models/{model}/publication", None),
        ("DELETE", f"/v1/models/{model}/versions/1.0.0", None),
        ("DELETE", f"/v1/models/{model}", None),
        ("PUT", "/v1/placement/r", {"model": model, "owner": "company-a"}),
    ):
        answer = client.http.request(method, path, json=body)
        found.append((method, answer.status_code, answer.text.replace(model, "<model>")))
    return found


def test_anothers_model_and_one_that_is_not_there_get_the_same_answers(company, clients, store):
    store(company, "secret")
    company.publish("secret", c.Publication(version="1.0.0"))
    other = clients("company-b")
    told = answers(other, "secret")
    assert told == answers(other, "absent")
    assert {status for _, status, _ in told} == {404}
    assert other.models() == other.models(shared=True) == ()
    assert company.models()[0].publication is not None


def test_a_name_that_another_has_is_free_for_oneself(company, clients, store):
    store(company, "secret", content=b"a")
    other = clients("company-b")
    release = store(other, "secret", content=b"b")
    assert release.tenant == "company-b"
    assert company.release("secret", "1.0.0").digest != release.digest


def test_anothers_uploads_areas_rules_tokens_reports_and_audit_cannot_be_seen(company, clients, kit, store):
    upload = company.open_upload(c.UploadForm(model="m", version="1.0.0", format="opaque", bytes=10))
    company.put_area("mine", c.AreaForm(geometry=kit.resort))
    store(company, "n")
    company.place("r", c.PlacementForm(model="n", areas=("mine",)))
    other = clients("company-b")
    for ask in (other.upload_offset, other.cancel_upload):
        with pytest.raises(NotFound):
            ask(upload.id)
    with pytest.raises(NotFound):
        other.send_chunk(upload.id, 0, b"x")
    assert (other.uploads(), other.areas(), other.placement(), other.fetches(), other.audit()) == ((), (), (), (), ())
    store(other, "n")
    with pytest.raises(HubRefused, match="no area 'mine' for you; there are: none"):
        other.place("r", c.PlacementForm(model="n", areas=("mine",)))
    assert {row.tenant for row in company.audit()} == {"company-a"}


def test_a_shared_model_can_be_seen_placed_matched_and_fetched_but_not_changed(company, clients, store, edge, kit):
    store(company, "common", figures=c.Figures(task="guide"))
    company.put_model("common", c.ModelForm(visibility="shared", figures=c.Figures(task="guide")))
    company.publish("common", c.Publication(version="1.0.0"))
    other, east = clients("company-b"), edge("east")
    assert [(m.tenant, m.name) for m in other.models(shared=True)] == [("company-a", "common")]
    other.place("theirs", c.PlacementForm(model="common", owner="company-a"))
    assert [(t.tenant, t.models[0].name) for t in east.desired("east").tenants] == [("company-a", "common")]
    found = other.match(c.MatchAsk(device="ue", requirements=c.Requirements(task="guide")))
    assert (found.tenant, found.model, found.rule) == ("company-a", "common", "theirs")
    assert other.release("common", "1.0.0", owner="company-a").digest == found.digest
    with pytest.raises(NotFound):
        other.delete_model("common")
    company.put_model("common", c.ModelForm(visibility="private"))
    assert east.desired("east").tenants == ()
    with pytest.raises(NotFound):
        other.release("common", "1.0.0", owner="company-a")


@pytest.mark.slow
def test_how_long_an_answer_takes_does_not_tell_anothers_model_from_none(company, clients, store):
    """Interleaved requests; the medians of the two kinds differ by less than their own scatter over 8 repetitions."""
    store(company, "secret", content=b"x" * 5_000_000)
    company.publish("secret", c.Publication(version="1.0.0"))
    other = clients("company-b")
    kinds = ("secret", "absent")
    medians: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(8):
        took: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(300):
            kind = kinds[turn % 2]
            started = time.perf_counter()
            other.http.get(f"/v1/models/{kind}/versions/1.0.0?owner=company-a")
            took[kind].append(time.perf_counter() - started)
        for kind in kinds:
            medians[kind].append(statistics.median(took[kind]))
    differences = [a - b for a, b in zip(medians["secret"], medians["absent"], strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    assert abs(statistics.fmean(differences)) < max(4 * error, 20e-6)


def test_a_tenant_asks_as_often_as_its_quota_lets_it(clients, operator):
    operator.put_tenant("company-c", c.TenantForm(quota=c.Quota(requests_per_minute=5)))
    client = clients("company-c")
    for _ in range(5):
        client.me()
    with pytest.raises(TooMany, match="5 times a minute") as refused:
        client.me()
    assert 1 <= refused.value.retry_after_s <= 12
    operator.tenants()  # others are not held up


def test_a_meter_fills_up_again():
    meter = Meter()
    assert [meter.take("a", 2, 0.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert meter.take("b", 2, 0.0) == 0.0
    assert meter.take("a", 2, 29.0) == pytest.approx(1.0)
    assert meter.take("a", 2, 30.0) == 0.0


def test_a_tenant_with_models_cannot_be_deleted_one_without_goes_with_its_tokens(company, operator, store, clients):
    store(company, "m")
    with pytest.raises(HubRefused, match="has 1 models"):
        operator.delete_tenant("company-a")
    company.delete_model("m")
    operator.delete_tenant("company-a")
    with pytest.raises(NotKnown):
        company.me()
    with pytest.raises(NotFound, match="no tenant 'company-a'"):
        operator.tokens("company-a")


def test_the_audit_log_tells_of_every_change_and_is_a_chain(company, operator, store, hub):
    store(company, "m")
    company.publish("m", c.Publication(version="1.0.0"))
    assert [row.action for row in company.audit()] == ["release", "publish"]
    assert [row.who.split()[0] for row in company.audit()] == ["ci", "ci"]
    rows = operator.audit(limit=1000)
    assert [row.index for row in rows] == list(range(len(rows)))
    verdict = operator.verify_audit()
    assert (verdict.ok, verdict.records, verdict.head) == (True, len(rows), rows[-1].hash)
    assert hub.verify_audit(rows[1].hash).ok
    assert "the log was replaced" in hub.verify_audit("0" * 63 + "1").reason


@pytest.mark.parametrize("change", ["alter", "remove", "move"])
def test_an_altered_audit_log_is_found_out(hub, change):
    for name in ("a", "b", "c"):
        hub.put_tenant(LOCAL, name, c.TenantForm())
    t = tables.audit
    with hub.store.write() as connection:
        if change == "alter":
            line = connection.execute(sa.select(t.c.line).where(t.c.index == 1)).scalar_one()
            connection.execute(sa.update(t).where(t.c.index == 1).values(line=line.replace('"subject":"a"', '"subject":"z"')))
        elif change == "remove":
            connection.execute(sa.delete(t).where(t.c.index == 1))
        else:
            connection.execute(sa.update(t).where(t.c.index == 1).values(index=9))
    verdict = hub.verify_audit()
    assert not verdict.ok
    assert "row 1" in verdict.reason


def test_bodies_are_bounded_and_names_cannot_climb(company):
    http = company.http
    assert http.put("/v1/models/m", content=b"x" * (5 << 20)).status_code == 413
    assert http.put("/v1/models/m", content=(b"x" * (1 << 20) for _ in range(6))).status_code == 413
    for name in ("..", "%2e%2e", "a%2Fb", "a%00b", ".hidden", "x" * 201):
        assert http.put(f"/v1/models/{name}", json={}).status_code in (404, 405, 422)
    assert http.put("/v1/models/m", json={"visibilty": "shared"}).status_code == 422
    assert http.put("/v1/models/m", content=b"[" * 100_000, headers={"Content-Type": "application/json"}).status_code in (
        400,
        422,
    )
    for path in ("../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "blobs/sha256/../../x"):
        assert http.get(f"/v1/models/m/versions/1.0.0/files/{path}").status_code == 404


def test_a_slow_client_is_cut_off_and_others_are_served(served, company, monkeypatch):
    from cellwright.web import running

    monkeypatch.setattr(running, "_HEADERS_S", 0.3)
    host, port = served.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Never: ")
        assert company.me().name == "company-a"
        assert slow.recv(100) == b""  # closed by the hub


def test_a_body_that_does_not_come_is_not_waited_for(hub):
    from cellwright.errors import HubError as Error
    from cellwright.hub.api import create_app
    from cellwright.web.running import Service, in_thread

    token = hub.new_token(LOCAL, "operator", c.TokenForm(name="x", scopes=("operator",))).token
    with in_thread(Service(create_app(hub, part_s=0.3), "the hub", Error), Listening()) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            head = f"PUT /v1/tenants/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{"
            slow.sendall(head.encode())
            assert b" 408 " in slow.recv(4096)


def test_metrics_name_no_tenant_and_no_model_and_are_not_for_tenants(hub, company, clients, store, served):
    """A tenant that counts releases would know when another publishes."""
    store(company, "secret-model")
    assert company.http.get("/metrics").status_code == 403
    with pytest.raises(HubRefused, match="counters tell what all of them do"):
        hub.new_token(LOCAL, "company-a", c.TokenForm(name="x", scopes=("metrics:read",)))
    text = clients("operator", "metrics:read", name="prometheus").http.get("/metrics").text
    assert "cellwright_hub_releases 1" in text
    assert 'route="/v1/uploads/{upload}",status="204"} 1' in text
    assert "secret-model" not in text
    assert "company-a" not in text


def test_the_database_is_as_the_tables_say_and_can_be_made_by_hand(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.schema) == []
    store.close()
    assert "CREATE TABLE release_files" in migration_sql("postgresql", PURPOSE)
    with pytest.raises(WrongUse, match="name a file"):
        open_store("sqlite://")
    with pytest.raises(WrongUse, match=r"hub\.database must be"):
        open_store("nonsense")
    with pytest.raises(HubError, match="no driver"):
        open_store("postgresql+nosuch://x/y")


def test_a_hub_is_not_served_to_others_in_the_open(hub):
    from cellwright.hub.serve import serve

    assert is_loopback("127.0.0.1")
    with pytest.raises(WrongUse, match="in the open"):
        serve(hub, Listening("0.0.0.0"))
    with pytest.raises(WrongUse, match="give both"):
        serve(hub, Listening(certificate=hub.folder / "x"))


def test_forms_that_cannot_be_are_refused_before_anything_is_done():
    for wrong in (
        {"version": "1.0.0", "weights": {"1.1.0": 1.0}},
        {"version": "1.0.0", "weights": {"1.0.0": 0.5, "1.1.0": 0.6}},
        {"version": "1.0.0", "canary": "1.1.0"},
        {"version": "latest"},
    ):
        with pytest.raises(ValidationError):
            c.Publication.model_validate(wrong)
    shares = c.Publication(version="1.0.0", weights={"1.1.0": 0.25}).shares
    assert shares == {"1.1.0": 0.25, "1.0.0": 0.75}
    with pytest.raises(ValidationError, match="IANA"):
        c.PlacementForm(model="m", timezone="Mars/Olympus")


def test_the_operators_edge_token_speaks_for_its_edge_alone(edge, clients):
    east = edge("east")
    edge("west")
    with pytest.raises(NotAllowed, match="cannot speak for 'west'"):
        east.heartbeat("west", c.Heartbeat(revision=1, time_s=1.0, disk_free_bytes=1))


def test_another_signing_key_reaches_the_edges(hub, edge, tmp_path):
    east = edge("east")
    before = east.desired("east")
    with open_hub(hub.folder, keys=tmp_path / "other") as other:
        after = other.desired("east")
    assert after.revision == before.revision + 1
    assert after.hub_key != before.hub_key
