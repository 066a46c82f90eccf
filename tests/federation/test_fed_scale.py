"""A thousand data owners in one process: every update counts, and memory stays bounded. How long it takes is in benchmarks/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "federation.py"
MOST_BYTES = 2_000_000_000
OWNERS, ROUNDS = 1_000, 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_owners_train_a_network_within_two_gigabytes() -> None:
    """In a process of its own, so that its peak memory is nobody else's."""
    command = [sys.executable, str(BENCHMARK), "--child", "thousand", "--count", str(OWNERS), "--rounds", str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BENCHMARK.parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["counted"] == [OWNERS] * ROUNDS
    assert 28_000 <= found["parameters"] <= 32_000
    assert found["judged"] == [OWNERS] * ROUNDS
    assert found["mae"][1] < found["mae"][0]
    assert found["peak_bytes"] < MOST_BYTES
