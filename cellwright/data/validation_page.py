"""The validation results as a page for people: one HTML file that needs nothing else."""

from __future__ import annotations

from cellwright.data.accepted import Version
from cellwright.panel import PanelSchema
from cellwright.results import Validated

_STYLE = """
:root { color-scheme: light dark; --ink: #16202b; --soft: #5b6b7b; --line: #dde4ea; --paper: #fff; --back: #f4f6f8;
        --good: #0b7a4b; --goodback: #e3f5ec; --bad: #b3261e; --badback: #fce8e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #93a1af; --line: #2b3643; --paper: #151d26;
        --back: #0d131a; --good: #5fd39a; --goodback: #10301f; --bad: #ff8a80; --badback: #3a1512; } }
* { box-sizing: border-box }
body { margin: 0; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; color: var(--ink); background: var(--back) }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 17px; margin: 36px 0 12px }
p { margin: 0; color: var(--soft) }
.verdict { display: flex; gap: 20px; align-items: center; margin: 24px 0; padding: 18px 22px; border-radius: 12px;
           background: var(--goodback); color: var(--good) }
.verdict.bad { background: var(--badback); color: var(--bad) }
.verdict b { font-size: 20px } .verdict p { color: inherit }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums } .tile span { color: var(--soft); font-size: 13px }
.sheet { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 9px 14px; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-size: 12px; letter-spacing: .03em; color: var(--soft); font-weight: 600 } tr:last-child td { border-bottom: 0 }
td.n, th.n { text-align: right; white-space: nowrap } td.long { min-width: 170px; max-width: 300px; overflow-wrap: break-word }
.chip { display: inline-block; border-radius: 99px; padding: 1px 10px; font-size: 12px; font-weight: 600;
        background: var(--goodback); color: var(--good) } .chip.bad { background: var(--badback); color: var(--bad) }
code { font: 12px ui-monospace, Menlo, monospace; color: var(--soft) } tr.bad { background: var(--badback) }
ul { margin: 0; padding-left: 20px; color: var(--soft) }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Validation of {{ found.dataset }}</title><style>{{ style | safe }}</style></head><body><main>
<h1>{{ found.dataset }}</h1><p>{{ first }} to {{ last }} · one row every {{ "{:g}".format(schema.cadence_s) }} s</p>
<div class="verdict{{ '' if found.passed else ' bad' }}"><b>{{ "Accepted" if found.passed else "Refused" }}</b>
<p>{{ held }} of {{ found.checks | length }} expectations held.
{{ "" if found.passed else "Nothing is trained on this version." }}</p></div>
<div class="tiles">
<div class="tile"><b>{{ "{:,}".format(found.rows) }}</b><span>rows</span></div>
<div class="tile"><b>{{ "{:,}".format(found.sites) }}</b><span>sites</span></div>
<div class="tile"><b>{{ schema.features | length }}</b><span>features</span></div>
<div class="tile"><b>{{ before }}</b><span>last row of the version compared with</span></div>
</div>
<h2>Expectations</h2><div class="sheet"><table>
<tr><th>Result</th><th>What is expected</th><th>Feature</th><th>Limit</th><th>Found</th><th class="n">Broken by</th></tr>
{% for c in checks %}<tr class="{{ '' if c.passed else 'bad' }}">
<td><span class="chip{{ '' if c.passed else ' bad' }}">{{ "held" if c.passed else "failed" }}</span></td>
<td>{{ c.title }}<br><code>{{ c.expectation }}</code></td><td>{{ c.feature or "all" }}</td>
<td class="long">{{ c.limit }}</td><td class="long">{{ c.observed }}</td>
<td class="n">{{ "none" if c.passed else "%d of %s %s" | format(c.count, "{:,}".format(c.of), c.what) }}
{%- if c.examples %}<br><code>{{ c.examples[:4] | join(", ") }}{{ " …" if c.count > 4 else "" }}</code>{% endif %}</td></tr>
{% endfor %}</table></div>
<h2>Features</h2><div class="sheet"><table>
<tr><th>Feature</th><th>Unit</th><th class="n">5 %</th><th class="n">25 %</th><th class="n">median</th><th class="n">75 %</th>
<th class="n">95 %</th></tr>
{% for name, f in version.features.items() %}<tr><td>{{ name }}</td><td>{{ f.unit }}</td>
{% for q in (f.q05, f.q25, f.q50, f.q75, f.q95) %}<td class="n">{{ "none" if q is none else "{:,.4g}".format(q) }}</td>
{%- endfor %}</tr>
{% endfor %}</table></div>
{% if found.not_checked %}<h2>Not checked</h2><ul>
{% for line in found.not_checked %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
</main></body></html>
"""


def page(found: Validated, schema: PanelSchema, version: Version) -> str:
    """The page, failures first."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    held = sum(check.passed for check in found.checks)
    checks = sorted(found.checks, key=lambda check: check.passed)
    return environment.from_string(_PAGE).render(
        found=found,
        schema=schema,
        version=version,
        held=held,
        checks=checks,
        style=_STYLE,
        first=_short(found.first),
        last=_short(found.last),
        before=_short(found.compared_with or "none"),
    )


def _short(moment: str) -> str:
    """`2026-01-05 00:00` instead of `2026-01-05T00:00:00+00:00`; other words as they are."""
    return moment[:16].replace("T", " ") if moment.endswith("+00:00") else moment
