"""Which nodes take part (M.3387 8.2): enough free resources, the right data, role, security and reliability; each answer explained.

Among fit nodes the score decides: reliability, headroom, speed, and the reward earned by earlier contributions (8.4.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from cellwright.errors import FederationError
from cellwright.federation.contract import Role, Spec
from cellwright.federation.management.capacity import NOTHING, headroom, lacking, less
from cellwright.federation.management.permissions import SecurityRules, broken
from cellwright.federation.management.records import (
    Capacity,
    Choice,
    DataNeeds,
    Holding,
    NodeProperties,
    NodeStatus,
    ServiceRequest,
)

_TOLD = 5  # nodes whose refusal an error tells of
Weight = Annotated[float, Field(ge=0)]


class Weights(Spec):
    """How much each part of the score counts; every part lies in 0..1."""

    reliability: Weight = 0.35
    headroom: Weight = 0.25  # share of the needed resources that would stay free
    speed: Weight = 0.15  # seconds a step of the fastest, over its own
    reward: Weight = 0.25  # its reward, over the highest


def choose(
    request: ServiceRequest,
    nodes: Sequence[NodeProperties],
    statuses: Mapping[str, NodeStatus],
    *,
    rules: SecurityRules | None = None,
    reserved: Mapping[str, Capacity] | None = None,
    holdings: Mapping[str, Sequence[Holding]] | None = None,
    weights: Weights | None = None,
    most: int | None = None,
) -> tuple[Choice, ...]:
    """The data owners of a request.

    Args:
        reserved: what tasks that run have reserved, by node.
        holdings: what the nodes have said of their data; None: data are not looked at (one data set, cut by the caller).
        most: owners at most; None: all that are fit.

    Returns:
        One choice a node: those chosen first, best score first, then the others by name.

    Raises:
        FederationError: fewer are fit than the request asks for; says why each of the first few was left out.
    """
    rules, weights = rules or SecurityRules(), weights or Weights()
    refused = {node.name: _against(node, request, statuses, rules, reserved or {}, holdings) for node in nodes}
    fit = [node for node in nodes if not refused[node.name]]
    fastest_s = min((node.seconds_per_step for node in fit), default=0.0)
    highest = max((statuses[node.name].reward for node in fit), default=0.0)
    scored = sorted(
        (
            _scored(
                node,
                statuses[node.name],
                headroom(_free(node, statuses, reserved or {}), request.per_node),
                fastest_s,
                highest,
                weights,
            )
            for node in fit
        ),
        key=lambda choice: (-choice.score, choice.node),
    )
    wanted = len(scored) if most is None else most
    chosen = [c if rank < wanted else _surplus(c, rank, wanted) for rank, c in enumerate(scored)]
    left_out = [Choice(node=name, chosen=False, score=0.0, reasons=why) for name, why in sorted(refused.items()) if why]
    missing = [name for name in request.owners if name not in refused]
    _enough(request, chosen, [*left_out, *(_unknown(name) for name in missing)])
    return (*chosen, *left_out, *(_unknown(name) for name in missing))


def names(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Those chosen, sorted."""
    return tuple(sorted(choice.node for choice in choices if choice.chosen))


def best(
    role: Role,
    nodes: Sequence[NodeProperties],
    statuses: Mapping[str, NodeStatus],
    *,
    rules: SecurityRules | None = None,
    layers: Sequence[str] = ("cloud", "edge", "terminal"),
    taken: Sequence[str] = (),
) -> tuple[NodeProperties, ...]:
    """Nodes fit for the role of coordinator or auditor, best first: layer, security, reliability, CPUs; none in `taken`."""
    rules = rules or SecurityRules()
    fit = [n for n in nodes if n.name not in taken and n.layer in layers and not broken(n, statuses.get(n.name), role, rules)]
    return tuple(
        sorted(fit, key=lambda n: (layers.index(n.layer), -n.security, -statuses[n.name].reliability, -n.capacity.cpus, n.name))
    )


def _against(
    node: NodeProperties,
    request: ServiceRequest,
    statuses: Mapping[str, NodeStatus],
    rules: SecurityRules,
    reserved: Mapping[str, Capacity],
    holdings: Mapping[str, Sequence[Holding]] | None,
) -> tuple[str, ...]:
    """All that speaks against a node, in words."""
    found = [f"rule '{name}': {words}" for name, words in broken(node, statuses.get(node.name), "data_owner", rules)]
    if request.owners and node.name not in request.owners:
        found.append("the request asks for other owners by name")
    if node.name in statuses:
        found += [f"resources: {words}" for words in lacking(_free(node, statuses, reserved), request.per_node)]
    if holdings is not None:
        found += _data(holdings.get(node.name, ()), request.data)
    return tuple(found)


def _data(holdings: Sequence[Holding], needs: DataNeeds) -> list[str]:
    """Why none of a node's data will do; the reasons of the data set that was asked for."""
    held = next((h for h in holdings if h.dataset == needs.dataset), None)
    if held is None:
        has = ", ".join(h.dataset for h in holdings) or "none"
        return [f"data: it holds no '{needs.dataset}' (it holds {has})"]
    found = [f"data: no target '{name}'" for name in needs.targets if name not in held.targets]
    found += [f"data: no feature '{name}'" for name in needs.features if name not in held.features]
    if needs.cadence_s is not None and held.cadence_s != needs.cadence_s:
        has = "unknown" if held.cadence_s is None else f"{held.cadence_s:g} s"
        found.append(f"data: cadence {has}, {needs.cadence_s:g} s needed")
    if held.windows < needs.least_windows:
        found.append(f"data: {held.windows} windows, at least {needs.least_windows} needed")
    return found


def _scored(
    node: NodeProperties, status: NodeStatus, spare: float, fastest_s: float, highest_reward: float, weights: Weights
) -> Choice:
    """The choice of a fit node; `spare`: share of the needed resources that stays free."""
    parts = {
        "reliability": status.reliability,
        "headroom": spare,
        "speed": fastest_s / node.seconds_per_step,
        "reward": max(status.reward, 0.0) / highest_reward if highest_reward > 0 else 0.0,
    }
    added = {name: getattr(weights, name) * part for name, part in parts.items()}
    reasons = (
        f"reliability {status.reliability:.2f} adds {added['reliability']:.3f}",
        f"{parts['headroom']:.0%} of the needed resources stay free, which adds {added['headroom']:.3f}",
        f"{node.seconds_per_step:g} s a step adds {added['speed']:.3f}",
        f"reward {status.reward:g} adds {added['reward']:.3f}",
    )
    return Choice(node=node.name, chosen=True, score=round(sum(added.values()), 9), reasons=reasons)


def _surplus(choice: Choice, rank: int, wanted: int) -> Choice:
    """One that is fit, but not needed."""
    return choice.model_copy(update={"chosen": False, "reasons": (f"rank {rank + 1}, and {wanted} are wanted", *choice.reasons)})


def _unknown(name: str) -> Choice:
    return Choice(
        node=name, chosen=False, score=0.0, reasons=("rule 'known': the request names it, and no such node is registered",)
    )


def _enough(request: ServiceRequest, chosen: Sequence[Choice], left_out: Sequence[Choice]) -> None:
    count = len(names(chosen))
    if count >= request.least_owners:
        return
    relevant = [c for c in left_out if not request.owners or c.node in request.owners]
    ordered = sorted(relevant, key=lambda c: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", c.node)])
    told = "; ".join(f"{c.node}: {', '.join(c.reasons)}" for c in ordered[:_TOLD])
    more = f"; and {len(ordered) - _TOLD} more" if len(ordered) > _TOLD else ""
    raise FederationError(
        f"'{request.name}' needs at least {request.least_owners} data owners, found {count} that are fit. "
        f"Left out: {told or 'none, no other is registered'}{more}. Register more nodes, or ask for less"
    )


def _free(node: NodeProperties, statuses: Mapping[str, NodeStatus], reserved: Mapping[str, Capacity]) -> Capacity:
    return less(statuses[node.name].free, reserved.get(node.name, NOTHING))
