"""The main job, run once for all tests of the flows."""

from __future__ import annotations

import subprocess

import pytest


@pytest.fixture(scope="session")
def ended(project):
    """The main job, run once. One of its candidates cannot be built: a lag of 2 steps is not known 3 steps ahead."""
    models = "train.models=[persistence, ridge, mlp, dlinear]"
    before = (project.root / "data" / "dvc.lock").read_text() if (project.root / "data" / "dvc.lock").is_file() else ""
    done = project.cellwright("run", "--set", models, "--set", "train.settings={dlinear: {lags: [2]}}")
    assert done.returncode == 0, done.stderr
    return done, before, project.attempts, git(project, "status", "--porcelain")


def git(project, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=project.root, capture_output=True, text=True, check=True).stdout
