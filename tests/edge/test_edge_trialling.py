"""A version on trial over HTTP: its share of the requests, what is learnt of both, and what a failure of it costs."""

import json
import time

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from cellwright.bundle import media, store
from cellwright.bundle.keys import signing_key
from cellwright.bundle.layout import About, pack, read_layer
from cellwright.edge.evidence import Evidence
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge

STEP_MS = 600_000


@pytest.fixture
def trial(shelf, project, another):
    """trial(shift, weight, **options): an edge on which 1.1.0, higher by `shift`, is tried beside 1.0.0."""

    def begun(shift: float, weight: float, **options):
        layout, manifest = another("1.1.0", shift=shift)
        name = store.names(shelf)[0]
        store.place(shelf, layout, manifest, activate=False)
        store.try_out(shelf, name, store.Trial(version="1.1.0", digest=manifest.digest, weight=weight, since_s=0.0, **options))
        return Edge(shelf, project.trust, port=0)

    return begun


def ask(client, project, number: int = 0):
    request = project.request()
    return client.post("/v1/forecast", json=request | {"time": _ms(request["time"]) + number * STEP_MS})


def _ms(time):
    from datetime import datetime

    return time if isinstance(time, int) else round(datetime.fromisoformat(time).timestamp() * 1000)


def _settled(client, told, count):
    """Tell a truth until it has settled so many forecasts: the other version's are there a moment after the answer."""
    end, found = time.monotonic() + 20, 0
    while found < count and time.monotonic() < end:
        found += client.post("/v1/truth", json=told).json()["settled"]
        time.sleep(0.01)
    assert found == count


def evidence(client) -> Evidence:
    return Evidence.model_validate_json(client.get("/v1/evidence").text)


def test_the_share_is_exact_and_counted(trial, project):
    with in_thread(trial(5.0, 0.25)) as edge, httpx.Client(base_url=edge.url) as client:
        versions = [ask(client, project).json()["version"] for _ in range(20)]
        seen = evidence(client)
    assert versions.count("1.1.0") == 5
    assert {v: c.requests for v, c in seen.counts.items()} == {"1.0.0": 15, "1.1.0": 5}
    assert all(c.failed == 0 for c in seen.counts.values())


def test_its_own_sites_are_answered_by_it_whatever_the_weight(trial, project):
    site = project.request()["site"]
    with in_thread(trial(5.0, 0.0, sites=(site,))) as edge, httpx.Client(base_url=edge.url) as client:
        assert {ask(client, project).json()["version"] for _ in range(3)} == {"1.1.0"}


def test_truth_settles_both_forecasts(trial, project):
    with in_thread(trial(5.0, 0.0)) as edge, httpx.Client(base_url=edge.url) as client:
        for i in range(3):  # the champion is right each time: its error is 0, the challenger's the 5 that it is off by
            answer = ask(client, project, i).json()
            site, target = "c4", "traffic"
            values = {site: {target: answer["forecasts"][site][target][:1]}}
            told = {"times": [_ms(answer["times"][0])], "values": values}
            _settled(client, told, 1 + min(i, 2))  # this forecast of the step, and those made one and two steps earlier
        seen = evidence(client).errors
    first = seen[0]
    assert first.champion == pytest.approx(0.0, abs=1e-3)
    assert first.challenger == pytest.approx(5.0, rel=1e-3)


def test_what_is_told_or_asked_again_counts_once(trial, project):
    with in_thread(trial(5.0, 0.0)) as edge, httpx.Client(base_url=edge.url) as client:
        answer, *_ = [ask(client, project).json() for _ in range(4)]  # the same forecast four times
        step = _ms(answer["times"][0])
        told = {"times": [step], "values": {"c4": {"traffic": answer["forecasts"]["c4"]["traffic"][:1]}}}
        wrong = {"times": [step], "values": {"c4": {"traffic": [0.0]}}}
        late = {"times": [step], "values": {"c4": {"traffic": [None]}}}
        assert client.post("/v1/truth", json=late).json()["settled"] == 0  # what has not arrived yet settles nothing
        _settled(client, told, 1)
        ask(client, project)  # and once more, when its truth is known
        assert [client.post("/v1/truth", json=each).json()["settled"] for each in (told, wrong, told)] == [0, 0, 0]
        later = {"times": [step + STEP_MS], "values": {"c4": {"traffic": [0.0]}}}
        _settled(client, later, 1)  # the newest instant is left out of the evidence
        first = evidence(client).errors[0]
    assert (first.at_ms, first.weight) == (step, 1)
    assert first.champion == pytest.approx(0.0, abs=1e-3)
    assert first.challenger == pytest.approx(5.0, rel=1e-3)


def test_later_requests_bring_the_truth_with_them(trial, project):
    with in_thread(trial(5.0, 0.0)) as edge, httpx.Client(base_url=edge.url) as client:
        for i in range(4):
            assert ask(client, project, i).status_code == 200
        assert evidence(client).errors


def test_a_failing_challenger_costs_nobody_an_answer(trial, project):
    with in_thread(trial(float("nan"), 0.5)) as edge, httpx.Client(base_url=edge.url) as client:
        answers = [ask(client, project) for _ in range(10)]
        seen = evidence(client)
    assert {a.status_code for a in answers} == {200}
    assert {a.json()["version"] for a in answers} == {"1.0.0"}
    assert (seen.counts["1.1.0"].requests, seen.counts["1.1.0"].failed) == (5, 5)


def test_without_a_trial_there_is_no_evidence(shelf, project):
    with in_thread(Edge(shelf, project.trust, port=0)) as edge, httpx.Client(base_url=edge.url) as client:
        assert client.get("/v1/evidence").status_code == 404
        assert client.post("/v1/truth", json={"times": [], "values": {}}).json()["settled"] == 0


def looks_at_all_sites(project, target):
    """A bundle 1.1.0 whose model takes all sites at once, and forecasts for each, at three quantiles, 1000."""
    name, problem = project.published.name, project.problem
    folder, manifest = store.latest(project.ws.published, name, project.trust)
    contents = {layer: read_layer(folder, manifest, layer) for layer in manifest.layers if layer != media.MODEL_INT8}
    other = problem.model_dump(mode="json") | {"inputs": "all", "neighbours": None, "quantiles": [0.1, 0.5, 0.9]}
    other["features"] = [f for f in other["features"] if f != "valid"]
    shape = ["batch", problem.horizon, len(problem.sites), 1, 3]
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.FLOAT, ["batch", 6, len(problem.sites), len(other["features"])]),
        helper.make_tensor_value_info("known", TensorProto.FLOAT, ["batch", 9, len(problem.known)]),
        helper.make_tensor_value_info("site", TensorProto.INT64, ["batch"]),
    ]
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1000.0])
    nodes = [
        helper.make_node("Shape", ["site"], ["batch"]),
        helper.make_node("Constant", [], ["rest"], value=helper.make_tensor("r", TensorProto.INT64, [4], shape[1:])),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["forecast"], value=values),
    ]
    output = helper.make_tensor_value_info("forecast", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "constant", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    contents |= {media.MODEL: model.SerializeToString(), media.PROBLEM: json.dumps(other).encode()}
    onnx.checker.check_model(model)
    return target, pack(target, contents, About(name, "1.1.0", "MLP", "mlp", "x", 1, None, None), signing_key(project.ws.keys))


def test_versions_that_look_at_other_inputs_are_compared_site_by_site(shelf, project, tmp_path):
    """The champion sees a site and its neighbours, the challenger all sites at once, with quantiles."""
    layout, manifest = looks_at_all_sites(project, tmp_path / "all")
    store.place(shelf, layout, manifest, activate=False)
    name = project.published.name
    store.try_out(shelf, name, store.Trial(version="1.1.0", digest=manifest.digest, weight=0.0, since_s=0.0))
    with in_thread(Edge(shelf, project.trust, port=0)) as edge, httpx.Client(base_url=edge.url) as client:
        answer = ask(client, project).json()
        step, value = _ms(answer["times"][0]), answer["forecasts"]["c4"]["traffic"][0]
        for at_ms in (step, step + STEP_MS):
            _settled(client, {"times": [at_ms], "values": {"c4": {"traffic": [value]}}}, 1)
        (pair,) = evidence(client).errors
    assert pair.champion == pytest.approx(0.0, abs=1e-3)
    assert pair.challenger == pytest.approx(1000 - value, rel=1e-4)


@pytest.mark.parametrize("body", [{"times": ["x"], "values": {}}, {"times": [0], "values": {"a": {}}}, [], {"times": [0]}])
def test_truth_that_is_none_is_refused(trial, project, body):
    with in_thread(trial(5.0, 0.0)) as edge, httpx.Client(base_url=edge.url) as client:
        assert client.post("/v1/truth", json=body).status_code == 400
