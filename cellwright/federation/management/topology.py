"""The service topology (M.3387 8.4.1): generated from roles, links and resources; rebuilt when one of them fails. Pure.

star                    hierarchy (cloud-edge-terminal, Appendix I.2)
coordinator             coordinator, in the cloud
 ├── owner               ├── edge (regional coordinator)
 └── owner               │    ├── owner
                         │    └── owner
                         └── owner that no edge reaches
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cellwright.errors import FederationError
from cellwright.federation.management.links import Network
from cellwright.federation.management.records import Edge, Link, NodeProperties, Topology


def star(
    request: str,
    coordinator: NodeProperties,
    owners: Sequence[NodeProperties],
    *,
    links: Sequence[Link] = (),
    auditor: str | None = None,
) -> Topology:
    """Every owner talks to the coordinator.

    Raises:
        FederationError: no owner, a node in two roles, or an owner whose link to the coordinator is down.
    """
    return _built(request, "star", coordinator, (), owners, links, auditor)


def hierarchy(
    request: str,
    coordinator: NodeProperties,
    edges: Sequence[NodeProperties],
    owners: Sequence[NodeProperties],
    *,
    links: Sequence[Link] = (),
    auditor: str | None = None,
) -> Topology:
    """Owners talk to the edge of their region, or to the one they reach best; edges talk to the coordinator.

    Edges that no owner talks to are left out.

    Raises:
        FederationError: no owner, no edge that reaches the coordinator, a node in two roles, or an owner that reaches nobody.
    """
    net = Network(links)
    usable = [edge for edge in edges if net.up(edge.name, coordinator.name)]
    if not usable:
        found = ", ".join(e.name for e in edges) or "none"
        raise FederationError(f"a hierarchy needs an edge that reaches {coordinator.name}; found {found}; ask for a star instead")
    return _built(request, "hierarchy", coordinator, usable, owners, links, auditor)


def parent_of(topology: Topology, node: str) -> str | None:
    """Where a node's updates go; None: nowhere (the coordinator, the auditor)."""
    return next((edge.parent for edge in topology.edges if edge.child == node), None)


def children_of(topology: Topology, node: str) -> tuple[str, ...]:
    """Whose updates a node gets, sorted."""
    return tuple(sorted(edge.child for edge in topology.edges if edge.parent == node))


def members(topology: Topology) -> tuple[str, ...]:
    """All nodes that take part, sorted."""
    auditor = {topology.auditor} if topology.auditor else set()
    return tuple(sorted({topology.coordinator, *topology.regions, *topology.owners} | auditor))


def drawn(
    request: str,
    kind: str,
    coordinator: str,
    parents: Mapping[str, str],
    *,
    auditor: str | None = None,
    version: int = 1,
    reason: str = "",
) -> Topology:
    """A topology from each owner's parent: the coordinator, or an edge."""
    owners = tuple(sorted(parents))
    heads = sorted({parent for parent in parents.values() if parent != coordinator})
    regions = {head: tuple(o for o in owners if parents[o] == head) for head in heads}
    edges = [Edge(child=head, parent=coordinator) for head in heads] + [Edge(child=o, parent=parents[o]) for o in owners]
    return Topology.model_validate(
        {
            "request": request, "kind": kind, "version": version, "coordinator": coordinator, "auditor": auditor,
            "regions": regions, "edges": edges, "owners": owners, "reason": reason,
        }
    )  # fmt: skip


def parent_for(
    owner: NodeProperties,
    coordinator: str,
    edges: Sequence[NodeProperties],
    net: Network,
    load: Mapping[str, int],
) -> str | None:
    """The best parent: the edge of its region unless its link is clearly worse, else the fastest, then the one with fewest owners
    a CPU; the coordinator itself where no edge can be reached; None: nobody can be."""
    reached = [edge for edge in edges if net.up(owner.name, edge.name)]
    at_home = [
        edge for edge in reached if in_region(owner, edge) and not net.worse(owner.name, edge.name, (e.name for e in reached))
    ]
    if found := at_home or reached:
        return min(found, key=lambda edge: _rank(owner, edge, net, load)).name
    return coordinator if net.up(owner.name, coordinator) else None


def in_region(owner: NodeProperties, edge: NodeProperties) -> bool:
    """Whether an edge serves the owner's region: it is that region's edge by name, or lies in the same."""
    return bool(owner.region) and owner.region in (edge.name, edge.region)


def _rank(owner: NodeProperties, edge: NodeProperties, net: Network, load: Mapping[str, int]) -> tuple[bool, float, float, str]:
    seconds = net.seconds(owner.name, edge.name)
    return seconds is None, seconds or 0.0, load.get(edge.name, 0) / max(edge.capacity.cpus, 0.01), edge.name


def _built(
    request: str,
    kind: str,
    coordinator: NodeProperties,
    edges: Sequence[NodeProperties],
    owners: Sequence[NodeProperties],
    links: Sequence[Link],
    auditor: str | None,
) -> Topology:
    _roles(coordinator, edges, owners, auditor)
    net, parents, load, lost = Network(links), dict[str, str](), dict[str, int](), list[str]()
    for owner in sorted(owners, key=lambda o: o.name):
        parent = parent_for(owner, coordinator.name, edges, net, load)
        if parent is None:
            lost.append(owner.name)
        else:
            parents[owner.name] = parent
            load[parent] = load.get(parent, 0) + 1
    if lost or not parents:
        raise FederationError(
            f"no topology for '{request}': {', '.join(lost) or 'no owner'} can reach neither an edge nor {coordinator.name}; "
            "repair the links, or leave these owners out"
        )
    return drawn(request, kind, coordinator.name, parents, auditor=auditor)


def _roles(
    coordinator: NodeProperties, edges: Sequence[NodeProperties], owners: Sequence[NodeProperties], auditor: str | None
) -> None:
    """Every node plays one role, and may."""
    for node in (coordinator, *edges):
        if "coordinator" not in node.roles:
            raise FederationError(
                f"{node.name} may be {', '.join(node.roles)}; a coordinator is needed: give it that role, or take another"
            )
    for node in owners:
        if "data_owner" not in node.roles:
            raise FederationError(
                f"{node.name} may be {', '.join(node.roles)}; a data owner is needed: give it that role, or take another"
            )
    all_names = [coordinator.name, *(e.name for e in edges), *(o.name for o in owners), *([auditor] if auditor else [])]
    if twice := sorted({name for name in all_names if all_names.count(name) > 1}):
        raise FederationError(f"{', '.join(twice)}: a node plays one role a task; found it in two")
