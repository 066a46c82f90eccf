"""Stragglers are told fewer steps rather than dropped: a slow node's update still counts, and the round keeps its deadline.

Li et al., "Federated optimization in heterogeneous networks", MLSys 2020: partial work of slow nodes is aggregated like any other.
How long a node takes is a line through its last rounds: seconds = fixed + per step × steps, by the channel's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_MARGIN = 0.9  # of the deadline that may be planned with; the rest is for what varies from round to round
_NEWEST = 0.5  # weight of the newest round in the time of a step


@dataclass
class Pace:
    """How fast one node is."""

    per_step_s: float
    fixed_s: float = 0.0  # links, loading, evaluation of what does not depend on the steps

    def steps(self, wanted: int, deadline_s: float) -> int:
        """How many of `wanted` steps fit into the deadline; at least one."""
        free = deadline_s * _MARGIN - self.fixed_s
        return max(1, min(wanted, int(free / self.per_step_s))) if self.per_step_s > 0 else wanted


@dataclass
class Pacing:
    """How fast the nodes are, as far as is known. A node that was never heard of is told all steps."""

    paces: dict[str, Pace] = field(default_factory=dict)
    _last: dict[str, tuple[int, float]] = field(default_factory=dict)  # steps and seconds of a node's last round

    @classmethod
    def reported(cls, seconds_per_step: Mapping[str, float]) -> Pacing:
        """From what nodes say of themselves (records.NodeProperties.seconds_per_step)."""
        return cls({node: Pace(seconds) for node, seconds in seconds_per_step.items()})

    def steps(self, node: str, wanted: int, deadline_s: float) -> int:
        """Steps that a node is told to do."""
        pace = self.paces.get(node)
        return wanted if pace is None else pace.steps(wanted, deadline_s)

    def told(self, node: str, seconds_per_step: float) -> None:
        """A node says itself how fast it is; what is known better stays."""
        if seconds_per_step > 0:
            self.paces.setdefault(node, Pace(seconds_per_step))

    def took(self, node: str, steps: int, seconds: float) -> None:
        """A node's update came: so many steps, so long from sending to its arrival."""
        if steps < 1:
            return
        before, self._last[node] = self._last.get(node), (steps, seconds)
        if before is not None and before[0] != steps and (seconds - before[1]) * (steps - before[0]) > 0:
            per_step = (seconds - before[1]) / (steps - before[0])
            self.paces[node] = Pace(per_step, max(0.0, seconds - per_step * steps))
            return
        known = self.paces.get(node, Pace(seconds / steps))
        seen = max(0.0, seconds - known.fixed_s) / steps
        known.per_step_s += _NEWEST * (seen - known.per_step_s)
        self.paces[node] = known

    def missed(self, node: str, steps: int, waited_s: float) -> None:
        """A node's update did not come in time: it takes at least twice as long as was waited."""
        known = self.paces.setdefault(node, Pace(0.0))
        known.per_step_s = max(known.per_step_s, 2 * waited_s / max(1, steps))

    def state(self) -> dict[str, list[float]]:
        """For a checkpoint, as JSON."""
        return {node: [pace.per_step_s, pace.fixed_s, *self._last.get(node, ())] for node, pace in self.paces.items()}

    @classmethod
    def restored(cls, state: Mapping[str, list[float]]) -> Pacing:
        """What `state` gave."""
        paces = {node: Pace(values[0], values[1]) for node, values in state.items()}
        return cls(paces, {node: (int(values[2]), values[3]) for node, values in state.items() if len(values) == 4})
