"""Anything at all: stored as it is, signed, handed on, and never opened here."""

from __future__ import annotations

from pathlib import Path

from cellwright.bundle.manifest import Manifest
from cellwright.hub.formats._contract import Given, wrapped

title = "an opaque file"


def sniff(head: bytes) -> None:
    """Nothing is expected, so nothing is looked at."""


def layout(given: Given, folder: Path) -> Manifest:
    """Wrap it."""
    return wrapped(given, folder, "opaque")
