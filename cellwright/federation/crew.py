"""Who takes part: the topology and its reconstruction when a node fails or comes back, and whom a round asks (M.3387 8.4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.management.records import Edge, Topology

Rebuild = Callable[[Topology, frozenset[str], str], Topology]  # the present one, all that are out, why -> the next version

_MEMBERS = 1  # of the seeds that derive from (seed, round, purpose)
_FAILURES = 3  # in a row, after which a node that can be reached is asked no more
_AGEING = 0.2  # weight of the newest message in a node's reliability


@dataclass
class Crew:
    """The nodes of one training."""

    topology: Topology
    first: Topology  # with every node that ever took part
    layered: bool = False  # the coordinator reaches edges, and these their owners
    gone: dict[str, str] = field(default_factory=dict)  # cannot be reached; may come back
    dropped: dict[str, str] = field(default_factory=dict)  # asked no more
    empty: set[str] = field(default_factory=set)  # hold no window to train on
    failures: dict[str, int] = field(default_factory=dict)  # in a row
    reliability: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, topology: Topology, reachable: Collection[str]) -> Crew:
        """At the beginning."""
        return cls(topology, topology, layered=any(edge in reachable for edge in topology.regions))

    def peers(self) -> tuple[str, ...]:
        """Whom the coordinator talks to, sorted: its owners, and edges where these are nodes of their own."""
        return peers(self.topology, layered=self.layered)

    def out(self) -> dict[str, str]:
        """Nodes that take no part any more, and why."""
        return {**self.gone, **self.dropped}

    def notice(self, reachable: Collection[str], rebuild: Rebuild) -> str:
        """Rebuild the topology if nodes vanished or came back; says what happened, "" if nothing did."""
        back = sorted(set(self.gone) & set(reachable) - set(self.dropped))
        lost = [node for node in self.peers() if node not in reachable]
        for node in back:
            del self.gone[node]
        for node in lost:
            self.gone[node] = "it cannot be reached"
        told = [f"{', '.join(lost)} cannot be reached"] if lost else []
        told += [f"{', '.join(back)} came back"] if back else []
        return self.rebuilt("; ".join(told), rebuild) if told else ""

    def drop(self, nodes: Iterable[str], why: str, rebuild: Rebuild) -> str:
        """Ask nodes no more."""
        dropped = sorted(set(nodes) & set(self.peers()))
        self.dropped |= dict.fromkeys(dropped, why)
        return self.rebuilt(f"{', '.join(dropped)} dropped: {why}", rebuild) if dropped else ""

    def adopt(self, topology: Topology) -> None:
        """Go on with a topology that was made elsewhere; those in it take part, whatever was before."""
        self.topology = self.first = topology
        for node in peers(topology, layered=self.layered):
            self.dropped.pop(node, None)

    def rebuilt(self, reason: str, rebuild: Rebuild) -> str:
        """The next version of the topology, without those that are out."""
        before = self.topology.version
        self.topology = rebuild(self.topology, frozenset(self.out()), reason)
        return f"topology {self.topology.version} after {before}: {reason}"

    def chosen(self, members: Iterable[str], *, fraction: float, least: int, seed: int, round_: int) -> tuple[str, ...]:
        """Whom a round asks, sorted: a share of those who can be asked, drawn from (seed, round)."""
        able = sorted(set(members) - self.empty)
        count = min(len(able), max(least, math.ceil(fraction * len(able))))
        if count == len(able):
            return tuple(able)
        rng = np.random.default_rng([seed, round_, _MEMBERS])
        return tuple(able[i] for i in sorted(rng.choice(len(able), count, replace=False)))

    def heard(self, node: str, fate: str) -> None:
        """What became of what a node was asked for in a round."""
        if fate == "evaluated":
            return
        before, fine = self.reliability.get(node, 1.0), fate in ("counted", "empty")
        self.reliability[node] = before + _AGEING * (float(fine) - before)
        self.failures[node] = self.failures.get(node, 0) + 1 if fate == "lost" else 0
        if fate == "empty":
            self.empty.add(node)

    def failing(self) -> list[str]:
        """Nodes that failed so often in a row that it is no use to ask them."""
        return [node for node in self.peers() if self.failures.get(node, 0) >= _FAILURES]

    def check(self, least: int) -> None:
        """Whether enough are left.

        Raises:
            FederationError: says how many of how many, and what became of the others.
        """
        left, of = self.peers(), peers(self.first, layered=self.layered)
        if len(left) < least:
            why = "; ".join(f"{node}: {reason}" for node, reason in sorted(self.out().items())[:5])
            raise FederationError(
                f"'{self.topology.request}' cannot go on: {len(left)} of {len(of)} nodes are left, at least {least} are needed"
                f"{f' ({why})' if why else ''}; bring nodes back, or lower federation.least_owners"
            )


def peers(topology: Topology, *, layered: bool) -> tuple[str, ...]:
    """Whom the coordinator of a topology talks to, sorted."""
    children = {edge.child for edge in topology.edges if edge.parent == topology.coordinator} - {topology.auditor}
    if layered:
        return tuple(sorted(children))
    below = {owner for child in children & set(topology.regions) for owner in topology.regions[child]}
    return tuple(sorted((children - set(topology.regions)) | below))


def pruned(first: Topology) -> Rebuild:
    """Reconstruction where nobody manages more: the first topology without the nodes that are out, and what only they reach."""

    def rebuild(topology: Topology, out: frozenset[str], reason: str) -> Topology:
        lost = out | {owner for edge in out for owner in first.regions.get(edge, ())}
        edges = tuple(e for e in first.edges if not {e.child, e.parent} & lost)
        regions = {edge: tuple(o for o in owners if o not in lost) for edge, owners in first.regions.items() if edge not in lost}
        owners = tuple(o for o in first.owners if o not in lost)
        change = {"edges": edges, "regions": regions, "owners": owners, "version": topology.version + 1, "reason": reason}
        return first.model_copy(update=change)

    return rebuild


def views(topology: Topology) -> Mapping[str, Topology]:
    """What each node must know of a topology: its own connections and its region's, so that sending it to all stays linear."""
    near: dict[str, list[Edge]] = {}
    for edge in topology.edges:
        near.setdefault(edge.child, []).append(edge)
        near.setdefault(edge.parent, []).append(edge)
    home = {owner: edge for edge, owners in topology.regions.items() for owner in owners}

    def view(node: str) -> Topology:
        regions = {node: topology.regions[node]} if node in topology.regions else {}
        if node in home:
            regions = {home[node]: (node,)}
        owners = regions.get(node, (node,) if node in home or node in owned else ())
        return topology.model_copy(update={"edges": tuple(near[node]), "regions": regions, "owners": owners})

    owned = set(topology.owners)
    return {node: view(node) for node in near if node != topology.coordinator}
