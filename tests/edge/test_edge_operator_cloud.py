"""Hub, edges, registry and rollout together: what is published in the operator's cloud is tried out, kept or taken back at every edge."""

import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from edge_cloud import LOADED, Load, edge_of, leave, publish, until

from cellwright.bundle import store
from cellwright.hub import contract as c
from cellwright.hub import publishing
from cellwright.lifecycle.rollout.controller import Hands, begin, drive
from cellwright.lifecycle.rollout.record import Files
from cellwright.lifecycle.rollout.targets import HubTarget
from cellwright.params import Rollout

PATH = "/v1/tenants/acme/forecast"
TOWNS = ("east", "west")


def bring(cloud, project, layout):
    """A layout becomes a release at the hub."""
    return publishing.upload(cloud.acme, layout, project.trust)


def settings(**more):
    guards = {"error": {}, "failures": {"margin": 0.2}, "latency": {"margin": 0.5}}
    given = {"mode": "canary", "stages": (0.2, 0.5), "min_requests": 5, "min_stage_s": 0.1, "poll_s": 0.1, "guards": guards}
    return Rollout(**given | {"max_s": 60, "latency_ms": 1000} | more)


@pytest.fixture
def first(operator_cloud, project):
    """1.0.0 of the forecasting bundle is published and placed everywhere."""
    folder, _ = store.latest(project.ws.published, LOADED, project.trust)
    bring(operator_cloud, project, folder)
    operator_cloud.acme.place("all", c.PlacementForm(model=LOADED))
    publishing.put_in_use(operator_cloud.acme, LOADED, "1.0.0")
    return operator_cloud


@contextmanager
def under_load(cloud, project):
    """Two edges that the hub feeds, each asked for forecasts all the time: name -> what was answered."""
    with ExitStack() as stack:
        edges = [stack.enter_context(edge_of(cloud, name=name)) for name in TOWNS]
        for edge in edges:
            until(lambda edge=edge: serving(edge) == "1.0.0")
        loads = [Load(project, edge, path=PATH, headers=leave(cloud, truth=True)) for edge in edges]
        yield edges, [stack.enter_context(load.running()) for load in loads]


def serving(edge):
    """The version that "latest" means at an edge."""
    found = edge.http.get(f"/v1/tenants/acme/bundles/{LOADED}/latest")
    return found.json()["version"] if found.status_code == 200 else None


def rolled_out(cloud, version, **more):
    files, events = Files(cloud.tmp / "rollouts", LOADED), []
    hands = Hands(HubTarget(cloud.acme), tell=lambda rolling, event: events.append(event.what))
    begin(files, version, settings(**more), hands)
    return drive(files, hands), events, files


def versions_at(cloud):
    return [store.versions(cloud.tmp / folder / "tenants/acme", LOADED) for folder in ("store", "store-west")]


def test_a_worse_version_is_taken_back_at_every_edge_and_an_equal_one_promoted_without_a_failed_request(first, project, another):
    for version, shift in (("1.1.0", 500.0), ("1.2.0", 0.0)):
        bring(first, project, another(version, shift=shift)[0])
    with under_load(first, project) as (edges, loads):
        done, events, files = rolled_out(first, "1.1.0")
        assert done.state.outcome == "rolled_back", events
        assert events[-1].startswith("1.1.0 rolled back: error: error +")
        assert first.acme.publication(LOADED).shares == {"1.0.0": 1.0}
        seen = {e.edge for e in files.evidence()}
        until(lambda: versions_at(first) == [["1.0.0"]] * 2)
        at = [len(load.answers) for load in loads]
        until(lambda: all(len(load.answers) > n + 2 for load, n in zip(loads, at, strict=True)))
        for load, n in zip(loads, at, strict=True):
            versions = [json.loads(content)["version"] for _, _, content in load.answers]
            assert set(versions[: n + 1]) == {"1.0.0", "1.1.0"}  # it was tried here …
            assert set(versions[n + 1 :]) == {"1.0.0"}  # … and went

        done, events, _ = rolled_out(first, "1.2.0")
        assert done.state.outcome == "promoted", events
        assert first.acme.publication(LOADED).shares == {"1.2.0": 1.0}
        until(lambda: [serving(edge) for edge in edges] == ["1.2.0"] * 2)
        until(lambda: versions_at(first) == [["1.2.0"]] * 2)
    assert seen == set(TOWNS)
    for load in loads:
        assert load.wrong(500.0) == []
        assert load.wrong(0.0, "1.2.0") == []
        assert json.loads(load.answers[-1][2])["version"] == "1.2.0"


def test_blue_green_through_the_hub_computes_beside_and_answers_nobody_until_all_is_switched(first, project, another):
    bring(first, project, another("1.1.0")[0])
    with under_load(first, project) as (_, loads):
        done, events, _ = rolled_out(first, "1.1.0", mode="blue_green", keep_warm_s=0.5)
        assert done.state.outcome == "promoted", events
        until(lambda: versions_at(first) == [["1.1.0"]] * 2)
    for load in loads:
        assert load.wrong(0.0) == []
        versions = [json.loads(content)["version"] for _, _, content in load.answers]
        assert versions == sorted(versions)  # one switch


def test_a_trial_is_watched_as_the_rollout_says(operator_cloud):
    publish(operator_cloud, "guide")
    path = operator_cloud.tmp / "upload.bin"
    path.write_bytes(b"other")
    operator_cloud.acme.upload(path, c.UploadForm(model="guide", version="2.0.0", format="opaque", bytes=5))
    terms = c.Terms(sites=("c1", "c2"), shadow=0.5, latency_ms=25, since_s=1_700_000_000.5)
    wanted = c.Publication(version="1.0.0", weights={"2.0.0": 0.0}, canary="2.0.0", terms=terms)
    operator_cloud.acme.publish("guide", wanted)
    folder = operator_cloud.tmp / "store/tenants/acme"
    with edge_of(operator_cloud):
        tried = until(lambda: store.trial(folder, "guide"))
        assert (tried.version, tried.weight, tried.since_s) == ("2.0.0", 0.0, 1_700_000_000.5)
        assert (tried.sites, tried.shadow, tried.latency_ms) == (("c1", "c2"), 0.5, 25)
        anew = terms.model_copy(update={"since_s": 1_700_000_900.0, "sites": ()})
        operator_cloud.acme.publish("guide", wanted.model_copy(update={"terms": anew}))
        until(lambda: (store.trial(folder, "guide").since_s, store.trial(folder, "guide").sites) == (1_700_000_900.0, ()))
        operator_cloud.acme.publish("guide", c.Publication(version="1.0.0"))
        until(lambda: store.trial(folder, "guide") is None)


@pytest.mark.parametrize(
    "terms", [{"shadow": 1.5}, {"latency_ms": 0}, {"sites": ["c"] * 1001}, {"sites": [""]}, {"since_s": -1}, {"more": 1}]
)
def test_terms_out_of_bounds_are_refused(terms):
    same = {"version": "1.0.0", "weights": {"2.0.0": 0.1}}
    c.Publication.model_validate(same | {"canary": "2.0.0", "terms": {}})
    with pytest.raises(ValueError, match="terms"):
        c.Publication.model_validate(same | {"canary": "2.0.0", "terms": terms})
    with pytest.raises(ValueError, match="name the canary"):
        c.Publication.model_validate(same | {"terms": {}})


def test_a_champion_moved_in_the_registry_reaches_the_hub_and_serves_at_its_edge(operator_cloud, project, another, monkeypatch):
    from cellwright.registry import champions
    from cellwright.registry.store import writing
    from cellwright.registry.versions import crown
    from cellwright.steps.rollout import follow_champion

    ws = replace(project.ws, root=operator_cloud.tmp / "project")
    shutil.copytree(project.ws.keys, ws.keys)
    store.place(ws.published, *store.latest(project.ws.published, LOADED, project.trust), activate=True)
    store.place(ws.published, *another("1.1.0", shift=5.0), activate=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with writing(ws) as client:
        client.create_registered_model(LOADED)
        for semantic in ("1.0.0", "1.1.0"):
            run = client.create_run(client.create_experiment(semantic))
            client.create_model_version(LOADED, source=str(ws.root), run_id=run.info.run_id, tags={"semantic": semantic})
        crown(client, LOADED, "1")
    token = operator_cloud.tmp / "hub.token"
    token.write_text(operator_cloud.acme_token)
    at_hub = project.params.hub.model_copy(update={"url": operator_cloud.url, "token_file": str(token)})
    params = project.params.model_copy(update={"hub": at_hub})
    with edge_of(operator_cloud) as edge:
        assert follow_champion(params, ws) == (f"hub: {LOADED} 1.0.0 on no edge yet",)
        operator_cloud.acme.place("all", c.PlacementForm(model=LOADED))
        until(lambda: serving(edge) == "1.0.0")
        champions.promote(ws, LOADED, "2")
        assert follow_champion(params, ws) == (f"edge: {LOADED} 1.1.0", f"hub: {LOADED} 1.1.0 on east")
        until(lambda: serving(edge) == "1.1.0")
        answer = edge.http.post(PATH, json=project.request())
        assert (answer.status_code, answer.json()["version"]) == (200, "1.1.0")
        assert follow_champion(params, ws) == ()
        champions.rollback(ws, LOADED)
        follow_champion(params, ws)
        until(lambda: serving(edge) == "1.0.0")
