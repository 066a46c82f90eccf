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
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cellwright.errors import Refused
from cellwright.federation import aggregation, compression, messages, privacy
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog, verify_log
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer, verify
from cellwright.federation.contract import Arrays, Evaluation, Local, Node, NodeState, Parcel, Task, Update, Usage
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.costs import Costs
from cellwright.federation.management.records import Edge, NodeProperties, Topology
from cellwright.federation.management.topology import star
from cellwright.federation.privacy._contract import CoordinatorSide, Mechanism, OwnerSide
from cellwright.federation.results import Round
from cellwright.federation.rounds import Outcome, Rounds
from cellwright.federation.runtimes.jobs import COSTS
from cellwright.federation.runtimes.local import open_channel
from cellwright.federation.sealed_sum import answered, vector
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params, check

REQUEST, CLOUD, SEED = "bench", "cloud", 7
TINY = {"weight": (3, 2), "bias": (3,)}
LARGE = {"weight_hh": (288, 96), "weight_ih": (288, 8), "bias": (48,)}  # 30,000 parameters
FORM: dict[str, Any] = {"request": REQUEST, "dataset": "bench", "options": {}, "problem": {}, "scaler": "none", "clip": None}
NOTHING = Task(**FORM, model="none", loss="mse", train=(0, 8), validation=(8, 10), test=(10, 12), seed=SEED)


def say(what: str) -> None:
    """Progress, on stderr."""
    print(what, file=sys.stderr, flush=True)


def peak_bytes() -> int:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# -- nodes that train nothing, so that what is left is the federation


@dataclass
class Ready:
    """A node whose update is there before it is asked; it signs and seals as a data owner does."""

    name: str
    delta: Arrays
    mechanism: Mechanism | None = None
    signer: Signer | None = None
    coordinator: str = ""  # public key; "": it takes what nobody signed
    lost_at: str = ""  # kind of message that it does not answer
    sealed: np.ndarray | None = None
    _sent: int = field(default=0, repr=False)

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """As a DataOwner, but for the training."""
        if kind == self.lost_at:
            raise Refused(f"{self.name} is gone")
        if self.coordinator:
            verify(parcel, self.coordinator)
        reply = self._reply(kind, parcel, state)
        self._sent += 1
        return self.signer.sign(reply, sender=self.name, sequence=self._sent, request=REQUEST) if self.signer else reply

    def _reply(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        if kind == "train":
            return self._update(messages.instruction_of(parcel).round, state)
        if kind == "evaluate":
            span: Any = parcel.values["span"]
            return messages.evaluated(
                Evaluation(self.name, span, 1, 1.0, 1.0, 1.0), Usage(0.0, 0.0, None, None), parcel.values.get("round")
            )
        if (side := self._side(state)) is None:
            return Parcel(values={"owner": self.name, "examples": 32})
        if not kind.startswith("stage_"):
            return Parcel(values={"owner": self.name, "examples": 32})
        answer = answered(side, kind.removeprefix("stage_"), {n: b for n, b in parcel.blobs.items() if n != "signature"})
        state.blobs["sealing"] = side.state()
        return messages.stage(answer, int(parcel.values["round"]))

    def _update(self, round_: int, state: NodeState) -> Parcel:
        delta, made = self.delta, self.mechanism
        if made is not None:
            delta = made.protect(delta, np.random.default_rng(0))
        update = Update(self.name, round_, delta, 32, 1, {"train_loss": 1.0}, Usage(0.0, 0.0, None, None))
        if (side := self._side(state)) is None:
            return messages.updated(update, delta, {})
        self.sealed = vector(delta, update.examples)
        message = side.seal(self.sealed)
        state.blobs["sealing"] = side.state()
        return messages.updated(update, {}, message)

    def _side(self, state: NodeState) -> OwnerSide | None:
        """Its part of the sealed sum, where it stood."""
        if self.mechanism is None or not self.mechanism.seals:
            return None
        side = self.mechanism.owner_side(self.name, SEED)
        if "sealing" in state.blobs:
            side.restore(state.blobs["sealing"])
        return side


def arrays(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """Drawn, as an update may be."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.01, shape).astype(np.float32) for name, shape in shapes.items()}


def settings(rounds: int, batch: int = 32) -> Rounds:
    """One step a round, and no end before the last one."""
    return Rounds(rounds, Local(steps=1, batch=batch, learning_rate=1e-3), patience=rounds + 1, lr_patience=None, seed=SEED)


def topology(names: Sequence[str]) -> Topology:
    """Every node beside the coordinator."""
    edges = tuple(Edge(child=name, parent=CLOUD) for name in names)
    return Topology(request=REQUEST, kind="star", coordinator=CLOUD, edges=edges, owners=tuple(names))


@dataclass(frozen=True)
class Took:
    """How long something took; on a busy machine the CPU's time is nearer to what an idle one would need."""

    wall_s: float
    cpu_s: float  # of all threads


def rounds_of(nodes: Mapping[str, Node], first: Arrays, rounds: int, task: Task = NOTHING, **more: Any) -> tuple[Outcome, Took]:
    """A federation by FedAvg in the local runtime, and how long it took."""
    channel, codec, given = open_channel(nodes, clock="wall"), compression.codec("none"), dict(more)
    made = given.pop("rule", None) or aggregation.rule("fedavg")
    began, cpu = time.perf_counter(), time.process_time()
    given |= {"codec": codec, "topology": topology(sorted(nodes))}
    outcome = Coordinator(channel, task, made, settings(rounds), **given).run(first)
    took = Took(time.perf_counter() - began, time.process_time() - cpu)
    assert len(outcome.rounds) == rounds, f"it ended after {len(outcome.rounds)} rounds: {outcome.reason}"
    return outcome, took


def told(record: Round) -> None:
    """A round that ended."""
    counted = sum(owner.outcome == "counted" for owner in record.owners)
    say(f"  round {record.round}: {counted} of {len(record.owners)} counted, {record.seconds:.2f} s")


# -- rounds of nothing


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


# -- a thousand owners


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


# -- both runtimes


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


# -- privacy


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


# -- the page


def page_empty(r: Mapping[str, Any]) -> str:
    """Rounds of nothing."""
    watched = f"signed by both sides, audited ({r['records']:,} records), a checkpoint a round, ε counted ({r['epsilon']:.2f})"
    return f"""## {r["nodes"]} nodes × {r["rounds"]} empty rounds, local runtime

| | s | of CPU | asked for |
| --- | --- | --- | --- |
| bare | {r["bare"]["wall_s"]:.2f} | {r["bare"]["cpu_s"]:.2f} | < 1 |
| {watched} | {r["full"]["wall_s"]:.2f} | {r["full"]["cpu_s"]:.2f} | < 3 |

Each round is {2 * r["nodes"]} messages and as many replies: "train" and "evaluate"."""


def page_thousand(r: Mapping[str, Any]) -> str:
    """A thousand owners."""
    spent, whole = r["spent"], r["took"]["wall_s"]
    known = [spent[kind] for kind in ("deploy", "train", "evaluate", "aggregate")]
    cells = " | ".join(f"{s:.1f}" for s in (whole, *known, whole - sum(known)))
    return f"""## {r["owners"]:,} data owners × {r["rounds"]} rounds, local runtime

GRU of {r["parameters"]:,} parameters, twelve hours of history, six ahead; one step of 32 windows a round, then every owner judges the
new weights on its validation span, and at the end on its test span ({r["windows"]} windows). Updates that counted in each round:
{", ".join(map(str, r["counted"]))}; {r["up_bytes"] / 1e6:,.1f} MB came up in the last. Before it the panel was cut into
{r["owners"]:,} folders, {spent["cut"]:.1f} s.

| | | asked for |
| --- | --- | --- |
| s | {whole:.1f} (of CPU: {r["took"]["cpu_s"]:.1f}) | < 60 |
| MB of memory at the most | {r["peak_bytes"] / 1e6:,.0f} | < 2,000 |

| s in all | deploy | train | evaluate | aggregate | coordinator and messages |
| --- | --- | --- | --- | --- | --- |
| {cells} |"""


def page_deployed(r: Mapping[str, Any]) -> str:
    """Both runtimes."""

    def row(name: str, whole: float, each: Sequence[float]) -> str:
        return f"| {name} | {whole:.2f} | {', '.join(f'{s:.2f}' for s in each)} | {sum(each) / len(each):.2f} |"

    return f"""## {r["owners"]} owners × {r["rounds"]} rounds in both runtimes

The same signed and audited job, GRU of {r["parameters"]:,} parameters. Both end with equal weights, bit by bit; the audit log of the
deployed one verifies. Starting the SuperLink and {r["owners"]} SuperNodes took {r["up_s"]:.1f} s.

| runtime | s in all | s of each round | s a round |
| --- | --- | --- | --- |
{row("local", r["local_s"], r["local_round_s"])}
{row("deployed, over TLS", r["deployed_s"], r["deployed_round_s"])}"""


def page_privacy(r: Mapping[str, Any]) -> str:
    """Privacy mechanisms."""
    plain, lines = r["rows"][0], []
    for row in r["rows"]:
        lost = f", a fifth lost at {row['lost_at'].removeprefix('stage_')}" if row["lost_at"] else ""
        cells = [f"{row['name'] or 'in the clear'}{lost}", str(row["counted"])]
        for what, unit in (("seconds", 1e3), ("up_bytes", 1e-3), ("down_bytes", 1e-3)):
            cells += [f"{unit * row[what]:,.0f}", f"{unit * (row[what] - plain[what]):+,.0f}"]
        lines.append(f"| {' | '.join(cells)} | {1e3 * row['cpu_s']:,.0f} |")
    return f"""## A round of FedAvg over {r["nodes"]} nodes and {r["parameters"]:,} parameters under each mechanism

Nodes that train nothing. The sealed sums are compared integer by integer with the sum of the vectors that the nodes sealed. Of all
nodes together, which take turns, and the coordinator; "more" is beside the round in the clear. CPU time includes the deployment and the
last evaluation.

| mechanism | counted | ms a round | more | kB up | more | kB down | more | CPU ms |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}"""


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
