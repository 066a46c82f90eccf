"""What there is to be shown of a transfer federation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from cellwright.federation.alignment.transfer import Course, TransferResult
from cellwright.federation.ledger import less_certain
from cellwright.report.federated import Fact, Figures
from cellwright.report.kinds_parts import Made, Table, both_ways, cell, count, ended, energy, lines, other, share
from cellwright.report.tables import Cell
from cellwright.report.words import ABSENT, number, quantity


def of_transfer(found: TransferResult, unit: str) -> Made:
    named = {f"body of {found.source}": found.transfer, "fresh weights": found.alone}
    courses = {name: course for name, course in named.items() if course is not None}
    chart = lines({name: c.mae_validation for name, c in courses.items()}, "Round", unit)
    whole = {**courses, **({f"owners of {found.source}": found.before} if found.before else {})}
    tables = [("Owner by owner", _owners(found, unit)), ("Training by training", _courses(whole))]
    return Made(
        f"{found.model} from {found.source} for {found.dataset}",
        _figures(found, unit),
        "round",
        chart,
        tables,
        _facts(found, whole),
    )


def _figures(found: TransferResult, unit: str) -> list[Figures]:
    mine = found.transfer
    last = next((v for v in reversed(mine.mae_validation) if v is not None), None)
    shown = [Figures("Test MAE, transfer", quantity(mine.mae, unit), f"{number(last)} on the validation span, last round")]
    if found.alone is not None and found.alone.mae is not None:
        shown.append(other("fresh weights", found.alone.mae, mine.mae, unit, "transfer"))
    shown.append(Figures("Taken from the source", f"{found.taken_share:.0%}".replace("%", " %"), "of the network's numbers"))
    shown.append(both_ways(mine.up_bytes, mine.down_bytes))
    return shown + energy(mine.energy_j, mine.energy_source)


def _facts(found: TransferResult, courses: Mapping[str, Course]) -> list[Fact]:
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
    rows = [
        (owner, (cell(mae, unit), cell(apart.get(owner), unit), share(mae, apart.get(owner))))
        for owner, mae in found.transfer.mae_by_owner.items()
    ]
    return Table("Owner", (("Test MAE", "with the body"), ("Test MAE", "fresh weights"), ("Change", "")), tuple(rows))


def _courses(courses: Mapping[str, Course]) -> Table:
    columns = ("Test MAE", "Rounds", "Ended", "To owners", "From owners", "Energy")
    rows = [
        (
            name,
            (
                cell(c.mae, ""),
                count(c.rounds),
                Cell(ended(c.status), c.status),
                cell(c.down_bytes, "B"),
                cell(c.up_bytes, "B"),
                cell(c.energy_j, "J"),
            ),
        )
        for name, c in courses.items()
    ]
    return Table("Training", tuple((title, "") for title in columns), tuple(rows))
