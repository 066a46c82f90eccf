"""A vertical or a transfer federation as a page: errors beside those of training alone and on pooled data, cost, and the audit.

Such a run has no leaderboard: its page stands alone, as that of owners who end with models of their own.
"""

from __future__ import annotations

from pathlib import Path

from cellwright.federation.alignment.audit_summary import AuditSummary
from cellwright.federation.alignment.told import read, sentence
from cellwright.federation.alignment.vertical_spec import VerticalResult
from cellwright.report.federated import Fact
from cellwright.report.kinds_parts import KindView
from cellwright.report.kinds_transfer import of_transfer
from cellwright.report.kinds_vertical import of_vertical
from cellwright.workspace import Workspace

_LEADS = {
    "vertical": "Parties hold different features of the same time. They find the windows that all have without showing any other; then "
    "only embeddings and their gradients cross.",
    "transfer": "A network's body was trained by the owners of another data set; the owners here go on from it with a new head. Only "
    "weights cross.",
}


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
    made = of_vertical(found, unit) if isinstance(found, VerticalResult) else of_transfer(found, unit)
    return KindView(
        kind=kind,
        title=made.title,
        lead=_LEADS[kind],
        sentence=sentence(ws, kind),
        figures=tuple(made.figures),
        step=made.step,
        charts={"lines": made.chart},
        tables=tuple(made.tables),
        facts=(*made.facts, *_audited(ws, found.audit)),
    )


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
