"""The FMLMS as functions (M.3387 8.1-8.5, 9.1): over one SQLite database that several processes use, with migrations."""

import subprocess
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pytest
import sqlalchemy as sa
from safetensors.numpy import load, save

from cellwright.errors import FederationError, Refused, WrongUse
from cellwright.federation.data.keyring import FileKey
from cellwright.federation.data.vault import Vault
from cellwright.federation.management import bounds
from cellwright.federation.management.delivery import BUNDLE, SAFETENSORS
from cellwright.federation.management.permissions import SecurityRules
from cellwright.federation.management.records import (
    Capacity,
    DataNeeds,
    Holding,
    Link,
    NodeProperties,
    ServiceRequest,
    Training,
)
from cellwright.federation.management.refusals import Conflict, NotAllowed, NotFound, NotKnown, TooLarge
from cellwright.federation.management.scheduling import BOUND_S
from cellwright.federation.management.service import Fmlms
from cellwright.federation.management.store import Store, migrate, migration_sql
from cellwright.federation.management.tables import schema
from cellwright.federation.management.tokens import Ceiling

HUB = NodeProperties(name="hub", roles=("coordinator",), layer="cloud", security=3)
AUDITOR = NodeProperties(name="watch", roles=("auditor",), layer="cloud", security=3)
OWNERS = tuple(NodeProperties(name=f"car{i}", roles=("data_owner",), capacity=Capacity(cpus=2, disk_bytes=100)) for i in range(4))
MODEL = save({"w": np.arange(3, dtype=np.float32)})


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now

    def move(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fmlms(tmp_path, clock):
    with Fmlms(f"sqlite:///{tmp_path / 'f.db'}", clock=clock, silent_s=60) as made:
        made.register(HUB, AUDITOR, *OWNERS)
        made.declare(*(Holding(node=o.name, dataset="city", windows=100) for o in OWNERS))
        yield made


def asked(name="load", **more):
    return ServiceRequest(**{"name": name, "data": DataNeeds(dataset="city")} | more)


def running(fmlms, name="load", client="planner", kind="star", **more):
    """A request that runs, with its topology."""
    submitted = fmlms.submit(asked(name, **more), client)
    assert fmlms.next(only=submitted.id) is not None
    fmlms.form(submitted.id, kind)
    return submitted.id


def test_a_request_from_its_submission_to_the_model(fmlms, clock):
    submitted = fmlms.submit(asked(priority="high", target={"mse": 4.0}), "planner")
    assert (submitted.status, submitted.class_, submitted.position) == ("queued", "high", 1)
    clock.move(5)
    start = fmlms.next()
    assert start.id == submitted.id
    assert start.nodes == ("car0", "car1", "car2", "car3")
    assert "waited 5 s; runs on 4 nodes" in start.words
    topology = fmlms.form(submitted.id)
    assert (topology.coordinator, topology.auditor, topology.owners) == ("hub", "watch", start.nodes)
    assert fmlms.progress(submitted.id, 7).rounds == 7
    file = fmlms.deliver(submitted.id, MODEL, run="artifacts/x", reason="the target is reached")
    done = fmlms.follow(submitted.id, "planner")
    assert (done.status, done.run, done.reason, done.started) == ("finished", "artifacts/x", "the target is reached", clock.now)
    got, content = fmlms.model(submitted.id, "planner")
    assert got == file
    assert got.media_type == SAFETENSORS
    assert load(content)["w"].tolist() == [0, 1, 2]


def test_task_properties_add_up_what_all_owners_need(fmlms):
    need = Capacity(cpus=1.5, gpus=0, bandwidth_bps=1e6, disk_bytes=40)
    submitted = fmlms.submit(asked(per_node=need, delay_bound_s=900, importance=7), "planner")
    fewest = fmlms.properties(submitted.id)
    assert (fewest.owners, fewest.total) == (2, Capacity(cpus=3, gpus=0, bandwidth_bps=2e6, disk_bytes=80))
    assert (fewest.task, fewest.priority, fewest.delay_bound_s) == ("regression", "medium", 900)


def test_what_contradicts_itself_is_refused(fmlms):
    with pytest.raises(Refused, match="target auc: a regression is judged by mse, mae, rmse"):
        fmlms.submit(asked(target={"auc": 0.9}), "planner")
    with pytest.raises(Refused, match="at least 3 owners are asked for, and 2 are named"):
        fmlms.submit(asked(least_owners=3, owners=("car0", "car1")), "planner")
    assert fmlms.requests() == ()


def test_conflicting_requests_get_a_clear_answer(fmlms):
    first = fmlms.submit(asked(owners=("car0", "car1"), exclusive=True), "planner")
    with pytest.raises(Conflict, match=f"you have a request 'load' that is queued .{first.id}."):
        fmlms.submit(asked(), "planner")
    with pytest.raises(Conflict, match="data owners car1: another request has them to itself") as error:
        fmlms.submit(asked("other", owners=("car1", "car2")), "rival")
    assert "load" not in str(error.value)
    fmlms.submit(asked("load", owners=("car2", "car3")), "rival")  # the same name, another client
    with pytest.raises(Conflict, match="your request 'load' uses them, and this one wants them to itself"):
        fmlms.submit(asked("alone", owners=("car2", "car3"), exclusive=True), "rival")
    fmlms.cancel(first.id, "planner")
    assert fmlms.submit(asked(), "planner").status == "queued"


def test_a_client_has_a_bounded_number_of_active_requests(fmlms, monkeypatch):
    monkeypatch.setattr("cellwright.federation.management.interface1.MOST_ACTIVE", 2)
    for name in ("one", "two"):
        fmlms.submit(asked(name), "planner")
    with pytest.raises(Conflict, match="2 requests of yours wait or run, at most 2"):
        fmlms.submit(asked("three"), "planner")
    assert fmlms.submit(asked("three"), "other").status == "queued"
    assert len(fmlms.requests(limit=2)) == 2


def test_a_client_never_sees_the_request_of_another(fmlms):
    mine = running(fmlms)
    fmlms.deliver(mine, MODEL)
    for look in (fmlms.follow, fmlms.cancel, fmlms.model):
        with pytest.raises(NotFound, match="there is no request"):
            look(mine, "rival")
    assert fmlms.requests("rival") == ()
    assert [s.id for s in fmlms.requests("planner")] == [mine]


def test_cancelled_and_ended_requests_stay_so(fmlms):
    request = running(fmlms)
    assert fmlms.cancel(request, "planner").status == "cancelled"
    assert fmlms.progress(request, 3).status == "cancelled"  # how the coordinator learns of it
    with pytest.raises(Conflict, match="is cancelled; a model is delivered for one that runs"):
        fmlms.deliver(request, MODEL)
    with pytest.raises(Conflict, match="is cancelled already"):
        fmlms.cancel(request, "planner")
    with pytest.raises(NotFound, match="has no trained model: it is cancelled"):
        fmlms.model(request, "planner")


def test_only_models_are_delivered(fmlms, tmp_path):
    request = running(fmlms)
    with pytest.raises(Refused, match="neither"):
        fmlms.deliver(request, b"\x80\x04\x95pickle")
    with pytest.raises(Refused, match=r"oci-layout, index\.json missing"):
        fmlms.deliver(request, tmp_path)
    bundle = tmp_path / "bundle"
    (bundle / "blobs").mkdir(parents=True)
    (bundle / "oci-layout").write_text("{}")
    (bundle / "index.json").write_text("[]")
    (bundle / "blobs" / "model").write_bytes(b"123")
    (bundle / "link").symlink_to("/etc/hostname")
    assert fmlms.deliver(request, bundle).media_type == BUNDLE
    with tarfile.open(fileobj=BytesIO(fmlms.model(request)[1])) as tar:
        assert tar.getnames() == ["blobs/model", "index.json", "oci-layout"]


def test_a_model_that_was_altered_is_not_given_out(fmlms):
    request = running(fmlms)
    fmlms.deliver(request, MODEL)
    with fmlms.store.write() as connection:
        connection.execute(sa.update(schema.tables["models"]).values(content=MODEL[:-1] + b"\x00"))
    with pytest.raises(FederationError, match="does not match its SHA-256"):
        fmlms.model(request)


def test_a_vault_keeps_models_and_metadata_from_lying_open(tmp_path):
    with Fmlms(f"sqlite:///{tmp_path / 'v.db'}", vault=Vault(FileKey(tmp_path / "storage.key"))) as made:
        made.register(HUB, *OWNERS)
        made.declare(*(Holding(node=o.name, dataset="city", windows=1) for o in OWNERS))
        request = running(made)
        made.deliver(request, MODEL)
        made.store_metadata("car0", "city", b'{"rows": 7}')
        lying = b"".join(file.read_bytes() for file in tmp_path.glob("v.db*"))
        assert MODEL not in lying
        assert b'"rows": 7' not in lying
        assert made.model(request)[1] == MODEL
        assert made.metadata("car0", "city") == (1, b'{"rows": 7}')
    other = Vault(FileKey(tmp_path / "other.key"))
    with Fmlms(f"sqlite:///{tmp_path / 'v.db'}", vault=other) as made, pytest.raises(FederationError, match="is sealed with key"):
        made.model(request)


# ---- nodes (8.2, 8.3) ---------------------------------------------------------------------------------------------------------


def test_nodes_are_registered_once_and_their_properties_modified(fmlms):
    fmlms.register(HUB)  # the same again
    with pytest.raises(Conflict, match="'hub' with other properties is registered"):
        fmlms.register(HUB.model_copy(update={"security": 5}))
    faster = OWNERS[0].model_copy(update={"capacity": Capacity(cpus=8, gpus=1, bandwidth_bps=1e9, reserved_bytes=5)})
    fmlms.modify(faster)
    assert next(n for n in fmlms.nodes() if n.name == "car0").capacity == faster.capacity
    with pytest.raises(NotFound, match="no node 'ghost'"):
        fmlms.modify(HUB.model_copy(update={"name": "ghost"}))


def test_a_node_claims_no_more_than_its_token_allows(fmlms):
    given = Ceiling(roles=("data_owner",), security=1)
    with pytest.raises(NotAllowed, match="rule 'role': new claims to be coordinator"):
        fmlms.register(NodeProperties(name="new", roles=("coordinator",)), ceiling=given)
    with pytest.raises(NotAllowed, match="rule 'security': new claims level 4"):
        fmlms.register(NodeProperties(name="new", roles=("data_owner",), security=4), ceiling=given)
    keyed = NodeProperties(name="new", roles=("data_owner",), public_key="aa")
    fmlms.register(keyed, ceiling=given)
    with pytest.raises(NotAllowed, match="rule 'key'"):
        fmlms.modify(keyed.model_copy(update={"public_key": "bb"}), ceiling=given)
    fmlms.modify(keyed.model_copy(update={"public_key": "bb"}))  # the operator


def test_a_heartbeat_does_not_change_what_others_say_of_a_node(fmlms, clock):
    fmlms.rate("car0", reliability=0.9, contribution=0.5, reward=2.0, rounds=3)
    clock.move(1)
    said = fmlms.heartbeat("car0", free=Capacity(cpus=1))
    assert (said.reliability, said.contribution, said.reward, said.rounds) == (0.9, 0.5, 2.0, 3)
    assert (said.free.cpus, said.seen) == (1, clock.now)


def test_a_node_that_falls_silent_is_taken_as_dead_until_it_is_heard_again(fmlms, clock):
    clock.move(61)
    for name in ("hub", "watch", "car0", "car1"):
        fmlms.heartbeat(name)
    statuses = fmlms.statuses()
    assert (statuses["car0"].alive, statuses["car2"].alive) == (True, False)
    assert statuses["car2"].reason == "not heard of for 61 s"
    submitted = fmlms.submit(asked(), "planner")
    assert fmlms.next(only=submitted.id).nodes == ("car0", "car1")
    fmlms.heartbeat("car2")
    assert fmlms.statuses()["car2"].alive


def test_permissions_follow_roles_and_rules_and_can_be_revoked(fmlms):
    request = running(fmlms)
    assert fmlms.authorise("car0", "train", request).role == "data_owner"
    assert fmlms.authorise("hub", "aggregate", request).role == "coordinator"
    with pytest.raises(NotAllowed, match="rule 'operation': car0 is a data owner, which may do train, not audit"):
        fmlms.authorise("car0", "audit", request)
    fmlms.rate("car0", reliability=0.1)
    with pytest.raises(NotAllowed, match="rule 'reliability'"):
        fmlms.authorise("car0", "train", request)
    fmlms.revoke("car1", request, "asked to leave")
    with pytest.raises(NotAllowed, match="rule 'assigned'"):
        fmlms.authorise("car1", "train", request)
    with pytest.raises(NotAllowed, match="rule 'known'"):
        fmlms.authorise("ghost", "train", request)


def test_the_plan_tells_a_node_all_it_must_know(fmlms):
    request = running(fmlms)
    training = Training(
        algorithm={"model": "gru", "learning_rate": 0.003},
        aggregation={"rule": "fedavg", "timing": "synchronous", "rounds": 5},
        privacy={"local_dp": {"epsilon": 8}},
        channel={"tls": True, "compression": "int8"},
    )
    fmlms.configure(request, training, MODEL)
    plan = fmlms.plan_for("car1", request)
    assert (plan.role, plan.operations, plan.parent, plan.children) == ("data_owner", ("train",), "hub", ())
    assert (plan.training, plan.properties, plan.topology) == (training, OWNERS[1], fmlms.topology(request))
    assert plan.task.owners == 4
    assert fmlms.initial_model("car1", request) == (plan.initial_model, MODEL)
    assert fmlms.plan_for("hub", request).children == ("car0", "car1", "car2", "car3")
    fmlms.register(NodeProperties(name="stranger", roles=("data_owner",)))
    with pytest.raises(NotAllowed, match="rule 'assigned': stranger takes no part"):
        fmlms.plan_for("stranger", request)


def test_metadata_are_versioned(fmlms):
    assert [fmlms.store_metadata("car0", "city", content) for content in (b"{}", b'{"a": 1}')] == [1, 2]
    assert fmlms.metadata("car0", "city") == (2, b'{"a": 1}')
    assert fmlms.metadata("car0", "city", 1) == (1, b"{}")
    with pytest.raises(NotFound, match="no metadata of 'milan'"):
        fmlms.metadata("car0", "milan")
    with pytest.raises(NotFound, match="in version 3"):
        fmlms.metadata("car0", "city", 3)


def test_links_of_a_node_are_bounded_and_those_known_are_replaced(fmlms, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_LINKS", 3)
    fmlms.set_links(Link(source="car0", target=f"n{i}") for i in range(3))
    fmlms.set_links([Link(source="car0", target="n1", delay_ms=7), Link(source="car1", target="n9")])
    with pytest.raises(Refused, match="car0 would have 4 links, at most 3"):
        fmlms.set_links([Link(source="car1", target="n8"), Link(source="car0", target="n3")])
    assert len(fmlms.links()) == 4  # nothing of a report that is refused is kept


def test_data_sets_of_a_node_are_bounded(fmlms, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_DATASETS", 2)
    fmlms.declare(Holding(node="car0", dataset="milan"), Holding(node="car0", dataset="city", windows=7))
    with pytest.raises(Refused, match="car0 has told of 2 data sets, at most 2"):
        fmlms.declare(Holding(node="car0", dataset="third"))
    fmlms.declare(Holding(node="car1", dataset="third"))
    for name in ("a", "b"):
        fmlms.store_metadata("car0", name, b"{}")
    with pytest.raises(Refused, match="'c' is one more"):
        fmlms.store_metadata("car0", "c", b"{}")


def test_metadata_of_a_node_are_bounded_in_bytes_and_versions(fmlms, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_METADATA_BYTES", 10)
    monkeypatch.setattr(bounds, "MOST_NODE_BYTES", 25)
    monkeypatch.setattr(bounds, "MOST_VERSIONS", 3)
    with pytest.raises(TooLarge, match="11 bytes, at most 10"):
        fmlms.store_metadata("car0", "city", b"x" * 11)
    assert [fmlms.store_metadata("car0", name, b"x" * 10) for name in ("city", "milan")] == [1, 1]
    with pytest.raises(Refused, match="take 20 bytes already, at most 25"):
        fmlms.store_metadata("car0", "city", b"x" * 6)
    assert [fmlms.store_metadata("car0", "city", b"x") for _ in range(2)] == [2, 3]
    with pytest.raises(Refused, match="has given 3 versions of the metadata of 'city'"):
        fmlms.store_metadata("car0", "city", b"x")
    assert fmlms.store_metadata("car1", "city", b"x" * 10) == 1
    assert fmlms.metadata("car0", "city") == (3, b"x")


# ---- topology and queue over the database --------------------------------------------------------------------------------------


def test_a_failed_node_is_taken_out_its_permission_revoked_and_every_version_kept(fmlms):
    request = running(fmlms)
    assert fmlms.tend(request).version == 1
    fmlms.heartbeat("car3", alive=False, reason="battery")
    new = fmlms.tend(request, "round 2")
    assert (new.version, new.owners) == (2, ("car0", "car1", "car2"))
    assert new.reason == "round 2: car3 left (it is not alive (battery))"
    with pytest.raises(NotAllowed, match="rule 'assigned'"):
        fmlms.authorise("car3", "train", request)
    fmlms.heartbeat("car3")
    back = fmlms.tend(request, owners=("car0", "car1", "car2", "car3"))
    assert (back.version, back.reason) == (3, "car3 joined to hub")
    assert fmlms.authorise("car3", "train", request)
    assert [t.version for t in fmlms.topologies(request)] == [1, 2, 3]
    assert fmlms.topology(request, 2) == new


def test_a_hierarchy_uses_the_edges_and_a_degraded_link_moves_an_owner(fmlms):
    edges = [NodeProperties(name=n, roles=("coordinator",), layer="edge", security=2) for n in ("rsu-a", "rsu-b")]
    fmlms.register(*edges)
    fast, slow = 1e8, 1e7
    fmlms.set_links(Link(source=o.name, target="rsu-a", bandwidth_bps=fast) for o in OWNERS[:2])
    fmlms.set_links(Link(source=o.name, target="rsu-b", bandwidth_bps=fast) for o in OWNERS[2:])
    request = running(fmlms, kind="hierarchy")
    assert fmlms.topology(request).regions == {"rsu-a": ("car0", "car1"), "rsu-b": ("car2", "car3")}
    assert fmlms.plan_for("rsu-a", request).operations == ("aggregate", "read_metadata")
    fmlms.set_links(
        [Link(source="car0", target="rsu-a", bandwidth_bps=slow), Link(source="car0", target="rsu-b", bandwidth_bps=fast)]
    )
    assert fmlms.tend(request, "slow link").regions == {"rsu-a": ("car1",), "rsu-b": ("car0", "car2", "car3")}


def test_too_few_left_is_an_error_and_the_topology_stays(fmlms):
    request = running(fmlms, least_owners=4)
    fmlms.heartbeat("car3", alive=False)
    with pytest.raises(FederationError, match="3 data owners are left, at least 4"):
        fmlms.tend(request)
    assert fmlms.topology(request).version == 1


def test_requests_share_nodes_and_the_third_waits_and_says_why(fmlms):
    first, second = running(fmlms, "one"), running(fmlms, "two")  # each node has two CPUs
    third = fmlms.submit(asked("three"), "planner")
    assert fmlms.next() is None
    assert "found 0 that are fit" in fmlms.follow(third.id).reason
    fmlms.deliver(first, MODEL)
    assert fmlms.next().id == third.id
    assert fmlms.follow(second).status == "running"
    assert {c.node for c in fmlms.choices(third.id) if c.chosen} == {o.name for o in OWNERS}


def test_an_urgent_request_pauses_a_running_one_which_goes_on_later(fmlms, clock):
    calm = running(fmlms, "calm", priority="low", per_node=Capacity(cpus=2))
    rush = fmlms.submit(asked("rush", priority="high", importance=10, per_node=Capacity(cpus=2)), "other")
    assert fmlms.should_preempt(calm, 0) is None
    assert fmlms.should_preempt(calm, 4).by == rush.id
    paused = fmlms.follow(calm)
    assert (paused.status, paused.rounds, paused.position) == ("preempted", 4, 2)
    assert fmlms.next(only=calm) is None
    assert fmlms.next().id == rush.id
    fmlms.deliver(rush.id, MODEL)
    assert fmlms.next(only=calm).id == calm
    assert fmlms.follow(calm).started == clock.now


def test_a_coordinator_that_comes_back_gets_its_request_again(fmlms):
    request = running(fmlms)
    again = fmlms.next(only=request)
    assert (again.id, again.nodes) == (request, ("car0", "car1", "car2", "car3"))


def test_a_request_that_fits_beside_what_is_ahead_of_it_can_be_started_by_name(fmlms):
    fmlms.submit(asked("ahead", priority="high"), "planner")
    beside = fmlms.submit(asked("beside"), "planner")
    assert fmlms.next(only=beside.id).id == beside.id  # two CPUs a node: there is room for both
    third = fmlms.submit(asked("third", priority="low"), "planner")
    assert fmlms.next(only=third.id) is None


def test_ageing_works_over_the_database(fmlms, clock):
    low = fmlms.submit(asked("low", priority="low", importance=0), "planner")
    clock.move(BOUND_S + 1)
    fmlms.submit(asked("rush", priority="high", importance=10, delay_bound_s=10), "planner")
    assert next(s.id for s in fmlms.queue()) == low.id


def test_the_only_node_that_can_coordinate_is_kept_out_of_the_owners(tmp_path):
    nodes = [NodeProperties(name=f"n{i}", roles=("coordinator", "data_owner"), security=2) for i in range(3)]
    with Fmlms(f"sqlite:///{tmp_path / 'f.db'}") as made:
        made.register(*nodes)
        request = made.submit(asked(), "planner").id
        assert made.next(only=request, any_data=True).nodes == ("n1", "n2")
        assert made.form(request).coordinator == "n0"


def test_without_a_coordinator_no_topology_is_made(tmp_path):
    with Fmlms(f"sqlite:///{tmp_path / 'f.db'}", rules=SecurityRules()) as made:
        made.register(*OWNERS, HUB.model_copy(update={"security": 1}))
        request = made.submit(asked(), "planner").id
        made.next(only=request, any_data=True)
        with pytest.raises(FederationError, match="no node can be coordinator"):
            made.form(request)


# ---- tokens --------------------------------------------------------------------------------------------------------------------


def test_tokens_are_known_by_their_hash_alone_and_can_be_revoked(fmlms, tmp_path):
    token = fmlms.new_token("node", "car0", ceiling=Ceiling(security=3))
    who = fmlms.authenticate(token)
    assert (who.scope, who.name, who.ceiling.security) == ("node", "car0", 3)
    secret = token.split("_", 2)[2]
    assert len(secret) >= 43  # 256 bits
    assert not [f for f in tmp_path.iterdir() if token.encode() in f.read_bytes()]
    other = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (other, token + "A", "", "cw_", "cw__", f"cw_{who.id}_", "cw_%_x", secret):
        with pytest.raises(NotKnown):
            fmlms.authenticate(wrong)
    assert [t.name for t in fmlms.revoke_token("car0")] == ["car0"]
    with pytest.raises(NotKnown, match="wrong or was revoked"):
        fmlms.authenticate(token)
    with pytest.raises(NotFound):
        fmlms.revoke_token("car0")
    assert [t.revoked for t in fmlms.tokens()] == [True]


# ---- the database ---------------------------------------------------------------------------------------------------------------

WORKER = """
import sys
from cellwright.federation.management.records import DataNeeds, ServiceRequest
from cellwright.federation.management.service import Fmlms
url, me = sys.argv[1:]
with Fmlms(url) as fmlms:
    for i in range(15):
        fmlms.submit(ServiceRequest(name=f"{me}-{i}", data=DataNeeds(dataset="city")), me)
        fmlms.store_metadata("car0", "city", me.encode())
        while (start := fmlms.next()) is not None:
            print(start.id)
            fmlms.fail(start.id, "no more")
"""


def test_two_processes_on_one_new_database_lose_nothing_and_start_each_request_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'new' / 'shared.db'}"
    with Fmlms(url) as made:
        made.register(HUB, *OWNERS)
        made.declare(*(Holding(node=o.name, dataset="city", windows=1) for o in OWNERS))
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, url, f"p{i}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for i in range(2)
        ]
        outs = [worker.communicate(timeout=120) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], outs
        started = [line for out, _err in outs for line in out.split()]
        assert len(started) == len(set(started)) == 30
        assert {s.status for s in made.requests()} == {"failed"}
        assert len(made.requests()) == 30
        assert made.metadata("car0", "city")[0] == 30


def columns(engine):
    found = sa.inspect(engine)
    return {t: {c["name"] for c in found.get_columns(t)} for t in found.get_table_names() if t != "alembic_version"}


def test_migrations_lead_from_nothing_to_the_tables_that_are_used(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'f.db'}")
    assert columns(store.engine) == {t.name: set(t.columns.keys()) for t in schema.sorted_tables}
    store.close()


def test_a_database_of_version_1_keeps_what_it_holds(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        migrate(connection, "0001")
        assert "raw_metadata" not in columns(connection)
        request = asked("kept").model_dump_json().replace('"exclusive":false,', "")  # as version 1 wrote it
        connection.execute(
            sa.text(
                "INSERT INTO requests (id, client, name, status, class, submitted_s, rounds, reason, run, document, nodes, training) "
                "VALUES ('old', 'planner', 'kept', 'queued', 'normal', 1000.5, 0, '', '', :document, '[]', '{}')"
            ),
            {"document": request},
        )
    engine.dispose()
    with Fmlms(url) as made:
        assert made.follow("old").request == asked("kept")
        assert made.choices("old") == ()
        made.register(OWNERS[0])
        assert made.store_metadata("car0", "city", b"{}") == 1
    with Fmlms(url) as made:  # opened again: nothing to migrate
        assert made.metadata("car0", "city") == (1, b"{}")


def test_the_statements_for_postgresql_can_be_written_out_without_a_server():
    text = migration_sql("postgresql")
    assert "CREATE TABLE requests" in text
    assert "WHERE status IN ('queued', 'running', 'preempted')" in text
    assert "BYTEA" in text


def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'f.db'}"
    Store(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(FederationError, match="not known here"):
        Store(url)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("nonsense", WrongUse, "must be an SQLAlchemy URL"),
        ("sqlite://", WrongUse, "name a file"),
        ("oracle+nothing://x/y", FederationError, "no driver"),
    ],
)
def test_a_database_that_cannot_be_meant_is_a_clear_error(url, error, words):
    with pytest.raises(error, match=words):
        Store(url)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "f.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(FederationError, match="cannot be used"):
        Store(f"sqlite:///{tmp_path / 'f.db'}")
