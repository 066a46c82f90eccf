"""Where the nodes of a federation's topology are drawn: the coordinator in the middle, owners on a ring round it (M.3387 8.4.1).

star       owners on a ring, as many rings as they need
hierarchy  edges on an inner ring, each one's owners in its sector of the outer one
Nodes that took part once and are in the last topology no more lie in a sector of their own, without a connection.

Numbers are pixels of a square of `SIZE`, from its upper left. Pure: the template draws what is returned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cellwright.federation.management.records import Topology

SIZE = 560.0
_MIDDLE, _EDGES, _NAMED_RING, _OUTER = SIZE / 2, 105.0, 190.0, 268.0  # radii; a ring with names leaves room for them
_INNER_STAR, _INNER_HIERARCHY = 70.0, 150.0  # least radius of an owner
_MOST_NAMED = 60  # owners whose names are written beside them
_WIDEST, _LONGEST = 15.0, 12  # pixels between owners where there is room; characters of a name

Kind = Literal["coordinator", "edge", "owner", "gone", "auditor"]


@dataclass(frozen=True)
class Dot:
    """A node."""

    kind: Kind
    x: float
    y: float
    radius: float
    title: str  # told where one points
    label: str = ""
    turn: float = 0.0  # of the label about the node, degrees
    shift: float = 0.0  # of the label along that direction
    anchor: Literal["start", "middle", "end"] = "middle"


@dataclass(frozen=True)
class Drawing:
    """All of it: connections as paths of SVG, and nodes."""

    trunks: str  # edges to the coordinator
    spokes: str  # owners to theirs
    audit: str  # the auditor to the coordinator
    dots: tuple[Dot, ...]
    words: str  # what it shows, for those who cannot see it


@dataclass(frozen=True)
class Sector:
    """Nodes that lie beside each other: those of an edge, those of the coordinator itself, those that are gone."""

    head: str | None
    nodes: tuple[str, ...]
    gone: bool = False


@dataclass(frozen=True)
class _Span:
    """A sector on the circle: radians, clockwise from the top."""

    sector: Sector
    start: float
    width: float


def drawing(topology: Topology, gone: Mapping[str, str], titles: Mapping[str, str]) -> Drawing:
    """The topology's picture. `gone`: nodes that left, and why; `titles`: what is to be told of an owner."""
    spans = _spans(sectors(topology, gone))
    inner = _INNER_HIERARCHY if topology.regions else _INNER_STAR
    count = sum(len(span.sector.nodes) for span in spans)
    named = count <= _MOST_NAMED
    outer = _NAMED_RING if named else _OUTER
    spacing = _beside(spans, outer) if named else _spacing(spans, inner, outer, count)
    dots, spokes, trunks = list[Dot](), list[str](), list[str]()
    for span in spans:
        head = _head(span) if span.sector.head else None
        if head is not None:
            dots.append(head)
            trunks.append(_line(_MIDDLE, _MIDDLE, head.x, head.y))
        x, y = (head.x, head.y) if head else (_MIDDLE, _MIDDLE)
        told = gone if span.sector.gone else titles
        for node, (angle, radius) in zip(span.sector.nodes, _places(span, inner, outer, spacing), strict=True):
            dot = _owner(node, angle, radius, spacing, told.get(node, ""), named=named, gone=span.sector.gone)
            dots.append(dot)
            if not span.sector.gone:
                spokes.append(_line(x, y, dot.x, dot.y))
    middle, auditor = _coordinator(topology), _auditor(topology)
    return Drawing(
        trunks="".join(trunks),
        spokes="".join(spokes),
        audit=_line(_MIDDLE, _MIDDLE, auditor.x, auditor.y) if auditor else "",
        dots=(*dots, *([auditor] if auditor else []), middle),
        words=_words(topology, gone),
    )


def sectors(topology: Topology, gone: Mapping[str, str]) -> list[Sector]:
    """Nodes by whom they talk to, sorted: each edge's, then the coordinator's own, then those that are gone."""
    held = {owner for owners in topology.regions.values() for owner in owners}
    found = [Sector(edge, tuple(sorted(owners))) for edge, owners in sorted(topology.regions.items())]
    own = tuple(sorted(set(topology.owners) - held))
    found += [Sector(None, own)] if own else []
    return [*found, Sector(None, tuple(sorted(gone)), gone=True)] if gone else found


def _spans(found: Sequence[Sector]) -> list[_Span]:
    """The whole circle, shared out by nodes; a gap between sectors, where there are several."""
    sizes = [max(len(sector.nodes), 1) for sector in found]
    gap = max(1.0, 0.02 * sum(sizes)) if len(found) > 1 else 0.0
    unit = 2 * math.pi / (sum(sizes) + gap * len(found))
    spans, at = list[_Span](), 0.0
    for sector, size in zip(found, sizes, strict=True):
        spans.append(_Span(sector, at, size * unit))
        at += (size + gap) * unit
    return spans


def _beside(spans: Sequence[_Span], outer: float) -> float:
    """Pixels between neighbours of a single ring."""
    return min([_WIDEST, *(0.999 * span.width * outer / max(len(span.sector.nodes), 1) for span in spans)])


def _spacing(spans: Sequence[_Span], inner: float, outer: float, count: int) -> float:
    """Pixels between neighbours of as many rings as they need: as wide as fits."""
    spacing = min(_WIDEST, 1.1 * math.sqrt(math.pi * (outer**2 - inner**2) / max(count, 1)))
    while any(len(_places(span, inner, outer, spacing)) < len(span.sector.nodes) for span in spans):
        spacing *= 0.95
    return spacing


def _places(span: _Span, inner: float, outer: float, spacing: float) -> list[tuple[float, float]]:
    """(angle, radius) of each node of a sector, the outermost ring first; fewer than it has where there is no room."""
    found, left, radius = list[tuple[float, float]](), len(span.sector.nodes), outer
    while left > 0 and radius >= inner:
        here = min(left, max(1, int(span.width * radius / spacing + 1e-9)))
        found += [(span.start + span.width * (i + 0.5) / here, radius) for i in range(here)]
        left -= here
        radius -= spacing
    return found


def _head(span: _Span) -> Dot:
    """The edge of a sector."""
    x, y = _at(span.start + span.width / 2, _EDGES)
    edge, count = span.sector.head or "", len(span.sector.nodes)
    return Dot("edge", x, y, 9, f"{edge}: edge, coordinator of {count} owner{'' if count == 1 else 's'}", _cut(edge), 0, 22)


def _owner(node: str, angle: float, radius: float, spacing: float, told: str, *, named: bool, gone: bool) -> Dot:
    x, y = _at(angle, radius)
    size = max(1.5, min(5.5, 0.36 * spacing))
    title = f"{node}: {told}" if told else node
    if not named:
        return Dot("gone" if gone else "owner", x, y, size, title)
    right = math.sin(angle) >= 0  # names are read from the left on both sides
    turn = math.degrees(angle) - 90 if right else math.degrees(angle) + 90
    return Dot(
        "gone" if gone else "owner",
        x,
        y,
        size,
        title,
        _cut(node),
        round(turn, 2),
        10.0 if right else -10.0,
        "start" if right else "end",
    )


def _coordinator(topology: Topology) -> Dot:
    name = topology.coordinator
    return Dot("coordinator", _MIDDLE, _MIDDLE, 13, f"{name}: coordinator", _cut(name), 0, 28)


def _auditor(topology: Topology) -> Dot | None:
    """In the lower left corner: it talks to the coordinator alone."""
    if topology.auditor is None:
        return None
    return Dot("auditor", 46, SIZE - 46, 8, f"{topology.auditor}: auditor of every message", _cut(topology.auditor), 0, 24)


def _at(angle: float, radius: float) -> tuple[float, float]:
    return round(_MIDDLE + radius * math.sin(angle), 1), round(_MIDDLE - radius * math.cos(angle), 1)


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f"M{x:g} {y:g}L{to_x:g} {to_y:g}"


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _words(topology: Topology, gone: Mapping[str, str]) -> str:
    edges = f", {len(topology.regions)} edges" if topology.regions else ""
    left = f", {len(gone)} nodes gone" if gone else ""
    return f"{topology.kind} of version {topology.version}: coordinator {topology.coordinator}{edges}, {len(topology.owners)} owners{left}"
