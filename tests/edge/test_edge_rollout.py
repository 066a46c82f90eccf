"""Safe replacement under load on a real edge: a worse version goes by itself, an equal one stays, and no request is lost or mixed."""

import json
import threading
import time

import httpx
import pytest
from edge_cloud import Load

from cellwright.bundle import store
from cellwright.edge.serve import in_thread
from cellwright.edge.server import Edge, Limits
from cellwright.errors import UnknownName, WorkspaceError, WrongUse
from cellwright.lifecycle.rollout.controller import Controller, Hands, begin, decide, drive
from cellwright.lifecycle.rollout.record import Files
from cellwright.lifecycle.rollout.targets import StoreTarget
from cellwright.lifecycle.rollout.watching import Watch
from cellwright.params import Rollout

NAME = "mini--traffic--h6-3"


@pytest.fixture
def rollout(shelf, another, tmp_path, project):
    """rollout(shift, **parameters): a challenger that is `shift` off lies in the store; (files, hands, parameters, events)."""

    def made(shift: float, url: str, **more):
        layout, manifest = another("1.1.0", shift=shift)
        store.place(shelf, layout, manifest, activate=False)
        guards = {"error": {}, "failures": {"margin": 0.2}, "latency": {"margin": 0.5}}
        given = {"mode": "canary", "stages": (0.2, 0.5), "min_requests": 5, "min_stage_s": 0.1, "poll_s": 0.05, "guards": guards}
        params = Rollout(**given | {"edges": (url,), "max_s": 60, "latency_ms": 1000} | more)
        events = []
        hands = Hands(StoreTarget(shelf), tell=lambda rolling, event: events.append(event.what))
        return Files(tmp_path / "rollouts", NAME), hands, params, events

    return made


def test_a_worse_version_is_taken_back_under_load_without_one_failed_request(project, shelf, edge, rollout):
    files, hands, params, events = rollout(500.0, edge.url)
    with Load(project, edge).running() as load:
        begin(files, "1.1.0", params, hands)
        done = drive(files, hands)
        time.sleep(0.2)
    assert done.state.outcome == "rolled_back", events
    assert events[-1].startswith("1.1.0 rolled back: error: error +")
    assert load.wrong(500.0) == []
    assert {json.loads(c)["version"] for _, _, c in load.answers} == {"1.0.0", "1.1.0"}
    assert json.loads(load.answers[-1][2])["version"] == "1.0.0"
    assert store.trial(shelf, NAME) is None
    assert store.pointer(shelf, NAME).version == "1.0.0"


def test_an_equal_version_is_promoted_under_load_stage_by_stage(project, shelf, edge, rollout):
    files, hands, params, events = rollout(0.0, edge.url)
    with Load(project, edge).running() as load:
        begin(files, "1.1.0", params, hands)
        done = drive(files, hands)
        time.sleep(0.3)
    assert done.state.outcome == "promoted", events
    assert [event.weight for event in done.state.events if "answers" in event.what] == [0.2, 0.5]
    assert load.wrong(0.0) == []
    assert json.loads(load.answers[-1][2])["version"] == "1.1.0"
    assert store.pointer(shelf, NAME).version == "1.1.0"
    assert files.evidence()[0].counts["1.1.0"].requests >= 10


def test_blue_green_answers_with_the_old_version_until_all_is_switched_and_keeps_it_warm(project, shelf, edge, rollout):
    files, hands, params, _ = rollout(0.0, edge.url, mode="blue_green", keep_warm_s=0.5)
    with Load(project, edge).running() as load:
        begin(files, "1.1.0", params, hands)
        with files.held():
            controller = Controller(files, hands)
            while controller.step().state.outcome == "running":
                time.sleep(0.05)
            time.sleep(0.2)
            warm = edge.shelf.snapshot.trials[NAME]
            assert (warm.predictor.manifest.version, warm.trial.weight, warm.trial.shadow) == ("1.0.0", 0.0, 0.0)
            while not controller.step().over:
                time.sleep(0.05)
            controller.close()
        time.sleep(0.2)
    versions = [json.loads(content)["version"] for _, _, content in load.answers]
    assert versions == sorted(versions)  # one switch
    assert set(versions) == {"1.0.0", "1.1.0"}
    assert load.wrong(0.0) == []
    assert edge.shelf.snapshot.trials == {}


def test_a_way_back_after_the_switch_meets_the_model_that_stayed_warm(project, shelf, edge, rollout):
    files, hands, params, _ = rollout(0.0, edge.url, mode="blue_green", keep_warm_s=600)
    old = edge.shelf.snapshot.predictors[NAME]
    begin(files, "1.1.0", params, hands)
    decide(files, hands, promoted=True)
    edge.shelf.refresh()
    assert edge.shelf.snapshot.predictors[NAME].manifest.version == "1.1.0"
    done = decide(files, hands, promoted=False)
    edge.shelf.refresh()
    assert edge.shelf.snapshot.predictors[NAME] is old
    assert done.over
    assert store.trial(shelf, NAME) is None


def test_a_controller_that_was_killed_goes_on_and_a_second_one_is_refused(project, edge, rollout):
    files, hands, params, _ = rollout(0.0, edge.url)
    begin(files, "1.1.0", params, hands)
    assert begin(files, "1.1.0", params, hands).state.started_s == files.read().state.started_s
    with files.held(), pytest.raises(WorkspaceError, match="another process drives"):
        drive(files, hands)
    first = Controller(files, hands)  # saved, in effect, and then gone
    first.step()
    first.close()
    started = files.read().state.started_s
    with Load(project, edge).running():
        done = drive(files, hands)
    assert (done.state.outcome, done.state.started_s) == ("promoted", started)


def test_an_edge_that_is_silent_is_named_and_nothing_is_promoted_without_it(project, shelf, edge, rollout):
    gone = "http://127.0.0.1:9"
    files, hands, params, events = rollout(0.0, edge.url, edges=(edge.url, gone), max_s=600)
    begin(files, "1.1.0", params, hands)
    with Load(project, edge).running() as load, files.held():
        controller = Controller(files, hands)
        now = controller.step()
        while not any(s.guard == "failures" and s.samples > 2 * params.min_requests for s in now.said):
            now = controller.step()
        controller.close()
    assert now.state.outcome == "running"
    assert now.state.stage == 0
    assert list(now.waiting) == [gone]
    assert any(e.startswith(f"waiting for {gone}: it cannot be reached") for e in events)
    assert load.wrong(0.0) == []


def test_what_speaks_against_a_version_takes_it_back_even_while_an_edge_is_silent(project, edge, rollout):
    files, hands, params, _ = rollout(500.0, edge.url, edges=(edge.url, "http://127.0.0.1:9"))
    begin(files, "1.1.0", params, hands)
    with Load(project, edge).running():
        assert drive(files, hands).state.outcome == "rolled_back"


def test_what_an_edge_had_seen_before_it_restarted_still_counts(project, shelf, rollout):
    files, hands, params, _ = rollout(0.0, "http://127.0.0.1:9")
    hands.target.apply(begin(files, "1.1.0", params, hands))
    watch, counted = Watch(), []
    for number in range(2):
        with in_thread(Edge(shelf, project.trust, port=0, limits=Limits(poll_s=0.05))) as edge:
            load = Load(project, edge)
            with httpx.Client(base_url=edge.url, trust_env=False) as load.client:
                for row in range(20 - 10 * number):
                    load.ask(row)
            assert watch.poll({"a": f"{edge.url}/v1/evidence"}, {}, NAME, lambda found: True) == {}
            counted.append(sum(e.counts["1.1.0"].requests for e in watch.seen))
    watch.close()
    assert counted == [4, 6]


def test_a_decision_reaches_the_controller_that_runs(project, shelf, edge, rollout):
    files, hands, params, _ = rollout(0.0, edge.url, max_s=600)
    begin(files, "1.1.0", params, hands)
    done = []
    thread = threading.Thread(target=lambda: done.append(drive(files, hands)))
    thread.start()
    while not files.read().applied:
        time.sleep(0.01)
    assert decide(files, hands, promoted=True).state.outcome == "promoted"
    thread.join()
    assert done[0].state.events[-1].what == "1.1.0 promoted: decided by hand"
    assert store.pointer(shelf, NAME).version == "1.1.0"


def test_what_another_has_published_meanwhile_is_not_overruled(shelf, another, edge, rollout):
    files, hands, params, _ = rollout(0.0, edge.url)
    begin(files, "1.1.0", params, hands)
    store.place(shelf, *another("2.0.0"), activate=True)
    with pytest.raises(WrongUse, match=r"another has published mini--traffic--h6-3 2\.0\.0"):
        drive(files, hands)
    assert store.pointer(shelf, NAME).version == "2.0.0"


def test_what_cannot_be_rolled_out_is_refused(shelf, edge, rollout, tmp_path):
    files, hands, params, _ = rollout(0.0, edge.url)
    with pytest.raises(WrongUse, match="in use already"):
        begin(files, "1.0.0", params, hands)
    with pytest.raises(Exception, match="is not here"):
        begin(files, "9.0.0", params, hands)
    with pytest.raises(UnknownName, match="rollout"):
        files.read()
