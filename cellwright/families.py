"""Families: folders whose files are their members, found by file name.

A member `kpis/mae.py` is the KPI `mae`. Files that start with `_` are contracts or shared parts, not members.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from cellwright.errors import UnknownName


@cache
def members(package: str) -> tuple[str, ...]:
    """Names of the members of the family in `package` ("models", "cellwright.kpis"), sorted."""
    found = importlib.import_module(package)
    return tuple(sorted(m.name for m in pkgutil.iter_modules(found.__path__) if not m.name.startswith("_")))


def member(package: str, name: str, *, what: str) -> ModuleType:
    """The module of one member.

    Raises:
        UnknownName: no file of that name; the message lists those there are.
    """
    key = name.replace("-", "_")
    if key not in members(package):
        raise UnknownName(what, name, members(package))
    return importlib.import_module(f"{package}.{key}")
