"""The data owner through its one door, `answer`: what it deploys, what leaves it, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cellwright.data.split import spans
from cellwright.data.windows import Windows
from cellwright.errors import FederationError, Refused
from cellwright.federation import messages
from cellwright.federation.aggregation import rule
from cellwright.federation.audit.signing import Signer, verify
from cellwright.federation.compression import codec
from cellwright.federation.contract import Instruction, Local, NodeState, Parcel, Task
from cellwright.federation.data.book import MetadataBook
from cellwright.federation.data.keyring import FileKey
from cellwright.federation.data.metadata import Disclosure, metadata_of
from cellwright.federation.data.sealed import SealedStore
from cellwright.federation.initial import candidate_for, forecaster, initial, load, network_of, problem_of, table_of, task_for
from cellwright.federation.local_training import train
from cellwright.federation.owner import DataOwner, OwnerKit
from cellwright.federation.owner_data import owner_data
from cellwright.federation.owner_kit import deployed_values
from cellwright.federation.owners import cut, groups
from cellwright.federation.privacy import mechanism
from cellwright.federation.sealed_sum import vector
from cellwright.federation.shared_network import SharedNetwork
from cellwright.forecaster import forecast_panel
from cellwright.panel import Panel
from cellwright.params import Energy
from cellwright.training.fit import fit

LOCAL = Local(steps=2, batch=16, learning_rate=1e-2)


@pytest.fixture
def task(params, panel):
    return task_for(params, panel.schema, "fedavg:gru", "r1")


class Asked:
    """An owner and its state, as a runtime keeps them: any process that has both can answer."""

    def __init__(self, folders, task, kit=None, name="north", deploy=True, **values):
        self.folders, self.task, self.kit, self.name, self.state = folders, task, kit or OwnerKit(), name, NodeState()
        self.start = initial(task)
        self.deployed = self.answer("deploy", messages.deploy(task, **{"share_scalers": True, **values})) if deploy else None

    def answer(self, kind, parcel):
        return DataOwner(self.name, self.folders[self.name], self.kit).answer(kind, parcel, self.state)

    def train(self, local=LOCAL, *, round_=1, start=None, extra=None):
        return self.answer("train", messages.train(Instruction(round_, start or self.start, local, extra or {})))

    def evaluate(self, arrays=None, span="validation"):
        found, _ = messages.evaluation_of(self.answer("evaluate", messages.evaluate(arrays or self.start, span, 1)))
        return found


def everyone(folders, task, **more):
    return [Asked(folders, task, name=name, **more) for name in sorted(folders)]


def test_deploying_tells_windows_sites_pace_and_the_scaler(owner_folders, task, panel):
    reply = Asked(owner_folders, task).deployed
    assert (reply.values["owner"], json.loads(reply.values["sites"]), reply.values["empty"]) == ("north", ["north"], False)
    assert 0 < reply.values["seconds_per_step"] < 60
    assert reply.values["usage/cpu_s"] >= 0
    table = table_of(reply)
    own = panel.values("traffic")[slice(*task.train), 0].astype(np.float64)
    assert table.sites == ("north",)
    np.testing.assert_allclose((table.center[0, 0], table.scale[0, 0]), (own.mean(), own.std()), rtol=1e-6)


def test_the_scaler_stays_where_it_is_not_asked_for(owner_folders, task):
    owner = Asked(owner_folders, task, deploy=False)
    for parcel in (messages.deploy(task), messages.deploy(task, share_scalers=False)):
        reply = owner.answer("deploy", parcel)
        assert reply.arrays == {}
        assert table_of(reply) is None


def test_the_owners_windows_together_are_those_of_the_whole_panel(owner_folders, task, panel):
    """Windows of the pooled panel in which something was measured: counted by brute force."""
    windows = Windows(panel, problem_of(task))
    good = panel.good("traffic")
    pooled = sum(good[t0 : t0 + 3, site].any() for t0 in windows.origins(*task.train) for site in range(4))
    each = [owner.deployed.values["examples"] for owner in everyone(owner_folders, task)]
    assert sum(each) == pooled
    assert each[0] < each[1]  # east (first by name) lacks a window in which nothing was measured
    two = cut(panel, {"a": (0, 1), "b": (2, 3)}, owner_folders["north"].parent.parent / "two-owners")
    assert sum(owner.deployed.values["examples"] for owner in everyone(two, task)) == pooled


def changed(panel, sites=("north",), **schema):
    index = [panel.schema.sites.index(s) for s in sites]
    own = panel.schema.model_copy(update={"sites": sites, "grid": None, **schema})
    return Panel.from_arrays(own, {f.name: panel.values(f.name)[: own.rows, index] for f in own.features})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cadence_s": 600.0}, "its cadence is 600 s, the task wants 3600 s"),
        ({"rows": 200}, "reach to row 288, its panel has 200 rows"),
        ({"features": "users"}, "the task wants the target 'traffic', its panel has users"),
        ({"features": "traffic"}, "the task wants the feature 'users', its panel has traffic"),
    ],
)
def test_data_that_a_task_cannot_use_are_refused_by_name(panel, make_params, tmp_path, change, why):
    task = task_for(make_params(problem={"features": ["users"]}), panel.schema, "fedavg:gru", "r1")
    if "features" in change:
        kept = tuple(f for f in panel.schema.features if f.name == change["features"])
        change = {"features": kept, "targets": (change["features"],)}
    segments = {"segments": (panel.schema.segments[0].model_copy(update={"stop": change["rows"]}),)} if "rows" in change else {}
    changed(panel, **change, **segments).save(tmp_path / "north")
    with pytest.raises(Refused, match=f"north: .*{why}"):
        Asked({"north": tmp_path / "north"}, task)


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"model": "../evil.py"}, "owners train those of the zoo alone"),
        ({"options": {"hiden": 8}}, "unknown option 'hiden'"),
        ({"problem": {"inputs": "all"}}, "only 'site' can be federated"),
        ({"problem": {"colour": 1}}, "problem cannot be read"),
        ({"problem": {"exogenous": ["/etc/passwd:x"]}}, "read the file '/etc/passwd:x', which this owner does not allow"),
    ],
)
def test_tasks_that_reach_beyond_the_owners_data_are_refused(owner_folders, task, over, why):
    if "problem" in over:
        over = {"problem": {**task.problem, **over["problem"]}}
    owner = Asked(owner_folders, task, deploy=False)
    with pytest.raises(Refused, match=why):
        owner.answer("deploy", messages.deploy(task.model_copy(update=over)))
    assert owner.state.blobs == {}


def test_an_update_is_what_training_changed(owner_folders, task):
    owner = Asked(owner_folders, task)
    reply = owner.train(round_=3)
    update = messages.update_of(reply, messages.under(reply, messages.DELTA))
    expected = train(
        SharedNetwork(task), owner_data("north", owner_folders["north"], task), Instruction(3, owner.start, LOCAL), owner.start
    )
    assert (update.owner, update.round, update.steps, update.examples) == ("north", 3, 2, owner.deployed.values["examples"])
    assert update.metrics == {"train_loss": expected.loss}
    assert update.usage.seconds > 0
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(update.delta[name], array - owner.start[name])


def test_only_the_columns_that_a_task_asks_for_are_retrieved_and_anew_when_they_change(panel, task, make_params, tmp_path):
    folders = cut(panel, groups(panel.schema, "site"), tmp_path)
    wider = task_for(make_params(problem={"features": ["users"]}), panel.schema, "fedavg:gru", "r1")
    for asked, names in ((task, ["traffic"]), (wider, ["traffic", "users"])):
        data = owner_data("north", folders["north"], asked)
        assert [f.name for f in data.panel.schema.features] == names
        assert owner_data("north", folders["north"], asked) is data  # read once
    values = {f.name: panel.values(f.name).copy() for f in panel.schema.features}
    values["traffic"][:20, 0] = np.nan
    cut(Panel.from_arrays(panel.schema, values), groups(panel.schema, "site"), tmp_path)
    assert len(owner_data("north", folders["north"], task).training) < len(data.training)


def test_what_is_prepared_is_bounded(panel, task, tmp_path, monkeypatch):
    folders = cut(panel, groups(panel.schema, "site"), tmp_path)
    first = owner_data("north", folders["north"], task)
    monkeypatch.setattr("cellwright.federation.owner_data.MOST_BYTES", 2 * first.bytes)
    for name in ("east", "south", "west"):
        owner_data(name, folders[name], task)
    assert owner_data("north", folders["north"], task) is not first


def test_no_reply_holds_rows_of_the_panel(owner_folders, task, panel):
    """No array of a reply shares three values in a row with the owner's data, raw or scaled, and none is as long as its rows."""
    owner = Asked(owner_folders, task, kit=OwnerKit(codec=codec("none")))
    column = panel.values("traffic")[:, 0]
    scaled = (column - column[: task.train[1]].mean()) / column[: task.train[1]].std()
    private = {tuple(np.round(x[i : i + 3], 4)) for x in (column, scaled) for i in range(len(x) - 2)}
    replies = [owner.deployed, owner.train(), owner.answer("evaluate", messages.evaluate(owner.start, "test", 1))]
    for reply in replies:
        assert reply.blobs == {}
        for array in reply.arrays.values():
            flat = np.round(array.ravel(), 4)
            assert len(column) not in array.shape
            assert not private & {tuple(flat[i : i + 3]) for i in range(len(flat) - 2)}
        assert all(isinstance(value, int | float) or len(value) < 100 for value in reply.values.values())


def test_an_owner_without_a_measured_target_says_it_is_empty(panel, task, tmp_path):
    values = {f.name: panel.values(f.name).copy() for f in panel.schema.features}
    values["traffic"][: task.train[1], 0] = np.nan
    folders = cut(Panel.from_arrays(panel.schema, values), groups(panel.schema, "site"), tmp_path)
    owner = Asked(folders, task)
    assert (owner.deployed.values["empty"], owner.deployed.values["examples"], owner.deployed.arrays) == (True, 0, {})
    update = messages.update_of(reply := owner.train(), messages.under(reply, messages.DELTA))
    assert (update.examples, update.steps) == (0, 0)
    assert set(update.delta) == set(owner.start)
    assert not any(array.any() for array in update.delta.values())
    assert owner.evaluate().count == 0


def test_evaluations_add_up_to_the_error_of_one_forecaster_for_all_sites(owner_folders, task, panel):
    owners = everyone(owner_folders, task)
    model = forecaster(task, owners[0].start, [table_of(o.deployed) for o in owners], panel.schema, key="fedavg:gru")
    assert (model.about["key"], model.sites) == ("fedavg:gru", panel.schema.sites)
    windows = Windows(panel, model.problem)
    for span in ("validation", "test"):
        origins = windows.origins(*getattr(task, span))
        said = forecast_panel(model, windows, origins)[..., 0].transpose(0, 2, 1)  # (windows, sites, horizon)
        truth, good = (np.stack([a[o : o + 3].T for o in origins]) for a in (panel.values("traffic"), panel.good("traffic")))
        error = (said - truth)[good].astype(np.float64)
        found = [o.evaluate(span=span) for o in owners]
        assert sum(f.count for f in found) == good.sum()
        assert sum(f.absolute for f in found) / sum(f.count for f in found) == pytest.approx(np.abs(error).mean(), rel=1e-5)
        assert sum(f.squared for f in found) / sum(f.count for f in found) == pytest.approx((error**2).mean(), rel=1e-5)


def test_a_classification_counts_events_above_each_sites_own_level(owner_folders, params, panel):
    task = task_for(params, panel.schema, "fedavg:gru", "r1", kind="classification")
    found = Asked(owner_folders, task).evaluate()
    column, (start, stop) = panel.values("traffic")[:, 0], task.validation
    level = np.quantile(column[slice(*task.train)], 0.9)
    origins = Windows(panel, problem_of(task)).origins(start, stop)
    events = sum((column[o : o + 3] > level).sum() for o in origins)
    assert (sum(found.positive), sum(found.negative)) == (events, found.count - events)


def test_a_forecaster_needs_the_scaler_of_every_site(owner_folders, task, panel):
    owners = everyone(owner_folders, task)
    tables = [table_of(o.deployed) for o in owners if o.name != "west"]
    with pytest.raises(FederationError, match=r"1 of 4 sites are not known .west.*share_scalers"):
        forecaster(task, owners[0].start, tables, panel.schema)
    model = forecaster(task, owners[0].start, tables, panel.schema, empty=("west",))
    np.testing.assert_allclose(model.center[3].numpy(), np.mean([t.center[0] for t in tables], axis=0), rtol=1e-6)
    with pytest.raises(FederationError, match="lack 'blocks"):
        forecaster(task, {}, tables, panel.schema, empty=("west",))


def test_the_first_weights_are_those_that_central_training_starts_from(params, panel, task, make_params):
    again, other = initial(task), initial(task.model_copy(update={"seed": 8}))
    assert list(again) == [name for name, t in network_of(task).state_dict().items() if t.is_floating_point()]
    assert any(not np.array_equal(again[name], other[name]) for name in again)
    still = make_params(
        train={"settings": {"gru": {"options": {"hidden": 8}}}, "learning_rate": 1e-30, "max_epochs": 1, "device": "cpu"}
    )
    candidate = candidate_for(still, panel.schema, "gru")
    central = fit(candidate, panel, spans(params.split, panel.schema)).forecaster.network.state_dict()
    for name, array in again.items():
        np.testing.assert_allclose(array, central[name].numpy(), rtol=0, atol=1e-20)


def test_private_parameters_never_leave_and_are_used_by_their_owner_alone(owner_folders, task):
    owner, local = Asked(owner_folders, task), replace(LOCAL, private=("blocks.head",))
    head = [name for name in owner.start if name.startswith("blocks.head")]
    reply = owner.train(local)
    assert head
    assert set(messages.under(reply, messages.DELTA)) == set(owner.start) - set(head)
    own = {n.removeprefix("private/"): a for n, a in owner.state.arrays.items() if n.startswith("private/")}
    assert set(own) == set(head)
    assert any(not np.array_equal(own[n], owner.start[n]) for n in head)
    assert owner.evaluate().absolute == Asked(owner_folders, task).evaluate({**owner.start, **own}).absolute
    body = {n: a for n, a in owner.start.items() if n not in head}
    assert messages.under(owner.train(local, round_=2, start=body), messages.DELTA)  # a coordinator that has no head at all
    assert owner.evaluate(body).count


def test_scaffolds_variate_is_kept_and_only_its_change_is_told(owner_folders, task):
    owner, local = Asked(owner_folders, task), replace(LOCAL, optimizer="sgd")
    sent = {f"c/{name}": np.zeros_like(a) for name, a in owner.start.items()}
    first, second = (messages.under(owner.train(local, round_=r, extra=sent), messages.EXTRA) for r in (1, 2))
    for name in owner.start:
        np.testing.assert_allclose(owner.state.arrays[f"variate/{name}"], first[f"dc/{name}"] + second[f"dc/{name}"], atol=1e-6)


def test_moments_stay_at_their_owner_from_round_to_round(owner_folders, task):
    owner, local = Asked(owner_folders, task), replace(LOCAL, moments=True)
    for round_ in (1, 2):
        reply = owner.train(local, round_=round_)
        assert all(name.startswith(messages.DELTA) for name in reply.arrays)
        name = next(iter(owner.start))
        assert owner.state.arrays[f"moments/{name}/step"] == 2 * round_
    owner.train(LOCAL, round_=3)
    assert not any(name.startswith("moments/") for name in owner.state.arrays)


def test_what_a_codec_loses_comes_with_the_next_update(owner_folders, task):
    options = {"share": 0.1}
    owner = Asked(owner_folders, task, **deployed_values({}, "topk", options, share_scalers=False))
    plain, topk = Asked(owner_folders, task), codec("topk", options)
    decoded = [topk.decode(messages.under(owner.train(round_=r), messages.DELTA), owner.start) for r in (1, 2)]
    exact = [messages.under(plain.train(round_=r), messages.DELTA) for r in (1, 2)]
    for name in owner.start:
        lost = owner.state.arrays[f"lost/{name}"]
        np.testing.assert_allclose(decoded[0][name] + decoded[1][name] + lost, exact[0][name] + exact[1][name], atol=1e-6)
    assert any(not np.array_equal(decoded[0][name], exact[0][name]) for name in owner.start)


def test_local_privacy_clips_and_noises_what_leaves(owner_folders, task):
    options = {"noise_multiplier": 1e-3, "clip_norm": 1e-3, "seeded_noise": True, "epsilon": 1e12}
    kit = OwnerKit(mechanisms=(mechanism("local_dp", options),))
    owner = Asked(owner_folders, task, kit)
    flat = np.concatenate([a.ravel() for a in messages.under(owner.train(), messages.DELTA).values()])
    assert np.linalg.norm(flat) == pytest.approx(1e-3, rel=0.05)
    with pytest.raises(Refused, match=r"asks for 'dc/.*does not cover"):
        owner.train(extra={f"c/{name}": np.zeros_like(a) for name, a in owner.start.items()})


def test_an_owner_keeps_to_its_mechanisms_whatever_the_coordinator_asks(owner_folders, task):
    """The instruction says nothing of DP-SGD; its noise, ten times the learning rate, is there all the same."""
    kit = OwnerKit(mechanisms=(mechanism("dp_sgd", {"noise_multiplier": 160.0}),), noise_seed=1)
    local = Local(steps=1, batch=16, learning_rate=1.0, optimizer="sgd")
    noisy = messages.under(Asked(owner_folders, task, kit).train(local), messages.DELTA)
    assert np.std(np.concatenate([a.ravel() for a in noisy.values()])) == pytest.approx(10, rel=0.2)


def test_a_sealed_update_leaves_sealed_alone_and_sums_to_the_owners_vectors(owner_folders, task):
    """Secure aggregation from end to end between four owners, each stage answered by a new object from its state."""
    privacy, names = {"secure_aggregation": {}}, tuple(sorted(owner_folders))
    told = deployed_values(privacy, "none", {}, share_scalers=False)
    owners = {n: Asked(owner_folders, task, name=n, deploy=False) for n in names}
    for owner in owners.values():
        owner.answer("deploy", messages.deploy(task, **told))
    seal = mechanism("secure_aggregation", {})
    side = seal.coordinator_side(names, 7)

    def stage(kind):
        asked = side.ask(kind, names)
        side.take(kind, {n: owners[n].answer(f"stage_{kind}", messages.stage(asked[n], 1)).blobs for n in names})

    for kind in seal.before:
        stage(kind)
    replies = {n: owners[n].train() for n in names}
    assert all(not reply.arrays and reply.blobs for reply in replies.values())
    clear = [
        vector(messages.under(o.train(), messages.DELTA), o.deployed.values["examples"]) for o in everyone(owner_folders, task)
    ]
    side.collect({n: reply.blobs for n, reply in replies.items()}, len(clear[0]))
    for kind in seal.after:
        stage(kind)
    np.testing.assert_allclose(side.total(), np.sum(clear, axis=0), atol=1e-6)
    with pytest.raises(Refused, match="no mechanism that seals is deployed"):
        Asked(owner_folders, task).answer("stage_advertise", messages.stage({}, 1))


def test_an_owner_takes_part_with_its_own_mechanisms_alone(owner_folders, task):
    kit = OwnerKit(mechanisms=(mechanism("local_dp", {}),))
    assert Asked(owner_folders, task, kit, privacy=json.dumps({"local_dp": {}})).deployed
    with pytest.raises(Refused, match="deployed with privacy none, this owner takes part with local_dp"):
        Asked(owner_folders, task, kit, privacy="{}")
    for wrong in ("[]", "{", '{"rot13": {}}', '{"local_dp": {"colour": 1}}'):
        with pytest.raises(Refused, match="mechanisms that are deployed cannot be meant"):
            Asked(owner_folders, task, privacy=wrong)


def test_only_the_coordinators_fresh_messages_are_answered_and_replies_are_signed(owner_folders, task):
    coordinator, mallory, own = Signer.generate(), Signer.generate(), Signer.generate()
    owner = Asked(owner_folders, task, OwnerKit(signer=own, coordinator_key=coordinator.public), deploy=False)

    def signed(parcel, sequence, by=coordinator, request="r1", kind=""):
        return by.sign(parcel, sender="cloud", sequence=sequence, request=request, kind=kind)

    reply = owner.answer("deploy", signed(messages.deploy(task), 1))
    verify(reply, own.public)
    train_parcel = messages.train(Instruction(1, owner.start, LOCAL))
    again = owner.answer("train", signed(train_parcel, 2))
    assert again.values["sequence"] > reply.values["sequence"]
    assert [again.values[name] for name in ("sender", "request", "kind")] == ["north", "r1", "train"]
    for parcel, why in (
        (signed(train_parcel, 2), "replay"),
        (signed(train_parcel, 3, by=mallory), "forged"),
        (signed(train_parcel, 3, request="r2"), "of request 'r2'"),
        (signed(train_parcel, 3, kind="evaluate"), "passed off as another"),
        (train_parcel, "not signed"),
    ):
        with pytest.raises(Refused, match=why):
            owner.answer("train", parcel)
    owner.answer("finish", signed(Parcel(), 4))
    with pytest.raises(Refused, match="replay"):  # what was seen outlasts the task
        owner.answer("deploy", signed(messages.deploy(task), 1))


def test_messages_of_another_request_than_the_memorys_are_refused(owner_folders, task):
    """Under an empty memory nothing was seen yet: what was signed once could be played again."""
    with pytest.raises(Refused, match="of request 'r1', this run of 'r2'"):
        Asked(owner_folders, task, OwnerKit(request="r2"))
    assert Asked(owner_folders, task, OwnerKit(request="r1")).train().values["examples"]


def test_a_finished_task_is_forgotten(owner_folders, task):
    owner = Asked(owner_folders, task)
    owner.train(replace(LOCAL, private=("blocks.head",)))
    owner.answer("finish", Parcel())
    assert (owner.state.arrays, owner.state.blobs) == ({}, {})
    with pytest.raises(Refused, match="no task is deployed here; send 'deploy' before 'train'"):
        owner.train()


def test_messages_that_no_owner_answers_are_refused(owner_folders, task):
    owner = Asked(owner_folders, task)
    with pytest.raises(Refused, match="does not answer 'dance'"):
        owner.answer("dance", Parcel())
    with pytest.raises(Refused, match="spans are validation and test"):
        owner.evaluate(span="train")
    with pytest.raises(Refused, match="deploys no task"):
        owner.answer("deploy", Parcel(values={"task": "{}"}))


def test_energy_is_modelled_from_cpu_seconds_where_the_owner_says_its_power(owner_folders, task):
    reply = Asked(owner_folders, task, OwnerKit(energy=Energy(cpu_w_per_core=5.0, country="DEU"))).train()
    usage = messages.usage_of(reply.values)
    assert usage.energy_source == "modelled"
    assert usage.energy_j == pytest.approx(5.0 * usage.cpu_s)
    assert 0 < usage.co2_g < usage.energy_j / 3.6e6 * 1000
    unknown = messages.usage_of(Asked(owner_folders, task).train().values)
    assert (unknown.energy_j, unknown.energy_source, unknown.co2_g) == (None, None, None)


def test_metadata_are_told_without_a_value_of_the_data(owner_folders, task, tmp_path):
    told = metadata_of(Asked(owner_folders, task, deploy=False).answer("metadata", Parcel()), sender="north")
    assert (told.rows, told.sites, told.cadence_s, told.site_names) == (288, 1, 3600.0, None)
    assert all(feature.quantiles is None for feature in told.features)
    noisy = OwnerKit(disclosure=Disclosure(quantiles="noisy", bounds={"traffic": (0, 500), "users": (0, 50)}))
    with pytest.raises(Refused, match="a sealed book must keep"):
        Asked(owner_folders, task, noisy, deploy=False).answer("metadata", Parcel())
    book = MetadataBook(SealedStore(tmp_path / "sealed", FileKey(tmp_path / "key")))
    owner = Asked(owner_folders, task, replace(noisy, book=book), deploy=False)
    first, again = (metadata_of(owner.answer("metadata", Parcel())) for _ in range(2))
    assert first == again
    assert first.feature("traffic").quantiles is not None


def test_ridge_from_the_owners_sums_is_ridge_from_all_rows(owner_folders, make_params, panel):
    params = make_params(train={"models": ["ridge"]})
    task, aggregated = task_for(params, panel.schema, "fedgram:ridge", "r1"), rule("fedgram")
    owners = everyone(owner_folders, task)
    replies = [o.train() for o in owners]
    aggregated.bind(task)
    weights = aggregated.aggregate(owners[0].start, [messages.update_of(r, messages.under(r, messages.DELTA)) for r in replies])
    central = fit(candidate_for(params, panel.schema, "ridge"), panel, spans(params.split, panel.schema)).forecaster
    for name, array in weights.items():
        np.testing.assert_allclose(array, central.network.state_dict()[name].numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
    assert sum(o.evaluate(weights).count for o in owners) > 0


def test_trees_are_grown_on_the_owners_rows_and_leave_nothing_in_the_shared_network(owner_folders, make_params, panel):
    params = make_params(train={"models": ["trees"], "settings": {"trees": {"options": {"trees": 5}}}})
    task = task_for(params, panel.schema, "bagging:trees", "r1")
    one, other = Asked(owner_folders, task), Asked(owner_folders, task, name="south")
    first, second = one.train(), other.train()
    grown = messages.under(first, messages.DELTA)
    assert any(grown[n].shape != one.start[n].shape for n in one.start)
    assert any(not np.array_equal(a, messages.under(second, messages.DELTA).get(n)) for n, a in grown.items())
    assert one.evaluate(grown).absolute < one.evaluate().absolute * 2
    network = network_of(task)
    load(network, grown)  # sizes of their own


def test_closed_forms_refuse_mechanisms_that_do_not_know_them(owner_folders, make_params, panel):
    task = task_for(make_params(train={"models": ["ridge"]}), panel.schema, "fedgram:ridge", "r1")
    owner = Asked(owner_folders, task, OwnerKit(mechanisms=(mechanism("local_dp", {}),)))
    with pytest.raises(Refused, match="cannot protect the statistics of a closed form"):
        owner.train()


def test_tasks_travel_as_json_and_come_back_equal(task):
    assert Task.model_validate_json(task.model_dump_json()).model_dump_json() == task.model_dump_json()
    assert initial(Task.model_validate_json(task.model_dump_json())).keys() == initial(task).keys()


def test_networks_of_ones_own_are_not_federated(params, panel, tmp_path, make_params):
    with pytest.raises(FederationError, match="no model of the zoo"):
        task_for(make_params(train={"models": ["neuralforecast:NHITS"]}), panel.schema, "fedavg:neuralforecast:NHITS", "r1")
