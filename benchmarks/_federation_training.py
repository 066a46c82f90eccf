"""Parts `thousand` and `deployed` of federation.py: rounds among data owners that train a GRU."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _federation_nodes import CLOUD, REQUEST, rounds_of, say, told

from cellwright.federation import aggregation
from cellwright.federation.audit.log import verify_log
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import Node, NodeState, Parcel
from cellwright.federation.management.records import NodeProperties
from cellwright.federation.management.topology import star
from cellwright.federation.runtimes.local import open_channel
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params, check


def panel(sites: int, rows: int = 14 * 24) -> Panel:
    """Two weeks by the hour; sites of different level and phase."""
    rng, at = np.random.default_rng(0), np.arange(sites)
    wave = np.sin(2 * np.pi * np.arange(rows)[:, None] / 24 - 0.7 * at)
    traffic = (20 + 3 * (at % 30)) * (2 + wave + rng.normal(0, 0.1, (rows, sites)))
    schema = PanelSchema(
        dataset="bench",
        sites=tuple(f"site-{i:04d}" for i in range(sites)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0),),
        targets=("traffic",),
        cadence_s=3600,
        clock="utc",
        start_ms=1_383_264_000_000,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": traffic.clip(0).astype(np.float32)})


def parameters(**federation: Any) -> Params:
    """Twelve hours are seen, six are forecast, by a GRU of about 30,000 parameters."""
    gru = {"options": {"hidden": 96}}
    asked = {"rule": "fedavg", "steps": 1, "batch": 32, "learning_rate": 1e-3, "contribution": False, **federation}
    return check(
        {
            "dataset": "bench",
            "problem": {"history": 12, "horizon": 6},
            "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
            "train": {"models": ["gru"], "settings": {"gru": gru}, "device": "cpu"},
            "federation": asked,
        },
        "this benchmark",
    )


class Stopwatch:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its seconds counted."""

        def run(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.spent[what] += time.perf_counter() - began

        return run


@dataclass
class Timed:
    """A node, with the seconds of each kind of message counted."""

    node: Node
    watch: Stopwatch

    @property
    def name(self) -> str:
        return self.node.name

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """What the node answers."""
        reply: Parcel = self.watch.timed(kind, self.node.answer)(kind, parcel, state)
        return reply


def thousand(count: int = 1000, rounds: int = 5) -> dict[str, Any]:
    """Data owners in the local runtime, which take turns, each on one thread: a step is too small for more."""
    import torch

    from cellwright.federation.initial import initial, task_for
    from cellwright.federation.owner import DataOwner, OwnerKit
    from cellwright.federation.owners import cut, groups

    torch.set_num_threads(1)
    watch, whole, params = Stopwatch(), panel(count), parameters()
    with tempfile.TemporaryDirectory() as folder:
        folders = watch.timed("cut", cut)(whole, groups(whole.schema, "site"), Path(folder))
        say(f"  {count} panels cut: {watch.spent['cut']:.1f} s")
        task = task_for(params, whole.schema, "gru", REQUEST)
        first, made = initial(task), aggregation.rule("fedavg")
        made.aggregate = watch.timed("aggregate", made.aggregate)  # type: ignore[method-assign]
        nodes = {name: Timed(DataOwner(name, path, OwnerKit()), watch) for name, path in folders.items()}
        outcome, took = rounds_of(nodes, first, rounds, task, rule=made, on_round=told)
    counted = [sum(owner.outcome == "counted" for owner in record.owners) for record in outcome.rounds]
    judged = [sum(owner.mae is not None for owner in record.owners) for record in outcome.rounds]
    windows = max(e.count for e in outcome.evaluations.values()) // 6
    return {
        "owners": count,
        "rounds": rounds,
        "counted": counted,
        "parameters": sum(a.size for a in first.values()),
        "judged": judged,
        "windows": windows,
        "took": asdict(took),
        "spent": dict(watch.spent),
        "up_bytes": outcome.rounds[-1].up_bytes,
        "mae": [record.mae for record in outcome.rounds],
    }


def deployed(count: int = 3, rounds: int = 3) -> dict[str, Any]:
    """The same signed and audited job by processes over TLS, then by owners of this process with the same keys."""
    from cellwright.federation.owner import DataOwner, OwnerKit
    from cellwright.federation.owners import cut, groups
    from cellwright.federation.runtimes import deployed as flower
    from cellwright.federation.runtimes import jobs

    whole = panel(count)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = cut(whole, groups(whole.schema, "site"), root / "owners")
        files = flower.Files(root / "deployment")
        known = flower.settings_for(files, folders)
        signers = {owner: Signer.from_file(Path(own.signing)) for owner, own in known.items()}
        for runtime in ("deployed", "local"):
            write_job(root / runtime, whole.schema, rounds, files.coordinator_key, signers)
        began = time.perf_counter()
        with flower.up(folders, files.root) as running:
            up_s, began = time.perf_counter() - began, time.perf_counter()
            say(f"  up: {up_s:.1f} s")
            running.run(root / "deployed", request=REQUEST, seconds=900)
            deployed_s = time.perf_counter() - began
        say(f"  deployed: {deployed_s:.1f} s")
        coordinator = Signer.from_file(files.coordinator_key).public
        kits = {owner: OwnerKit(signer=signer, coordinator_key=coordinator) for owner, signer in signers.items()}
        channel = open_channel({o: DataOwner(o, folders[o], kits[o]) for o in folders}, clock="wall")
        began = time.perf_counter()
        here = jobs.coordinate(channel, root / "local")
        local_s, there = time.perf_counter() - began, jobs.read_outcome(root / "deployed")
        log = verify_log(root / "deployed" / jobs.AUDIT, coordinator)
    assert log.ok, log.summary
    assert [*there.arrays] == [*here.arrays]
    assert all(there.arrays[name].tobytes() == array.tobytes() for name, array in here.arrays.items()), "the weights differ"
    return {
        "owners": count,
        "rounds": rounds,
        "parameters": sum(a.size for a in here.arrays.values()),
        "up_s": up_s,
        "deployed_s": deployed_s,
        "local_s": local_s,
        "deployed_round_s": [record.seconds for record in there.rounds],
        "local_round_s": [record.seconds for record in here.rounds],
        "mae": [there.rounds[-1].mae, here.rounds[-1].mae],
    }


def write_job(folder: Path, schema: PanelSchema, rounds: int, key: Path, signers: Mapping[str, Signer]) -> None:
    """A job's files; the coordinator and the owners sign."""
    from cellwright.federation.initial import initial, task_for
    from cellwright.federation.runtimes import jobs

    params = parameters(rounds=rounds, patience=rounds + 1)
    task = task_for(params, schema, "gru", REQUEST)
    cloud = NodeProperties(name=CLOUD, roles=("coordinator",))
    graph = star(REQUEST, cloud, [NodeProperties(name=o, roles=("data_owner",)) for o in signers])
    keys = {owner: signer.public for owner, signer in signers.items()}
    job = jobs.Job(task=task, federation=params.federation, topology=graph, keys=keys, signing=str(key))
    folder.mkdir(parents=True)
    jobs.write_job(folder, job, initial(task))
