"""Where the names of points go, so that they do not lie on each other or on points. Pixels; the axes' scale is the caller's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_CHARACTER, _HEIGHT, _POINT = 7.2, 16.0, 8.0  # pixels
_DISTANCES = (18.0, 34.0, 54.0, 78.0)
_DIRECTIONS = ((0, -1), (0.7, -0.7), (-0.7, -0.7), (1, 0), (-1, 0), (0.7, 0.7), (-0.7, 0.7), (0, 1))

Box = tuple[float, float, float, float]  # left, top, right, bottom


def offsets(
    points: Sequence[tuple[float, float]], names: Sequence[str], width: float, height: float
) -> list[tuple[float, float]]:
    """(right, down) from each point to the middle of its name: the nearest place that is free, else the one that overlaps least.

    `points`: pixels from the upper left of an area of `width` × `height`.
    """
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    found = []
    for (x, y), name in zip(points, names, strict=True):
        half = len(name) * _CHARACTER / 2
        places = [_place(dx, dy, distance, half) for distance, (dx, dy) in itertools.product(_DISTANCES, _DIRECTIONS)]
        boxes = {(ox, oy): _box(x + ox, y + oy, half) for ox, oy in places}
        best = min(places, key=lambda place: _trouble(boxes[place], taken, width, height))
        taken.append(boxes[best])
        found.append(best)
    return found


def _place(dx: float, dy: float, distance: float, half: float) -> tuple[float, float]:
    """The middle of a name that starts `distance` away from its point."""
    return dx * (distance + half * abs(dx) - 6 * abs(dx)), dy * distance


def _box(x: float, y: float, half: float) -> Box:
    return x - half, y - _HEIGHT / 2, x + half, y + _HEIGHT / 2


def _trouble(box: Box, taken: Sequence[Box], width: float, height: float) -> float:
    """Area shared with what is there already, and of what lies outside."""
    left, top, right, bottom = box
    outside = max(0.0, -left) + max(0.0, right - width) + max(0.0, -top) + max(0.0, bottom - height)
    return sum(_shared(box, other) for other in taken) + outside * _HEIGHT


def _shared(one: Box, other: Box) -> float:
    """Area of both."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
