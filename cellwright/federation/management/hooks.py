"""What the coordinator of a running request asks the FMLMS: between two rounds, and when its nodes change (M.3387 8.4.1, 8.5)."""

from __future__ import annotations

from collections.abc import Callable

from cellwright.federation.management.records import Topology
from cellwright.federation.management.service import Fmlms
from cellwright.federation.rounds import Pause


def between(fmlms: Fmlms, request: str) -> Callable[[int], Pause | None]:
    """The `between` of a Coordinator: notes the round, then cancels, pauses for another request, or rebuilds the topology."""

    def asked(rounds: int) -> Pause | None:
        state = fmlms.progress(request, rounds)
        if state.status not in ("running", "preempted"):
            return Pause("cancel", f"the request is {state.status}: {state.reason}")
        if found := fmlms.should_preempt(request, rounds):
            return Pause("pause", found.words)
        before = fmlms.topology(request)
        after = fmlms.tend(request)
        return None if after == before else Pause("topology", after.reason, after)

    return asked


def rebuild(fmlms: Fmlms, request: str) -> Callable[[Topology, frozenset[str], str], Topology]:
    """The `rebuild` of a Coordinator: from its present topology and all nodes that are out to the next; who came back takes part."""

    def rebuilt(topology: Topology, out: frozenset[str], reason: str) -> Topology:
        wanted = {*topology.owners, *fmlms.topologies(request)[0].owners} - out
        return fmlms.tend(request, reason, owners=sorted(wanted), out=out, present=topology)

    return rebuilt
