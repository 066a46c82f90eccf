"""Two publishers of one model at once: one goes on, the other is told. And where a run is published that was asked for elsewhere."""

import threading

import pytest

from cellwright.errors import WorkspaceError
from cellwright.params import HubParams, Params, ProblemParams, Rollout
from cellwright.steps.publication import alone, present_where
from cellwright.workspace import Workspace

PARAMS = Params(dataset="town", problem=ProblemParams(targets=("traffic",)))


def test_a_second_publisher_is_told_and_another_models_is_not_kept_waiting(tmp_path):
    ws, other = Workspace(tmp_path), Params(dataset="city", problem=ProblemParams(targets=("traffic",)))
    told = pytest.raises(WorkspaceError, match=r"another run is publishing town--traffic--h6-3 .* nothing of this one")
    with alone(PARAMS, ws), alone(other, ws, wait_s=0), told, alone(PARAMS, ws, wait_s=0.1):
        pytest.fail("two at once")
    with alone(PARAMS, ws, wait_s=0):
        pass


def test_a_lock_that_cannot_be_written_is_said(tmp_path):
    ws = Workspace(tmp_path)
    lock = ws.rollouts / "town--traffic--h6-3.publication.lock"
    lock.mkdir(parents=True)
    with pytest.raises(WorkspaceError, match=f"cannot write {lock} .* make it and its folder writable"), alone(PARAMS, ws):
        pytest.fail("without a lock")
    lock.rmdir()
    with alone(PARAMS, ws):
        pass


def test_a_second_publisher_goes_on_when_the_first_is_done_or_lets_it(tmp_path):
    ws, entered = Workspace(tmp_path), []

    def second() -> None:
        with alone(PARAMS, ws):
            entered.append("second")

    thread = threading.Thread(target=second)
    with alone(PARAMS, ws) as let_others:
        thread.start()
        entered.append("first")
        let_others()
        thread.join(30)
    assert entered == ["first", "second"]


def test_a_rollout_that_a_run_alone_was_asked_for_is_not_left_out_when_it_is_published(tmp_path):
    own = PARAMS.model_copy(update={"rollout": Rollout(mode="canary", min_requests=7), "hub": HubParams(url="http://hub")})
    plain = Params()
    kept = present_where(own, plain)
    assert (kept.rollout.mode, kept.rollout.min_requests, kept.hub.url) == ("canary", 7, "http://hub")
    assert present_where(own, plain, ["rollout.mode=direct"]).rollout.mode == "direct"
    now = plain.model_copy(update={"rollout": Rollout(mode="blue_green"), "hub": HubParams(url="http://other")})
    said = present_where(own, now)
    assert (said.rollout.mode, said.hub.url, said.problem) == ("blue_green", "http://other", own.problem)
