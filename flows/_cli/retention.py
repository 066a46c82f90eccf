"""What `gc` deletes: old runs, old published bundles, and data versions that no commit uses."""

from __future__ import annotations

from pathlib import Path

from cellwright import runs, versioning
from cellwright.workspace import Workspace


def collect(ws: Workspace, *, keep: int, dry: bool, cache: bool) -> list[tuple[Path, int]]:
    """Delete, or with `dry` only list; returns paths and bytes."""
    freed = runs.collect_garbage(ws, keep=keep, dry=dry)
    freed += _bundles(ws, keep, dry)
    if cache:
        freed += versioning.collect_garbage(ws, dry=dry)
    return freed


def _bundles(ws: Workspace, keep: int, dry: bool) -> list[tuple[Path, int]]:
    from cellwright.bundle.store import retire

    return retire(ws, keep=keep, dry=dry)
