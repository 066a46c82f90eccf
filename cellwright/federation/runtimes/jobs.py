"""A training as files, so that a ServerApp's process can run it: what to do in `job.json` and `start.safetensors`, and what came of it.

    job.json start.safetensors  ->  alignment.json  rounds.jsonl  checkpoint.safetensors  audit.jsonl  outcome.safetensors

The same function coordinates it in both runtimes. A job that is run again in its folder resumes at the round it was in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from cellwright.errors import FederationError, Refused
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import Arrays, Channel, Evaluation, Parcel, Spec, Task
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.costs import Costs, Spent
from cellwright.federation.data.at_rest import AtRest, Storage, tensors
from cellwright.federation.gain import Observer, gains
from cellwright.federation.gathering import public
from cellwright.federation.management.records import DataNeeds, Topology
from cellwright.federation.observed import Shelf
from cellwright.federation.quality.evaluation import Policy
from cellwright.federation.quality.incentive import Contribution
from cellwright.federation.results import Round
from cellwright.federation.rounds import Outcome, Quality, Rounds
from cellwright.federation.runtimes.auditing import Seat
from cellwright.files import write_text
from cellwright.params import Federation

JOB, START, OUTCOME, ROUNDS, AUDIT, CHECKPOINT, ALIGNMENT, OBSERVED = (
    "job.json",
    "start.safetensors",
    "outcome.safetensors",
    "rounds.jsonl",
    "audit.jsonl",
    "checkpoint.safetensors",
    "alignment.json",
    "observed",
)

COSTS = "costs.json"  # what each part took so far, of all processes

_EVALUATION = TypeAdapter(Evaluation)


class Job(Spec):
    """All that a coordinator must know."""

    task: Task
    federation: Federation  # rule, rounds, privacy, compression, audit, checkpoints
    gradient_clip: float | None = 1.0
    topology: Topology
    covered: tuple[str, ...] = ()  # owners that do not train, and are asked for their scaler at the end
    keys: dict[str, str] | None = None  # the owners' Ed25519 public keys, hex; None: nothing is signed
    signing: str | None = None  # file of the coordinator's Ed25519 key; None: nothing is signed
    auditor: Seat | None = None  # the auditor's node; None: the coordinator's process audits
    storage: Storage | None = None  # of the key that what the job leaves is sealed with; None: it lies open
    managed_s: float | None = None  # longest wait for the FMLMS of another process (between.py); None: none manages it
    admitted: dict[str, int] = Field(
        default_factory=dict
    )  # nodes' numbers at the SuperLink, by the name they were admitted under


def write_job(folder: Path, job: Job, start: Arrays) -> None:
    """Put a job into its folder. Where there is no checkpoint to go on from, rounds of an earlier try are taken away."""
    if not (folder / CHECKPOINT).is_file():
        (folder / ROUNDS).unlink(missing_ok=True)
    write_text(folder / JOB, job.model_dump_json(indent=2) + "\n")
    _save(folder / START, {(): start}, {}, _at_rest(job))


def coordinate(
    channel: Channel,
    folder: Path,
    *,
    quality: Quality | None = None,
    on_round: Callable[[Round], None] | None = None,
    hooks: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run the job in a folder with the nodes of a channel, and leave the outcome there.

    Args:
        quality: quality management; None: as the job's parameters ask.
        hooks: `between`, `rebuild` and `speeds` of the Coordinator, where the FMLMS can be reached from here.

    Raises:
        FederationError: the job cannot be read, or the training cannot go on.
    """
    job, start = _read_job(folder)
    signer = None if job.signing is None else Signer.from_file(Path(job.signing))
    log = AuditLog.open(folder / AUDIT, signer) if job.federation.audit else None
    try:
        _guard(channel, job, log)
        coordinator = _coordinator(channel, job, start, folder, log, signer, quality, _told(folder, on_round), hooks or {})
        outcome = coordinator.run(start)
        if outcome.status != "paused":
            with coordinator.costs.during("contribution"):
                outcome = replace(outcome, contributions=_contributions(job, coordinator))
        coordinator.costs.keep()
        outcome = replace(outcome, spent={str(part): spent for part, spent in coordinator.costs.spent.items()})
        if coordinator.auditor is not None:
            coordinator.auditor.close()
    finally:
        if log is not None:
            log.close()
    write_outcome(folder, outcome, _at_rest(job))
    return outcome


def _coordinator(
    channel: Channel,
    job: Job,
    start: Arrays,
    folder: Path,
    log: AuditLog | None,
    signer: Signer | None,
    quality: Quality | None,
    on_round: Callable[[Round], None],
    hooks: Mapping[str, Any],
) -> Coordinator:
    from cellwright.federation.aggregation import rule
    from cellwright.federation.compression import codec
    from cellwright.federation.owner_kit import deployed_values
    from cellwright.federation.privacy import mechanism

    f = job.federation
    privacy = {name: f.privacy_options.get(name, {}) for name in f.privacy}
    made, packed = rule(f.rule, f.rule_options), codec(f.compression, f.compression_options)
    mechanisms = tuple(mechanism(name, options) for name, options in privacy.items())
    settings = Rounds.of(f, seed=job.task.seed, gradient_clip=job.gradient_clip)
    like = None if made.closed_form else public(start, made.local(settings.local, 1))
    form = Form(like, packed, sealed=any(m.seals for m in mechanisms))
    auditor = None if log is None else _auditor(job, Rules.of(f, made.timing), log, form, signer)
    return Coordinator(
        channel,
        job.task,
        made,
        settings,
        mechanisms=mechanisms,
        codec=packed,
        topology=job.topology,
        auditor=auditor,
        signer=signer,
        quality=quality or _policy(f),
        observe=_observer(job, made, folder) if _measurable(job, made) else None,
        **hooks,
        align=partial(_aligned, folder, job),
        at_rest=_at_rest(job),
        checkpoint=folder / CHECKPOINT if f.checkpoints else None,
        on_round=on_round,
        deploy=deployed_values(privacy, f.compression, f.compression_options, share_scalers=f.share_scalers),
        covered=job.covered,
        costs=Costs.of(folder / COSTS, resumed=(folder / CHECKPOINT).is_file()),
    )


def _auditor(job: Job, rules: Rules, log: AuditLog, form: Form, signer: Signer | None) -> Auditor:
    """In this process, or a node of its own."""
    from cellwright.federation.runtimes.auditing import auditor_of

    who = {"request": job.task.request, "coordinator": job.topology.coordinator}
    return auditor_of(job.auditor, rules, job.keys, log, form, **who, signer=signer)


def managed(folder: Path) -> dict[str, Any]:
    """Hooks that ask the FMLMS of the process that submitted the job in a folder; none where nobody manages it.

    Raises:
        FederationError: the job cannot be read, or is managed and has no key to know its manager by.
    """
    from cellwright.federation.runtimes.between import Asking

    job, _ = _read_job(folder)
    if job.managed_s is None:
        return {}
    if job.signing is None:
        raise FederationError(f"the job in {folder} is managed from another process, but unsigned; set federation.audit to true")
    return Asking(folder, Signer.from_file(Path(job.signing)), job.managed_s).hooks


def _guard(channel: Channel, job: Job, log: AuditLog | None) -> None:
    """Over a network a node must show that a name is its own; who cannot is turned away, and in the audit log."""
    from cellwright.federation.runtimes.channel import FlowerChannel, TurnedAway

    def note(found: TurnedAway) -> None:
        if log is not None:
            log.append(Record("hello", found.node, verdict="refused", rule="identity", reason=found.words))

    if isinstance(channel, FlowerChannel):
        channel.guard(job.keys, note, admitted=job.admitted, hello_s=job.federation.deadline_s)


def _aligned(folder: Path, job: Job, replies: Mapping[str, Parcel]) -> Mapping[str, str]:
    """Hold the owners' metadata against each other; the report is left in the folder. Returns who does not fit, and why."""
    from cellwright.federation.alignment.horizontal import align
    from cellwright.federation.data.metadata import Metadata, metadata_of

    if not replies:
        return {}
    offers, unread = dict[str, Metadata](), dict[str, str]()
    for owner, parcel in replies.items():
        try:
            offers[owner] = metadata_of(parcel, sender=owner)
        except Refused as error:  # one owner's, which need not keep the others from training
            unread[owner] = str(error)
    if not offers:
        return unread
    task = job.task
    targets = tuple(str(t) for t in cast(list[str], task.problem["targets"]))
    needs = DataNeeds(dataset=task.dataset, targets=targets, cadence_s=cast(float, task.problem["cadence_s"]))
    report = align(offers, needs=needs)
    _at_rest(job).write(folder / ALIGNMENT, f"{report.model_dump_json(indent=2)}\n".encode())
    return unread | {o.owner: "; ".join(o.reasons) for o in report.owners if not o.fits}


def _policy(f: Federation) -> Policy:
    return Policy(f.target, f.rounds, more_share=f.more_rounds, least_owners=f.least_owners)


def _observer(job: Job, made: Rule, folder: Path) -> Observer:
    """With what an interrupted process saw, where there is a checkpoint to go on from."""
    shelf = Shelf(folder / OBSERVED, _at_rest(job)) if job.federation.checkpoints else None
    observer = Observer(made, job.federation.contribution_rounds, shelf=shelf)
    if shelf is not None and not (folder / CHECKPOINT).is_file():
        shelf.clear()
    observer.resume()
    return observer


def _measurable(job: Job, made: Rule) -> bool:
    """Whether each owner's contribution is asked for and can be told."""
    f = job.federation
    one = type(made).start_for is Rule.start_for  # clusters judge their own weights, whatever a group's would be
    return f.contribution and one and not made.closed_form and len(job.topology.owners) <= f.contribution_owners


def _contributions(job: Job, coordinator: Coordinator) -> Mapping[str, Contribution]:
    """What each owner contributed, from the rounds that were observed; nothing where no update could be seen."""
    observer = coordinator.observe
    if not isinstance(observer, Observer):
        return {}

    def judge(arrays: Arrays) -> float:
        error = coordinator.error(arrays)
        if error is None:
            raise FederationError("no owner has a measured target in the validation span; set federation.contribution to false")
        return error

    return gains(observer, judge, orders=job.federation.contribution_orders, seed=job.task.seed)


def _told(folder: Path, on_round: Callable[[Round], None] | None) -> Callable[[Round], None]:
    """Each round is a line of rounds.jsonl as soon as it has ended."""

    def tell(record: Round) -> None:
        with (folder / ROUNDS).open("a") as lines:
            lines.write(record.model_dump_json() + "\n")
        if on_round is not None:
            on_round(record)

    return tell


def _job_in(folder: Path) -> Job:
    try:
        return Job.model_validate_json((folder / JOB).read_bytes())
    except (OSError, ValidationError) as error:
        raise FederationError(f"cannot read the job {folder / JOB} ({error}); start the federation again") from error


def _read_job(folder: Path) -> tuple[Job, Arrays]:
    job = _job_in(folder)
    _, groups = _load(folder / START, _at_rest(job))
    return job, groups[()]


def _at_rest(job: Job) -> AtRest:
    """How what the job leaves lies on the disk."""
    return AtRest(job.storage, job.task.request)


def outcome_bytes(folder: Path) -> bytes:
    """The outcome that `coordinate` left in a folder, as a safetensors file's bytes."""
    return _left_by(folder).read(folder / OUTCOME)


def _left_by(folder: Path) -> AtRest:
    """How what a folder holds lies there, as its job says."""
    return _at_rest(_job_in(folder)) if (folder / JOB).is_file() else AtRest()


def write_outcome(folder: Path, outcome: Outcome, at_rest: AtRest | None = None) -> None:
    """Leave an outcome in a folder, whole; `at_rest`: how it lies on the disk, as the job there says."""
    groups: dict[tuple[str, ...], Arrays] = {("arrays",): outcome.arrays}
    groups |= {("own", owner): arrays for owner, arrays in outcome.own.items()}
    groups |= {("deployed", node): reply.arrays for node, reply in outcome.deployed.items()}
    told = {
        "rounds": [record.model_dump(mode="json") for record in outcome.rounds],
        "status": outcome.status,
        "reason": outcome.reason,
        "evaluations": {owner: asdict(e) for owner, e in outcome.evaluations.items()},
        "topology": outcome.topology.model_dump(mode="json"),
        "reliability": dict(outcome.reliability),
        "lost": dict(outcome.lost),
        "uncovered": dict(outcome.uncovered),
        "spent": {part: asdict(spent) for part, spent in outcome.spent.items()},
        "contributions": {owner: asdict(c) for owner, c in outcome.contributions.items()},
        "deployed": {node: dict(reply.values) for node, reply in outcome.deployed.items()},
    }
    write_text(folder / ROUNDS, "".join(record.model_dump_json() + "\n" for record in outcome.rounds))
    _save(folder / OUTCOME, groups, told, at_rest or AtRest())


def read_outcome(folder: Path) -> Outcome:
    """What `coordinate` left in a folder.

    Raises:
        FederationError: nothing yet, or it is damaged.
    """
    told, groups = _load(folder / OUTCOME, _left_by(folder))
    return Outcome(
        arrays=groups[("arrays",)],
        own={path[1]: arrays for path, arrays in groups.items() if path[0] == "own"},
        rounds=tuple(Round.model_validate(record) for record in told["rounds"]),
        status=told["status"],
        reason=told["reason"],
        evaluations={owner: _EVALUATION.validate_python(e) for owner, e in told["evaluations"].items()},
        topology=Topology.model_validate(told["topology"]),
        reliability=told["reliability"],
        lost=told["lost"],
        uncovered=told.get("uncovered", {}),
        spent={part: Spent(**spent) for part, spent in told.get("spent", {}).items()},
        contributions={owner: Contribution(**c) for owner, c in told.get("contributions", {}).items()},
        deployed={node: Parcel(groups[("deployed", node)], {}, values) for node, values in told["deployed"].items()},
    )


def _save(path: Path, groups: Mapping[tuple[str, ...], Arrays], told: Mapping[str, Any], at_rest: AtRest) -> None:
    """Arrays by group and name, and what is told beside them, as one safetensors file; the order of names is kept."""
    from safetensors.numpy import save

    arrays = {
        json.dumps([*group, name]): np.array(a, order="C", copy=None) for group, of in groups.items() for name, a in of.items()
    }
    names = [[list(group), list(of)] for group, of in groups.items()]
    at_rest.write(path, save(arrays, {"content": json.dumps({"told": told, "names": names})}))


def _load(path: Path, at_rest: AtRest) -> tuple[dict[str, Any], dict[tuple[str, ...], Arrays]]:
    from safetensors import SafetensorError

    try:
        header, found = tensors(at_rest.read(path))
        content = json.loads(header["content"])
        groups = {tuple(g): {n: found[json.dumps([*g, n])] for n in names} for g, names in content["names"]}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FederationError(
            f"{path} is missing or damaged ({type(error).__name__}: {error}); run the federation again"
        ) from error
    return content["told"], groups
