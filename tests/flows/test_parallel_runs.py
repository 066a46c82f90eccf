"""Two runs at once, in one project that has no data yet; in one of them a worker process is killed."""

from __future__ import annotations

import json

import pytest


@pytest.mark.slow
def test_two_runs_at_once_do_not_disturb_each_other_and_a_killed_worker_is_replaced(own_project):
    arguments = ("run", "--set", "train.models=[persistence, mlp]")
    plain = own_project.start(*arguments, "--set", "train.seed=8")
    struck = own_project.start(*arguments, "--set", "train.seed=9")

    def training() -> list:
        return list((own_project.root / "artifacts").glob("*/candidates/mlp/training.ckpt"))

    def worker():
        """The one that trains, once both runs have learnt something."""
        found = [p for p in struck.family() if "multiprocessing-fork" in " ".join(p.cmdline())]
        return len(training()) == 2 and found

    (victim,) = struck.wait_until(worker, "both runs' training", 240)
    victim.kill()
    ended = [plain.finish(), struck.finish()]
    assert [d.returncode for d in ended] == [0, 0], ended
    assert not any("Traceback" in d.stderr for d in ended)
    assert (struck.left_behind(), plain.left_behind()) == ([], [])
    found = sorted(
        (t["seed"], t["resumed"], t["epochs"], t["data"]["hash"])
        for t in (json.loads(p.read_text()) for p in (own_project.root / "artifacts").glob("*/candidates/mlp/candidate.json"))
    )
    assert [f[:3] for f in found] == [(8, 0, 30), (9, 1, 30)]
    assert found[0][3] == found[1][3]
    (champion,) = json.loads(own_project.cellwright("champion", "list", "--json").stdout)
    assert champion["versions"] == 2
    assert champion["semantic"] in ("1.0.0", "1.1.0")
