"""The nodes of a federation: as the operator's file says, or, where there is none, one node an owner on this machine.

nodes:                                    # federation.nodes: path/to/nodes.yaml
  - {name: cloud, roles: [coordinator], layer: cloud, capacity: {cpus: 8, memory_bytes: 16000000000}}
  - {name: "41-41", roles: [data_owner], region: north, seconds_per_step: 0.02}
links:
  - {source: "41-41", target: cloud, bandwidth_bps: 1.0e7, delay_ms: 20}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cellwright.errors import ParamsError
from cellwright.federation.management.records import Capacity, Link, NodeProperties
from cellwright.params import Federation

CLOUD, AUDITOR, EDGE = "cloud", "auditor", "edge"  # names of what this machine plays where no file says otherwise


@dataclass(frozen=True)
class Fleet:
    """Who there is, and what leads from one to another."""

    nodes: tuple[NodeProperties, ...]
    links: tuple[Link, ...]
    simulated: bool  # the file tells speeds or links, so that time is simulated by them

    def speeds(self) -> dict[str, float]:
        """Seconds a training step takes each node; empty where time is not simulated."""
        return {node.name: node.seconds_per_step for node in self.nodes} if self.simulated else {}


def fleet(params: Federation, root: Path, owners: Mapping[str, Sequence[str]]) -> Fleet:
    """The nodes for these owners (name -> the sites whose telemetry it holds).

    Raises:
        ParamsError: the file of nodes cannot be read, or lacks an owner.
    """
    if params.nodes is None:
        return _embedded(params, owners)
    path = root / Path(params.nodes).expanduser()
    content = _read(path)
    found = _parsed(content, path)
    _check(found, owners, path)
    held = tuple(
        node if node.sites or node.name not in owners else node.model_copy(update={"sites": tuple(owners[node.name])})
        for node in found.nodes
    )
    return Fleet(held, found.links, found.simulated)


def digest(params: Federation, root: Path) -> str | None:
    """SHA-256 of the file of nodes: what it says decides as much as parameters do. None: there is none."""
    path = root / Path(params.nodes).expanduser() if params.nodes else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else None


def _embedded(params: Federation, owners: Mapping[str, Sequence[str]]) -> Fleet:
    """One node an owner, and who coordinates and audits them; with regions, owners in turn, neighbours together."""
    regions = [f"{EDGE}-{i}" for i in range(1, params.regions + 1)] if params.topology == "hierarchy" else []
    own = Capacity(cpus=1)
    place = {name: regions[i * len(regions) // len(owners)] if regions else "" for i, name in enumerate(owners)}
    nodes = (
        NodeProperties(name=CLOUD, roles=("coordinator",), layer="cloud", security=5, capacity=own),
        NodeProperties(name=AUDITOR, roles=("auditor",), layer="cloud", security=5, capacity=own),
        *(NodeProperties(name=r, roles=("coordinator",), layer="edge", region=r, security=3, capacity=own) for r in regions),
        *(
            NodeProperties(
                name=name, roles=("data_owner",), layer="terminal", region=place[name], sites=tuple(sites), capacity=own
            )
            for name, sites in owners.items()
        ),
    )
    ways = [(name, place[name] or CLOUD) for name in owners] + [(region, CLOUD) for region in regions]
    return Fleet(nodes, tuple(Link(source=a, target=b) for a, b in ways), simulated=False)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"federation.nodes: cannot read {path}: {error}") from error
    if not isinstance(content, dict) or set(content) - {"nodes", "links"} or not content.get("nodes"):
        raise ParamsError(
            f"federation.nodes: {path} must hold `nodes:` and, if known, `links:`; see cellwright/federation/fleet.py"
        )
    return content


def _parsed(content: Mapping[str, Any], path: Path) -> Fleet:
    try:
        nodes = tuple(NodeProperties.model_validate(node) for node in content["nodes"])
        links = tuple(Link.model_validate(link) for link in content.get("links") or ())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ParamsError(f"federation.nodes: {path}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
    timed = any("seconds_per_step" in node for node in content["nodes"])
    return Fleet(nodes, links, simulated=timed or bool(links))


def _check(found: Fleet, owners: Mapping[str, Sequence[str]], path: Path) -> None:
    names = [node.name for node in found.nodes]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ParamsError(f"federation.nodes: {path} has two nodes called '{double[0]}'; names must differ")
    if missing := [name for name in owners if name not in names]:
        raise ParamsError(
            f"federation.nodes: {path} has no node for the owner '{missing[0]}' (nor for {len(missing) - 1} others); add it, or set "
            "federation.owners so that the owners' names are those of the file"
        )
    known = set(names)
    if stray := [link for link in found.links if not {link.source, link.target} <= known]:
        raise ParamsError(
            f"federation.nodes: {path}: a link leads from '{stray[0].source}' to '{stray[0].target}', and one is no node"
        )
