"""What `gc` deletes: old runs, old published bundles, and data versions that no commit uses."""

from __future__ import annotations

from pathlib import Path

from cellwright import runs, versioning
from cellwright.errors import WrongUse
from cellwright.workspace import Workspace


def collect(ws: Workspace, *, keep: int, dry: bool, cache: bool) -> list[tuple[Path, int]]:
    """Delete, or with `dry` only list; returns paths and bytes."""
    freed = runs.collect_garbage(ws, keep=keep, dry=dry)
    freed += _bundles(ws, keep, dry)
    if cache and dry:
        raise WrongUse("what --cache would free is known only once it is done; leave --dry-run or --cache out")
    if cache:
        freed.append(versioning.collect_garbage(ws))
    return freed


def _bundles(ws: Workspace, keep: int, dry: bool) -> list[tuple[Path, int]]:
    from cellwright.bundle.store import retire

    return retire(ws, keep=keep, dry=dry)
