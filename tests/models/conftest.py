"""Problems for the tests of single networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models._contract import Problem


@pytest.fixture
def problem() -> Callable[..., Problem]:
    """A site's problem: 6 steps in, 3 out, one target; any field may be given."""

    def build(**given: Any) -> Problem:
        fields: dict[str, Any] = {
            "history": 6,
            "horizon": 3,
            "cadence_s": 600.0,
            "inputs": "site",
            "nodes": 1,
            "outputs": 1,
            "features": ("traffic",),
            "targets": ("traffic",),
        }
        return Problem(**(fields | given))

    return build
