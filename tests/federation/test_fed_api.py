"""Interfaces 1 and 2 of M.3387 over HTTP: a real uvicorn on loopback, an httpx client, tokens, limits and TLS."""

import base64
import datetime as dt
import hashlib
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from safetensors.numpy import save
from typer.testing import CliRunner

from cellwright.errors import FederationError, WrongUse
from cellwright.federation.management import bounds
from cellwright.federation.management.hooks import between, rebuild
from cellwright.federation.management.records import DataNeeds, Holding, NodeProperties, ServiceRequest, Training
from cellwright.federation.management.serve import in_thread, is_loopback, serve
from cellwright.federation.management.service import Fmlms
from cellwright.federation.management.tokens import Ceiling
from flows._cli import federation_server

MODEL = save({"w": np.arange(4, dtype=np.float32)})
OWNERS = ("car0", "car1", "car2")
ASKED = {"name": "load", "data": {"dataset": "city"}}


@pytest.fixture(scope="module")
def fmlms(tmp_path_factory):
    with Fmlms(f"sqlite:///{tmp_path_factory.mktemp('api') / 'f.db'}") as made:
        made.register(NodeProperties(name="hub", roles=("coordinator",), layer="cloud", security=3))
        made.register(*(NodeProperties(name=name, roles=("data_owner",)) for name in OWNERS))
        made.declare(*(Holding(node=name, dataset="city", windows=9) for name in OWNERS))
        yield made


@pytest.fixture(scope="module")
def url(fmlms):
    with in_thread(fmlms) as address:
        yield address


@pytest.fixture(scope="module")
def ask(fmlms, url):
    """A function that gives a client with the token of a scope and name; none: without a token."""
    tokens, clients = {}, []

    def made(scope=None, name="x", **ceiling):
        if scope and (scope, name) not in tokens:
            tokens[scope, name] = fmlms.new_token(scope, name, ceiling=Ceiling(**ceiling))
        headers = {"Authorization": f"Bearer {tokens[scope, name]}"} if scope else {}
        clients.append(httpx.Client(base_url=url, headers=headers, trust_env=False))
        return clients[-1]

    yield made
    for client in clients:
        client.close()


@pytest.fixture
def running(fmlms):
    """A request of `planner` that runs, with its plan; it has ended when the test has."""
    submitted = fmlms.submit(ServiceRequest(**{**ASKED, "data": DataNeeds(dataset="city")}), "planner")
    fmlms.next(only=submitted.id)
    fmlms.form(submitted.id)
    fmlms.configure(submitted.id, Training(algorithm={"model": "gru"}), MODEL)
    yield submitted.id
    if fmlms.follow(submitted.id).status in ("running", "preempted", "queued"):
        fmlms.fail(submitted.id, "the test is over")


def is_problem(answer, status, *words):
    """Whether an answer is a problem document (RFC 9457) that says these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert set(found) == {"type", "title", "status", "detail"}
    assert found["status"] == status
    for word in words:
        assert word in found["detail"]
    return True


def test_a_client_submits_follows_and_cancels(ask):
    client = ask("client", "planner")
    answer = client.post("/v1/requests", json=ASKED | {"name": "short", "priority": "high"})
    assert answer.status_code == 201
    submitted = answer.json()
    assert (submitted["status"], submitted["class"], submitted["position"]) == ("queued", "high", 1)
    place = answer.headers["Location"]
    assert client.get(place).json() == submitted
    assert client.get(f"{place}/properties").json()["total"]["cpus"] == 2
    assert submitted["id"] in [r["id"] for r in client.get("/v1/requests").json()]
    is_problem(client.get(f"{place}/model"), 404, "no trained model")
    is_problem(client.post("/v1/requests", json=ASKED | {"name": "short"}), 409, "you have a request 'short'")
    assert client.delete(place).json()["status"] == "cancelled"
    is_problem(client.delete(place), 409, "is cancelled already")


def test_the_model_comes_with_its_sha256_and_to_its_client_alone(ask, fmlms, running):
    fmlms.deliver(running, MODEL)
    answer = ask("client", "planner").get(f"/v1/requests/{running}/model")
    assert answer.content == MODEL
    digest = base64.b64encode(hashlib.sha256(MODEL).digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    rival = ask("client", "rival")
    for path in (f"/v1/requests/{running}", f"/v1/requests/{running}/model", f"/v1/requests/{running}/properties"):
        is_problem(rival.get(path), 404, "there is no request")
    is_problem(rival.delete(f"/v1/requests/{running}"), 404)
    is_problem(rival.get(f"/v1/topologies/{running}"), 404)
    assert rival.get("/v1/requests").json() == []
    assert ask("operator", "boss").get(f"/v1/requests/{running}/model").content == MODEL


def test_a_node_registers_reports_and_gets_its_plan(ask, fmlms, running):
    node = ask("node", "car1")
    plan = node.get("/v1/nodes/car1/plan", params={"request": running}).json()
    assert (plan["role"], plan["parent"], plan["operations"]) == ("data_owner", "hub", ["train"])
    assert plan["training"]["algorithm"] == {"model": "gru"}
    assert plan["initial_model"]["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert node.get("/v1/nodes/car1/initial-model", params={"request": running}).content == MODEL
    assert node.get(f"/v1/topologies/{running}").json()["owners"] == list(OWNERS)
    status = node.post("/v1/nodes/car1/status", json={"free": {"cpus": 0.5}}).json()
    assert (status["free"]["cpus"], status["reliability"]) == (0.5, 1.0)
    node.post("/v1/nodes/car1/status", json={"free": {"cpus": 1}})


def test_a_new_node_registers_itself_within_its_token(ask, running):
    node = ask("node", "new")
    mine = {"name": "new", "roles": ["data_owner"], "capacity": {"cpus": 4}}
    is_problem(node.post("/v1/nodes", json=mine | {"roles": ["coordinator"]}), 403, "rule 'role'")
    is_problem(node.post("/v1/nodes", json=mine | {"security": 5}), 403, "rule 'security'")
    is_problem(node.post("/v1/nodes", json=mine | {"name": "car2"}), 403, "rule 'scope'")
    is_problem(node.post("/v1/nodes/new/status", json={}), 404, "no node 'new' is registered")
    assert node.post("/v1/nodes", json=mine).status_code == 201
    is_problem(node.post("/v1/nodes", json=mine | {"capacity": {"cpus": 9}}), 409, "modify it")
    changed = node.put("/v1/nodes/new", json=mine | {"capacity": {"cpus": 9}}).json()
    assert changed["capacity"]["cpus"] == 9
    is_problem(node.put("/v1/nodes/new", json=mine | {"name": "old"}), 422, "keeps its name")
    is_problem(node.get("/v1/nodes/new/plan", params={"request": running}), 403, "rule 'assigned'")
    is_problem(node.get(f"/v1/topologies/{running}"), 404)
    holding = {"node": "new", "dataset": "elsewhere", "windows": 4}
    assert node.post("/v1/nodes/new/holdings", json=holding).status_code == 201
    is_problem(node.post("/v1/nodes/new/holdings", json=holding | {"node": "car0"}), 422, "speaks for itself")
    assert node.put("/v1/nodes/new/links", json=[{"source": "new", "target": "hub", "delay_ms": 3}]).status_code == 200
    is_problem(node.put("/v1/nodes/new/links", json=[{"source": "car0", "target": "hub", "up": False}]), 422, "begin at itself")
    known = {n["properties"]["name"]: n["status"]["alive"] for n in ask("operator", "boss").get("/v1/nodes").json()}
    assert known == dict.fromkeys(("hub", "new", *OWNERS), True)


def test_metadata_go_up_in_versions_and_are_read_by_whom_the_rules_allow(ask, running):
    owner, hub, other = ask("node", "car0"), ask("node", "hub"), ask("node", "car2")
    path, asked = "/v1/nodes/car0/metadata", {"dataset": "city"}
    assert owner.post(path, params=asked, json={"rows": 7}).json() == {"version": 1}
    assert owner.post(path, params=asked, json={"rows": 8}).json() == {"version": 2}
    assert owner.get(path, params=asked).json() == {"version": 2, "content": {"rows": 8}}
    assert hub.get(path, params=asked | {"request": running, "version": 1}).json()["content"] == {"rows": 7}
    is_problem(hub.get(path, params=asked), 403, "rule 'scope'")
    is_problem(other.get(path, params=asked | {"request": running}), 403, "rule 'operation': car2 is a data owner")
    is_problem(hub.get("/v1/nodes/new/metadata", params=asked | {"request": running}), 422, "no data owner of request")
    is_problem(owner.post(path, params=asked, content=b'{"x": NaN}', headers={"content-type": "application/json"}), 422, "NaN")


def test_a_node_cannot_fill_the_database(ask, monkeypatch):
    owner, asked = ask("node", "car1"), {"dataset": "full"}
    large = {"text": "x" * bounds.MOST_METADATA_BYTES}
    is_problem(owner.post("/v1/nodes/car1/metadata", params=asked, json=large), 413, "at most 262,144 are kept of one version")
    monkeypatch.setattr(bounds, "MOST_VERSIONS", 1)
    assert owner.post("/v1/nodes/car1/metadata", params=asked, json={}).status_code == 201
    is_problem(owner.post("/v1/nodes/car1/metadata", params=asked, json={}), 422, "1 versions of the metadata of 'full'")
    monkeypatch.setattr(bounds, "MOST_LINKS", 1)
    links = [{"source": "car1", "target": name} for name in ("a", "b")]
    is_problem(owner.put("/v1/nodes/car1/links", json=links), 422, "would have 2 links")
    monkeypatch.setattr(bounds, "MOST_DATASETS", 1)
    holding = {"node": "car1", "dataset": "another"}
    is_problem(owner.post("/v1/nodes/car1/holdings", json=holding), 422, "has told of 1 data sets")


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer cw_00_00", "Basic eDp5", "Bearer cw_é"])
def test_without_a_good_token_nothing_is_answered(url, header):
    headers = {"Authorization": header.encode()} if header else {}
    for path in ("/v1/requests", "/v1/nodes", "/v1/nodes/car0/plan?request=x", "/v1/topologies/x"):
        answer = httpx.get(url + path, headers=headers, trust_env=False)
        assert is_problem(answer, 401, "token")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_is_good_for_its_scope_and_until_it_is_revoked(ask, fmlms):
    is_problem(ask("client", "planner").get("/v1/nodes"), 403, "this is for operator, and the token is a client's")
    is_problem(ask("node", "car0").post("/v1/requests", json=ASKED), 403, "this is for client or operator")
    is_problem(ask("client", "planner").post("/v1/nodes/car0/status", json={}), 403, "rule 'scope'")
    leaving = ask("client", "leaving")
    assert leaving.get("/v1/requests").status_code == 200
    fmlms.revoke_token("leaving")
    is_problem(leaving.get("/v1/requests"), 401, "was revoked")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "x"}, ("data: Field required",)),
        (ASKED | {"prioritee": "high"}, ("prioritee: Extra inputs are not permitted",)),
        (ASKED | {"priority": "now"}, ("priority: Input should be 'high', 'medium' or 'low'",)),
        (ASKED | {"name": "../x"}, ("name: String should match",)),
        (ASKED | {"target": {"auc": 1}}, ("a regression is judged by mse",)),
        (ASKED | {"budget_s": -1}, ("budget_s",)),
        (ASKED | {"owners": ["a"], "least_owners": 2}, ("1 are named",)),
    ],
)
def test_bad_requests_say_what_is_wrong(ask, body, words):
    is_problem(ask("client", "planner").post("/v1/requests", json=body), 422, *words)


def test_bodies_that_are_no_json_or_too_large_or_endless(ask):
    client, json_ = ask("client", "planner"), {"content-type": "application/json"}
    is_problem(client.post("/v1/requests", content=b"{", headers=json_), 422, "JSON")
    is_problem(client.post("/v1/requests", content=b'{"budget_s": Infinity}', headers=json_), 422, "budget_s")
    assert client.post("/v1/requests", content=b"[" * 200_000, headers=json_).status_code in (400, 422)
    is_problem(client.post("/v1/requests", content=b"x" * (1 << 21), headers=json_), 413, "at most 1,048,576 bytes")

    def chunks():
        for _ in range(40):
            yield b"x" * 65_536

    answer = client.post("/v1/requests", content=chunks(), headers=json_)  # no length is declared
    is_problem(answer, 413, "at most 1,048,576 bytes")


def test_unknown_paths_and_methods_are_problems_too(ask):
    is_problem(ask("operator", "boss").get("/v2/nothing"), 404, "GET /v2/nothing")
    is_problem(ask("operator", "boss").patch("/v1/requests"), 405)


def test_openapi_describes_every_operation_and_its_errors(ask):
    found = ask().get("/openapi.json").json()
    operations = [op for path in found["paths"].values() for op in path.values()]
    assert len(operations) >= 17
    assert all(op["summary"] and op["description"] for op in operations)
    assert all("application/problem+json" in op["responses"]["403"]["content"] for op in operations)
    guarded = [p for p, ops in found["paths"].items() for op in ops.values() if "security" not in op]
    assert guarded == ["/healthz"]
    assert ask().get("/docs").status_code == 404  # that page would load scripts from elsewhere


def test_health_reads_the_database(ask):
    assert ask().get("/healthz").json()["status"] == "ok"


def test_an_operator_sees_why_nodes_were_chosen(ask, running):
    found = ask("operator", "boss").get(f"/v1/requests/{running}/choices").json()
    assert {c["node"] for c in found if c["chosen"]} == set(OWNERS)
    assert all(c["reasons"] for c in found)
    is_problem(ask("client", "planner").get(f"/v1/requests/{running}/choices"), 403)


def test_the_coordinators_hooks_see_what_came_over_the_api(ask, fmlms, running):
    """Between rounds: nothing, then a node's own report, then the client's cancellation."""
    asked = between(fmlms, running)
    assert asked(1) is None
    assert ask("client", "planner").get(f"/v1/requests/{running}").json()["rounds"] == 1
    ask("node", "car2").post("/v1/nodes/car2/status", json={"alive": False, "reason": "maintenance"})
    found = asked(2)
    assert (found.kind, found.topology.owners) == ("topology", ("car0", "car1"))
    assert "maintenance" in found.reason
    ask("node", "car2").post("/v1/nodes/car2/status", json={})
    back = rebuild(fmlms, running)(found.topology, frozenset(), "car2 came back")
    assert (back.owners, back.version) == (OWNERS, 3)
    out = rebuild(fmlms, running)(back, frozenset({"car0"}), "car0 dropped: harmful")
    assert out.owners == ("car1", "car2")
    assert fmlms.statuses()["car0"].alive  # it is out of this request alone
    ask("client", "planner").delete(f"/v1/requests/{running}")
    found = asked(3)
    assert (found.kind, found.reason) == ("cancel", "the request is cancelled: cancelled by planner")


def test_a_more_urgent_request_pauses_a_running_one_at_the_round_boundary(ask, fmlms, running):
    rush = ask("client", "rush").post(
        "/v1/requests", json=ASKED | {"priority": "high", "importance": 10, "owners": list(OWNERS), "least_owners": 3}
    )
    found = between(fmlms, running)(1)
    assert found.kind == "pause"
    assert fmlms.follow(running).status == "preempted"
    assert fmlms.next().id == rush.json()["id"]
    fmlms.fail(rush.json()["id"], "the test is over")


# ---- how it is served -----------------------------------------------------------------------------------------------------------


def test_plain_http_is_offered_to_this_machine_alone(fmlms, tmp_path):
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(WrongUse, match="in the open"), in_thread(fmlms, host):
            pass
    with pytest.raises(WrongUse, match="give both --cert and --key"):
        serve(fmlms, "127.0.0.1", 0, certificate=tmp_path / "c.pem")
    (tmp_path / "c.pem").write_text("nothing")
    with pytest.raises(WrongUse, match="no certificate with its key"):
        serve(fmlms, "127.0.0.1", 0, certificate=tmp_path / "c.pem", key=tmp_path / "c.pem")


def test_a_taken_port_is_a_clear_error(fmlms):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FederationError, match=r"cannot listen on 127\.0\.0\.1:"):
        serve(fmlms, "127.0.0.1", taken.getsockname()[1])


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


def test_over_tls(fmlms, tmp_path):
    cert, key = certificate(tmp_path)
    with in_thread(fmlms, certificate=cert, key=key) as url:
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=cert)
        assert httpx.get(f"{url}/healthz", verify=trusting, trust_env=False).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz", trust_env=False)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{url.replace('https', 'http')}/healthz", trust_env=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("dataset: city\n")
    monkeypatch.setenv("CELLWRIGHT_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def command():
    app = typer.Typer()
    federation_server.add_to(app)
    return app


def test_tokens_are_made_listed_and_revoked_on_the_command_line(project, command):
    run = CliRunner()
    made = run.invoke(command, ["token", "new", "hub", "--scope", "node", "--role", "coordinator", "--security", "3"])
    assert made.exit_code == 0, made.output
    token = made.output.strip()
    listed = json.loads(run.invoke(command, ["token", "list", "--json"]).output)
    assert [(t["name"], t["scope"], t["ceiling"]["security"], t["revoked"]) for t in listed] == [("hub", "node", 3, False)]
    assert token.split("_", 2)[2] not in json.dumps(listed)
    assert "revoked" in run.invoke(command, ["token", "revoke", "hub"]).output
    assert isinstance(run.invoke(command, ["token", "new", "x", "--scope", "king"]).exception, WrongUse)
    assert isinstance(run.invoke(command, ["token", "new", "x", "--role", "king"]).exception, WrongUse)
    assert isinstance(run.invoke(command, ["serve", "--host", "0.0.0.0"]).exception, WrongUse)


def test_the_command_serves_until_it_is_stopped(project, command):
    token = CliRunner().invoke(command, ["token", "new", "boss", "--scope", "operator"]).output.strip()
    code = "import typer; from flows._cli import federation_server as f; app = typer.Typer(); f.add_to(app); app()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        url = line.split("FMLMS on ")[1].split(":/v1")[0].partition(": ")[0]
        answer = httpx.get(f"{url}/v1/nodes", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert answer.json() == []
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert not (project / ".cellwright" / "federation" / "storage.key").stat().st_mode & 0o077
