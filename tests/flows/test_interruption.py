"""A run that is interrupted: by Ctrl-C, by a kill of the whole command, by another process that wants the same run."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file


def epochs(folder) -> int:
    history = folder / "history.jsonl"
    return len(history.read_text().splitlines()) if history.is_file() else 0


@contextmanager
def held_still(command):
    """The processes that a command has started do nothing for a while."""
    workers = [p for p in command.family() if p.pid != command.process.pid]
    for worker in workers:
        worker.suspend()
    yield
    for worker in workers:
        worker.resume()


@pytest.fixture
def halfway(project, ended):
    """Starts a run of its own in a session, and waits for its network to have learnt some epochs more."""
    known = {p.name for p in (project.root / "artifacts").iterdir()}
    arguments = ("run", "--set", "train.models=[mlp]", "--set", "register.bump=patch", "--no-promote")

    def folder():
        found = [p for p in (project.root / "artifacts").glob("town-*/candidates/mlp") if p.parts[-3] not in known]
        return found[0] if found else None

    def start(*more: str):
        reached = epochs(folder()) if folder() else 0
        command = project.start(*arguments, *more)
        command.wait_until(
            lambda: folder() and (folder() / "training.ckpt").is_file() and epochs(folder()) >= reached + 2, "epochs"
        )
        return command

    return start, folder, arguments


def test_a_run_survives_ctrl_c_and_kill_and_ends_as_if_nothing_had_happened(project, halfway):
    start, folder, arguments = halfway

    command = start()
    with held_still(command):
        rival = project.cellwright(*arguments)
    assert rival.returncode == 1
    assert "is in the hands of another process; wait for it, or start another one with --fresh" in rival.stderr
    os.killpg(command.process.pid, signal.SIGINT)  # what a terminal does
    stopped = command.finish(30)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == "stopped; the same command resumes"
    assert "Traceback" not in stopped.stderr
    assert command.left_behind() == []
    assert not (folder() / "candidate.json").is_file()

    command = start()
    assert len(command.family()) > 1  # a worker process trains
    command.process.kill()
    command.process.wait()
    assert command.left_behind() == []
    command.finish()

    before = epochs(folder())
    command = project.start(*arguments, "--set", "runner.kind=serial")
    command.wait_until(lambda: any("score" in p.cmdline() for p in command.family()), "scoring")
    os.killpg(command.process.pid, signal.SIGINT)
    stopped = command.finish(30)
    assert (stopped.returncode, stopped.stderr.splitlines()[-1]) == (130, "stopped; the same command resumes")
    assert "Traceback" not in stopped.stderr
    assert command.left_behind() == []
    trained = json.loads((folder() / "candidate.json").read_text())
    assert 3 <= before < 30
    assert (trained["epochs"], trained["resumed"], epochs(folder())) == (30, 2, 30)
    assert trained["status"] == "max_epochs"
    (whole,) = (p for p in (project.root / "artifacts").glob("town-*/candidates/mlp") if p != folder())
    mine, theirs = load_file(folder() / "forecaster.safetensors"), load_file(whole / "forecaster.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert json.loads((whole / "candidate.json").read_text())["resumed"] == 0
