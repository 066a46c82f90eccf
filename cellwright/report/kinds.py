"""A vertical or a transfer federation as a page: errors beside those of training alone and on pooled data, cost, and the audit.

Such a run has no leaderboard: its page stands alone, as that of owners who end with models of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from html import escape
from pathlib import Path

from cellwright.federation.alignment.audit_summary import AuditSummary
from cellwright.federation.alignment.told import read, sentence
from cellwright.federation.alignment.transfer import Course, TransferResult
from cellwright.federation.alignment.vertical_spec import Trial, VerticalResult
from cellwright.federation.ledger import less_certain
from cellwright.report.federated import Fact, Figures
from cellwright.report.palette import CHAMPION, INK, RIDGE
from cellwright.report.style import Figure, figure, rounded
from cellwright.report.tables import Cell
from cellwright.report.words import ABSENT, number, quantity
from cellwright.workspace import Workspace

_ENDED = {"converged": "converged", "epochs": "all epochs done", "rounds": "all rounds done", "budget": "ended by its budget"}
_LEADS = {
    "vertical": "Parties hold different features of the same time. They find the windows that all have without showing any other; then "
    "only embeddings and their gradients cross.",
    "transfer": "A network's body was trained by the owners of another data set; the owners here go on from it with a new head. Only "
    "weights cross.",
}


@dataclass(frozen=True)
class Table:
    """A row a party, an owner or a training. `columns`: title, unit."""

    first: str  # title of the first column
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class KindView:
    """What the template shows."""

    kind: str
    title: str
    lead: str
    sentence: str
    figures: tuple[Figures, ...]
    step: str  # "epoch" or "round"
    charts: dict[str, Figure | None]
    tables: tuple[tuple[str, Table], ...]  # each with its heading
    facts: tuple[Fact, ...]


def write_kind_page(ws: Workspace, kind: str, out: Path) -> Path:
    """Write the page of a `kind` of federation, "vertical" or "transfer", of a run. Returns `out`.

    Raises:
        CellwrightError: the run holds none, or files of another form.
    """
    from cellwright.files import write_text
    from cellwright.panel import Panel
    from cellwright.report.page import kind_page
    from cellwright.runs import params_of
    from cellwright.versioning import data_version

    params = params_of(ws)
    schema = Panel.open(ws.panel(params.dataset)).schema
    units = {feature.name: feature.unit for feature in schema.features}
    unit = ", ".join(dict.fromkeys(units.get(target, "") for target in params.problem.targets or schema.targets))
    write_text(out, kind_page(view(ws, kind, unit), data_version(ws, params.dataset), ws.run))
    return out


def view(ws: Workspace, kind: str, unit: str) -> KindView:
    """What there is to be shown of a run's federation. `unit`: of the error."""
    found = read(ws, kind)
    made = _of_vertical(found, unit) if isinstance(found, VerticalResult) else _of_transfer(found, unit)
    title, figures, step, chart, tables, facts = made
    audit = _audited(ws, found.audit)
    return KindView(
        kind, title, _LEADS[kind], sentence(ws, kind), tuple(figures), step, {"lines": chart}, tuple(tables), (*facts, *audit)
    )


_Made = tuple[str, list[Figures], str, Figure | None, list[tuple[str, Table]], list[Fact]]


def _of_vertical(found: VerticalResult, unit: str) -> _Made:
    named = {"vertical": found.vertical, f"{found.active} alone": found.alone, "pooled data": found.pooled}
    trials = {name: trial for name, trial in named.items() if trial is not None}
    chart = _lines({name: [e.validation_mae for e in t.epochs] for name, t in trials.items()}, "Epoch", unit)
    tables = [("Party by party", _parties(found)), ("Training by training", _trials(trials, unit))]
    return (
        f"{', '.join(found.passives)} with {found.active}",
        _vertical_figures(found, unit),
        "epoch",
        chart,
        tables,
        _vertical_facts(found),
    )


def _vertical_figures(found: VerticalResult, unit: str) -> list[Figures]:
    """Errors first, then what was found in common, and what it cost."""
    mine = found.vertical
    shown = [Figures("Test MAE, vertical", quantity(mine.mae, unit), f"{number(mine.mae_validation)} on the validation span")]
    others = ((f"{found.active} alone", found.alone), ("pooled data", found.pooled))
    shown += [_other(name, trial.mae, mine.mae, unit, "vertical") for name, trial in others if trial is not None]
    offered = ", ".join(f"{n:,} of {party}" for party, n in found.offered.items())
    shown.append(Figures("Windows in common", f"{found.common:,}", f"of {offered}" if offered else ""))
    shown.append(_bytes(*mine.all_bytes))
    shown += _energy(mine.all_energy_j, mine.energy_source)
    if found.epsilon_embedding is not None:
        shown.append(Figures("ε of a window's embeddings", number(found.epsilon_embedding), f"at δ = {found.delta:g}"))
    return shown


def _vertical_facts(found: VerticalResult) -> list[Fact]:
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
        Fact("Messages", f"{found.vertical.messages:,} in {len(found.vertical.epochs)} epochs; {_ended(found.vertical.status)}"),
        Fact("Energy", _of_energy(found.vertical)),
    ]


def _parties(found: VerticalResult) -> Table:
    trial = found.vertical
    columns = (
        ("Role", ""),
        ("Windows", ""),
        ("Embedding", ""),
        ("To it", "B"),
        ("From it", "B"),
        ("CPU time", "s"),
        ("Energy", "J"),
    )
    lines = []
    for party in (found.active, *found.passives):
        cells = (
            Cell("holds the target" if party == found.active else "holds features", party),
            _count(found.offered.get(party)),
            _count(found.widths.get(party)),
            _cell(trial.down_bytes.get(party), "B"),
            _cell(trial.up_bytes.get(party), "B"),
            _cell(trial.cpu_s.get(party), "s"),
            _cell(trial.energy_j.get(party), "J"),
        )
        lines.append((party, cells))
    return Table("Party", tuple((title, "") for title, _ in columns), tuple(lines))


def _trials(trials: Mapping[str, Trial], unit: str) -> Table:
    columns = ("Test MAE", "Validation MAE", "Epochs", "Best epoch", "Ended", "Bytes", "Time")
    lines = []
    for name, t in trials.items():
        cells = (
            _cell(t.mae, unit),
            _cell(t.mae_validation, unit),
            _count(len(t.epochs)),
            _count(t.best_epoch),
            Cell(_ended(t.status), t.status),
            _cell(sum(t.all_bytes), "B"),
            _cell(t.seconds, "s"),
        )
        lines.append((name, cells))
    return Table("Training", tuple((title, "") for title in columns), tuple(lines))


def _of_transfer(found: TransferResult, unit: str) -> _Made:
    named = {f"body of {found.source}": found.transfer, "fresh weights": found.alone}
    courses = {name: course for name, course in named.items() if course is not None}
    chart = _lines({name: c.mae_validation for name, c in courses.items()}, "Round", unit)
    whole = {**courses, **({f"owners of {found.source}": found.before} if found.before else {})}
    tables = [("Owner by owner", _owners(found, unit)), ("Training by training", _courses(whole))]
    return (
        f"{found.model} from {found.source} for {found.dataset}",
        _transfer_figures(found, unit),
        "round",
        chart,
        tables,
        _transfer_facts(found, whole),
    )


def _transfer_figures(found: TransferResult, unit: str) -> list[Figures]:
    mine = found.transfer
    last = next((v for v in reversed(mine.mae_validation) if v is not None), None)
    shown = [Figures("Test MAE, transfer", quantity(mine.mae, unit), f"{number(last)} on the validation span, last round")]
    if found.alone is not None and found.alone.mae is not None:
        shown.append(_other("fresh weights", found.alone.mae, mine.mae, unit, "transfer"))
    shown.append(Figures("Taken from the source", f"{found.taken_share:.0%}".replace("%", " %"), "of the network's numbers"))
    shown.append(_bytes(mine.up_bytes, mine.down_bytes))
    return shown + _energy(mine.energy_j, mine.energy_source)


def _transfer_facts(found: TransferResult, courses: Mapping[str, Course]) -> list[Fact]:
    known = [c for c in courses.values() if c.energy_j is not None]
    source = reduce(less_certain, (c.energy_source for c in known), None)
    energy = f"{quantity(sum(c.energy_j or 0.0 for c in known), 'J')} of all trainings ({source})" if known else ABSENT
    return [
        Fact("Network", found.model),
        Fact("Body", ", ".join(found.body)),
        Fact("Parameters", f"{len(found.taken)} taken, {len(found.adapted)} adapted, {len(found.fresh)} anew"),
        Fact("Frozen", f"the body stayed as it came for {found.frozen_rounds} rounds"),
        Fact("Energy", energy),
    ]


def _owners(found: TransferResult, unit: str) -> Table:
    apart = found.alone.mae_by_owner if found.alone else {}
    lines = [
        (owner, (_cell(mae, unit), _cell(apart.get(owner), unit), _share(mae, apart.get(owner))))
        for owner, mae in found.transfer.mae_by_owner.items()
    ]
    return Table("Owner", (("Test MAE", "with the body"), ("Test MAE", "fresh weights"), ("Change", "")), tuple(lines))


def _courses(courses: Mapping[str, Course]) -> Table:
    columns = ("Test MAE", "Rounds", "Ended", "To owners", "From owners", "Energy")
    lines = [
        (
            name,
            (
                _cell(c.mae, ""),
                _count(c.rounds),
                Cell(_ended(c.status), c.status),
                _cell(c.down_bytes, "B"),
                _cell(c.up_bytes, "B"),
                _cell(c.energy_j, "J"),
            ),
        )
        for name, c in courses.items()
    ]
    return Table("Training", tuple((title, "") for title in columns), tuple(lines))


# ---- what both show


def _audited(ws: Workspace, audit: AuditSummary | None) -> list[Fact]:
    """What the auditor said, and whether its log is as it was written."""
    from cellwright.errors import FederationError
    from cellwright.federation.audit.chain import verify_log

    if audit is None:
        return [Fact("Audit", "messages were neither signed nor checked (federation.audit)")]
    said = f"{audit.accepted:,} messages of the parties accepted, {audit.refused:,} refused, {audit.missed:,} late or lost"
    try:
        verdict = verify_log(ws.run_folder / audit.log, audit.key, head=audit.head)
        whole = f"intact, {verdict.records:,} records" if verdict.ok else f"NOT intact: {verdict.summary}"
    except FederationError as error:
        whole = f"NOT intact: {error}"
    return [
        Fact("Audit", said),
        Fact("Audit log", f"{audit.log}: {whole}"),
        Fact("Its head", audit.head, code=True),
    ]


def _lines(values: Mapping[str, Sequence[float | None]], step: str, unit: str) -> Figure | None:
    """Validation MAE step by step, a line a training."""
    data = [
        {
            "type": "scatter", "mode": "lines+markers", "name": escape(name), "x": list(range(1, len(maes) + 1)), "y": rounded(maes),
            "connectgaps": True, "line": {"color": colour, "width": width}, "marker": {"color": colour, "size": 6},
            "hovertemplate": f"{escape(name)}, {step.lower()} %{{x}}: MAE %{{y:.4g}} {escape(unit)}<extra></extra>",
        }
        for (name, maes), (colour, width) in zip(values.items(), ((CHAMPION, 2.4), (RIDGE, 1.8), (INK, 1.8)), strict=False)
        if any(v is not None for v in maes)
    ]  # fmt: skip
    if not data:
        return None
    longest = max(len(maes) for maes in values.values())
    ticks = {"dtick": 1} if longest <= 20 else {"tickformat": "d"}
    return figure(data, x={"title": step, **ticks}, y={"title": f"Validation MAE ({escape(unit)})" if unit else "Validation MAE"})


def _other(name: str, value: float, mine: float | None, unit: str, what: str) -> Figures:
    beside = "" if mine is None or not value else f"{what} is {mine / value - 1:+.1%}".replace("-", "−").replace("%", " %")
    return Figures(f"Test MAE, {name}", quantity(value, unit), beside)


def _bytes(up: int, down: int) -> Figures:
    return Figures("Bytes", quantity(up + down, "B"), f"{quantity(up, 'B')} up, {quantity(down, 'B')} down")


def _energy(joules: float | None, source: str | None) -> list[Figures]:
    return [] if joules is None else [Figures("Energy", quantity(joules, "J"), source or "")]


def _of_energy(trial: Trial) -> str:
    if trial.all_energy_j is None:
        return f"{ABSENT} (no party metered it)"
    return f"{quantity(trial.all_energy_j, 'J')} of all parties, alignment not counted ({trial.energy_source or 'no source'})"


def _ended(status: str) -> str:
    return _ENDED.get(status, status)


def _count(value: int | None) -> Cell:
    return Cell(ABSENT, "") if value is None else Cell(f"{value:,}", str(value))


def _cell(value: float | None, unit: str) -> Cell:
    return Cell(ABSENT, "") if value is None else Cell(quantity(value, unit), repr(float(value)))


def _share(value: float | None, other: float | None) -> Cell:
    if value is None or not other:
        return Cell(ABSENT, "")
    return Cell(f"{value / other - 1:+.1%}".replace("-", "−").replace("%", " %"), repr(value / other))
