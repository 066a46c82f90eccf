"""Areas as GeoJSON (RFC 7946), and what lies in them; WGS 84 degrees, longitude first."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellwright.errors import HubRefused
from cellwright.hub.contract import Location

MOST_POINTS = 50_000
_EARTH_M = 6_371_008.8  # mean radius


def checked(geometry: dict[str, Any]) -> dict[str, Any]:
    """A Polygon or MultiPolygon as it is kept; the geometry of a Feature is taken out.

    Raises:
        HubRefused: no such geometry, outside of the globe, crossing itself, or with too many points.
    """
    found = geometry.get("geometry") if geometry.get("type") == "Feature" else geometry
    if not isinstance(found, dict) or found.get("type") not in ("Polygon", "MultiPolygon"):
        raise HubRefused(f"an area is a GeoJSON Polygon or MultiPolygon, found {str(geometry.get('type'))[:40]}")
    kept = {"type": found["type"], "coordinates": found.get("coordinates")}
    text = _text(kept)
    if text.count("[") > 2 * MOST_POINTS:
        raise HubRefused(f"an area has at most {MOST_POINTS:,} points; simplify it")
    _refuse_flaws(text)
    return kept


def covers(geometry: dict[str, Any], place: Location) -> bool:
    """Whether a place lies in an area or on its border."""
    import shapely

    return bool(shapely.intersects_xy(_shape(_text(geometry)), place.longitude, place.latitude))


def covered(geometry: dict[str, Any], places: Sequence[Location]) -> NDArray[np.bool_]:
    """As `covers`, for many places at once."""
    import shapely

    longitudes, latitudes = [place.longitude for place in places], [place.latitude for place in places]
    return np.asarray(shapely.intersects_xy(_shape(_text(geometry)), longitudes, latitudes), dtype=np.bool_)


def distance_m(one: Location, two: Location) -> float:
    """Along the surface of a sphere (haversine)."""
    phi = math.radians(one.latitude), math.radians(two.latitude)
    half = math.sin((phi[1] - phi[0]) / 2) ** 2
    half += math.cos(phi[0]) * math.cos(phi[1]) * math.sin(math.radians(two.longitude - one.longitude) / 2) ** 2
    return 2 * _EARTH_M * math.asin(min(1.0, math.sqrt(half)))


def _refuse_flaws(text: str) -> None:
    import shapely

    try:
        shape = _shape(text)
        west, south, east, north = shape.bounds
    except (shapely.errors.ShapelyError, ValueError, TypeError, IndexError, KeyError) as error:
        raise HubRefused(f"the area's coordinates are not those of a GeoJSON geometry ({str(error)[:120]})") from None
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise HubRefused("the area reaches beyond the globe; GeoJSON has longitude first, in degrees")
    if shape.is_empty or not shape.is_valid or not shape.area:
        raise HubRefused(f"the area is not a sound polygon: {shapely.is_valid_reason(shape)}; close its rings and let none cross")


@lru_cache(maxsize=2048)
def _shape(text: str) -> Any:
    import shapely
    from shapely.geometry import shape

    found = shape(json.loads(text))
    shapely.prepare(found)
    return found


def _text(geometry: dict[str, Any]) -> str:
    try:
        return json.dumps(geometry, sort_keys=True, allow_nan=False)
    except (ValueError, RecursionError):
        raise HubRefused("the area's coordinates must be finite numbers") from None
