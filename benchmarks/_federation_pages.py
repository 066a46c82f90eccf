"""What federation.py found, part by part, as sections of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
