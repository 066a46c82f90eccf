"""`federation.rule: auto`, `federation.model: auto`: what is known of request, nodes and data decides (M.3387 9.2, 9.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cellwright.federation.quality.choice import Circumstances, algorithm, mechanism

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cellwright.federation.fleet import Fleet
    from cellwright.federation.management.records import NodeProperties
    from cellwright.panel import Panel
    from cellwright.params import Params
    from cellwright.workspace import Workspace

AUTO = "auto"
_NAMES = {"ridge": "ridge", "trees": "trees"}  # models with a closed form that a rule exists for


@dataclass(frozen=True)
class Decided:
    """Parameters that leave nothing open, and why they are so."""

    params: Params
    words: tuple[str, ...]


def decided(params: Params, ws: Workspace) -> Decided:
    """Choose what is "auto". What it rests on are properties that nodes declare and sums over the owners, no row of their data."""
    f = params.federation
    if AUTO not in (f.rule, f.model):
        return Decided(params, ())
    from cellwright.federation.aggregation import options_of

    known, words = circumstances(params, ws), []
    if f.model == AUTO:
        chosen = algorithm(known)
        f = f.model_copy(update={"model": chosen.name})
        words.append(f"model {chosen.name}: {chosen.words}")
    if f.rule == AUTO:
        found = mechanism(replace(known, closed_form=_NAMES.get(f.model, "")))
        own = options_of(found.name, f.rule_options)
        f = f.model_copy(update={"rule": found.name, "rule_options": {**found.options, **own}})
        words.append(f"rule {found.name}: {found.words}")
    return Decided(params.model_copy(update={"federation": f}), tuple(words))


def circumstances(params: Params, ws: Workspace) -> Circumstances:
    """What is known before training begins."""
    from cellwright.data.split import spans
    from cellwright.federation.fleet import fleet
    from cellwright.federation.owners import groups
    from cellwright.federation.privacy import mechanism as privacy
    from cellwright.federation.privacy._contract import Mechanism
    from cellwright.panel import Panel

    f, panel = params.federation, Panel.open(ws.panel(params.dataset))
    shares = groups(panel.schema, f.owners)
    nodes = fleet(f, ws.root, {owner: tuple(panel.schema.sites[i] for i in index) for owner, index in shares.items()})
    rows = spans(params.split, panel.schema).train
    examples, spread = _data(panel, params.problem.targets or panel.schema.targets, shares, rows)
    own = _owners(nodes, shares)
    mechanisms = [privacy(name, f.privacy_options.get(name, {})) for name in f.privacy]
    return Circumstances(
        task=f.task,
        examples=examples,
        seconds_per_step=tuple(node.seconds_per_step for node in own),
        security=tuple(node.security for node in own),
        reliability=_reliability(params, ws, [node.name for node in own]),
        memory_bytes=tuple(node.capacity.memory_bytes for node in own),
        heterogeneity=spread,
        seals=any(m.seals for m in mechanisms),
        private=bool(mechanisms),
        averages=any(m.seals or type(m).finish is not Mechanism.finish for m in mechanisms),
        hierarchical=f.topology == "hierarchy",
        delay_bound_s=f.delay_bound_s,
        rounds=f.rounds,
        steps=f.steps,
    )


def _owners(nodes: Fleet, shares: Mapping[str, Sequence[int]]) -> list[NodeProperties]:
    return [node for node in nodes.nodes if node.name in shares]


def _reliability(params: Params, ws: Workspace, names: Sequence[str]) -> tuple[float, ...]:
    """As the FMLMS rated them in earlier requests; 1 for those it does not know."""
    from cellwright.federation.management.opening import open_fmlms

    if params.federation.database is None and not (ws.federation / f"{params.dataset}.db").is_file():
        return (1.0,) * len(names)
    with open_fmlms(ws, params) as service:
        known = service.statuses()
    return tuple(known[name].reliability if name in known else 1.0 for name in names)


def _data(
    panel: Panel, targets: Sequence[str], shares: Mapping[str, Sequence[int]], rows: tuple[int, int]
) -> tuple[tuple[int, ...], float]:
    """Measured target values of each owner in the training rows, and how far the owners' levels lie apart, in their own spread."""
    first = targets[0]
    values = np.where(panel.good(first)[slice(*rows)], panel.values(first)[slice(*rows)], np.nan).astype(np.float64)
    counts = tuple(int((~np.isnan(values[:, list(index)])).sum()) for index in shares.values())
    with np.errstate(invalid="ignore"):
        seen = [values[:, list(index)] for index, count in zip(shares.values(), counts, strict=True) if count]
        levels, scales = np.array([np.nanmean(v) for v in seen]), np.array([np.nanstd(v) for v in seen])
    usual = float(scales.mean()) if len(scales) else 0.0
    return counts, float(levels.std() / usual) if usual else 0.0
