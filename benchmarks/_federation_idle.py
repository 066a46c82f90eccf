"""Parts `empty` and `privacy` of federation.py: rounds among nodes that train nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _federation_nodes import LARGE, REQUEST, TINY, Ready, Took, arrays, rounds_of, say

from cellwright.federation import compression, privacy
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog, verify_log
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import Arrays
from cellwright.federation.costs import Costs
from cellwright.federation.privacy._contract import CoordinatorSide, Mechanism
from cellwright.federation.runtimes.jobs import COSTS


def empty(count: int = 100, rounds: int = 10) -> dict[str, Any]:
    """Bare, and with all that watches over a federation."""
    names, first = [f"node-{i:03d}" for i in range(count)], arrays(TINY, 0)
    rounds_of({n: Ready(n, first) for n in names[:3]}, first, 1)  # what is imported late
    _, bare = rounds_of({n: Ready(n, first) for n in names}, first, rounds)
    say(f"  bare: {bare}")
    with tempfile.TemporaryDirectory() as folder:
        full, found = watched(names, first, rounds, Path(folder))
    say(f"  with audit, checkpoints and accounting: {full}")
    return {"nodes": count, "rounds": rounds, "bare": asdict(bare), "full": asdict(full), **found}


def watched(names: Sequence[str], first: Arrays, rounds: int, folder: Path) -> tuple[Took, dict[str, Any]]:
    """Both sides sign and check, every message is judged and logged, every round can be resumed from, ε and costs are counted."""
    signer, keys = Signer.generate(), {name: Signer.generate() for name in names}
    nodes = {name: Ready(name, first, signer=keys[name], coordinator=signer.public) for name in names}
    log = AuditLog.open(folder / "audit.jsonl", signer)
    form = Form(first, compression.codec("none"))
    auditor = Auditor(Rules(), {n: key.public for n, key in keys.items()}, log, form, request=REQUEST)
    accounted = (privacy.mechanism("central_dp"),)
    checkpoint = folder / "checkpoint.safetensors"
    more = {
        "auditor": auditor,
        "signer": signer,
        "checkpoint": checkpoint,
        "mechanisms": accounted,
        "costs": Costs(folder / COSTS),
    }
    outcome, took = rounds_of(nodes, first, rounds, **more)
    auditor.close()
    verdict = verify_log(folder / "audit.jsonl", signer.public)
    assert verdict.ok, verdict.summary
    return took, {
        "records": verdict.records,
        "epsilon": outcome.rounds[-1].epsilon,
        "checkpoint_bytes": checkpoint.stat().st_size,
    }


@dataclass
class Sealing:
    """Keeps the coordinator's side of a mechanism, so that its sum can be looked at afterwards."""

    made: Mechanism
    sides: list[CoordinatorSide] = field(default_factory=list)

    def __post_init__(self) -> None:
        make = self.made.coordinator_side

        def kept(owners: tuple[str, ...], seed: int) -> CoordinatorSide:
            self.sides.append(make(owners, seed))
            return self.sides[-1]

        self.made.coordinator_side = kept  # type: ignore[method-assign]


def private(name: str, lost_at: str, count: int, rounds: int) -> dict[str, Any]:
    """The last of some rounds; `lost_at`: the kind of message that a fifth of the nodes do not answer in the first.

    Raises:
        AssertionError: a sealed sum is not exactly that of the vectors that came.
    """
    made = privacy.mechanism(name) if name else None
    names, first = [f"node-{i:02d}" for i in range(count)], arrays(LARGE, 0)
    nodes = {n: Ready(n, arrays(LARGE, i), made) for i, n in enumerate(names)}
    for lost in names[::5]:
        nodes[lost].lost_at = lost_at
    sealing = Sealing(made) if made and made.seals else None
    outcome, took = rounds_of(nodes, first, rounds, mechanisms=(made,) if made else ())
    last = outcome.rounds[-1]
    counted = [owner.owner for owner in last.owners if owner.outcome == "counted"]
    if made is not None and sealing is not None:
        own = [nodes[owner].sealed for owner in names if nodes[owner].sealed is not None]
        exact = sum(made.options.grid.integers(one) for one in own)  # type: ignore[attr-defined]
        assert np.array_equal(sealing.sides[-1].integers(), exact), f"{name}: the sum is not exact"  # type: ignore[attr-defined]
        assert len(own) == len(counted), f"{name}: {len(own)} sent a vector, {len(counted)} were counted"
    say(f"  {name or 'in the clear'} {lost_at}: {1e3 * last.seconds:.0f} ms")
    told_bytes = {"up_bytes": last.up_bytes, "down_bytes": last.down_bytes}
    return {
        "name": name,
        "lost_at": lost_at,
        "seconds": last.seconds,
        "cpu_s": took.cpu_s / rounds,
        "counted": len(counted),
        **told_bytes,
    }


def mechanisms(count: int = 50) -> dict[str, Any]:
    """Each mechanism's round beside one in the clear."""
    rows = [private("", "", count, 4)]
    for name in privacy.names():
        made = privacy.mechanism(name)
        if name == "dp_sgd":  # at the owner's gradients: no cost but training's, see benchmarks/privacy.py
            continue
        rows.append(private(name, "", count, 2 if made.seals else 4))
        if made.seals:
            kinds = [*(f"stage_{s}" for s in made.before), "train", *(f"stage_{s}" for s in made.after)]
            rows += [private(name, kind, count, 1) for kind in kinds]
    return {"nodes": count, "parameters": sum(a.size for a in arrays(LARGE, 0).values()), "rows": rows}
