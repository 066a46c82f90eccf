"""Ctrl-C where Python, a library or a shell would lose it: each in a real process that sends itself the signal in that very place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# A command of its own, so that the interruption goes the whole way: signal, exception, typer, exit code, last words.
COMMAND = """
import gc, os, signal, sys, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from cellwright import interruption
from flows import cli

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # it comes before

def lose():
    try:
        ctrl_c()
    except BaseException:
        print("lost", flush=True)

@cli.app.command()
def work():
{body}

if __name__ == "__main__":
    sys.argv = ["cellwright", "work"]
    cli.main()
"""
IGNORES_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # what a shell does for `cellwright run &` in a script

IGNORED_BY_PYTHON = {
    "__del__": """
class Dropped:
    def __del__(self):
        ctrl_c()
Dropped()
""",
    "a weak reference": """
class Dropped: pass
dropped = Dropped()
kept = weakref.ref(dropped, lambda _: ctrl_c())
del dropped
""",
    "the garbage collector": """
once = [ctrl_c]
gc.callbacks.append(lambda phase, found: once.pop()() if once else None)
gc.collect()
""",
}

SWALLOWED_BY_A_LIBRARY = {
    "the next step": """
lose()
interruption.look()
print("went on")
""",
    "the end": """
lose()
""",
    "a training in this thread": """
from cellwright.training import stopping
lose()
stopping.look()
print("went on")
""",
    "a training in another thread": """
from cellwright.training import stopping
def train():
    while True:
        stopping.look()
        time.sleep(0.01)
threads = ThreadPoolExecutor(1)
training = threads.submit(train)
lose()
training.result()
print("went on")
""",
    "a step in a process of its own": """
from cellwright.processes import run_step
from cellwright.workspace import Workspace
lose()
run_step(Workspace(Path.cwd(), "no-such-run"), "score", on_line=print)
""",
}


def program(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "program.py"
    path.write_text(COMMAND.replace("{body}", "\n".join(f"    {line}" for line in body.strip().splitlines())))
    return path


def outcome(tmp_path: Path, body: str, *before: str) -> tuple[int, list[str], list[str]]:
    """Exit code and lines of a command that does `body`."""
    done = subprocess.run(
        [*before, sys.executable, str(program(tmp_path, body))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CELLWRIGHT_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


STOPPED = ["stopped; the same command resumes"]


@pytest.mark.parametrize("place", IGNORED_BY_PYTHON)
def test_an_exception_that_python_ignores_comes_again(tmp_path, place):
    body = IGNORED_BY_PYTHON[place] + 'print("lost", flush=True)\nthreading.Event().wait()  # as for a training\nprint("went on")'
    assert outcome(tmp_path, body) == (130, ["lost"], STOPPED)


@pytest.mark.parametrize("obeyed_at", SWALLOWED_BY_A_LIBRARY)
def test_one_that_a_library_swallows_is_obeyed_at_the_next_edge(tmp_path, obeyed_at):
    assert outcome(tmp_path, SWALLOWED_BY_A_LIBRARY[obeyed_at]) == (130, ["lost"], STOPPED)


def test_what_else_python_ignores_is_told_as_ever(tmp_path):
    code, out, err = outcome(
        tmp_path, "class Dropped:\n    def __del__(self):\n        raise ValueError(7)\nDropped()\nprint('on')"
    )
    assert (code, out) == (0, ["on"])
    assert err[0].startswith("Exception ignored in: ")
    assert err[-1] == "ValueError: 7"


def test_what_a_script_runs_in_the_background_is_left_alone_as_its_shell_wants_it(tmp_path):
    assert outcome(tmp_path, 'os.kill(os.getpid(), signal.SIGINT)\nprint("went on")', *IGNORES_SIGINT) == (0, ["went on"], [])


def test_cleaning_up_is_not_disturbed_by_its_cause_nor_by_its_echo(tmp_path):
    body = """
try:
    ctrl_c()
finally:
    interruption.look()
    try:
        raise ValueError("of the cleaning itself")
    except ValueError:
        interruption.look()
    os.kill(os.getpid(), signal.SIGINT)
    print("cleaned up")
"""
    assert outcome(tmp_path, body) == (130, ["cleaned up"], STOPPED)


def test_a_second_one_ends_it_at_once_however_long_the_cleaning_takes(tmp_path):
    body = """
try:
    ctrl_c()
finally:
    print("cleaning up", flush=True)
    time.sleep(interruption._ECHO_S)
    ctrl_c()
    print("cleaned up")
"""
    assert outcome(tmp_path, body) == (130, ["cleaning up"], STOPPED)


def test_worker_processes_are_deaf_from_their_start_and_end_with_what_was_lost(tmp_path):
    body = """
from cellwright.training.workers import Workers
with Workers(1, 1) as workers, ThreadPoolExecutor(1) as threads:
    print(signal.SIGINT in workers.run("told", signal.pthread_sigmask, signal.SIG_BLOCK, []))
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    sleeping = threads.submit(workers.run, "slept", time.sleep, 600)
    lose()
    sleeping.result()
    print("went on")
"""
    assert outcome(tmp_path, body) == (130, ["True", "False", "lost"], STOPPED)


def test_what_prefect_drops_while_it_closes_a_flow_is_obeyed_by_the_next_step(project, tmp_path):
    body = """
from prefect import flow
from prefect.transactions import transaction
from tasks._run import say

@flow(on_completion=[lambda *_: ctrl_c()])
def step():
    print("did its work", flush=True)

def taken_back(_):
    say("passes an edge")
    print("taken back", flush=True)

@flow
def chain():
    with transaction() as undoable:
        undoable.stage("x", on_rollback_hooks=[taken_back])
        step()
        print("lost", flush=True)
        say("the next step")
        print("went on", flush=True)

os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
chain()
"""
    done = project.program(sys.executable, str(program(tmp_path, body)))
    assert done.stdout.splitlines() == ["did its work", "lost", "taken back"]
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (130, STOPPED)
    assert "Traceback" not in done.stderr
