"""What came of a federation: each owner's error, work, contribution and reward; the forecaster; what the FMLMS is told.

M.3387 8.4.2, 9.1, 9.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellwright.errors import FederationError
from cellwright.federation.audit.chain import verify_log
from cellwright.federation.costs import PHASES
from cellwright.federation.federate import JOB, RESULT, ROUNDS, Bed, covered, fmlms, wall_s
from cellwright.federation.initial import Table, forecaster, table_of
from cellwright.federation.node_meter import J_PER_KWH, power
from cellwright.federation.owner_results import energy, owner_results
from cellwright.federation.planning import Plan, told
from cellwright.federation.results import Federated, Part, Round
from cellwright.federation.rounds import Outcome
from cellwright.files import write_text

if TYPE_CHECKING:
    from cellwright.forecaster import Forecaster


def conclude(bed: Bed, made: Plan, outcome: Outcome) -> tuple[Federated, Forecaster | None]:
    """Write federation.json and rounds.jsonl, rate the owners, deliver the model; see `federate.concluded`."""
    write_text(bed.folder / ROUNDS, "".join(r.model_dump_json() + "\n" for r in outcome.rounds))
    published = _forecaster(bed, made, outcome)
    found = _result(bed, made, outcome).save(bed.folder / RESULT)
    if published is not None:
        published.save(bed.folder)
    _tell(bed, made, outcome, found, published)
    return found, published


def _result(bed: Bed, made: Plan, outcome: Outcome) -> Federated:
    from cellwright.federation.aggregation import options_of, rule
    from cellwright.federation.privacy import mechanism

    f = bed.params.federation
    made_rule = rule(bed.rule, f.rule_options)
    owners = owner_results(bed, made, outcome, others=covered(bed, made), scalers=pooled(bed, made, outcome))
    last = outcome.rounds[-1] if outcome.rounds else None
    tested = [e for e in outcome.evaluations.values() if e.count]
    measured = [r for r in outcome.rounds if r.validation_loss is not None]
    best = min(measured, key=lambda r: r.validation_loss or 0.0, default=None)
    if "central_dp" in f.privacy and measured:  # the last model is kept, whatever its error
        best = measured[-1]
    log = bed.folder / JOB / "audit.jsonl"
    verdict = verify_log(log) if log.is_file() else None
    return Federated(
        key=bed.key,
        rule=bed.rule,
        rule_title=made_rule.title,
        rule_options=dict(options_of(bed.rule, f.rule_options)),
        timing=made_rule.timing,
        model=bed.key.partition(":")[2],
        runtime=f.runtime,
        status="stopped" if outcome.status == "paused" else outcome.status,
        reason=outcome.reason,
        rounds=len(outcome.rounds),
        owners=owners,
        mae=math.fsum(e.absolute for e in tested) / sum(e.count for e in tested) if tested else None,
        mae_validation=best.mae if best else None,
        privacy=[mechanism(name, f.privacy_options.get(name, {})).title for name in f.privacy],
        epsilon=last.epsilon if last else None,
        delta=last.delta if last else None,
        epsilon_unit=last.epsilon_unit if last else "",
        compression=f.compression,
        up_bytes=sum(o.up_bytes for o in owners),
        down_bytes=sum(o.down_bytes for o in owners),
        seconds=sum(r.seconds for r in outcome.rounds),
        wall_s=wall_s(bed),
        energy=energy(owners, wall_s(bed)),
        parts=tuple(_parts(bed, outcome)),
        contribution_of="1 − AUC" if f.task == "classification" else "MAE",
        topology=outcome.topology.model_dump(mode="json"),
        topologies=outcome.topology.version,
        audit_log=f"{JOB}/{log.name}" if verdict else None,
        audit_head=verdict.head if verdict else None,
        data=bed.version,
        explanation=(*told(made, bed.fleet), *_left_out(bed, made), *_covering(bed, made, outcome)),
    )


def _parts(bed: Bed, outcome: Outcome) -> list[Part]:
    """What deployment, training, contribution and test took; the coordinator's and the auditor's work as energy."""
    watts, carbon = power(bed.params.energy)
    shared = bed.params.federation.runtime == "local"
    found = []
    for name in PHASES:
        if (spent := outcome.spent.get(name)) is None:
            continue
        coordinator_s = spent.coordinator_cpu_s(shared=shared)
        joules = (coordinator_s + spent.auditor_cpu_s) * watts
        found.append(
            Part(
                name=name,
                wall_s=spent.wall_s,
                up_bytes=spent.up_bytes,
                down_bytes=spent.down_bytes,
                owners_cpu_s=spent.owners_cpu_s,
                owners_energy_j=spent.owners_energy_j,
                owners_energy_source=spent.owners_energy_source,
                coordinator_cpu_s=coordinator_s,
                coordinator_energy_j=coordinator_s * watts,
                auditor_cpu_s=spent.auditor_cpu_s,
                auditor_energy_j=spent.auditor_cpu_s * watts,
                energy_source="modelled",
                co2_g=(spent.owners_co2_g or 0.0) + joules / J_PER_KWH * carbon,
            )
        )
    return found


def _left_out(bed: Bed, made: Plan) -> tuple[str, ...]:
    """What was not measured, and why."""
    f = bed.params.federation
    if f.contribution and len(made.owners) > f.contribution_owners:
        return (
            f"contribution was not measured: {len(made.owners)} owners, at most {f.contribution_owners} (federation.contribution_owners)",
        )
    return ()


def _covering(bed: Bed, made: Plan, outcome: Outcome) -> tuple[str, ...]:
    """What the forecaster knows of the sites whose owners did not train."""
    others, scalers = covered(bed, made), pooled(bed, made, outcome)
    found = [owner for owner in others if owner not in scalers]
    words = [f"{len(found)} owners that did not train gave their scalers, so that their sites are forecast too"] if found else []
    if scalers and _published(bed, outcome):
        first = next(iter(scalers))
        words.append(
            f"the sites of {len(scalers)} owners are normalised by the mean of the other sites' scalers, first '{first}': "
            f"{scalers[first]}"
        )
    return tuple(words)


def pooled(bed: Bed, made: Plan, outcome: Outcome) -> dict[str, str]:
    """Owners whose scaler is not known at the end, and why: their sites take the mean of the others'. None where no one model is made."""
    if not _published(bed, outcome):
        return {}
    known, found = _sites(outcome), dict[str, str]()
    for owner in bed.groups:
        answered = outcome.deployed.get(owner)
        if answered is not None and answered.values.get("empty") is True:
            continue  # there is nothing to know
        if not set(bed.sites_of(owner)) <= known:
            found[owner] = outcome.uncovered.get(owner) or outcome.lost.get(owner) or "it told no scaler"
    return found


def _published(bed: Bed, outcome: Outcome) -> bool:
    """Whether one forecaster for all sites can come of it: one model, and scalers that may leave their owners."""
    from cellwright.federation.aggregation import rule

    f = bed.params.federation
    return not outcome.own and rule(bed.rule, f.rule_options).one_model and f.share_scalers


def _sites(outcome: Outcome) -> set[str]:
    """Sites whose scaler was told."""
    tables = [table_of(reply) for reply in outcome.deployed.values()]
    return {site for table in tables if table is not None for site in table.sites}


def _forecaster(bed: Bed, made: Plan, outcome: Outcome) -> Forecaster | None:
    """One forecaster for all sites, where the owners' scalers may leave them and all end with the same model.

    Sites of owners that hold no value, or that could not be asked (`pooled`, which the result tells of), take the mean of the others.
    """
    from cellwright.federation.initial import task_for

    if not _published(bed, outcome):
        return None
    tables: list[Table] = []
    empty = [site for owner in pooled(bed, made, outcome) for site in bed.sites_of(owner)]
    for owner, reply in outcome.deployed.items():
        table = table_of(reply)
        if table is not None:
            tables.append(table)
        elif reply.values.get("empty") is True:
            empty += bed.sites_of(owner)
    task = task_for(bed.params, bed.panel.schema, bed.key, made.name, kind=bed.params.federation.task)
    try:
        return forecaster(task, outcome.arrays, tables, bed.panel.schema, key=bed.key, empty=empty)
    except FederationError as error:  # nobody's scaler is known, or they are of another form
        raise FederationError(
            f"the model is trained ({bed.folder / JOB}), but cannot be put together for all sites: {error}"
        ) from error


def _tell(bed: Bed, made: Plan, outcome: Outcome, found: Federated, published: Forecaster | None) -> None:
    """What the FMLMS keeps of each node, and the model for the client (8.4.2, 9.1)."""
    with fmlms(bed) as service:
        known = {node.name for node in service.nodes()}
        for owner in (o for o in found.owners if o.trained):
            if owner.owner in known:
                gain = owner.contribution
                service.rate(
                    owner.owner, reliability=owner.reliability, contribution=gain, reward=owner.reward, rounds=owner.rounds
                )
        if service.follow(made.request).status != "running":
            return
        if published is not None:
            service.deliver(
                made.request, (bed.folder / "forecaster.safetensors").read_bytes(), run=bed.ws.run, reason=outcome.reason
            )
        else:
            from cellwright.federation.runtimes.jobs import outcome_bytes

            service.deliver(made.request, outcome_bytes(bed.folder / JOB), run=bed.ws.run, reason=outcome.reason)


def history(rounds: Sequence[Round]) -> list[dict[str, float]]:
    """The rounds as lines of history.jsonl, so that a federated candidate's curve stands beside the others'."""
    lines, elapsed_s, cpu_s, steps = list[dict[str, float]](), 0.0, 0.0, 0
    for record in rounds:
        elapsed_s += record.seconds
        cpu_s += math.fsum(o.cpu_s for o in record.owners)
        steps += sum(o.steps for o in record.owners)
        told = [o.train_loss for o in record.owners if o.train_loss is not None]
        if record.validation_loss is None:
            continue
        line = {"epoch": float(record.round), "validation_loss": record.validation_loss, "elapsed_s": elapsed_s, "cpu_s": cpu_s}
        line["step"] = float(steps)  # of all owners
        lines.append(
            {**line, "learning_rate": record.learning_rate, **({"train_loss": math.fsum(told) / len(told)} if told else {})}
        )
    return lines
