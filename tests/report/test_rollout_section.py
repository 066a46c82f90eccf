"""The rollout section: told of the run's own version, and of no other."""

import json

import pytest

from cellwright.edge.evidence import Counts, Evidence, Pair
from cellwright.lifecycle.rollout.record import Files, Rolling
from cellwright.lifecycle.rollout.rules import advance, armed, begun, judged, said
from cellwright.params import Rollout
from cellwright.report import rollout
from cellwright.results import Registered
from cellwright.workspace import Workspace

PARAMS = Rollout(mode="canary", stages=(0.1,), guards={"error": {}})


@pytest.fixture
def ws(tmp_path):
    """A run whose version 1.1.0 was taken back, of a name that a page must not read as markup."""
    made = Workspace(tmp_path, "r")
    Registered(experiment="e", run_id="r", model_name="town", version="2", semantic="1.1.0", champion=False, reason="won").save(
        made.registration
    )
    pairs = tuple(Pair(at_ms=600_000 * i, champion=1.0, challenger=2.0) for i in range(50))
    seen = Evidence(
        edge="<b>", model="town", champion="1.0.0", challenger="1.1.0", since_s=0,
        counts={"1.1.0": Counts(requests=70, failed=2, slow=3)}, errors=pairs,
    )  # fmt: skip
    state = advance(begun("town", "1.0.0", "1.1.0", PARAMS, 0.0), [seen], armed(PARAMS), PARAMS, 90.0)
    files = Files(made.rollouts, "town")
    opinions = said(judged([seen], armed(PARAMS), PARAMS))
    Rolling(state=state, params=PARAMS, digest="sha256:0", applied=True, said=opinions).save(files.document)
    files.keep_evidence((seen,))
    return made


def test_it_tells_the_outcome_the_guards_and_draws_weights_and_errors(ws):
    found = rollout.view(ws)
    assert "taken back" in found.sentence
    assert ("requests it answered", "70") in found.facts
    assert ("of them failed, late", "2, 3") in found.facts
    assert [(g.title, g.verdict) for g in found.guards] == [("Forecast error", "worse, proven")]
    assert [m.weight for m in found.moments] == ["10 %", "0 %"]
    (weights,) = found.charts["rollout-weights"]["data"]
    assert weights["y"] == [10.0, 0.0]
    champion, challenger = found.charts["rollout-errors"]["data"]
    assert (champion["y"][-1], challenger["y"][-1]) == (1.0, 2.0)
    assert "<b>" not in json.dumps(found.charts)


def test_another_versions_rollout_is_not_this_runs(ws):
    Registered.read(ws.registration).model_copy(update={"semantic": "1.2.0"}).save(ws.registration)
    assert rollout.view(ws) is None


def test_a_run_without_rollout_has_no_section(tmp_path):
    assert rollout.view(Workspace(tmp_path, "r")) is None
