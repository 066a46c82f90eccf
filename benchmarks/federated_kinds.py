"""Vertical and transfer federations on the real data sets, against training alone and against pooled data.

    python benchmarks/federated_kinds.py --mirror ../shared/data [--seeds 3]     # and benchmarks/results/<date>-federated-kinds.md
    python benchmarks/federated_kinds.py --mirror ../shared/data --only psi

vertical   gnb-prb, trial t4: the scheduler holds granted_prbs, another owner buffers, requests and channel of the same UEs; then
           the same of the *other* UE, aligned by time alone. Alone: the scheduler without the other. Pooled: one owner with all
           of it. All three have the same network, windows, batches, seed and early stopping.
transfer   a body trained by the owners of one data set, given to those of another, which have two days of telemetry; alone: the
           same owners, rounds and steps from fresh weights.
psi        seconds and bytes of the sample alignment, by ids a party.

Every training runs in this process, on Flower's Grid; bytes are those that Flower would send.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PASSIVE = ("requested_prbs", "dl_buffer_bytes", "dl_cqi", "dl_mcs", "ul_sinr_db")
TRANSFERS = (("milan-5x5", "city"), ("city", "milan-5x5"), ("milan-5x5", "gnb-prb"))
OWNERS, DAYS, FROZEN = 5, 2, 3
TRIAL = "t4"  # both UEs have eMBB traffic
CITY = {"seed": 7, "days": 30, "grid": [5, 5], "changes": []}


def panel_of(dataset: str, mirror: Path, scratch: Path) -> Any:
    """A data set from the mirror, normalised; `city` is a small one, and generated."""
    from cellwright.panel import Panel
    from cellwright.params import check
    from cellwright.steps.ingest import ingest
    from cellwright.steps.normalise import normalise
    from cellwright.workspace import Workspace

    root = scratch / dataset
    if not root.is_dir():
        (root / "data").mkdir(parents=True)
        catalogue = (ROOT / "data" / "catalogue.yaml").read_text()
        before = "generator_options: {seed: 7, days: 78, benchmark_days: 60}"
        assert before in catalogue, "the catalogue's city has other options than this benchmark replaces"
        (root / "data" / "catalogue.yaml").write_text(catalogue.replace(before, f"generator_options: {CITY}".replace("'", "")))
        params = check({"dataset": dataset, "ingest": {"mirror": str(mirror)}}, "benchmark")
        ingest(params, Workspace(root))
        normalise(params, Workspace(root))
    return Panel.open(Workspace(root).panel(dataset))


def of_trial(panel: Any, trial: str) -> Any:
    """One trial of the gNB's traces."""
    from cellwright.panel import Panel, Segment

    found = next(s for s in panel.schema.segments if s.name == trial)
    rows = found.stop - found.start
    update = {"rows": rows, "segments": (Segment(name=trial, start=0, stop=rows),)}
    names, part = [f.name for f in panel.schema.features], slice(found.start, found.stop)
    columns, flags = ({n: read(n)[part] for n in names} for read in (panel.values, panel.flags))
    return Panel.from_arrays(panel.schema.model_copy(update=update), columns, flags)


def vertical_settings(seed: int, **more: Any) -> Any:
    from cellwright.federation.alignment.vertical import Vertical

    given = {"model": "gru", "options": {"hidden": 32}, "history": 8, "horizon": 4, "calendar": False, "epochs": 10, "steps": 30}
    return Vertical(**{**given, "batch": 256, "learning_rate": 3e-3, "patience": 5, "seed": seed, **more})


@dataclass(frozen=True)
class Line:
    """One row of a table: MAEs by what was trained, and what it took."""

    name: str
    seed: int
    mae: float
    alone: float | None
    pooled: float | None
    kilobytes: float
    epsilon: float | None
    cpu_s: float


def vertical_lines(panel: Any, seeds: Sequence[int]) -> Iterator[Line]:
    """The scheduler of gnb-prb with another owner's features."""
    from cellwright.federation.alignment.parting import part

    first, second = panel.schema.sites
    own, same, whole = part(panel, ("granted_prbs",)), part(panel, PASSIVE), part(panel, ("granted_prbs", *PASSIVE))
    for seed in seeds:
        yield vertical_line("same UEs", own, same, whole, vertical_settings(seed))
    one, other = part(panel, ("granted_prbs",), [first]), part(panel, ("granted_prbs", *PASSIVE), [second])
    yield vertical_line("the other UE's, by time", one, other, None, vertical_settings(seeds[0], align="time"))
    for noise in (0.5, 2.0):
        settings = vertical_settings(seeds[0], embedding_clip=1.0, embedding_noise=noise)
        yield vertical_line(f"same UEs, embeddings clipped to 1, noise {noise:g}", own, same, None, settings, alone=False)


def vertical_line(name: str, active: Any, passive: Any, pooled: Any, settings: Any, *, alone: bool = True) -> Line:
    from cellwright.federation.alignment.party import VerticalParty
    from cellwright.federation.alignment.vertical import vertical_train
    from cellwright.federation.runtimes.local import open_channel

    begun = time.process_time()
    nodes = {
        "scheduler": VerticalParty("scheduler", active, targets=["granted_prbs"]),
        "ue": VerticalParty("ue", passive, noise_seed=1),
    }
    result = vertical_train(open_channel(nodes), settings, active="scheduler", passives=["ue"], alone=alone)
    cpu_s, central = time.process_time() - begun, None
    if pooled is not None:
        node = VerticalParty("scheduler", pooled, targets=["granted_prbs"])
        central = vertical_train(open_channel({"scheduler": node}), settings, active="scheduler").vertical.mae
    traffic = result.align_bytes + sum(result.vertical.down_bytes.values()) + sum(result.vertical.up_bytes.values())
    without = result.alone.mae if result.alone else None
    return Line(name, settings.seed, result.vertical.mae, without, central, traffic / 1e3, result.epsilon_embedding, cpu_s)


class Place:
    """A data set's owners on a channel, and their task: two targets' days to train on, one to validate, the rest to test."""

    def __init__(self, panel: Any, folder: Path, model: str, seed: int, *, days: float | None = None) -> None:
        from cellwright.federation.initial import task_for
        from cellwright.federation.management.records import Edge, Topology
        from cellwright.federation.owner import DataOwner, OwnerKit
        from cellwright.federation.owners import cut, groups
        from cellwright.federation.runtimes.local import open_channel
        from cellwright.params import check

        schema = panel.schema
        day = 864 if schema.cadence_s < 1 else 144  # steps: 3.6 minutes stand for a day of the gNB's traces
        shares = (0.8, 0.1) if days is None else (days * day / schema.rows, day / schema.rows)
        options = {"hidden": 32} | ({"dropout": 0.0} if model == "mlp" else {})
        params = check(
            {
                "dataset": schema.dataset,
                "problem": {"history": 6, "horizon": 3},
                "split": {"train": shares[0], "validation": shares[1], "test": 1 - sum(shares)},
                "train": {"models": [model], "seed": seed, "settings": {model: {"options": options}}, "device": "cpu"},
            },
            "benchmark",
        )
        parts = groups(schema, min(OWNERS, len(schema.sites)))
        owners = {n: DataOwner(n, path, OwnerKit()) for n, path in cut(panel, parts, folder).items()}
        edges = tuple(Edge(child=n, parent="coordinator") for n in owners)
        self.topology = Topology(request="r", kind="star", coordinator="coordinator", edges=edges, owners=tuple(owners))
        self.channel, self.task = open_channel(owners), task_for(params, schema, model, "r")


def rounds(count: int, steps: int, seed: int) -> Any:
    from cellwright.federation.contract import Local
    from cellwright.federation.rounds import Rounds

    local = Local(steps=steps, batch=128, learning_rate=3e-3)
    return Rounds(rounds=count, local=local, patience=count, lr_patience=None, seed=seed)


@dataclass(frozen=True)
class Grown:
    """One row of the table of transfers."""

    source: str
    target: str
    model: str
    frozen: int
    maes: tuple[float, ...]  # by seed
    alone: tuple[float, ...]
    taken: float
    first: tuple[float, float]  # validation MAE after the first round, with the body and without, of the first seed


def transfer_lines(panels: dict[str, Any], seeds: Sequence[int], scratch: Path) -> Iterator[Grown]:
    """Every pair, with two networks, its body frozen for three rounds of ten."""
    from cellwright.federation import aggregation, compression
    from cellwright.federation.alignment.transfer import Transfer, transfer
    from cellwright.federation.coordinator import Coordinator
    from cellwright.federation.initial import initial

    for model in ("gru", "mlp"):
        bodies: dict[str, Any] = {}
        for source, target in TRANSFERS:
            if source not in bodies:
                place = Place(panels[source], scratch / "owners" / source, model, seeds[0])
                begin = Coordinator(
                    place.channel, place.task, aggregation.rule("fedavg"), rounds(20, 20, seeds[0]),
                    codec=compression.codec("none"), topology=place.topology,
                )  # fmt: skip
                bodies[source] = begin.run(initial(place.task)).arrays, place.task
            for frozen in (FROZEN,):
                results = []
                for seed in seeds:
                    place = Place(panels[target], scratch / "owners" / target, model, seed, days=DAYS)
                    made = transfer(
                        place.channel, place.task, bodies[source][0], Transfer(frozen_rounds=frozen, compare=True),
                        rounds(10, 10, seed), rule=lambda: aggregation.rule("fedavg"), codec=compression.codec("none"),
                        topology=place.topology, source_task=bodies[source][1],
                    )  # fmt: skip
                    results.append(made.result)
                first = results[0].transfer.mae_validation[0], results[0].alone.mae_validation[0]
                maes, alone = tuple(r.transfer.mae for r in results), tuple(r.alone.mae for r in results)
                yield Grown(source, target, model, frozen, maes, alone, results[0].taken_share, first)


def psi_lines() -> Iterator[tuple[int, int, float, int]]:
    """(parties, ids of each, CPU-seconds of all, bytes of all)."""
    from cellwright.federation.alignment import psi
    from cellwright.federation.runtimes.local import open_channel

    class Holder:
        def __init__(self, name: str, ids: list[bytes]) -> None:
            self.name, self.ids = name, ids

        def answer(self, kind: str, parcel: Any, state: Any) -> Any:
            return psi.answer(kind, parcel, state, lambda: self.ids)

    for parties, ids in ((2, 1_000), (2, 10_000), (3, 10_000)):
        names = [f"party-{i}" for i in range(parties)]
        held = {n: Holder(n, [(j + i * ids // 4).to_bytes(8, "big") for j in range(ids)]) for i, n in enumerate(names)}
        begun = time.process_time()
        found = psi.intersect(open_channel(held), names)
        yield parties, ids, time.process_time() - begun, found.traffic.total


def page(vertical: list[Line], grown: list[Grown], psi: list[tuple[int, int, float, int]], cpu_s: float, command: str) -> str:
    """The Markdown page."""
    import torch

    said = [
        f"# Vertical and transfer federations, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`{command}` on {platform.machine()}, one thread;",
    ]
    said += [f"Python {platform.python_version()}, torch {torch.__version__}; {cpu_s:.0f} CPU-s. The machine was shared."]
    said += ["MAE on the test span, raw units.", ""]
    if vertical:
        said += ["## Vertical, trial t4 of `gnb-prb`: granted PRBs, 8 steps of 250 ms seen, 4 forecast; GRU, 32 wide", ""]
        said += ["| passive features | seed | vertical | alone | pooled | against alone | kB | ε of an embedding | CPU-s |"]
        said += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
        said += [row(line) for line in vertical] + [""]
    if grown:
        said += [f"## Transfer: {OWNERS} owners (2 of `gnb-prb`), {DAYS} days to train on, 10 rounds of 10 steps, FedAvg", ""]
        said += ["Medians over seeds. A day of `gnb-prb` is 864 steps.", ""]
        said += [
            "| source → target | network | frozen rounds | transfer | alone | transfer / alone by seed | taken | validation after round 1 |"
        ]
        said += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        said += [grown_row(line) for line in grown] + [""]
    if psi:
        said += [
            "## Sample alignment: all parties together, in one process",
            "",
            "| parties | ids each | CPU-s | kB |",
            "| --- | --- | --- | --- |",
        ]
        said += [f"| {p} | {n:,} | {s:.2f} | {b / 1e3:,.0f} |" for p, n, s, b in psi] + [""]
    return "\n".join([*said, (__doc__ or "").split("\n\n", 2)[2]])


def row(line: Line) -> str:
    against = "" if line.alone is None else f"{line.mae / line.alone - 1:+.1%}"
    alone, pooled = ("" if v is None else f"{v:.3f}" for v in (line.alone, line.pooled))
    epsilon = "" if line.epsilon is None else f"{line.epsilon:.0f}"
    figures = f"{line.mae:.3f} | {alone} | {pooled} | {against} | {line.kilobytes:,.0f} | {epsilon} | {line.cpu_s:.0f}"
    return f"| {line.name} | {line.seed} | {figures} |"


def grown_row(g: Grown) -> str:
    ratios = ", ".join(f"{a / b:.3f}" for a, b in zip(g.maes, g.alone, strict=True))
    return (
        f"| {g.source} → {g.target} | {g.model} | {g.frozen} | {statistics.median(g.maes):.3f} | {statistics.median(g.alone):.3f} | "
        f"{ratios} | {g.taken:.0%} | {g.first[0]:.2f} (alone {g.first[1]:.2f}) |"
    )


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=Path(os.environ.get("CELLWRIGHT_MIRROR", ROOT.parent / "shared" / "data")))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("vertical", "transfer", "psi"))
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    seeds, scratch = range(7, 7 + asked.seeds), Path(tempfile.mkdtemp(prefix="federated-kinds-"))
    wanted = {asked.only} if asked.only else {"vertical", "transfer", "psi"}
    try:
        vertical: list[Line] = []
        grown: list[Grown] = []
        if "vertical" in wanted:
            for line in vertical_lines(of_trial(panel_of("gnb-prb", asked.mirror, scratch), TRIAL), seeds):
                print(row(line), flush=True)
                vertical.append(line)
        if "transfer" in wanted:
            panels = {name: panel_of(name, asked.mirror, scratch) for name in sorted({n for pair in TRANSFERS for n in pair})}
            for grown_line in transfer_lines(panels, seeds[: max(1, asked.seeds - 1)], scratch):
                print(grown_row(grown_line), flush=True)
                grown.append(grown_line)
        psi = list(psi_lines()) if "psi" in wanted else []
    finally:
        shutil.rmtree(scratch)
    command = f"python benchmarks/federated_kinds.py --seeds {asked.seeds}"
    text = page(vertical, grown, psi, time.process_time(), command)
    print(text)
    if asked.only is None and asked.seeds >= 3:
        (ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-federated-kinds.md").write_text(text)


if __name__ == "__main__":
    main()
