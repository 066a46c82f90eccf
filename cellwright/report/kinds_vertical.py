"""What there is to be shown of a vertical federation."""

from __future__ import annotations

from collections.abc import Mapping

from cellwright.federation.alignment.vertical_spec import Trial, VerticalResult
from cellwright.report.federated import Fact, Figures
from cellwright.report.kinds_parts import Made, Table, both_ways, cell, count, ended, energy, lines, other
from cellwright.report.tables import Cell
from cellwright.report.words import ABSENT, number, quantity


def of_vertical(found: VerticalResult, unit: str) -> Made:
    named = {"vertical": found.vertical, f"{found.active} alone": found.alone, "pooled data": found.pooled}
    trials = {name: trial for name, trial in named.items() if trial is not None}
    chart = lines({name: [e.validation_mae for e in t.epochs] for name, t in trials.items()}, "Epoch", unit)
    tables = [("Party by party", _parties(found)), ("Training by training", _trials(trials, unit))]
    return Made(
        f"{', '.join(found.passives)} with {found.active}",
        _figures(found, unit),
        "epoch",
        chart,
        tables,
        _facts(found),
    )


def _figures(found: VerticalResult, unit: str) -> list[Figures]:
    """Errors first, then what was found in common, and what it cost."""
    mine = found.vertical
    shown = [Figures("Test MAE, vertical", quantity(mine.mae, unit), f"{number(mine.mae_validation)} on the validation span")]
    others = ((f"{found.active} alone", found.alone), ("pooled data", found.pooled))
    shown += [other(name, trial.mae, mine.mae, unit, "vertical") for name, trial in others if trial is not None]
    offered = ", ".join(f"{n:,} of {party}" for party, n in found.offered.items())
    shown.append(Figures("Windows in common", f"{found.common:,}", f"of {offered}" if offered else ""))
    shown.append(both_ways(*mine.all_bytes))
    shown += energy(mine.all_energy_j, mine.energy_source)
    if found.epsilon_embedding is not None:
        shown.append(Figures("ε of a window's embeddings", number(found.epsilon_embedding), f"at δ = {found.delta:g}"))
    return shown


def _facts(found: VerticalResult) -> list[Fact]:
    noise = "none: nothing bounds what embeddings tell of a window"
    if found.epsilon_embedding is not None:
        noise = f"ε {number(found.epsilon_embedding)} at δ = {found.delta:g}, of one window's embeddings"
    spent = f", {quantity(found.align_energy_j, 'J')}" if found.align_energy_j is not None else ""
    return [
        Fact("Network", f"{found.model}, seed {found.seed}"),
        Fact("Windows", ", ".join(f"{count:,} {span}" for span, count in found.windows.items())),
        Fact(
            "Alignment",
            f"private set intersection by ECDH: {quantity(found.align_bytes, 'B')}, {quantity(found.align_seconds, 's')}{spent}",
        ),
        Fact("Noise on embeddings", noise),
        Fact("Messages", f"{found.vertical.messages:,} in {len(found.vertical.epochs)} epochs; {ended(found.vertical.status)}"),
        Fact("Energy", _of_energy(found.vertical)),
    ]


def _parties(found: VerticalResult) -> Table:
    trial = found.vertical
    columns = ("Role", "Windows", "Embedding", "To it", "From it", "CPU time", "Energy")
    rows = []
    for party in (found.active, *found.passives):
        cells = (
            Cell("holds the target" if party == found.active else "holds features", party),
            count(found.offered.get(party)),
            count(found.widths.get(party)),
            cell(trial.down_bytes.get(party), "B"),
            cell(trial.up_bytes.get(party), "B"),
            cell(trial.cpu_s.get(party), "s"),
            cell(trial.energy_j.get(party), "J"),
        )
        rows.append((party, cells))
    return Table("Party", tuple((title, "") for title in columns), tuple(rows))


def _trials(trials: Mapping[str, Trial], unit: str) -> Table:
    columns = ("Test MAE", "Validation MAE", "Epochs", "Best epoch", "Ended", "Bytes", "Time")
    rows = []
    for name, t in trials.items():
        cells = (
            cell(t.mae, unit),
            cell(t.mae_validation, unit),
            count(len(t.epochs)),
            count(t.best_epoch),
            Cell(ended(t.status), t.status),
            cell(sum(t.all_bytes), "B"),
            cell(t.seconds, "s"),
        )
        rows.append((name, cells))
    return Table("Training", tuple((title, "") for title in columns), tuple(rows))


def _of_energy(trial: Trial) -> str:
    if trial.all_energy_j is None:
        return f"{ABSENT} (no party metered it)"
    return f"{quantity(trial.all_energy_j, 'J')} of all parties, alignment not counted ({trial.energy_source or 'no source'})"
