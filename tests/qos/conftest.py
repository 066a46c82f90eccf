"""A simulated network for each test; `qos_parts` (parts.py) can be imported by the room's tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwright.qos.journal import Journal
from cellwright.qos.simulator.clock import Clock
from cellwright.qos.simulator.network import Network, in_thread

_SPEC = importlib.util.spec_from_file_location("qos_parts", Path(__file__).with_name("parts.py"))
parts = importlib.util.module_from_spec(_SPEC)
sys.modules["qos_parts"] = parts  # tests are imported one by one (importlib mode), so no folder of theirs is on the path
_SPEC.loader.exec_module(parts)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network whose time stands still until a test moves it."""
    with in_thread(Network(parts.options(), clock=Clock(running=False, start_s=parts.NOON_S))) as running:
        yield running


@pytest.fixture
def live() -> Iterator[Network]:
    """A network with time that runs, and http sinks."""
    with in_thread(Network(parts.options(plain_sinks=True))) as running:
        yield running


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "state" / "qos.db")
