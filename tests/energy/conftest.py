"""A machine whose CPU packages count energy: a folder of the same form as Linux's powercap."""

from pathlib import Path

import pytest


class Powercap:
    """One CPU package with a counter that the test turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._package = folder / "intel-rapl" / "intel-rapl:0"
        self._package.mkdir(parents=True)
        (self._package / "name").write_text("package-0\n")
        (self._package / "max_energy_range_uj").write_text("1000000000\n")
        self.set_j(0.5)

    def set_j(self, joules: float) -> None:
        """Let the counter stand at `joules`."""
        (self._package / "energy_uj").write_text(f"{round(joules * 1e6)}\n")


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path)
