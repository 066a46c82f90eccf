"""validate: hold the panel against its expectations; nothing is trained on a panel that breaks one."""

from __future__ import annotations

from datetime import datetime

from cellwright.data import accepted
from cellwright.data.expectations import check, utc_now
from cellwright.data.summary import first_row, last_row, summarise
from cellwright.data.validation_page import page
from cellwright.errors import ExpectationFailed
from cellwright.files import whole_folder, write_text
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import Check, Validated
from cellwright.workspace import Workspace


def validate(params: Params, ws: Workspace, now: datetime | None = None) -> Validated:
    """Write results.json and index.html; remember the version if it passed.

    The same panel, rules and accepted version give the same results. `now` matters only where `validate.max_age_h` is set; such a
    stage is not reproducible, by its nature.

    Raises:
        FormatError: there is no panel, or it is corrupt.
        ExpectationFailed: names each broken expectation, the first sites and how many; the results are written before.
    """
    rules, panel = params.validate_, Panel.open(ws.panel(params.dataset))
    version = summarise(panel)
    before = accepted.baseline(ws, params.dataset, version.fingerprint)
    checks = check(panel, rules, before, version, now or utc_now())
    found = Validated(
        dataset=params.dataset,
        passed=all(c.passed for c in checks),
        rows=panel.schema.rows,
        sites=len(panel.schema.sites),
        first=first_row(panel),
        last=last_row(panel),
        compared_with=None if before is None else before.last,
        not_checked=_not_checked(params, panel, before),
        checks=checks,
    )
    with whole_folder(ws.validation(params.dataset)) as folder:
        found.save(folder / "results.json")
        write_text(folder / "index.html", page(found, panel.schema, version))
    if not found.passed:
        raise ExpectationFailed(_complaint(found, ws))
    accepted.accept(ws, params.dataset, version)
    return found


def _not_checked(params: Params, panel: Panel, before: accepted.Version | None) -> list[str]:
    left = []
    if params.validate_.max_age_h is None:
        left.append("freshness: validate.max_age_h is null (historic data)")
    elif panel.schema.clock == "relative":
        left.append("freshness: the data set has a relative clock")
    if before is None:
        left.append("shift: no other version was accepted here before")
    return left


def _complaint(found: Validated, ws: Workspace) -> str:
    broken = [c for c in found.checks if not c.passed]
    lines = "; ".join(map(_sentence, broken[:5]))
    more = f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
    page_path = ws.validation(found.dataset) / "index.html"
    return (
        f"{found.dataset}: {len(broken)} of {len(found.checks)} expectations failed: {lines}{more}. Nothing was trained. "
        f"See {page_path}; correct the data, or the limits in the validate section of params.yaml"
    )


def _sentence(check: Check) -> str:
    feature = f" of {check.feature}" if check.feature else ""
    named = f" ({', '.join(check.examples[:3])}{' …' if check.count > 3 else ''})" if check.examples else ""
    return (
        f"{check.expectation} [{check.title}{feature}] for {check.count} of {check.of} {check.what}{named}: "
        f"expected {check.limit}, found {check.observed}"
    )
