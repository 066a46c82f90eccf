"""Digests of what a training depends on, so that the same work is not done twice and changed work is done again."""

from __future__ import annotations

import ast
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HOUSE = Path(__file__).parent.parent
_OURS = (
    "forecaster.py",
    "data/calendar.py",
    "data/channels.py",
    "data/exogenous.py",
    "data/holidays.py",
    "data/neighbours.py",
    "data/scaler.py",
    "data/split.py",
    "data/windows.py",
    "training",
)

_parsing = threading.Lock()  # CPython 3.11 miscounts its recursion when two threads build a tree at once, and gives up


def of(content: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sources(model: Path) -> str:
    """SHA-256 of the code that trains a model: its file, what it imports of the zoo, and the training itself."""
    ours = (p for name in _OURS for p in _python_files(_HOUSE / name))
    return of([[path.name, file(path)] for path in (*sorted(_closure(model)), *sorted(ours))])


def _python_files(path: Path) -> Iterator[Path]:
    return iter([path]) if path.is_file() else path.rglob("*.py")


def _closure(model: Path) -> set[Path]:
    """The model's file and, again and again, the files of the zoo that these import."""
    zoo, found, todo = _HOUSE.parent, {model}, [model]
    while todo:
        for name in _imports(todo.pop()):
            path = zoo.joinpath(*name.split(".")).with_suffix(".py")
            if path.is_file() and path not in found:
                found.add(path)
                todo.append(path)
    return found


def _imports(path: Path) -> Iterator[str]:
    """Dotted names below `models` that a file imports, whether a module or a name in it."""
    with _parsing:
        tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "models":
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "models")
