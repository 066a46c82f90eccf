"""Where the parallel scan overtakes the loop.

    python benchmarks/scan.py               # everything, and benchmarks/results/<date>-scan.md
    python benchmarks/scan.py --rounds 1    # quicker, prints only

A selective scan of 64 channels × 16 states, forward and backward, on one thread, for histories of 2 to 144 steps and 1 to 1,024
rows: the loop and the parallel scan with the gradients that models/_layers/scan.py writes out, and both again with autograd's own
(every step's states kept), as a plain implementation would have them. CPU time of the process, the best of some rounds: it says
least about what else runs on the machine. The last columns say which way the networks take.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from models._layers import scan

CHANNELS, STATES = 64, 16
STEPS = (2, 4, 6, 8, 12, 24, 48, 144)
ROWS = (1, 8, 64, 1024)
MOST = 1 << 14  # rows × steps: larger ones are left out, they only take long


def inputs(rows: int, steps: int) -> list[Tensor]:
    """u, delta, a, b and c as a trained block might have them."""
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(rows, steps, 1, CHANNELS, generator=rng)
    delta = torch.rand(rows, steps, 1, CHANNELS, generator=rng) * 0.1
    a = -torch.arange(1.0, STATES + 1)[None, :, None].repeat(1, 1, CHANNELS)
    b, c = (torch.randn(rows, steps, 1, STATES, generator=rng) for _ in range(2))
    return [x.requires_grad_() for x in (u, delta, a, b, c)]


def written_out(*, in_parallel: bool) -> Callable[..., None]:
    """The scan of this project, one way forced upon it."""

    def run(*given: Tensor) -> None:
        with mock.patch.object(scan, "scans_in_parallel", return_value=in_parallel):
            scan.selective_scan(*given).sum().backward()

    return run


def plain(*, in_parallel: bool) -> Callable[..., None]:
    """The same operations with the gradients left to autograd."""

    def run(*given: Tensor) -> None:
        scan._outputs(*given, in_parallel=in_parallel).sum().backward()

    return run


WAYS = {
    "loop": written_out(in_parallel=False),
    "parallel": written_out(in_parallel=True),
    "loop, autograd": plain(in_parallel=False),
    "parallel, autograd": plain(in_parallel=True),
}


def cpu_ms(way: Callable[..., None], given: list[Tensor], rounds: int) -> float:
    """Best CPU time of a forward and a backward pass."""
    way(*given)
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        way(*given)
        taken.append(time.process_time() - begun)
    return min(taken) * 1000


def row(rows: int, steps: int, rounds: int) -> str:
    """A row of the table."""
    given = inputs(rows, steps)
    taken = {name: cpu_ms(way, given, rounds) for name, way in WAYS.items()}
    best = min(("loop", "parallel"), key=taken.__getitem__)
    taken_by_us = "parallel" if scan.scans_in_parallel(given[0], given[3]) else "loop"
    cells = " | ".join(f"{ms:,.2f}" for ms in taken.values())
    return f"| {rows:,} | {steps} | {cells} | {best} | {taken_by_us} |"


def page(lines: list[str]) -> str:
    """The dated result."""
    head = "| rows | steps | " + " | ".join(f"{name}, ms" for name in WAYS) + " | faster | taken |"
    return "\n".join(
        [
            f"# Selective scan, {datetime.now(UTC):%Y-%m-%d}",
            "",
            f"`python benchmarks/scan.py` on {platform.machine()}, 1 thread; Python {platform.python_version()}, torch "
            f"{torch.__version__}. Load average at the end {os.getloadavg()[0]:.1f}.",
            f"{CHANNELS} channels × {STATES} states, forward and backward, CPU milliseconds, best of the rounds.",
            "",
            head,
            "|" + " --- |" * (len(WAYS) + 4),
            *lines,
            "",
        ]
    )


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = page([row(r, s, asked.rounds) for r in ROWS for s in STEPS if r * s <= MOST])
    print(text)
    if asked.rounds >= 3:
        (Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-scan.md").write_text(text)


if __name__ == "__main__":
    main()
