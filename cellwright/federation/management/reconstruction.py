"""Service topology reconstruction (M.3387 8.4.1): after a failed node, exhausted resources or a link that degraded. Pure.

As little changes as can: whoever has a parent that is fit and reached well enough keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellwright.errors import FederationError
from cellwright.federation.contract import Role
from cellwright.federation.management.capacity import lacking
from cellwright.federation.management.links import Network
from cellwright.federation.management.permissions import SecurityRules, broken
from cellwright.federation.management.records import Capacity, Link, NodeProperties, NodeStatus, Topology
from cellwright.federation.management.selection import best
from cellwright.federation.management.topology import drawn, members, parent_for, parent_of

_SOME = Capacity(cpus=0.01)  # what a coordinator or auditor must have left


@dataclass(frozen=True)
class Situation:
    """What is known of the nodes and the links now."""

    nodes: Mapping[str, NodeProperties]
    statuses: Mapping[str, NodeStatus]
    net: Network
    rules: SecurityRules
    need: Capacity  # of an owner

    def against(self, name: str, role: Role) -> str:
        """Why a node cannot play a role any more, in words; "": it can."""
        if name not in self.nodes:
            return "it is no longer registered"
        status = self.statuses.get(name)
        found = [words for _rule, words in broken(self.nodes[name], status, role, self.rules)]
        found += lacking(status.free, self.need if role == "data_owner" else _SOME) if status else ()
        return ", ".join(found)


def rebuilt(
    topology: Topology,
    nodes: Sequence[NodeProperties],
    statuses: Mapping[str, NodeStatus],
    links: Sequence[Link] = (),
    reason: str = "",
    *,
    rules: SecurityRules | None = None,
    need: Capacity | None = None,
    owners: Sequence[str] | None = None,
    least: int = 1,
) -> Topology:
    """The topology as it can go on: the same object where nothing has to change, else its next version.

    Args:
        nodes: all that are registered; standbys for the coordinator, the edges and the auditor are taken from them.
        reason: what happened, in words; what was done about it is added.
        rules: the security rules that nodes must still meet.
        need: what an owner must have free (8.1.2); one that has not is exhausted.
        owners: who is to take part; None: those of `topology`. One that came back, or is new, is joined.
        least: owners that must remain.

    Raises:
        FederationError: no coordinator is left, or too few owners; says what became of each.
    """
    now = Situation({n.name: n for n in nodes}, statuses, Network(links), rules or SecurityRules(), need or Capacity(cpus=0))
    wanted = tuple(owners if owners is not None else topology.owners)
    told: list[str] = []
    owners_left = [name for name in sorted(wanted) if not _left(name, "data_owner", now, told)]
    coordinator = _coordinator(topology, owners_left, now, told)
    heads = _heads(topology, coordinator, owners_left, now, told)
    parents = _parents(topology, coordinator, owners_left, heads, now, told)
    auditor = _auditor(topology, {coordinator, *parents, *parents.values()}, now, told)
    if len(parents) < least:
        raise FederationError(
            f"'{topology.request}' cannot go on: {len(parents)} data owners are left, at least {least} are needed. {'; '.join(told)}"
        )
    why = f"{reason}: {'; '.join(told)}" if reason and told else reason or "; ".join(told)
    new = drawn(topology.request, topology.kind, coordinator, parents, auditor=auditor, version=topology.version + 1, reason=why)
    return topology if _same(topology, new) else new


def _same(one: Topology, other: Topology) -> bool:
    """Whether two topologies connect the same nodes in the same roles."""
    return (one.coordinator, one.auditor, set(one.edges)) == (other.coordinator, other.auditor, set(other.edges))


def _left(name: str, role: Role, now: Situation, told: list[str]) -> bool:
    """Whether a node has to leave its role; tells why."""
    if why := now.against(name, role):
        told.append(f"{name} left ({why})")
    return bool(why)


def _coordinator(topology: Topology, owners: Sequence[str], now: Situation, told: list[str]) -> str:
    """The coordinator, or the best standby: one that is free, reaches most, stands highest; then one that is an edge today."""
    if not _left(topology.coordinator, "coordinator", now, told):
        return topology.coordinator
    busy = {*members(topology), *owners} - set(topology.regions)
    fit = list(best("coordinator", tuple(now.nodes.values()), now.statuses, rules=now.rules, taken=tuple(busy)))
    fit = [n for n in fit if not now.against(n.name, "coordinator")]
    if not fit:
        raise FederationError(
            f"'{topology.request}' has lost its coordinator and there is no standby: {'; '.join(told)}. "
            "Register another node with the role of coordinator"
        )
    below = [*topology.regions, *owners]
    standing = {n.name: rank for rank, n in enumerate(fit)}

    def key(node: NodeProperties) -> tuple[bool, int, int]:
        return node.name in topology.regions, -sum(now.net.up(node.name, b) for b in below), standing[node.name]

    chosen = min(fit, key=key).name
    told.append(f"{chosen} takes over as coordinator")
    return chosen


def _heads(
    topology: Topology, coordinator: str, owners: Sequence[str], now: Situation, told: list[str]
) -> tuple[NodeProperties, ...]:
    """Edges that can serve: those of today that are fit, and standbys; none in a star."""
    if topology.kind == "star":
        return ()
    for name in topology.regions:
        if name != coordinator and not _left(name, "coordinator", now, told) and not now.net.up(name, coordinator):
            told.append(f"{name} left (its link to {coordinator} is down)")
    taken = {coordinator, *owners, *([topology.auditor] if topology.auditor else [])}
    return tuple(
        node
        for name, node in sorted(now.nodes.items())
        if name not in taken
        and (node.layer == "edge" or name in topology.regions)
        and not now.against(name, "coordinator")
        and now.net.up(name, coordinator)
    )


def _parents(
    topology: Topology,
    coordinator: str,
    owners: Sequence[str],
    heads: Sequence[NodeProperties],
    now: Situation,
    told: list[str],
) -> dict[str, str]:
    """Each owner's parent; who keeps its own comes first, so that the load is known when the others choose."""
    stays = {name: parent for name in owners if (parent := _kept(topology, name, coordinator, heads, now))}
    parents, load = dict(stays), {h.name: list(stays.values()).count(h.name) for h in heads}
    for name in (n for n in owners if n not in stays):
        parent = parent_for(now.nodes[name], coordinator, heads, now.net, load)
        if parent is None:
            told.append(f"{name} left (it reaches neither an edge nor {coordinator})")
            continue
        parents[name] = parent
        load[parent] = load.get(parent, 0) + 1
        told.append(f"{name} {'moved' if name in topology.owners else 'joined'} to {parent}")
    return parents


def _kept(topology: Topology, owner: str, coordinator: str, heads: Sequence[NodeProperties], now: Situation) -> str | None:
    """The parent that an owner has, if it is still there, reached, and not clearly slower than another; else None."""
    parent = parent_of(topology, owner)
    if parent == topology.coordinator:
        parent = coordinator  # whoever that is now
    names = [head.name for head in heads]
    if parent is None or parent not in (coordinator, *names) or not now.net.up(owner, parent):
        return None
    return None if now.net.worse(owner, parent, names) else parent


def _auditor(topology: Topology, taken: set[str], now: Situation, told: list[str]) -> str | None:
    if topology.auditor is None or not _left(topology.auditor, "auditor", now, told):
        return topology.auditor
    fit = best("auditor", tuple(now.nodes.values()), now.statuses, rules=now.rules, taken=tuple(taken))
    told.append(f"{fit[0].name} takes over as auditor" if fit else "there is no other auditor")
    return fit[0].name if fit else None
