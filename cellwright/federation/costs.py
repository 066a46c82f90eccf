"""What each part of a federation took: time, bytes, and the work of owners, coordinator and auditor (M.3387 8.4.2).

    deployment     the task and its topology sent out, metadata asked for, scalers of owners that do not train
    training       the rounds
    contribution   models of groups of owners judged, after the training
    test           the last weights judged, on the test spans

Parts that lie within others, such as a deployment to a node that came back in the middle of a round, are taken out of these. The
coordinator's CPU-seconds are those of its thread or process, without the owners' where they share it, and without the auditor's. What a
process that was killed had spent since its last checkpoint is not known, and not counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from cellwright.errors import FederationError
from cellwright.federation.contract import Source
from cellwright.federation.ledger import Ledger, less_certain, plus
from cellwright.federation.node_meter import Mark, NodeMeter
from cellwright.files import write_text

Phase = Literal["deployment", "training", "contribution", "test"]
PHASES: tuple[Phase, ...] = ("deployment", "training", "contribution", "test")


@dataclass
class Spent:
    """What one part took, of all processes that worked on it."""

    wall_s: float = 0.0
    cpu_s: float = 0.0  # of the coordinator's process, the auditor's and, where they share it, the owners' included
    auditor_cpu_s: float = 0.0
    owners_cpu_s: float = 0.0  # as they say
    owners_energy_j: float | None = None
    owners_energy_source: Source | None = None
    owners_co2_g: float | None = None
    up_bytes: int = 0
    down_bytes: int = 0

    def carried(self, ledger: Ledger) -> None:
        """Add what messages took."""
        up_bytes, down_bytes = ledger.bytes()
        told = ledger.usage(0.0)
        self.up_bytes, self.down_bytes = self.up_bytes + up_bytes, self.down_bytes + down_bytes
        self.owners_cpu_s += told.cpu_s
        self.owners_energy_j = plus(self.owners_energy_j, told.energy_j)
        self.owners_energy_source = less_certain(self.owners_energy_source, told.energy_source)
        self.owners_co2_g = plus(self.owners_co2_g, told.co2_g)

    def coordinator_cpu_s(self, *, shared: bool) -> float:
        """The coordinator's own. `shared`: the owners are in its process."""
        return max(0.0, self.cpu_s - self.auditor_cpu_s - (self.owners_cpu_s if shared else 0.0))


@dataclass
class Costs:
    """Adds up by part; parts may lie within each other."""

    path: Path | None = None  # file that it is kept in; None: nowhere
    spent: dict[Phase, Spent] = field(default_factory=lambda: {phase: Spent() for phase in PHASES})
    auditor: Callable[[], float] = lambda: 0.0  # CPU-seconds that the auditor has taken so far
    _open: list[Phase] = field(default_factory=list)
    _meter: NodeMeter = field(default_factory=lambda: NodeMeter(None))
    _since: tuple[Mark, float] | None = None

    @classmethod
    def of(cls, path: Path, *, resumed: bool) -> Costs:
        """With what earlier processes spent, where the training goes on from them.

        Raises:
            FederationError: the file is damaged.
        """
        if not (resumed and path.is_file()):
            return cls(path)
        try:
            told = json.loads(path.read_bytes())
            return cls(path, {phase: Spent(**told[phase]) for phase in PHASES})
        except (KeyError, TypeError, ValueError) as error:
            raise FederationError(
                f"{path} is damaged ({type(error).__name__}: {error}); remove it: costs then start from 0"
            ) from error

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """The time from here on is this part's, and no longer that of the one around it."""
        self._charge()
        self._open.append(phase)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    @contextmanager
    def messages(self, phase: Phase) -> Iterator[Ledger]:
        """`during`, with a ledger for what is sent."""
        ledger = Ledger()
        with self.during(phase):
            try:
                yield ledger
            finally:
                self.spent[phase].carried(ledger)

    def keep(self) -> None:
        """Write it down, as far as it is.

        Raises:
            WorkspaceError: the disk is full or the folder is not writable.
        """
        self._charge()
        if self.path is not None:
            write_text(self.path, json.dumps({phase: asdict(spent) for phase, spent in self.spent.items()}))

    def _charge(self) -> None:
        """What was used since the last time goes to the innermost part."""
        if self._open and self._since is not None:
            mark, audited = self._since
            used, spent = self._meter.usage(mark), self.spent[self._open[-1]]
            spent.wall_s, spent.cpu_s = spent.wall_s + used.seconds, spent.cpu_s + used.cpu_s
            spent.auditor_cpu_s += self.auditor() - audited
        self._since = self._meter.mark(), self.auditor()
