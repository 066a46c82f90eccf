"""The nodes of the training: vehicles as data owners, roadside units as coordinators of their regions, the coordinator in the cloud.

Every roadside unit has a channel of its own to the vehicles, which all of them can reach; the topology says which it asks. Time is
simulated, by each vehicle's pace and link; what goes by in a region is time that its roadside unit takes in the cloud's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellwright.federation.aggregation import rule
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.contract import Arrays, Local, Task
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.gain import Observer
from cellwright.federation.management.hooks import between, rebuild
from cellwright.federation.management.records import Link, Plan, Topology
from cellwright.federation.management.service import Fmlms
from cellwright.federation.owner import DataOwner, OwnerKit
from cellwright.federation.owner_kit import deployed_values
from cellwright.federation.privacy import mechanism
from cellwright.federation.quality.evaluation import Policy
from cellwright.federation.regional import RegionalCoordinator
from cellwright.federation.results import OwnerRound, Round
from cellwright.federation.rounds import Rounds
from cellwright.federation.runtimes.local import open_channel

REGION_DEADLINE_S = 3.0  # of a regional round; a vehicle that is slow is told fewer steps
CLOUD_DEADLINE_S = 30.0
LR_DECAY = 0.97  # from one aggregation in the cloud to the next


@dataclass
class Site:
    """What the nodes have, each its own part."""

    folder: Path
    signers: Mapping[str, Signer]
    panels: Mapping[str, Path]  # each vehicle's data, in the unified form
    links: Mapping[tuple[str, str], Link]
    paces: Mapping[str, float]
    logs: dict[str, AuditLog] = field(default_factory=dict)
    auditors: dict[str, Auditor] = field(default_factory=dict)
    regional: list[tuple[str, int, Sequence[OwnerRound]]] = field(default_factory=list)  # edge, the cloud's round, its vehicles

    def public(self, names: Sequence[str]) -> dict[str, str]:
        """Ed25519 public keys, as the FMLMS has them on record."""
        return {name: self.signers[name].public for name in names}

    def audited(self, name: str, task: Task, below: Sequence[str], rules: Rules, form: Form) -> Auditor:
        """The auditor beside a coordinator, with a log of its own."""
        self.logs[name] = AuditLog.open(self.folder / f"{name}.jsonl", self.signers[name])
        self.auditors[name] = Auditor(rules, self.public(below), self.logs[name], form, request=task.request)
        return self.auditors[name]

    def close(self) -> None:
        """Sign and close the logs."""
        for log in self.logs.values():
            log.close()


def vehicle(site: Site, plan: Plan, edge: str) -> DataOwner:
    """A vehicle as a roadside unit meets it: it takes orders signed by that unit alone, and its updates leave it sealed or not at all."""
    others = [name for name in site.panels if name != plan.node]
    kit = OwnerKit(
        mechanisms=tuple(mechanism(name, options) for name, options in plan.training.privacy.items()),
        signer=site.signers[plan.node],
        coordinator_key=site.signers[edge].public,
        peers=site.public(others),
    )
    return DataOwner(plan.node, site.panels[plan.node], kit)


def roadside_unit(site: Site, plan: Plan, vehicles: Mapping[str, Plan], form: Arrays) -> RegionalCoordinator:
    """The coordinator of a region: asks its vehicles, learns the sum of their updates and no update (secondary aggregation)."""
    task, name = Task.model_validate(plan.training.task), plan.node
    rules = Rules(max_steps=plan.training.algorithm["steps"])
    auditor = site.audited(name, task, list(vehicles), rules, Form(form, codec("none"), sealed=True))
    channel = open_channel(
        {owner: vehicle(site, own, name) for owner, own in vehicles.items()},
        speeds={owner: site.paces[owner] for owner in vehicles},
        links={owner: site.links[owner, name] for owner in vehicles},
    )
    return RegionalCoordinator(
        name,
        channel,
        codec=codec("none"),
        least_owners=2,
        deadline_s=REGION_DEADLINE_S,
        mechanisms=tuple(mechanism(m, options) for m, options in plan.training.privacy.items()),
        signer=site.signers[name],
        coordinator_key=site.signers[plan.topology.coordinator].public,
        auditor=auditor,
        seed=task.seed,
        speeds={owner: site.paces[owner] for owner in vehicles},
        on_round=lambda number, members: site.regional.append((name, number, members)),
    )


def cloud(
    site: Site,
    fmlms: Fmlms,
    plan: Plan,
    units: Mapping[str, RegionalCoordinator],
    form: Arrays,
    target: Mapping[str, float],
    on_round: Callable[[Coordinator, Round], None],
) -> Coordinator:
    """The coordinator in the cloud: takes what the roadside units send as it comes (primary aggregation)."""
    task, told = Task.model_validate(plan.training.task), plan.training
    rounds: int = told.aggregation["rounds"]
    chosen = rule(told.aggregation["cloud"], told.aggregation["cloud_options"])
    # a region's windows change with its vehicles, so that the bound on their change is a wide one
    rules = Rules(max_staleness=rounds, max_steps=told.algorithm["steps"], examples_change=2.0)
    auditor = site.audited(plan.node, task, list(units), rules, Form(form, codec("none")))
    channel = open_channel(
        dict(units),
        links={edge: site.links[edge, plan.node] for edge in units},
        clocks={edge: unit.channel.now for edge, unit in units.items()},
    )
    made = Coordinator(
        channel,
        task,
        chosen,
        _settings(told.algorithm, rounds, task.seed),
        codec=codec("none"),
        topology=plan.topology,
        auditor=auditor,
        signer=site.signers[plan.node],
        quality=Policy(target, rounds, least_owners=2),
        on_round=lambda record: on_round(made, record),
        between=between(fmlms, plan.request),
        rebuild=_rebuild(fmlms, plan.request),
        observe=Observer(chosen, 2 * rounds),
        deploy=deployed_values(told.privacy, "none", {}, share_scalers=True),
    )
    return made


def _settings(algorithm: Mapping[str, Any], rounds: int, seed: int) -> Rounds:
    local = Local(steps=algorithm["steps"], batch=algorithm["batch"], learning_rate=algorithm["learning_rate"])
    return Rounds(rounds, local, patience=rounds, lr_patience=None, lr_decay=LR_DECAY, deadline_s=CLOUD_DEADLINE_S, seed=seed)


def _rebuild(fmlms: Fmlms, request: str) -> Callable[[Topology, frozenset[str], str], Topology]:
    """Service topology reconstruction; that a node is gone is noted before, so that nobody is moved to it."""
    rebuilt = rebuild(fmlms, request)

    def noted(topology: Topology, out: frozenset[str], reason: str) -> Topology:
        for node in sorted(out):
            fmlms.heartbeat(node, alive=False, reason=reason)
        return rebuilt(topology, out, reason)

    return noted
