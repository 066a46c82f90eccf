"""What strangers, other tenants, careless devices and a broken hub may try on an edge, and what it costs the others: nothing."""

import asyncio
import json
import subprocess
import time

import httpx
import pytest
from edge_cloud import LOADED, edge_of, leave, publish, served, until

from cellwright.bundle import store
from cellwright.edge import arrivals, hearing
from cellwright.edge.agent import Hub
from cellwright.edge.download import Download
from cellwright.edge.evidence import Evidence
from cellwright.edge.outbox import Outbox, Report
from cellwright.edge.patches import Patches
from cellwright.edge.pulling import Order, pull
from cellwright.edge.sample import sample_request
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge
from cellwright.edge.shelves import Shelves
from cellwright.edge.trialling import Side
from cellwright.edge.uses import Key
from cellwright.errors import BundleError, HubError
from cellwright.hub import contract as c
from cellwright.hub import publishing
from cellwright.hub.core import LOCAL

STEP_MS = 600_000


@pytest.fixture
def trying(shelf, project, another):
    """An edge on which 1.1.0 is tried beside 1.0.0, and a client of it."""
    layout, manifest = another("1.1.0", shift=5.0)
    store.place(shelf, layout, manifest, activate=False)
    store.try_out(shelf, LOADED, store.Trial(version="1.1.0", digest=manifest.digest, weight=0.0, since_s=0.0))
    with in_thread(Edge(shelf, project.trust, port=0)) as edge, httpx.Client(base_url=edge.url) as client:
        yield edge, client


# evidence


@pytest.mark.parametrize(
    "history",
    ['{"traffic": [1]}', '{"traffic": "abcdef"}', '{"users": [1]}', '{"traffic": [1e300, 1e300, 1e300, 1e300, 1e300, 1e300]}'],
)
def test_what_a_request_says_of_sites_that_the_model_does_not_look_at_fails_nobody_and_spoils_no_evidence(
    trying, project, history
):
    _, client = trying
    request = project.request("c0", "c8")
    first_ms = request["time"] if isinstance(request["time"], int) else 1_383_260_400_000
    assert client.post("/v1/forecast", json=request | {"time": first_ms}).status_code == 200
    time.sleep(0.2)  # both have computed it
    body = json.dumps(project.request("c0") | {"time": first_ms + STEP_MS})
    spoiled = json.loads(body)
    spoiled["history"]["c8"] = "HERE"
    answer = client.post("/v1/forecast", content=json.dumps(spoiled).replace('"HERE"', history))
    assert answer.status_code == 200, answer.text
    later = client.post("/v1/forecast", json=project.request("c0") | {"time": first_ms + 2 * STEP_MS})
    assert later.status_code == 200
    answer = client.get("/v1/evidence")
    assert answer.status_code == 200, answer.text
    assert all(pair.weight > 0 for pair in Evidence.model_validate_json(answer.content).errors)


def test_evidence_that_is_dear_to_write_is_not_written_for_each_who_asks(trying, monkeypatch):
    _, client = trying
    client.get("/v1/evidence")
    written, real = [], Side.evidence

    def slow(self, edge):
        written.append(edge)
        time.sleep(0.05)
        return real(self, edge)

    monkeypatch.setattr(Side, "evidence", slow)
    answers = [client.get("/v1/evidence", headers={"Host": f"host-{i}"}) for i in range(10)]
    assert len(written) == 1
    assert {a.status_code for a in answers} == {200}
    assert "host" not in written[0]


def test_forecasts_that_wait_for_their_truth_are_bounded_and_the_first_that_came_go_first(trying, project, monkeypatch):
    from cellwright.edge import trialling

    monkeypatch.setattr(trialling, "_MOST_PENDING", 6)
    _, client = trying
    request, far_ms = (
        project.request(),
        7_000_000_000_000,
    )  # whoever asks for times far ahead pushes out others no longer than that
    for start in (far_ms, far_ms + 100 * STEP_MS, 1_383_260_400_000):
        assert client.post("/v1/forecast", json=request | {"time": start}).status_code == 200
        time.sleep(0.15)
    answers = [
        client.post("/v1/truth", json={"times": [start], "values": {"c4": {"traffic": [1.0]}}}).json()["settled"]
        for start in (far_ms, far_ms + 100 * STEP_MS, 1_383_260_400_000)
    ]
    assert answers == [0, 1, 1]


def test_where_a_token_is_needed_nobody_else_tells_the_truth_of_the_workspaces_models(shelf, project, another):
    layout, manifest = another("1.1.0", shift=5.0)
    store.place(shelf, layout, manifest, activate=False)
    store.try_out(shelf, LOADED, store.Trial(version="1.1.0", digest=manifest.digest, weight=0.0, since_s=0.0))
    start, oss = 1_383_260_400_000, {"Authorization": "Bearer of the OSS"}
    truth = {"times": [start], "values": {"c4": {"traffic": [1.0]}}}
    with (
        in_thread(Edge(shelf, project.trust, port=0, truth_token="of the OSS")) as edge,
        httpx.Client(base_url=edge.url) as client,
    ):
        for shown in ({}, {"Authorization": "Bearer of another"}, {"Authorization": b"Bearer \xff"}):
            assert client.post("/v1/forecast", json=project.request() | {"time": start}, headers=shown).status_code == 200
            time.sleep(0.15)
            refused = client.post("/v1/truth", json=truth, headers=shown)
            assert (refused.status_code, "truth_token_file" in refused.json()["detail"]) == (403, True)
        assert client.post("/v1/truth", json=truth, headers=oss).json()["settled"] == 0  # nothing was learnt from strangers
        assert client.post("/v1/forecast", json=project.request() | {"time": start + STEP_MS}, headers=oss).status_code == 200
        truth["times"], end, settled = [start + STEP_MS], time.monotonic() + 20, 0
        while not settled and time.monotonic() < end:  # the other version's forecast comes after the answer
            settled = client.post("/v1/truth", json=truth, headers=oss).json()["settled"]
        assert settled == 1


@pytest.mark.parametrize(("token", "refused"), [(None, 403), ("of the operator", 401)])
def test_where_tenants_reach_an_edge_its_metrics_are_the_operators(shelf, project, token, refused):
    away = Hub("http://127.0.0.1:9", "token", "east", c.Location(longitude=2.0, latitude=48.0))
    edge = Edge(shelf, project.trust, port=0, hub=away, behind_nginx=True, metrics_token=token)
    with in_thread(edge), httpx.Client(base_url=edge.url) as client:
        answer = client.get("/metrics", headers={"Authorization": "Bearer of a tenant"})
        assert (answer.status_code, "metrics_token_file" in answer.json()["detail"]) == (refused, True)
        public = client.get("/readyz").json()
        assert (public["hub_heard"], public.keys() & {"versions_held", "hub_revision"}) == (False, set())
        if token:
            shown = {"Authorization": f"Bearer {token}"}
            assert "cellwright_edge_bundles 1" in client.get("/metrics", headers=shown).text
            assert client.get("/readyz", headers=shown).json()["versions_held"] == 0


def test_truth_and_evidence_of_a_tenants_model_need_a_grant_for_it(operator_cloud, project, another):
    folder, _ = store.latest(project.ws.published, LOADED, project.trust)
    for layout in (folder, another("1.1.0", shift=5.0)[0]):
        publishing.upload(operator_cloud.acme, layout, project.trust)
    operator_cloud.acme.place("all", c.PlacementForm(model=LOADED))
    operator_cloud.acme.publish(LOADED, c.Publication(version="1.0.0", weights={"1.1.0": 0.1}, canary="1.1.0"))
    operator_cloud.hub.put_tenant(LOCAL, "zeta", c.TenantForm())
    token = operator_cloud.hub.new_token(LOCAL, "zeta", c.TokenForm(name="ci", scopes=("models:read", "device"))).token
    from cellwright.hub.client import HubClient

    with HubClient(operator_cloud.url, token) as zeta, edge_of(operator_cloud) as edge:
        foreign = {"Authorization": f"Bearer {zeta.grant(c.GrantAsk(device='ue-9')).grant}"}
        other = operator_cloud.acme.grant(c.GrantAsk(device="ue-1", models=("another",), truth=True)).grant
        at = f"{edge.url}/v1/tenants/acme"
        truth = {"bundle": LOADED, "times": [0], "values": {"c4": {"traffic": [1.0]}}}
        until(lambda: edge.http.get(f"{at}/evidence").status_code == 200)
        assert edge.http.post(f"{at}/truth", json=truth).status_code == 403  # a device's grant
        assert httpx.post(f"{at}/truth", json=truth, headers=leave(operator_cloud, truth=True)).status_code == 200
        for headers, status in ((None, 401), (foreign, 403), ({"Authorization": f"Bearer {other}"}, 404)):
            told = [
                httpx.get(f"{at}/evidence?bundle={LOADED}", headers=headers),
                httpx.post(f"{at}/truth", json=truth, headers=headers),
            ]
            assert [answer.status_code for answer in told] == [status] * 2
            assert not any("1.1.0" in answer.text or "1.0.0" in answer.text for answer in told)


def test_no_device_steers_a_trial_by_what_it_tells_or_asks(operator_cloud, project, another):
    """Only who has leave to tell the truth is learnt from; others are answered and counted, and no error is made of what they say."""
    folder, _ = store.latest(project.ws.published, LOADED, project.trust)
    for layout in (folder, another("1.1.0", shift=5.0)[0]):
        publishing.upload(operator_cloud.acme, layout, project.trust)
    operator_cloud.acme.place("all", c.PlacementForm(model=LOADED))
    operator_cloud.acme.publish(LOADED, c.Publication(version="1.0.0", weights={"1.1.0": 0.5}, canary="1.1.0"))
    bodies = [sample_request(project.problem, project.panel, sites=("c4",), origin=row, bundle=LOADED) for row in range(200, 212)]
    with edge_of(operator_cloud) as edge:
        at = f"{edge.url}/v1/tenants/acme"

        def seen(**leave_for):
            with httpx.Client(headers=leave(operator_cloud, **leave_for), trust_env=False) as http:
                for body in bodies:
                    assert http.post(f"{at}/forecast", json=body).status_code == 200
                    time.sleep(0.01)
                return http.get(f"{at}/evidence").json()

        until(lambda: edge.http.get(f"{at}/evidence").status_code == 200)
        devices = seen()
        assert devices["errors"] == []
        assert {v: n["requests"] for v, n in devices["counts"].items()} == {"1.0.0": 6, "1.1.0": 6}
        told = seen(device="oss", truth=True)
        assert len(told["errors"]) >= 5


# arrivals, prefetch, reports


def test_nobody_unknown_has_a_body_read(operator_cloud):
    with edge_of(operator_cloud) as edge:
        until(lambda: edge.http.get("/readyz").status_code == 200)
        for path in ("arrivals", "prefetch", "fetches"):
            assert httpx.post(f"{edge.url}/v1/{path}", content=b"{").status_code == 401


def test_no_device_asks_for_more_than_its_model_needs_or_for_ever(operator_cloud):
    publish(operator_cloud, "guide")
    same = {"device": "ue-1", "tenant": "acme", "model": "guide"}
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        assert edge.http.post("/v1/arrivals", json=same | {"deadline_s": 1e12}).status_code == 400
        arrived = edge.http.post("/v1/arrivals", json=same | {"deadline_s": 1.0, "bytes": 1 << 52}).json()
        here = edge.arrivals._here[arrived["id"]]
        [has] = edge.agent.library.held().values()
        assert here.bytes <= has.bytes + 4096


def test_one_tenant_cannot_take_all_room_for_arrivals(operator_cloud, monkeypatch):
    monkeypatch.setattr(arrivals, "_MOST", 4)
    publish(operator_cloud, "guide")
    same = {"tenant": "acme", "model": "guide"}
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        answers = [
            httpx.post(f"{edge.url}/v1/arrivals", json=same | {"device": d}, headers=leave(operator_cloud, d)).status_code
            for d in ("ue-1", "ue-2", "ue-2", "ue-3", "ue-1")
        ]
        assert answers == [201, 201, 201, 429, 201]
        assert len(edge.arrivals._here) == 2


def test_no_device_pushes_out_the_reports_of_others(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db", most_rows=10)
    outbox.put([Report("qos", "zeta/s", "of zeta"), Report("fetch", "zeta/r", "of zeta")])
    for turn in range(20):  # the same report again and again
        outbox.put([Report("fetch", "acme/r", str(turn))])
    assert [r.document for r in outbox.oldest("fetch", 9)] == ["of zeta", "19"]
    outbox.put([Report("fetch", f"acme/{i}", str(i)) for i in range(100)])
    assert len(outbox) == 10
    assert [r.document for r in outbox.oldest("qos", 9)] == ["of zeta"]
    assert [r.document for r in outbox.oldest("fetch", 20)] == ["of zeta", *map(str, range(92, 100))]


# patches


def test_a_patch_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    from cellwright.edge import patches as made_by

    monkeypatch.setattr(made_by, "_MAKE", "import time; time.sleep(600)")
    monkeypatch.setattr(made_by, "_MAKE_S", 0.3)
    patches, blob = Patches(tmp_path), tmp_path / "blob"
    blob.write_bytes(b"x")
    pair = made_by._Pair("acme", "guide", blob, blob)
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        patches._make(pair)
    assert time.monotonic() - begun < 60


# the hub


def test_asking_again_and_again_for_a_version_that_does_not_come_does_not_wear_out_the_hub(operator_cloud):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        agent, pulls = edge.agent, []
        until(lambda: served(edge, "guide"))
        agent.pace = agent.pace.__class__(**{**agent.pace.__dict__, "first_pause_s": 5.0, "longest_pause_s": 30.0})

        def broken(want, *, asked):
            pulls.append(want)
            raise BundleError("what came is not what was announced")

        agent._bring = broken
        publish(operator_cloud, "guide", "2.0.0")
        until(lambda: pulls)
        for _ in range(40):
            edge.http.get("/v1/tenants/acme/bundles/guide/2.0.0")
            time.sleep(0.01)
        assert len(pulls) == 1


def desired(agent, **more):
    return agent.library.desired.model_copy(update=more)


def test_a_hubs_answer_that_cannot_be_changes_nothing(operator_cloud):
    content = publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        before, folder = edge.agent.library.desired, operator_cloud.tmp / "store/tenants"
        key = (folder / "hub.pub").read_bytes()
        for wrong in ({"hub_key": "no key"}, {"hub_key": "\0" * 100}, {"edge": "west"}):
            with pytest.raises(HubError):
                edge.agent.take(desired(edge.agent, revision=99, **wrong))
        assert edge.agent.library.desired is before
        assert (folder / "hub.pub").read_bytes() == key
        assert json.loads((folder / "desired.json").read_text())["revision"] == before.revision
        assert served(edge, "guide") == ("1.0.0", content)


def test_a_key_that_is_none_is_the_fault_of_its_tenant_alone(operator_cloud):
    content = publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        bad = c.DesiredTenant(tenant="zeta", keys=("no key",), models=())
        now = edge.agent.library.desired
        edge.agent.library.take(now.model_copy(update={"tenants": (*now.tenants, bad)}))
        assert served(edge, "guide") == ("1.0.0", content)


def test_a_damaged_hub_key_on_disk_stops_no_edge(project, tmp_path):
    shelves = Shelves(tmp_path)
    shelves.folder.mkdir(parents=True)
    (shelves.folder / "hub.pub").write_text("no key")
    with in_thread(Edge(tmp_path, project.trust, port=0)) as edge:
        assert httpx.get(f"{edge.url}/healthz").status_code == 200
        answer = httpx.get(f"{edge.url}/v1/tenants/acme/bundles", headers={"Authorization": "Bearer x.y"})
        assert answer.status_code == 503


def test_a_version_larger_than_announced_is_not_brought(operator_cloud):
    publish(operator_cloud, "guide", content=b"x" * 100_000)
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        library, client = edge.agent.library, edge.agent._client
        want = library.wanted("acme", "guide", "latest")
        order = Order(
            want.key, want.digest, library.shelves.trust_of("acme"), operator_cloud.tmp / "staging", bytes=want.bytes - 50_000
        )
        base = client.bundle_path("east", "acme", "guide", "1.0.0")
        link = edge.agent._links.link()
        with pytest.raises(BundleError, match="announced"):
            pull(Download(link), base, order)
        link.close()
        assert not (operator_cloud.tmp / "staging").exists()


class Endless(httpx.AsyncByteStream):
    def __init__(self):
        self.sent = 0

    async def __aiter__(self):
        while True:
            self.sent += 1 << 20
            yield bytes(1 << 20)


def heard_by(edge, transport):
    """The agent hears a hub that answers so; after a second it is stopped."""

    async def heard():
        async with httpx.AsyncClient(base_url="http://hub", transport=transport) as client, asyncio.timeout(1.0):
            await edge.agent._heard(client)

    return heard()


def test_an_answer_without_end_is_cut_off(operator_cloud, monkeypatch):
    monkeypatch.setattr(hearing, "MOST_BYTES", 4 << 20)
    with edge_of(operator_cloud) as edge:
        until(lambda: edge.agent._effective)
        endless = Endless()
        with pytest.raises(HubError, match="more than"):
            asyncio.run(heard_by(edge, httpx.MockTransport(lambda request: httpx.Response(200, stream=endless))))
        assert endless.sent <= 8 << 20


def test_a_hub_that_does_not_wait_is_not_asked_without_a_pause(operator_cloud):
    with edge_of(operator_cloud) as edge:
        until(lambda: edge.agent._effective)
        asked, same = [], edge.agent.library.desired.model_dump_json()

        def answer(request):
            asked.append(request)
            return httpx.Response(200, text=same)

        with pytest.raises(TimeoutError):
            asyncio.run(heard_by(edge, httpx.MockTransport(answer)))
        assert len(asked) < 50  # with pauses of 50 ms here


@pytest.mark.parametrize(
    "path", ["..%2f..%2fhub.pub", "%2e%2e/%2e%2e/hub.pub", "blobs/sha256/..%2f..%2findex.json", "index.json%00"]
)
def test_no_path_leads_out_of_a_version(operator_cloud, path):
    publish(operator_cloud, "guide")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        for address in (f"guide/1.0.0/{path}", f"{path}/1.0.0/index.json", f"guide/{path}/index.json"):
            answer = edge.http.get(f"/v1/tenants/acme/bundles/{address}")
            assert answer.status_code in (400, 404)
            assert "BEGIN PUBLIC KEY" not in answer.text
        answer = edge.http.get(f"/v1/tenants/{path}/bundles")
        assert answer.status_code in (400, 403, 404)


def test_names_that_climb_are_no_names():
    for wrong in ("../x", "a/b", "..", "a\0", ""):
        with pytest.raises(ValueError, match=r"pattern|dots"):
            c.DesiredModel(name=wrong, latest="1.0.0", versions=())
        with pytest.raises(ValueError, match="pattern"):
            c.DesiredTenant(tenant=wrong, keys=(), models=())
    assert Key("a", "b", "c") < Key("a", "b", "d")
