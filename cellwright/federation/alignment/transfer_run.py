"""A transfer federation as params.yaml asks for it: the owners of two data sets, all played by this process on panels of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.errors import FederationError
from cellwright.federation.alignment.asked import transfer_asked
from cellwright.params import Params, TransferParams
from cellwright.versioning import data_version
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.federation.aggregation._contract import Rule
    from cellwright.federation.alignment.audited import Audit
    from cellwright.federation.alignment.transfer import TransferResult
    from cellwright.federation.contract import Arrays, Channel, Task
    from cellwright.federation.results import Round
    from cellwright.federation.rounds import Outcome

Say = Callable[[str], None]
_SAID = {"transfer": "transfer", "fresh": "alone"}


@dataclass(frozen=True)
class _Place:
    """A data set's owners, and what they are asked."""

    params: Params
    channel: Channel
    task: Task
    keys: Mapping[str, str]  # the owners' public ones; empty: nothing is signed


def train(params: Params, source: Params, ws: Workspace, say: Say) -> TransferResult:
    """The source's owners train a body; then the run's own, with it and from fresh weights.

    Raises:
        FederationError: another cadence, nothing of the body that fits, or too few owners.
    """
    from cellwright.federation.alignment.audited import audited, summed
    from cellwright.federation.alignment.transfer import course

    asked = transfer_asked(params)
    _same_cadence(ws, params.dataset, asked.source)
    with ExitStack() as stack:
        audit = stack.enter_context(audited(params, ws, ws.run_folder / "transfer"))
        there = _place(source, ws, asked, audit)
        body = _body(there, ws, asked, audit, say)
        result = _grown(_place(params, ws, asked, audit, rows=asked.rows), body, there.task, ws, asked, audit, say)
    told = {"source": asked.source, "before": course(body), "audit": summed(audit, ws)}
    return result.model_copy(update=told)


def _body(place: _Place, ws: Workspace, asked: TransferParams, audit: Audit | None, say: Say) -> Outcome:
    """What the source's owners end with."""
    from cellwright.federation.coordinator import Coordinator
    from cellwright.federation.initial import initial

    how, first = _how(place, asked, asked.source_rounds), initial(place.task)
    made = how.pop("rule")()
    coordinator = Coordinator(
        place.channel,
        place.task,
        made,
        how.pop("rounds"),
        checkpoint=_file(ws, "source"),
        on_round=lambda record: say(_round_line("source", record)),
        **how,
        **_witnessed(place, audit, "source", place.task, made, first),
    )
    return coordinator.run(first)


def _grown(
    place: _Place, body: Outcome, source: Task, ws: Workspace, asked: TransferParams, audit: Audit | None, say: Say
) -> TransferResult:
    """The run's owners with the body, and without."""
    from cellwright.federation.alignment.transfer import Transfer, transfer

    now: list[str] = []
    made = transfer(
        place.channel,
        place.task,
        body.arrays,
        Transfer(frozen_rounds=asked.frozen_rounds, compare=asked.compare),
        source_task=source,
        checkpoint=_file(ws, "target"),
        on_training=lambda which: now.append(_SAID[which]),
        on_round=lambda record: say(_round_line(now[-1], record)),
        witness=lambda which, *about: _witnessed(place, audit, _SAID[which], *about),
        **_how(place, asked, asked.rounds),
    )
    return made.result


def _witnessed(place: _Place, audit: Audit | None, training: str, task: Task, made: Rule, first: Arrays) -> dict[str, Any]:
    """The auditor and the coordinator's key of one training; nothing where federation.audit is off."""
    from cellwright.federation.audit.rules import Form, Rules
    from cellwright.federation.compression import codec
    from cellwright.federation.gathering import public
    from cellwright.federation.privacy import mechanism

    if audit is None:
        return {}
    f = place.params.federation
    seals = any(mechanism(name, f.privacy_options.get(name, {})).seals for name in f.privacy)
    like = public(first, made.local(_rounds(place.params, 1).local, 1))
    form = Form(like, codec(f.compression, f.compression_options), sealed=seals)
    audit.begins(training)
    return {"auditor": audit.auditor(Rules.of(f, made.timing), place.keys, task.request, form), "signer": audit.signer}


def _place(params: Params, ws: Workspace, asked: TransferParams, audit: Audit | None, *, rows: int | None = None) -> _Place:
    """A data set's owners on a channel, each with its own panel; `rows`: how much of the training span."""
    from cellwright.federation.alignment.audited import Kits
    from cellwright.federation.initial import task_for
    from cellwright.federation.owner import DataOwner
    from cellwright.federation.owners import cut, groups
    from cellwright.federation.runtimes.local import open_channel
    from cellwright.panel import Panel

    panel = Panel.open(ws.panel(params.dataset))
    shares = groups(panel.schema, params.federation.owners)
    by = f"{params.federation.owners}-{data_version(ws, params.dataset).hash[:12]}".replace(".", "-")
    folders = cut(panel, shares, ws.owners(params.dataset, by))
    kits = Kits.made(folders, audit, params.energy, params.problem.exogenous)
    nodes = {name: DataOwner(name, path, kits.by_name[name]) for name, path in folders.items()}
    task = task_for(params, panel.schema, f"{asked.rule}:{asked.model}", f"transfer-{params.dataset}")
    if rows is not None and rows < task.train[1] - task.train[0]:
        task = task.model_copy(update={"train": (task.train[1] - rows, task.train[1])})
    return _Place(params, open_channel(nodes, clock="wall"), task, kits.keys)


def _how(place: _Place, asked: TransferParams, rounds: int) -> dict[str, Any]:
    """What a coordinator is told beside its task, `rule` as a maker of rules at their beginning."""
    from cellwright.federation.aggregation import rule
    from cellwright.federation.alignment.audited import COORDINATOR
    from cellwright.federation.compression import codec
    from cellwright.federation.management.records import Edge, Topology
    from cellwright.federation.owner_kit import deployed_values
    from cellwright.federation.privacy import mechanism

    f = place.params.federation
    privacy = {name: f.privacy_options.get(name, {}) for name in f.privacy}
    owners = tuple(place.channel.nodes())
    topology = Topology(
        request=place.task.request,
        kind="star",
        coordinator=COORDINATOR,
        edges=tuple(Edge(child=name, parent=COORDINATOR) for name in owners),
        owners=owners,
    )
    return {
        "rule": lambda: rule(str(asked.rule), f.rule_options),
        "rounds": _rounds(place.params, rounds),
        "codec": codec(f.compression, f.compression_options),
        "mechanisms": tuple(mechanism(name, options) for name, options in privacy.items()),
        "deploy": deployed_values(privacy, f.compression, f.compression_options, share_scalers=f.share_scalers),
        "topology": topology,
    }


def _rounds(params: Params, rounds: int) -> Any:
    from cellwright.federation.rounds import Rounds

    settings = params.federation.model_copy(update={"rounds": rounds})
    return Rounds.of(settings, seed=params.train.seed, gradient_clip=params.train.gradient_clip)


def _file(ws: Workspace, which: str) -> Path:
    return ws.run_folder / "transfer" / f"{which}.safetensors"


def _same_cadence(ws: Workspace, target: str, source: str) -> None:
    from cellwright.panel import Panel

    ours, theirs = (Panel.open(ws.panel(name)).schema.cadence_s for name in (target, source))
    if ours != theirs:
        raise FederationError(
            f"'{source}' has a row every {theirs:g} s, '{target}' one every {ours:g} s; a network counts in steps: take a source of the "
            "same cadence"
        )


def _round_line(which: str, record: Round) -> str:
    loss = f"validation MAE {record.mae:.5g}" if record.mae is not None else "not judged"
    return f"{which} round {record.round}: {loss}"
