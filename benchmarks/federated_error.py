"""How near federated training comes to training on everyone's data, and how far it leaves training alone behind.

    python benchmarks/federated_error.py                                # milan-5x5 and gnb-prb, three seeds
    python benchmarks/federated_error.py --datasets milan-5x5 --rules fedavg,fedavgm --seeds 7

For each seed the same network with the same inputs is trained in three ways: on everyone's data to early stopping, by each owner on
its own, and federated by each rule with the parameters of params.yaml. All are judged on the owners' test spans, weighted by measured
targets. Hyper-parameters were chosen on the validation span of one seed (docs/experiments.md). Needs the panels: run
`cellwright run -d DATASET` or `dvc repro` for them once.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trial:
    """One seed on one data set."""

    dataset: str
    seed: int
    central: float
    central_s: float
    alone: float
    alone_s: float
    rules: dict[str, Any]  # rule -> results.Federated


def trial(dataset: str, seed: int, rules: list[str], overrides: list[str]) -> Trial:
    """All ways of one seed."""
    from cellwright.data.split import spans
    from cellwright.federation import federate
    from cellwright.federation.comparison import alone, central
    from cellwright.params import load
    from cellwright.workspace import Workspace

    params = load(ROOT / "params.yaml", [f"dataset={dataset}", f"train.seed={seed}", "federation.contribution=false", *overrides])
    ws = replace(Workspace(ROOT), run=f"federated-error-{dataset}-{seed}")
    model, found, bed = params.federation.model, {}, None
    for rule in rules:
        bed = federate.bed(params, ws, f"{rule}:{model}")
        made = federate.planned(bed)
        result, _ = federate.concluded(bed, made, federate.trained(bed, made))
        found[rule] = result
        print(f"{dataset} seed {seed} {rule}: {result.mae:.4g} after {result.rounds} rounds, {result.wall_s:.0f} s", flush=True)
    assert bed is not None
    rows = spans(params.split, bed.panel.schema)
    together, _ = central(params, bed.panel, rows, bed.key, bed.groups)
    apart = alone(params, bed.panels, rows, bed.key)
    print(f"{dataset} seed {seed}: central {together.mae:.4g}, alone {apart.mae:.4g}", flush=True)
    return Trial(dataset, seed, together.mae, together.train_s, apart.mae, apart.train_s, found)


def page(trials: list[Trial], command: str, seconds: float) -> str:
    """The results as Markdown."""
    lines = [f"# Federated, central and alone, {datetime.now(UTC):%Y-%m-%d}", ""]
    lines += [f"`{command}` on {platform.machine()}, one thread, {seconds:.0f} s in all. Test MAE, raw units.", ""]
    for dataset in dict.fromkeys(t.dataset for t in trials):
        some = [t for t in trials if t.dataset == dataset]
        rules = list(some[0].rules)
        first = some[0].rules[rules[0]]
        lines += [f"## `{dataset}`: {len(first.owners)} owners, {first.model}", ""]
        lines += ["| seed | central | alone | " + " | ".join(f"{r} | against central | against alone" for r in rules) + " |"]
        lines += ["|-" * (3 + 3 * len(rules)) + "|"]
        for t in some:
            cells = [
                f"{t.rules[r].mae:.4g} | {t.rules[r].mae / t.central - 1:+.2%} | {t.rules[r].mae / t.alone - 1:+.2%}"
                for r in rules
            ]
            lines.append(f"| {t.seed} | {t.central:.4g} | {t.alone:.4g} | " + " | ".join(cells) + " |")
        mean = {r: float(np.mean([t.rules[r].mae / t.central - 1 for t in some])) for r in rules}
        lines += ["", "Mean over the seeds, against central: " + ", ".join(f"{r} {v:+.2%}" for r, v in mean.items()) + "."]
        cost = ", ".join(
            f"{r} {np.mean([t.rules[r].rounds for t in some]):.0f} rounds, {np.mean([t.rules[r].wall_s for t in some]):.0f} s, "
            f"{np.mean([t.rules[r].up_bytes for t in some]) / 1e6:.1f} MB up"
            for r in rules
        )
        lines += [
            f"Cost: {cost}; central {np.mean([t.central_s for t in some]):.0f} s, alone {np.mean([t.alone_s for t in some]):.0f} s.",
            "",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--datasets", default="milan-5x5,gnb-prb")
    asked.add_argument("--rules", default="fedavg,fedavgm")
    asked.add_argument("--seeds", default="7,8,9")
    asked.add_argument("--set", action="append", default=[], help="section.key=value of params.yaml")
    asked.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-federated-error.md"
    )
    given, began = asked.parse_args(), time.monotonic()
    import torch

    torch.set_num_threads(1)
    trials = [
        trial(d, int(s), given.rules.split(","), given.set) for d in given.datasets.split(",") for s in given.seeds.split(",")
    ]
    said = [f"--{n} {getattr(given, n)}" for n in ("datasets", "rules", "seeds") if getattr(given, n) != asked.get_default(n)]
    said += [f"--set {item}" for item in given.set]
    text = page(trials, " ".join(["python benchmarks/federated_error.py", *said]), time.monotonic() - began)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
