"""What a federation costs beside the training itself: rounds of nothing, a thousand owners, both runtimes, privacy mechanisms.

    python benchmarks/federation.py                              # all, and benchmarks/results/<date>-federation.md
    python benchmarks/federation.py --parts empty,thousand       # some; nothing is written

    empty      local runtime, 100 nodes that answer at once × 10 rounds: bare; then signed, audited, checkpointed and accounted for
    thousand   local runtime, 1,000 data owners × 5 rounds of a GRU of about 30,000 parameters, one step of batch 32 each
    deployed   the same job of three owners × 3 rounds in this process and on Flower's SuperLink and SuperNodes, over TLS
    privacy    a round of FedAvg over 50 nodes and 30,000 parameters, in the clear and under each mechanism, a fifth of the nodes lost

Every part runs in a process of its own, whose peak memory is that of the part; seconds are of the wall clock unless said otherwise.
All rounds are those of `Coordinator`: updates are asked for and aggregated, the new weights are judged by every owner, and recorded.
What the mechanisms cost apart from a round, and for how much privacy, is in benchmarks/privacy.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _federation_idle import empty, mechanisms
from _federation_nodes import say
from _federation_pages import page_deployed, page_empty, page_privacy, page_thousand
from _federation_training import deployed, thousand


def peak_bytes() -> int:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Mapping[str, Any]], str]]] = {
    "empty": (empty, page_empty),
    "thousand": (thousand, page_thousand),
    "deployed": (deployed, page_deployed),
    "privacy": (mechanisms, page_privacy),
}


def apart(part: str, options: Sequence[str]) -> dict[str, Any]:
    """A part in a process of its own."""
    say(f"{part} (load {os.getloadavg()[0]:.1f})")
    load = os.getloadavg()[0]
    command, environment = [sys.executable, __file__, "--child", part, *options], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"the part '{part}' failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "load": (load, os.getloadavg()[0])}


def page(found: Mapping[str, Mapping[str, Any]], day: str) -> str:
    """The results as a page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("flwr", "torch", "numpy", "cryptography", "tenseal"))
    loads = "; ".join(f"{part} {r['load'][0]:.1f} to {r['load'][1]:.1f}" for part, r in found.items())
    busy = max(load for r in found.values() for load in r["load"]) > (os.cpu_count() or 1)
    shared = "Other work shared the cores, so seconds of the wall clock are more than an idle machine's; CPU time is this work's own.\n"
    sections = "\n\n".join(PARTS[part][1](r) for part, r in found.items())
    return f"""# What a federation costs beside the training, {day}

`python benchmarks/federation.py` on {platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, {libraries}.
Load average while each part ran: {loads}.
{shared if busy else ""}
{sections}
"""


def main() -> None:
    """Measure, print, and write the page where all was measured."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--parts", default=",".join(PARTS), help="of empty, thousand, deployed, privacy")
    asked.add_argument("--count", type=int, help="nodes or owners, where it is not the usual number; nothing is written")
    asked.add_argument("--rounds", type=int, help="rounds, likewise")
    asked.add_argument("--child", choices=PARTS, help="run one part in this process, and print what was found as JSON")
    given = asked.parse_args()
    sizes = {name: getattr(given, name) for name in ("count", "rounds") if getattr(given, name) is not None}
    if given.child:
        print(json.dumps({**PARTS[given.child][0](**sizes), "peak_bytes": peak_bytes()}))
        return
    parts = [part for part in PARTS if part in given.parts.split(",")]
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    found = {part: apart(part, options) for part in parts}
    day = datetime.now(UTC).date().isoformat()
    written = page(found, day)
    print(written)
    if parts == [*PARTS] and not sizes:
        Path(__file__).with_name("results").joinpath(f"{day}-federation.md").write_text(written)


if __name__ == "__main__":
    main()
