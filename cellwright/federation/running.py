"""The rounds of a plan, in either runtime: the same job, the same nodes, the same apps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays
from cellwright.federation.management.records import Link, Topology
from cellwright.federation.planning import Plan, regions_by_owner
from cellwright.federation.rounds import Outcome

if TYPE_CHECKING:
    from cellwright.federation.federate import Bed, Watch
    from cellwright.federation.runtimes.auditing import Seat
    from cellwright.federation.runtimes.jobs import Job

_WORD_S = 60.0  # longest a coordinator of another process waits for the FMLMS's word
_SHOWN = 8  # names in an error
KEY = "coordinator.pem"  # the coordinator's Ed25519 key, which signs the audit log; made where there is none


def in_this_process(bed: Bed, made: Plan, job: Job, first: Arrays, folder: Path, watch: Watch) -> Outcome:
    """Every owner is a node of this process, with its own panel and its own key."""
    from cellwright.federation.audit.signing import Signer
    from cellwright.federation.owner import DataOwner, OwnerKit
    from cellwright.federation.runtimes.jobs import coordinate, write_job
    from cellwright.federation.runtimes.local import open_channel
    from cellwright.federation.runtimes.servers import signing_key

    signed, path = bed.params.federation.audit, bed.ws.federation / KEY
    owners = (*made.owners, *job.covered)
    signers = {owner: Signer.generate() for owner in owners} if signed else {}
    keys = {owner: signer.public for owner, signer in signers.items()}
    coordinator = signing_key(path).public if signed else None
    kits = {
        owner: OwnerKit(
            signer=signers.get(owner),
            coordinator_key=coordinator,
            peers={name: key for name, key in keys.items() if name != owner},
            energy=bed.params.energy,
            exogenous=bed.params.problem.exogenous,
        )
        for owner in owners
    }
    nodes = {owner: DataOwner(owner, bed.panels[owner], kit) for owner, kit in kits.items()}
    given = {"keys": keys, "signing": str(path), "auditor": _seat(bed, made, watch)} if signed else {}
    write_job(folder, job.model_copy(update=given), first)
    channel = open_channel(
        nodes,
        speeds=bed.fleet.speeds(),
        links=_links(bed, made.topology) if bed.fleet.simulated else None,
        clock="simulated" if bed.fleet.simulated else "wall",
    )
    return coordinate(channel, folder, on_round=watch.on_round, hooks={**watch.hooks, "speeds": bed.fleet.speeds()})


def on_superlink(bed: Bed, made: Plan, job: Job, first: Arrays, folder: Path, watch: Watch) -> Outcome:
    """The owners are SuperNodes of a SuperLink that runs already (`cellwright federate up`).

    Raises:
        FederationError: the SuperLink cannot be reached, or owners of the plan are not connected to it.
    """
    from cellwright.federation.runtimes import deployed
    from cellwright.federation.runtimes.between import Answering
    from cellwright.federation.runtimes.control import Control
    from cellwright.federation.runtimes.jobs import read_outcome, write_job
    from cellwright.federation.runtimes.servers import Files, signing_key, signing_public

    f, files = bed.params.federation, Files(bed.ws.federation.resolve())
    if not f.audit:  # without it nobody's signature is checked, and a node could speak for another
        raise FederationError(
            "federation.audit is false, but messages that come over a network must be signed and checked; set it to true"
        )
    if not files.ca.is_file():
        raise FederationError(
            f"federation.runtime is 'deployed', but no SuperLink was started in this project ({files.ca} is missing); start it with "
            "`cellwright federate up`"
        )
    with Control(f.address, files.ca) as control:
        online = control.online()
    if missing := sorted(set(made.owners) - set(online)):
        raise FederationError(
            f"{len(missing)} of {len(made.owners)} owners are not connected to the SuperLink at {f.address}, first '{missing[0]}'; "
            f"connected: {', '.join(sorted(online)[:_SHOWN]) or 'none'}. Start their SuperNodes (`cellwright federate up`, or `cellwright "
            f"federate node` on their machines); federation.owners, here {f.owners!r}, must be what `up` was given"
        )
    reached = (*made.owners, *(owner for owner in job.covered if owner in online))
    keys = {owner: signing_public(files, owner) for owner in reached}
    signer = signing_key(files.coordinator_key)
    given = {"keys": keys, "signing": str(files.coordinator_key), "managed_s": _WORD_S, "admitted": online}
    seconds = f.deadline_s * (
        2 * f.rounds + 4
    )  # a round trains and evaluates; before them the task is deployed, after them tested, and the other sites are covered
    deployed.end_earlier(files, folder)
    write_job(folder, job.model_copy(update=given), first)
    fmlms = Answering.by(folder, signer, watch.hooks)

    def look() -> None:
        watch.looked()
        fmlms.look()

    deployed.run(files, f.address, folder, request=job.task.request, seconds=seconds, on_look=look)
    watch.looked()
    return read_outcome(folder)


def _seat(bed: Bed, made: Plan, watch: Watch) -> Seat | None:
    """The auditor's node, where the file of nodes has one and the topology names it; else the coordinator's process audits."""
    from cellwright.federation.runtimes.auditing import Seat
    from cellwright.federation.runtimes.servers import signing_key

    node = next((n for n in bed.fleet.nodes if n.name == made.topology.auditor), None)
    if bed.params.federation.nodes is None or node is None:
        return None
    home = bed.ws.federation / "auditors" / node.name
    folder = home / made.request
    own = signing_key(home / "signing.pem")
    watch.told(f"auditor {node.name} is a node of its own; its log: {folder / 'audit.jsonl'}, its key: {own.public}")
    return Seat(name=node.name, folder=str(folder), signing=str(home / "signing.pem"), public_key=node.public_key or own.public)


def _links(bed: Bed, topology: Topology) -> dict[str, Link]:
    """Each owner's link to its edge, or to the coordinator."""
    edge = regions_by_owner(topology)
    ends = {owner: edge.get(owner, topology.coordinator) for owner in topology.owners}
    known = {(link.source, link.target): link for link in bed.fleet.links}
    return {owner: known[(owner, end)] for owner, end in ends.items() if (owner, end) in known}
