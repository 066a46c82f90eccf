"""Names and semantic versions of what is registered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from cellwright.errors import RegistryError

Bump = Literal["major", "minor", "patch"]
_LONGEST = 200  # MLflow takes 256


def experiment_name(dataset: str, targets: Sequence[str], history: int, horizon: int) -> str:
    """`city · traffic_mbps · 6→3`."""
    return f"{dataset} · {' + '.join(targets)} · {history}→{horizon}"


def model_name(dataset: str, targets: Sequence[str], history: int, horizon: int, area: str | None = None) -> str:
    """`city--traffic_mbps--h6-3`, with `--<area>` where a model serves a part of the network only."""
    parts = [dataset, "+".join(targets), f"h{history}-{horizon}", *([area] if area else [])]
    name = "--".join(re.sub(r"[^A-Za-z0-9_.+-]", "_", part) for part in parts)
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def next_semantic(existing: Iterable[str], bump: Bump) -> str:
    """The version after the highest of `existing`; 1.0.0 where there is none.

    Raises:
        RegistryError: a version is not of the form 1.2.3.
    """
    versions = [_parsed(version) for version in existing]
    if not versions:
        return "1.0.0"
    major, minor, patch = max(versions)
    raised = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "patch": (major, minor, patch + 1)}[bump]
    return ".".join(map(str, raised))


def _parsed(version: str) -> tuple[int, int, int]:
    if not (found := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)):
        raise RegistryError(
            f"the tag 'semantic' of a registered version must be like 1.2.3, found '{version}'; correct it in MLflow"
        )
    major, minor, patch = map(int, found.groups())
    return major, minor, patch
