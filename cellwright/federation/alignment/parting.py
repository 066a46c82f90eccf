"""One data set as several parties would hold it: some of its features, some of its sites. For what is simulated on one machine."""

from __future__ import annotations

from collections.abc import Sequence

from cellwright.errors import FederationError, UnknownName
from cellwright.panel import Panel


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
