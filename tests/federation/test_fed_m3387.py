"""What clauses 8 to 10 of ITU-T M.3387 ask and no other test shows by itself; docs/m3387.md lists which test shows which clause."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from cellwright.federation import messages
from cellwright.federation.aggregation import rule
from cellwright.federation.compression import codec
from cellwright.federation.contract import Evaluation, Instruction, Local, NodeState
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.initial import initial, task_for
from cellwright.federation.management.opening import open_fmlms
from cellwright.federation.management.permissions import SecurityRules, rules_from
from cellwright.federation.management.records import Capacity, DataNeeds, Link, NodeProperties, NodeStatus, ServiceRequest
from cellwright.federation.management.selection import choose
from cellwright.federation.management.serve import in_thread
from cellwright.federation.management.service import Fmlms
from cellwright.federation.owner import DataOwner, OwnerKit
from cellwright.federation.planning import request_of
from cellwright.federation.quality.classification import histograms
from cellwright.federation.rounds import Rounds
from cellwright.federation.runtimes.local import open_channel
from cellwright.forecaster import Forecaster
from cellwright.steps.train import train
from cellwright.workspace import Workspace

HUB = NodeProperties(name="hub", roles=("coordinator",), layer="cloud", security=3)
WATCH = NodeProperties(name="watch", roles=("auditor",), layer="cloud", security=3)
OWNERS = tuple(NodeProperties(name=f"car{i}", roles=("data_owner",), capacity=Capacity(cpus=2)) for i in range(2))
RESOURCES = ("cpus", "gpus", "memory_bytes", "bandwidth_bps", "transmit_power_w", "disk_bytes", "reserved_bytes")
MODEL = save({"w": np.arange(3, dtype=np.float32)})


def asked(**more: object) -> ServiceRequest:
    return ServiceRequest(**{"name": "load", "data": DataNeeds(dataset="city"), **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fmlms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fmlms]:
    """Data owners may read each other's metadata here: the security rules say so."""
    owner = {"security": 1, "reliability": 0.5, "operations": ["train", "read_metadata"]}
    url = f"sqlite:///{tmp_path_factory.mktemp('m3387') / 'f.db'}"
    with Fmlms(url, rules=rules_from({"data_owner": owner})) as made:
        made.register(HUB, WATCH, *OWNERS)
        yield made


@pytest.fixture
def running(fmlms: Fmlms) -> Iterator[str]:
    """A request that runs, with its topology."""
    request = fmlms.submit(asked(), "planner").id
    fmlms.next(only=request, any_data=True)
    fmlms.form(request)
    yield request
    fmlms.fail(request, "the test is over")


@pytest.fixture(scope="module")
def car(fmlms: Fmlms) -> Iterator[httpx.Client]:
    """Interface 2 over HTTP, with the token of car0."""
    with in_thread(fmlms) as url:
        token = {"Authorization": f"Bearer {fmlms.new_token('node', 'car0')}"}
        with httpx.Client(base_url=url, headers=token, trust_env=False) as client:
            yield client


# ---- 8.1 to 8.3: properties and capacities --------------------------------------------------------------------------------------


def test_8_1_1_type_and_priority_of_the_task_are_those_of_the_request(fmlms, make_params, panel):
    given = {"task": "classification", "target": {"auc": 0.9}, "priority": "high", "importance": 10, "delay_bound_s": 60}
    submitted = fmlms.submit(request_of(make_params(federation=given), panel.schema, "typed"), "planner")
    found = fmlms.properties(submitted.id)
    assert (found.task, found.priority, found.class_, found.delay_bound_s) == ("classification", "high", "urgent", 60)
    assert submitted.request.target == {"auc": 0.9}
    fmlms.cancel(submitted.id)


@pytest.mark.parametrize("resource", RESOURCES)
def test_8_1_2_each_capacity_of_a_task_is_that_of_all_its_owners(fmlms, resource):
    submitted = fmlms.submit(asked(name="big", per_node=Capacity(**{"cpus": 0, resource: 3}), least_owners=4), "planner")
    assert getattr(fmlms.properties(submitted.id).total, resource) == 12
    fmlms.cancel(submitted.id)


@pytest.mark.parametrize("resource", RESOURCES)
def test_8_2_a_node_is_left_out_for_each_resource_of_which_it_has_too_little(resource):
    need = {"cpus": 0, resource: 3}
    statuses = {
        "has": NodeStatus(node="has", free=Capacity(**need)),
        "lacks": NodeStatus(node="lacks", free=Capacity(**{**need, resource: 2})),
    }
    nodes = [NodeProperties(name=name, roles=("data_owner",)) for name in statuses]
    found = {c.node: c for c in choose(asked(per_node=Capacity(**need), least_owners=1), nodes, statuses)}
    assert (found["has"].chosen, found["lacks"].chosen) == (True, False)
    assert "free, 3 needed" in found["lacks"].reasons[0]


@pytest.mark.parametrize("resource", RESOURCES)
def test_8_3_a_node_configures_each_of_its_capacities_and_finds_it_in_its_plan(car, fmlms, running, resource):
    mine = OWNERS[0].model_dump(mode="json") | {"capacity": {"cpus": 2, resource: 7}}
    assert car.put("/v1/nodes/car0", json=mine).json()["capacity"][resource] == 7
    plan = car.get("/v1/nodes/car0/plan", params={"request": running}).json()
    assert plan["properties"]["capacity"][resource] == 7
    free = car.post("/v1/nodes/car0/status", json={"free": {"cpus": 2, resource: 5}}).json()["free"]
    assert free[resource] == fmlms.statuses()["car0"].free.model_dump()[resource] == 5
    car.post("/v1/nodes/car0/status", json={"free": {"cpus": 2}})


def test_8_3_1_each_node_is_told_its_role_and_what_it_may_do(fmlms, running):
    told = {name: fmlms.plan_for(name, running) for name in ("hub", "watch", "car0")}
    assert {name: plan.role for name, plan in told.items()} == {"hub": "coordinator", "watch": "auditor", "car0": "data_owner"}
    assert told["watch"].operations == SecurityRules().auditor.operations


def test_8_3_3_a_node_reports_its_links(car, fmlms):
    link = {"source": "car0", "target": "hub", "bandwidth_bps": 2e6, "delay_ms": 30.0, "loss": 0.1}
    assert car.put("/v1/nodes/car0/links", json=[link]).status_code == 200
    assert fmlms.links() == (Link(**link),)


# ---- 9: the model ---------------------------------------------------------------------------------------------------------------


def test_9_1_training_starts_from_the_model_that_is_given(tmp_path, panel, make_params):
    """With a learning rate of next to nothing the federation ends where it began: at the given weights, not at fresh ones."""
    quick = {"rounds": 1, "contribution": False}
    ends = []
    for run, rate, start in (("first", 1e-2, None), ("second", 1e-12, "first"), ("third", 1e-12, None)):
        ws = Workspace(tmp_path / run, "run")
        panel.save(ws.panel("tiny"))
        warm = None if start is None else Workspace(tmp_path / start, "run").candidate("fedavg:gru")
        train(make_params(federation={**quick, "learning_rate": rate}), ws, "fedavg:gru", warm_start=warm)
        ends.append(Forecaster.load(ws.candidate("fedavg:gru")).network.state_dict())
    first, second, third = ends
    assert all(np.allclose(first[name], second[name], atol=1e-6) for name in first)
    assert not all(np.allclose(third[name], second[name], atol=1e-4) for name in first)


def test_9_2_rate_batch_and_regularisation_reach_the_owners(toy, make_params):
    given = {"learning_rate": 0.125, "batch": 48, "weight_decay": 0.25, "optimizer": "sgd", "steps": 2, "rounds": 1}
    nodes = {name: toy.Puller(name, 1.0) for name in "ab"}
    settings = Rounds.of(make_params(federation=given).federation, seed=7)
    channel, topology = open_channel(nodes), toy.star("ab")
    Coordinator(channel, toy.TASK, rule("fedavg"), settings, codec=codec("none"), topology=topology).run(toy.initial())
    told = nodes["a"].told[0]
    assert (told.learning_rate, told.batch, told.weight_decay, told.optimizer, told.steps) == (0.125, 48, 0.25, "sgd", 2)


def test_9_2_an_owner_trains_by_what_it_was_told(owner_folders, params, panel):
    """A step of plain gradient descent with weight decay λ goes further towards 0 than one without, by rate · λ · weights."""
    task = task_for(params, panel.schema, "fedavg:gru", "r1")
    start, deltas = initial(task), []
    for decay in (0.0, 0.5):
        owner, state = DataOwner("north", owner_folders["north"], OwnerKit()), NodeState()
        owner.answer("deploy", messages.deploy(task), state)
        local = Local(steps=1, batch=16, learning_rate=0.1, optimizer="sgd", weight_decay=decay)
        deltas.append(messages.under(owner.answer("train", messages.train(Instruction(1, start, local)), state), messages.DELTA))
    for name, array in start.items():
        np.testing.assert_allclose(deltas[1][name] - deltas[0][name], -0.1 * 0.5 * array, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_9_3_there_are_as_many_rounds_as_are_asked_for(toy, make_params, count):
    nodes = {name: toy.Puller(name, 1.0) for name in "ab"}
    settings = Rounds.of(make_params(federation={"rounds": count, "learning_rate": 0.125}).federation, seed=7)
    channel, topology = open_channel(nodes), toy.star("ab")
    out = Coordinator(channel, toy.TASK, rule("fedavg"), settings, codec=codec("none"), topology=topology).run(toy.initial())
    assert (len(out.rounds), out.status) == (count, "rounds")


def test_9_4_every_round_begins_at_the_newest_weights(toy):
    sent, current = [], []

    class Listening(toy.Puller):
        def _train(self, parcel, state):
            sent.append(messages.instruction_of(parcel).arrays["layer.bias"].copy())
            return super()._train(parcel, state)

    nodes = {"a": Listening("a", 1.0), "b": toy.Puller("b", 2.0)}
    Coordinator(
        open_channel(nodes),
        toy.TASK,
        rule("fedavg"),
        toy.settings(rounds=3),
        codec=codec("none"),
        topology=toy.star("ab"),
        observe=lambda _round, arrays, _updates: current.append(arrays["layer.bias"].copy()),
    ).run(toy.initial())
    np.testing.assert_array_equal(sent, current)
    assert sent[0].max() < sent[1].min() < sent[2].min()


def test_9_5_precision_recall_and_auc_are_those_of_all_owners_together(toy):
    """Above 5 is an event. a: one told, one missed; b: one told, and one false alarm."""
    truth = {"a": np.array([9.0, 9.0]), "b": np.array([9.0, 1.0])}
    said = {"a": np.array([8.0, 4.0]), "b": np.array([7.0, 6.0])}

    class Classifying(toy.Puller):
        def _evaluate(self, parcel):
            one = np.ones(2)
            counts = histograms(said[self.name], truth[self.name], 5 * one, one)
            return messages.evaluated(
                Evaluation(self.name, parcel.values["span"], 2, 1.0, 1.0, 1.0, *counts), self._usage(), parcel.values["round"]
            )

    channel, settings = open_channel({name: Classifying(name, 1.0) for name in "ab"}), toy.settings(rounds=1)
    coordinator = Coordinator(channel, toy.TASK, rule("fedavg"), settings, codec=codec("none"), topology=toy.star("ab"))
    record = coordinator.run(toy.initial()).rounds[0]
    assert (record.precision, record.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert record.auc == pytest.approx(2 / 3)  # of the three events, 8 and 7 lie above 6, 4 does not


# ---- 10: the data ---------------------------------------------------------------------------------------------------------------


def test_10_1_owners_exchange_metadata_where_the_security_rules_let_them(car, fmlms, running):
    fmlms.store_metadata("car1", "city", b'{"rows": 7}')
    found = car.get("/v1/nodes/car1/metadata", params={"dataset": "city", "request": running})
    assert found.json() == {"version": 1, "content": {"rows": 7}}
    fmlms.revoke("car0", running, "no longer")
    refused = car.get("/v1/nodes/car1/metadata", params={"dataset": "city", "request": running})
    assert (refused.status_code, "rule 'assigned'" in refused.json()["detail"]) == (403, True)


def test_10_4_an_owner_whose_features_do_not_align_takes_no_part(toy):
    """The coordinator asks for metadata before the first round, and does what the alignment says."""
    nodes = {name: toy.Puller(name, 1.0) for name in "abc"}
    out = Coordinator(
        open_channel(nodes),
        toy.TASK,
        rule("fedavg"),
        toy.settings(rounds=1),
        codec=codec("none"),
        topology=toy.star("abc"),
        align=lambda replies: {owner: "it has no feature 'users'" for owner in replies if owner == "c"},
    ).run(toy.initial())
    assert [o.owner for o in out.rounds[0].owners] == ["a", "b"]
    assert out.lost == {"c": "it has no feature 'users'"}
    assert ("metadata", None) in nodes["a"].seen


def test_10_2_metadata_and_models_lie_encrypted_in_a_projects_own_fmlms(tmp_path, params):
    ws = Workspace(tmp_path)
    metadata = json.dumps({"site": "cell-4412", "rows": 7}).encode()
    with open_fmlms(ws, params) as made:
        made.register(HUB, *OWNERS)
        request = made.submit(asked(), "planner").id
        made.next(only=request, any_data=True)
        made.store_metadata("car0", "city", metadata)
        made.deliver(request, MODEL)
        lying = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        assert b"cell-4412" not in lying
        assert MODEL not in lying
        assert made.metadata("car0", "city") == (1, metadata)
        assert made.model(request)[1] == MODEL
