"""What all rooms' tests share: a project of their own, the data mirror, and one Prefect harness for the whole session."""

from __future__ import annotations

import os
import shutil
import subprocess

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

def pytest_configure(config: pytest.Config) -> None:
    """One thread a process: tests share two cores with each other's children."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder with copies of the real data sets; tests that need it are marked `shared`."""
    folder = Path(os.environ.get("CELLWRIGHT_MIRROR") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "milan-5x5").is_dir():
        pytest.skip(f"no data mirror: {folder} holds no milan-5x5; set CELLWRIGHT_MIRROR to a folder that does")
    return folder

def copy_project(target: Path) -> Path:
    """A checkout of the present tree in `target`, under git, without anything that runs have made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = REPOSITORY / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=target, check=True)
    return target
