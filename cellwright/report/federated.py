"""The federated section of the report: what came of each federated candidate, round by round and owner by owner.

It also stands alone, for a federation whose owners end with models of their own and have no leaderboard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwright.federation.results import Federated, Part
from cellwright.report.chart_federation import by_round, histories, rebuilt
from cellwright.report.chart_owners import MOST_NAMED, by_owner
from cellwright.report.federated_owners import OwnerTable, owner_table
from cellwright.report.record import Candidate, Federation
from cellwright.report.style import Figure
from cellwright.report.topology_drawing import Drawing, drawing
from cellwright.report.words import ABSENT, number, quantity

MOST_ROWS = 30  # owners whose rows are seen at once; more scroll
_STATUS = {
    "converged": "converged",
    "target": "reached its target",
    "budget": "ended by its budget",
    "privacy_budget": "ended by its privacy budget",
    "stopped": "stopped",
    "failed": "failed",
}
_GONE = "is in the topology no more"


@dataclass(frozen=True)
class Figures:
    """A number that is read first, and what stands beside it."""

    title: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Fact:
    """`exact`: the same without rounding, told where one points; `code`: to be set in the type of a computer."""

    name: str
    value: str
    exact: str = ""
    code: bool = False


@dataclass(frozen=True)
class View:
    """One federated candidate as the template shows it."""

    title: str
    sentence: str
    figures: tuple[Figures, ...]
    facts: tuple[Fact, ...]
    why: tuple[str, ...]  # this rule, these nodes
    happened: tuple[tuple[int, tuple[str, ...]], ...]  # round -> what
    table: OwnerTable
    scrolls: bool
    ranked: bool  # owners are drawn by rank, without names
    drawing: Drawing | None
    charts: dict[str, Figure | None]  # "rounds", "owners"


def views(candidates: tuple[Candidate, ...], unit: str) -> list[View]:
    """Every federated candidate of a run, in the order of the leaderboard. `unit`: of the error."""
    return [view(c.federation, c.title, unit) for c in candidates if c.federation is not None]


def view(found: Federation, title: str, unit: str) -> View:
    """What there is to be shown of one federation."""
    from cellwright.steps.federate import sentence

    result = found.result
    return View(
        title=title,
        sentence=sentence(result),
        figures=tuple(_figures(result, unit)),
        facts=tuple(_facts(found)),
        why=result.explanation,
        happened=tuple((r.round, told) for r, told in histories(found.rounds) if told),
        table=owner_table(result, unit),
        scrolls=len(result.owners) > MOST_ROWS,
        ranked=len(result.owners) > MOST_NAMED,
        drawing=_drawing(found),
        charts={"rounds": by_round(found, unit), "owners": by_owner(found, unit)},
    )


def write_federation_page(folder: Path, out: Path, unit: str = "") -> Path:
    """Write the section alone as a page of its own, from the folder of a federated candidate. Returns `out`.

    Raises:
        CellwrightError: the folder holds no federation, or files of another form.
    """
    from cellwright.errors import CellwrightError
    from cellwright.files import write_text
    from cellwright.report.page import federation_page
    from cellwright.report.record import federation

    found = federation(folder)
    if found is None:
        raise CellwrightError(f"{folder} holds no federation.json; `cellwright federate` writes one when its rounds are done")
    write_text(out, federation_page(view(found, title_of(found.result), unit), found.result))
    return out


def title_of(result: Federated) -> str:
    """The name for people of a federation that no leaderboard names."""
    return f"{result.model} by {result.rule_title}"


def _figures(result: Federated, unit: str) -> list[Figures]:
    """Errors three ways, then what it cost; what is not known is left out."""
    beside = f"{number(result.mae_validation)} on the validation span" if result.mae_validation is not None else ""
    found = [Figures("Test MAE, federated", quantity(result.mae, unit), beside)]
    others = (("centralised", result.mae_central), ("each owner alone", result.mae_alone))
    found += [Figures(f"Test MAE, {name}", quantity(v, unit), _against(result.mae, v)) for name, v in others if v is not None]
    found.append(Figures("Bytes", quantity(result.up_bytes + result.down_bytes, "B"), _ways(result)))
    if result.energy is not None and result.energy.energy_j is not None:
        found.append(Figures("Energy", quantity(result.energy.energy_j, "J"), result.energy.source or ""))
    if result.epsilon is not None:
        unit_of = f", {result.epsilon_unit}" if result.epsilon_unit else ""
        found.append(Figures("Privacy budget ε", number(result.epsilon), f"{_delta(result)}{unit_of}"))
    return found


def _against(mine: float | None, other: float) -> str:
    """How much the federated error lies above or below."""
    if mine is None or not other:
        return ""
    return f"federated is {mine / other - 1:+.1%}".replace("-", "−").replace("%", " %")


def _ways(result: Federated) -> str:
    return f"{quantity(result.up_bytes, 'B')} up, {quantity(result.down_bytes, 'B')} down"


def _delta(result: Federated) -> str:
    return f"at δ = {result.delta:g}" if result.delta is not None else ""


def _facts(found: Federation) -> list[Fact]:
    """How it was trained, and what it cost."""
    result = found.result
    options = ", ".join(f"{name} {value}" for name, value in result.rule_options.items())
    privacy = ", ".join(result.privacy) or "none"
    if result.epsilon is not None:
        privacy += f"; ε {number(result.epsilon)} {_delta(result)}".rstrip()
        privacy += f" ({result.epsilon_unit})" if result.epsilon_unit else ""
    facts = [
        Fact("Aggregation rule", f"{result.rule_title}, {result.timing.replace('_', '-')}" + (f"; {options}" if options else "")),
        Fact("Network", result.model),
        Fact("Owners", f"{len(result.owners):,} with {sum(o.examples for o in result.owners):,} windows"),
        Fact("Runtime", _RUNTIMES[result.runtime]),
        Fact("Rounds", f"{result.rounds:,}: {_ended(result)}"),
        Fact("Privacy", privacy),
        Fact("Compression", result.compression),
        Fact("Bytes of rounds", _ways(result), f"{result.up_bytes:,} B up, {result.down_bytes:,} B down"),
        *_everything(result),
        Fact(
            "Time",
            f"{quantity(result.seconds, 's')} of rounds by the nodes' clock, {quantity(result.wall_s, 's')} of this machine",
        ),
        *([Fact("Time by part", _by_part(result, lambda p: quantity(p.wall_s, "s")))] if result.parts else []),
        Fact("Energy", _energy(result)),
        *_energy_of_everything(result),
        Fact("Topology", _topology(found)),
    ]
    log = [Fact("Audit log", result.audit_log)] if result.audit_log else [Fact("Audit log", "none was kept")]
    return [*facts, *log, *([Fact("Its head", result.audit_head, code=True)] if result.audit_head else [])]


def _everything(result: Federated) -> list[Fact]:
    """Bytes of all messages; none of an older result."""
    carried = result.everything_bytes
    if carried is None:
        return []
    ways = f"{quantity(carried[0], 'B')} up, {quantity(carried[1], 'B')} down"
    parts = _by_part(result, lambda p: quantity(p.up_bytes + p.down_bytes, "B"))
    return [Fact("Bytes of everything", f"{ways} ({parts})", f"{carried[0]:,} B up, {carried[1]:,} B down")]


def _energy_of_everything(result: Federated) -> list[Fact]:
    """Energy by role, of all parts, with the source of each."""
    roles = {
        "owners": [(p.owners_energy_j, p.owners_energy_source) for p in result.parts],
        "coordinator": [(p.coordinator_energy_j, p.energy_source) for p in result.parts],
        "auditor": [(p.auditor_energy_j, p.energy_source) for p in result.parts],
    }
    told = []
    for role, readings in roles.items():
        known = [joules for joules, _ in readings if joules is not None]
        sources = sorted({source for joules, source in readings if joules is not None and source})
        told += [f"{role} {quantity(sum(known), 'J')} ({', '.join(sources)})"] if known else []
    if not told:
        return []
    parts = _by_part(result, lambda p: quantity(p.energy_j, "J"))
    return [Fact("Energy of everything", f"{', '.join(told)}; {parts}")]


def _by_part(result: Federated, figure: Callable[[Part], str]) -> str:
    return ", ".join(f"{part.name} {figure(part)}" for part in result.parts)


_RUNTIMES = {"local": "local, owners as nodes of one process", "deployed": "deployed, owners as SuperNodes of a SuperLink"}


def _ended(result: Federated) -> str:
    """Why there were no more rounds."""
    return f"{_STATUS[result.status]}; {result.reason}" if result.status in _STATUS else result.reason


def _topology(found: Federation) -> str:
    times = sum(rebuilt(told) for _, told in histories(found.rounds))
    kind = found.result.topology.get("kind", ABSENT)
    return f"{kind}, version {found.result.topologies}; " + (
        f"rebuilt in {times} round{'s' if times > 1 else ''}" if times else "never rebuilt"
    )


def _energy(result: Federated) -> str:
    reading = result.energy
    if reading is None or reading.energy_j is None:
        return f"{ABSENT} (no owner metered it)"
    carbon = f", {quantity(reading.co2_g, 'g')} CO₂" if reading.co2_g is not None else ""
    return f"{quantity(reading.energy_j, 'J')}{carbon} ({reading.source or 'no source'}: {reading.meter})"


def _drawing(found: Federation) -> Drawing | None:
    """The last topology; None: there was none."""
    from cellwright.errors import CellwrightError
    from cellwright.federation.management.records import Topology

    result = found.result
    if not result.topology:
        return None
    try:
        topology = Topology.model_validate(result.topology)
    except ValueError as error:
        raise CellwrightError(f"the topology of {result.key} cannot be read: {error}") from error
    here = {topology.coordinator, topology.auditor, *topology.regions, *topology.owners}
    gone = {o.owner: _last_word(found, o.owner) for o in result.owners if o.owner not in here}
    titles = {o.owner: f"test MAE {number(o.mae)}, reliability {number(o.reliability)}" for o in result.owners}
    return drawing(topology, gone, titles)


def _last_word(found: Federation, owner: str) -> str:
    """Why a node left, as the last round that tells."""
    told = (e for r in reversed(found.rounds) for e in r.owners if e.owner == owner and e.reason)
    entry = next(told, None)
    return f"{entry.outcome}, {entry.reason}" if entry else _GONE


def charts(shown: list[View]) -> list[dict[str, Any]]:
    """What the page's script draws: two charts a candidate."""
    return [dict(v.charts) for v in shown]
