"""One data set as several parties would hold it: some of its features, some of its sites. For what is simulated on one machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellwright.errors import FederationError, UnknownName
from cellwright.panel import Flag, Panel, Segment


def part(panel: Panel, features: Sequence[str], sites: Sequence[str] | None = None) -> Panel:
    """A panel in memory of these features and sites (None: all), same rows, flags and segments; nothing else of it is kept.

    Raises:
        UnknownName: a feature or a site that the panel lacks.
        FederationError: no feature, or no site.
    """
    schema = panel.schema
    wanted = schema.sites if sites is None else tuple(sites)
    known = [f.name for f in schema.features]
    for what, asked, there in (("feature", features, known), ("site", wanted, schema.sites)):
        if not asked:
            raise FederationError(f"a party needs at least one {what} of '{schema.dataset}'")
        for name in asked:
            if name not in there:
                raise UnknownName(f"{what} of '{schema.dataset}'", name, there)
    index = [schema.sites.index(site) for site in wanted]
    places = None if schema.coordinates is None else tuple(schema.coordinates[i] for i in index)
    update = {
        "sites": tuple(wanted),
        "features": tuple(f for f in schema.features if f.name in features),
        "targets": tuple(t for t in schema.targets if t in features) or tuple(features[:1]),
        "grid": None,
        "coordinates": places,
        "adjacency": None,
        "noise_floor": None,
    }
    values = {name: panel.values(name)[:, index] for name in features}
    flags = {name: panel.flags(name)[:, index] for name in features}
    return Panel.from_arrays(schema.model_copy(update=update), values, flags)


def stretch(panel: Panel, rows: tuple[int, int], segments: Sequence[str] = ()) -> Panel:
    """A panel in memory of rows [first, stop), of these segments alone (none named: all); what lies between them counts as missing.

    Raises:
        UnknownName: a segment that the panel lacks.
        FederationError: nothing is left.
    """
    schema = panel.schema
    known = [s.name for s in schema.segments]
    for name in segments:
        if name not in known:
            raise UnknownName(f"segment of '{schema.dataset}'", name, known)
    found = [(s.name, max(s.start, rows[0]), min(s.stop, rows[1])) for s in schema.segments if not segments or s.name in segments]
    found = [(name, start, stop) for name, start, stop in found if start < stop]
    if not found:
        raise FederationError(f"rows {rows[0]} to {rows[1]} of '{schema.dataset}' hold nothing of segment {', '.join(segments)}")
    first, stop = min(s[1] for s in found), max(s[2] for s in found)
    kept = np.zeros(stop - first, dtype=bool)
    for _, a, b in found:
        kept[a - first : b - first] = True
    names = [f.name for f in schema.features]
    values = {n: np.where(kept[:, None], panel.values(n)[first:stop], np.float32(np.nan)) for n in names}
    flags = {n: np.where(kept[:, None], panel.flags(n)[first:stop], np.uint8(Flag.MISSING)) for n in names}
    update = {
        "rows": stop - first,
        "start_ms": schema.start_ms + (round(first * schema.cadence_s * 1000) if schema.clock == "utc" else 0),
        "segments": tuple(Segment(name=n, start=a - first, stop=b - first) for n, a, b in found),
    }
    return Panel.from_arrays(schema.model_copy(update=update), values, flags)
