"""The monitor on a town whose network changes: caught once, quiet before, and the same after any kill."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cellwright.errors import FormatError, NothingNew
from cellwright.lifecycle import state as state_module
from cellwright.lifecycle.monitor import _first_usual, acknowledge, observe
from cellwright.lifecycle.state import Drift, State
from cellwright.panel import Panel
from cellwright.results import Trained

STEPS, KNOWN, CHANGED, DAYS = 48, 35, 42, 56
NAME = "town--traffic_mbps--h6-3"
BLOCK = {f"s{i:02d}" for i in range(10)}


def watch(params, ws, champion, version="1", days=DAYS):
    """Observations until nothing is new, or `days` of them."""
    found = []
    for _ in range(days):
        try:
            found.append(observe(params, ws, champion, version, name=NAME))
        except NothingNew:
            break
        acknowledge(ws, NAME)
    return found


def test_every_row_is_scored_once_and_the_change_is_asked_for_once(params, town):
    ws, champion = town
    found = watch(params, ws, champion)
    assert found[0].first_row == KNOWN * STEPS
    assert [o.stop_row for o in found[:-1]] == [o.first_row for o in found[1:]]
    assert found[-1].stop_row == DAYS * STEPS - 2  # the last windows of three steps are not whole yet
    quiet = [o for o in found if o.stop_row <= CHANGED * STEPS]
    assert len(quiet) == 7
    assert not any(o.retrain for o in quiet)
    asked = [o for o in found if o.retrain]
    assert len(asked) == 1
    sites = {d.site for d in asked[0].pending}
    assert len(sites & BLOCK) >= 4
    assert len(sites - BLOCK) <= 1
    began = [d.began for d in asked[0].pending if d.site in BLOCK]
    assert sorted(began)[len(began) // 2][:10] in ("2026-02-16", "2026-02-17")  # day 42 is 16 February
    assert all(d.size > 0.3 for d in asked[0].pending if d.site in BLOCK)


def test_a_kill_anywhere_neither_loses_nor_repeats_a_row(params, town, tmp_path, monkeypatch):
    """Killed before the state is written: the day is observed again. Killed after: it is told again. Both give the same."""
    ws, champion = town
    whole = watch(params, ws, champion)
    path = ws.state / "monitor" / f"{NAME}.npz"
    end = path.read_bytes()
    path.unlink()

    def killed(*_):
        raise KeyboardInterrupt

    found = []
    while True:
        monkeypatch.setattr(state_module, "write_bytes", killed)
        with pytest.raises((KeyboardInterrupt, NothingNew)) as stopped:
            observe(params, ws, champion, "1", name=NAME)
        monkeypatch.undo()
        if stopped.type is NothingNew:
            break
        observe(params, ws, champion, "1", name=NAME)  # killed right after it: nobody heard
        found.append(observe(params, ws, champion, "1", name=NAME))
        acknowledge(ws, NAME)
    assert found == whole
    assert path.read_bytes() == end


def test_a_process_that_is_killed_for_good_leaves_a_whole_state(params, town):
    ws, champion = town
    observe(params, ws, champion, "1", name=NAME)
    acknowledge(ws, NAME)
    script = (
        "import os, sys, json; from pathlib import Path; from cellwright import files; from cellwright.params import Params\n"
        "from cellwright.workspace import Workspace; from cellwright.lifecycle.monitor import observe\n"
        "os.replace = lambda *_: os._exit(9)\n"
        "observe(Params.model_validate_json(sys.argv[1]), Workspace(Path(sys.argv[2])), Path(sys.argv[3]), '1', name=sys.argv[4])\n"
    )
    given = [params.model_dump_json(by_alias=True), str(ws.root), str(champion), NAME]
    assert subprocess.run([sys.executable, "-c", script, *given], check=False).returncode == 9
    after = State.read(ws.state / "monitor" / f"{NAME}.npz")
    assert after is not None
    assert after.scored == (KNOWN + 1) * STEPS
    assert observe(params, ws, champion, "1", name=NAME).first_row == after.scored


def test_until_it_is_acknowledged_the_same_is_told_again(params, town):
    ws, champion = town
    first = observe(params, ws, champion, "1", name=NAME)
    assert observe(params, ws, champion, "1", name=NAME) == first
    acknowledge(ws, NAME)
    acknowledge(ws, NAME)
    assert observe(params, ws, champion, "1", name=NAME).first_row == first.stop_row


def test_what_is_not_released_cannot_be_seen(params, town, tmp_path):
    """Later rows that say something quite different change nothing of what was observed before."""
    ws, champion = town
    honest = watch(params, ws, champion, days=3)
    whole = Panel.open(ws.panel("town"))
    traffic = whole.values("traffic_mbps").copy()
    traffic[honest[-1].stop_row + 2 :] = 1e6
    other = type(ws)(tmp_path / "other")
    Panel.from_arrays(whole.schema, {"traffic_mbps": traffic}, {"traffic_mbps": whole.flags("traffic_mbps")}).save(
        other.panel("town")
    )
    assert watch(params, other, champion, days=3) == honest


def test_a_new_champion_goes_on_where_the_last_one_stopped_with_a_clean_slate(params, town):
    ws, champion = town
    found = watch(params, ws, champion, days=12)
    next_one = observe(params, ws, champion, "2", name=NAME)
    assert next_one.first_row == found[-1].stop_row
    assert next_one.version == "2"
    held = State.read(ws.state / "monitor" / f"{NAME}.npz")
    assert held is not None
    assert len(held.residuals) == STEPS


def test_models_of_one_data_set_are_watched_apart(params, town):
    ws, champion = town
    first = watch(params, ws, champion, days=3)
    longer = observe(params, ws, champion, "1", name="town--traffic_mbps--h6-12")
    assert longer == first[0]
    assert observe(params, ws, champion, "1", name=NAME).first_row == first[-1].stop_row


@pytest.mark.parametrize(("learnt", "from_day"), [(None, 7), ((0, 20 * STEPS), 20), ((0, 21 * STEPS), 21), ((0, 22 * STEPS), 7)])
def test_what_is_usual_is_told_by_rows_that_were_not_learnt_from(town, tmp_path, learnt, from_day):
    """The four weeks before day 35, less what was trained on, if two weeks are left of them."""
    ws, champion = town
    record = Trained.read(champion / "candidate.json").model_copy(update={"train_rows": learnt})
    record.save(tmp_path / "champion" / "candidate.json")
    assert _first_usual(Panel.open(ws.panel("town")), tmp_path / "champion", KNOWN * STEPS) == from_day * STEPS


def test_nothing_new_says_where_it_stands(params, town):
    ws, champion = town
    watch(params, ws, champion)
    with pytest.raises(NothingNew, match="nothing new since row 2686"):
        observe(params, ws, champion, "1", name=NAME)


def test_a_damaged_state_says_what_to_do(params, town):
    ws, champion = town
    observe(params, ws, champion, "1", name=NAME)
    path = ws.state / "monitor" / f"{NAME}.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FormatError, match="delete it"):
        observe(params, ws, champion, "1", name=NAME)


def state(**changed) -> State:
    zeros = np.zeros((2, 3), np.float32)
    fields = {"version": "1", "scored": 100, "baseline": np.ones((48, 3)), "residuals": zeros, "since": np.zeros(3, np.int64)}
    return State(**fields | changed)


def test_the_state_is_read_as_it_was_written(tmp_path):
    given = state(
        residuals=np.array([[1, np.nan, 2], [0, 1, 1]], np.float32),
        pending=(Drift("a", 90, 5400, 0.5, 80),),
        last_retraining=40,
        untold=json.dumps({"x": 1}),
    )
    given.save(tmp_path / "s.npz")
    found = State.read(tmp_path / "s.npz")
    assert found is not None
    assert (found.pending, found.last_retraining, found.untold) == (given.pending, 40, given.untold)
    assert np.array_equal(found.residuals, given.residuals, equal_nan=True)


def test_a_state_of_another_form_is_refused(tmp_path):
    state(baseline=np.ones((24, 3))).save(tmp_path / "s.npz")
    with pytest.raises(FormatError, match="24 hours, expected 48"):
        State.read(tmp_path / "s.npz")


def test_single_false_alarms_are_forgotten_but_a_change_is_not():
    old, new = Drift("a", 10, 0, 0.5), Drift("b", 95, 0, 0.5)
    assert state(pending=(old, new)).gathered(sites=3, rows=20).pending == (new,)
    assert state(pending=(old, new)).gathered(sites=2, rows=20).pending == (old, new)
    assert state(pending=(old, old)).gathered(sites=2, rows=20).pending == ()
