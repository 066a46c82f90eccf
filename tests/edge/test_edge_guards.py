"""Each guard takes a version back by itself on a real edge under load, says when it has seen nothing, and then promotes nothing."""

import json

import onnx
import pytest
from edge_cloud import Load
from onnx import TensorProto, helper

from cellwright.bundle import media, store
from cellwright.bundle.keys import signing_key
from cellwright.bundle.layout import About, pack, read_layer
from cellwright.edge import trialling
from cellwright.lifecycle.rollout.controller import Hands, begin, drive
from cellwright.lifecycle.rollout.guards import names
from cellwright.lifecycle.rollout.record import Files
from cellwright.lifecycle.rollout.targets import StoreTarget
from cellwright.params import Rollout

NAME = "mini--traffic--h6-3"


def labouring(project, target, size):
    """The published bundle as 1.1.0, whose model multiplies two matrices of `size` before it gives the same forecasts."""
    folder, manifest = store.latest(project.ws.published, NAME, project.trust)
    contents = {layer: read_layer(folder, manifest, layer) for layer in manifest.layers if layer != media.MODEL_INT8}
    graph = onnx.load_from_string(contents[media.MODEL])
    next(node for node in graph.graph.node if "forecast" in node.output).output[0] = "given"
    whole = helper.make_tensor("whole", TensorProto.INT64, [2], [size, size])
    graph.graph.initializer.extend([whole, helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0])])
    graph.graph.node.extend(
        [
            helper.make_node(
                "ReduceMax", ["known"], ["most"], keepdims=0
            ),  # of the calendar, so that nothing is known beforehand
            helper.make_node("Expand", ["most", "whole"], ["matrix"]),
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "nothing"], ["none"]),
            helper.make_node("Add", ["given", "none"], ["forecast"]),
        ]
    )
    contents[media.MODEL] = graph.SerializeToString(deterministic=True)
    return target, pack(target, contents, About(NAME, "1.1.0", "MLP", "mlp", "x", 77, None, None), signing_key(project.ws.keys))


@pytest.fixture
def tried(project, shelf, edge, tmp_path):
    """tried(bundle 1.1.0, guard, **parameters): how its rollout ended, and the load, where there was some."""

    def ended(bundle, guard, *, loaded=True, **more):
        store.place(shelf, *bundle, activate=False)
        given = {"stages": (0.5,), "min_requests": 5, "min_stage_s": 0.1, "poll_s": 0.05, "max_s": 60, "latency_ms": 10_000}
        params = Rollout(**given | {"mode": "canary", "edges": (edge.url,), "guards": {guard: {}}} | more)
        files, hands, load = Files(tmp_path / "rollouts", NAME), Hands(StoreTarget(shelf)), Load(project, edge)
        begin(files, "1.1.0", params, hands)
        if not loaded:
            return drive(files, hands), load
        with load.running():
            return drive(files, hands), load

    return ended


def taken_back(done, load, why):
    """By this guard alone, with every request answered and the old version in use."""
    assert done.state.outcome == "rolled_back"
    assert done.state.events[-1].what.startswith(f"1.1.0 rolled back: {why}")
    assert {status for _, status, _ in load.answers} == {200}


def test_errors_alone_take_it_back(tried, another):
    taken_back(*tried(another("1.1.0", shift=500.0), "error"), "error: error +")


def test_failures_alone_take_it_back_and_the_champion_answers_for_it(tried, another):
    done, load = tried(another("1.1.0", shift=float("nan")), "failures")
    taken_back(done, load, "failures: failed 100.00% of")
    assert {json.loads(content)["version"] for _, _, content in load.answers} == {"1.0.0"}


def test_latency_alone_takes_it_back(tried, project, tmp_path):
    slow = labouring(project, tmp_path / "slow", 1_500)
    taken_back(*tried(slow, "latency", latency_ms=40, shadow=0.0), "latency: late ")


def test_energy_alone_takes_it_back(tried, project, tmp_path, monkeypatch):
    monkeypatch.setattr(trialling, "_INTERVAL_MS", 50)
    hungry = labouring(project, tmp_path / "hungry", 400)
    taken_back(*tried(hungry, "energy"), "energy: CPU time a forecast +")


@pytest.mark.parametrize("guard", names())
def test_a_guard_that_has_seen_nothing_says_so_and_nothing_is_promoted(tried, another, guard):
    done, _ = tried(another("1.1.0"), guard, loaded=False, min_requests=1, min_stage_s=0, max_s=0.5)
    (said,) = done.state.events[-1].said
    assert (said.guard, said.verdict, said.samples) == (guard, "undecided", 0)
    assert said.reason.startswith("no ")
    assert said.reason.endswith(" yet")
    assert done.state.events[-1].what == f"1.1.0 rolled back: undecided after 0.5 s: {guard}"
