"""The area of a GeoJSON polygon (RFC 7946) on the Earth, in km²."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cellwright.errors import ParamsError

EARTH_RADIUS_KM = 6371.0072  # of the sphere that has the surface of the WGS 84 ellipsoid
MAX_FILE_BYTES = 16 * 1024**2

Ring = list[tuple[float, float]]  # (longitude, latitude) in degrees; the last equals the first


def area_of(path: Path) -> float:
    """The area, in km², of all polygons in a GeoJSON file: a geometry, a feature or a collection of either.

    The sphere is laid out by Lambert's equal-area cylinder (x = longitude, y = sine of latitude), where a polygon's area is
    that of the plane. Borders are straight in longitude and latitude (RFC 7946, 3.1.1). The difference between sphere and
    ellipsoid is below 0.6 % up to 60° of latitude, and 0.9 % at the poles.

    Raises:
        ParamsError: the file cannot be read, holds no polygon, or one that is not closed or has no area.
    """
    rings = [list(_rings(polygon, path)) for polygon in _polygons(_read(path), path)]
    total = sum(_ring_km2(outer) - sum(map(_ring_km2, holes)) for outer, *holes in rings)
    if not rings or total <= 0:
        raise ParamsError(f"area_file: {path} holds no polygon with an area; give a Polygon, a MultiPolygon or features of them")
    return total


def _read(path: Path) -> Any:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise ParamsError(f"area_file: {path} has {size:,} bytes, at most {MAX_FILE_BYTES:,} are read; simplify the polygon")
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ParamsError(f"area_file: cannot read {path} as GeoJSON: {error}") from error


def _polygons(node: Any, path: Path) -> Iterator[list[Any]]:
    """The coordinates of every polygon."""
    kind = node.get("type") if isinstance(node, dict) else None
    match kind:
        case "FeatureCollection":
            for feature in _list(node.get("features"), "features", path):
                yield from _polygons(feature, path)
        case "Feature":
            yield from _polygons(node.get("geometry"), path)
        case "GeometryCollection":
            for geometry in _list(node.get("geometries"), "geometries", path):
                yield from _polygons(geometry, path)
        case "Polygon":
            yield _list(node.get("coordinates"), "coordinates", path)
        case "MultiPolygon":
            yield from (_list(part, "coordinates", path) for part in _list(node.get("coordinates"), "coordinates", path))
        case _:
            raise ParamsError(f"area_file: {path}: expected a polygon, found {kind or type(node).__name__}; points have no area")


def _rings(polygon: list[Any], path: Path) -> Iterator[Ring]:
    if not polygon:
        raise ParamsError(f"area_file: {path}: a polygon without coordinates; remove it")
    for ring in polygon:
        try:
            points = [(float(longitude), float(latitude)) for longitude, latitude, *_ in ring]
        except (TypeError, ValueError) as error:
            raise ParamsError(f"area_file: {path}: a point must be [longitude, latitude] in degrees: {error}") from error
        if len(points) < 4 or points[0] != points[-1]:
            raise ParamsError(f"area_file: {path}: a ring needs 4 points or more and ends where it begins, found {len(points)}")
        if wrong := [p for p in points if not (abs(p[0]) <= 180 and abs(p[1]) <= 90)]:
            raise ParamsError(f"area_file: {path}: {wrong[0]} is no [longitude, latitude] in degrees; GeoJSON allows WGS 84 only")
        yield points


def _ring_km2(ring: Ring) -> float:
    return abs(sum(math.radians(b[0] - a[0]) * _mean_sine(a[1], b[1]) for a, b in pairwise(ring))) * EARTH_RADIUS_KM**2


def _mean_sine(one: float, other: float) -> float:
    """Of all latitudes between two, in degrees."""
    middle, half = math.radians(one + other) / 2, math.radians(other - one) / 2
    return math.sin(middle) * (math.sin(half) / half if half else 1.0)


def _list(found: Any, what: str, path: Path) -> list[Any]:
    if not isinstance(found, list):
        raise ParamsError(f"area_file: {path}: '{what}' must be a list, found {type(found).__name__}")
    return found
