"""Vertical and transfer federations from params.yaml: parties with other features, owners of another data set (M.3387 10.4).

All parties are played by this process, each on its own panel below .cellwright/federation/owners/, and talk over Flower's Grid. Neither
is audited or signed, as horizontal rounds are: no message leaves the process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.data.split import spans
from cellwright.errors import FederationError
from cellwright.federation.alignment.asked import party_dataset, transfer_asked, vertical_asked
from cellwright.federation.alignment.told import FILES
from cellwright.params import Params, TransferParams, VerticalParams, check
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.federation.alignment.party import VerticalParty
    from cellwright.federation.alignment.transfer import TransferResult
    from cellwright.federation.alignment.vertical import Vertical, VerticalResult
    from cellwright.federation.alignment.vertical_spec import Epoch, Trial
    from cellwright.federation.contract import Channel, Task
    from cellwright.federation.results import Round
    from cellwright.federation.rounds import Outcome
    from cellwright.panel import Panel

Say = Callable[[str], None]
VERTICAL, TRANSFER = FILES["vertical"], FILES["transfer"]
_COORDINATOR = "coordinator"


def vertical(params: Params, ws: Workspace, *, on_progress: Say = lambda _: None) -> VerticalResult:
    """Train the parties of `federation.vertical` together; one that is finished is found again, one that was cut off goes on.

    Raises:
        WrongUse: parties, features, sites or segments that are not there.
        FederationError: other cadences, no common time stamps, or a training that cannot go on.
    """
    from cellwright.federation.alignment.vertical import VerticalResult, vertical_train
    from cellwright.federation.runtimes.local import open_channel

    asked = vertical_asked(params)
    if (ws.run_folder / VERTICAL).is_file():
        return VerticalResult.read(ws.run_folder / VERTICAL)
    folders = _parted(params, ws, asked)
    settings = _settings(params, asked, folders[asked.active])
    kept = ws.run_folder / "vertical"
    nodes = {name: _party(params, asked, name, folder, kept) for name, folder in folders.items()}
    on_progress(_who(nodes))
    result = vertical_train(
        open_channel(nodes, clock="wall"),
        settings,
        active=asked.active,
        passives=[name for name in nodes if name != asked.active],
        alone=asked.compare,
        checkpoint=kept / "checkpoint.json",
        on_epoch=lambda run, epoch: on_progress(_epoch_line(run, epoch)),
    )
    if asked.pooled:
        result = result.model_copy(update={"pooled": _pooled(params, ws, asked, settings, on_progress)})
    return result.save(ws.run_folder / VERTICAL)


def transfer(params: Params, ws: Workspace, *, on_progress: Say = lambda _: None) -> TransferResult:
    """Train a body with the owners of `federation.transfer.source`, then the run's owners with it and without.

    Raises:
        WrongUse: names that are not there, or a source that is the target.
        FederationError: another cadence, nothing of the body that fits, or too few owners.
    """
    from cellwright.federation.alignment.transfer import Transfer, TransferResult, course
    from cellwright.federation.alignment.transfer import transfer as transferred

    asked = transfer_asked(params)
    if (ws.run_folder / TRANSFER).is_file():
        return TransferResult.read(ws.run_folder / TRANSFER)
    before, here = source_params(params, asked.source), params
    _same_cadence(ws, params.dataset, asked.source)
    body, source_task = _body(before, ws, asked, on_progress)
    channel, task = _owners(here, ws, asked, rows=asked.rows)
    said = {"transfer": "transfer", "fresh": "alone"}
    now: list[str] = []
    made = transferred(
        channel,
        task,
        body.arrays,
        Transfer(frozen_rounds=asked.frozen_rounds, compare=asked.compare),
        source_task=source_task,
        checkpoint=_file(ws, "target"),
        on_training=lambda which: now.append(said[which]),
        on_round=lambda record: on_progress(_round_line(now[-1], record)),
        **_how(here, asked, channel, asked.rounds),
    )
    result = made.result.model_copy(update={"source": asked.source, "before": course(body)})
    return result.save(ws.run_folder / TRANSFER)


def source_params(params: Params, source: str) -> Params:
    """The same parameters for the source: its own targets and features, and of its own block in params.yaml span and owners."""
    block = params.for_dataset.get(source) or {}
    raw = params.model_dump(mode="json", by_alias=True)
    owners = (block.get("federation") or {}).get("owners", params.federation.owners)
    split = {name: raw["split"][name] for name in ("train", "validation", "test")} | (block.get("split") or {})
    over = {
        "dataset": source,
        "split": split,
        "problem": {**raw["problem"], "targets": [], "features": [], "exogenous": []},
        "federation": {**raw["federation"], "owners": owners},
    }
    return check(raw | over, f"federation.transfer.source {source}")


# ---- vertical


def _parted(params: Params, ws: Workspace, asked: VerticalParams) -> dict[str, Path]:
    """Each party's panel, by its name, in a folder that says what it was cut from and how."""
    from cellwright.federation.alignment.parting import part
    from cellwright.federation.owners import keep

    targets = _targets(params, ws)
    folders = {}
    for name, party in asked.parties.items():
        panel = _stretch(params, ws, asked, party_dataset(params, party))
        features = tuple(dict.fromkeys((*(targets if name == asked.active else ()), *party.features)))
        own = part(panel, features, party.sites)
        folders[name] = keep(own, ws.owners(panel.schema.dataset, f"vertical-{_digest(params, asked, ws)}") / name)
    return folders


def _stretch(params: Params, ws: Workspace, asked: VerticalParams, dataset: str) -> Panel:
    """The rows that are used: the stretch of `split`, of the run's own data set, and its segments."""
    from cellwright.federation.alignment.parting import stretch
    from cellwright.panel import Panel

    panel = Panel.open(ws.panel(dataset))
    if dataset != params.dataset:
        return panel
    rows = spans(params.split, panel.schema)
    return stretch(panel, (rows.train.start, rows.test.stop), asked.segments)


def _targets(params: Params, ws: Workspace) -> tuple[str, ...]:
    from cellwright.panel import Panel

    asked = vertical_asked(params)
    panel = Panel.open(ws.panel(party_dataset(params, asked.parties[asked.active])))
    return tuple(params.problem.targets or panel.schema.targets)


def _party(params: Params, asked: VerticalParams, name: str, folder: Path, kept: Path) -> VerticalParty:
    from cellwright.federation.alignment.party import VerticalParty
    from cellwright.panel import Panel

    panel = Panel.open(folder)
    targets = (params.problem.targets or panel.schema.targets) if name == asked.active else ()
    return VerticalParty(name, panel, targets=targets, folder=kept / "parties" / name)


def _settings(params: Params, asked: VerticalParams, active: Path) -> Vertical:
    from cellwright.federation.alignment.vertical import Vertical
    from cellwright.panel import Panel

    t, p, s = params.train, params.problem, params.split
    same = (
        "model",
        "align",
        "steps",
        "batch",
        "learning_rate",
        "patience",
        "embedding_clip",
        "embedding_noise",
        "budget_s",
        "deadline_s",
    )
    options = {"channels" if asked.model == "tcn" else "hidden": asked.embedding}
    return Vertical(
        **{name: getattr(asked, name) for name in same},
        options=options | ({"dropout": 0.0} if asked.model in ("mlp", "tcn") else {}),
        epochs=_epochs(asked),
        history=p.history,
        horizon=p.horizon,
        calendar=p.calendar and Panel.open(active).schema.clock == "utc",
        train=s.train,
        validation=s.validation,
        scaler=t.scaler,
        clip=t.clip,
        loss=t.loss,
        weight_decay=t.weight_decay,
        gradient_clip=t.gradient_clip,
        lr_patience=t.lr_patience,
        seed=t.seed,
    )


def _epochs(asked: VerticalParams) -> int:
    """The epochs that were asked for, or as many as the privacy budget allows: a window is sent once each, and once more at the end."""
    from cellwright.federation.alignment.vertical import DELTA, epsilon_embedding

    if asked.epsilon is None:
        return asked.epochs
    for epochs in range(asked.epochs, 0, -1):
        spent = epsilon_embedding(asked.embedding_noise, epochs + 1, DELTA)
        if spent is not None and spent <= asked.epsilon:
            return epochs
    least = epsilon_embedding(asked.embedding_noise, 2, DELTA)
    raise FederationError(
        f"federation.vertical.epsilon is {asked.epsilon:g}, but one epoch with embedding_noise {asked.embedding_noise:g} spends "
        f"{least:.3g}; allow more, or raise the noise"
    )


def _pooled(params: Params, ws: Workspace, asked: VerticalParams, settings: Vertical, say: Say) -> Trial:
    """The same network, windows and settings where one party holds all features: no data would move only on one machine."""
    from cellwright.federation.alignment.parting import part
    from cellwright.federation.alignment.party import VerticalParty
    from cellwright.federation.alignment.vertical import vertical_train
    from cellwright.federation.runtimes.local import open_channel

    targets, party = _targets(params, ws), asked.parties[asked.active]
    features = dict.fromkeys((*targets, *(f for name in sorted(asked.parties) for f in asked.parties[name].features)))
    panel = part(_stretch(params, ws, asked, party_dataset(params, party)), tuple(features), party.sites)
    kept = ws.run_folder / "vertical" / "pooled"
    node = VerticalParty(asked.active, panel, targets=targets, folder=kept)
    done = vertical_train(
        open_channel({asked.active: node}, clock="wall"),
        settings,
        active=asked.active,
        checkpoint=kept / "checkpoint.json",
        on_epoch=lambda _, epoch: say(_epoch_line("pooled", epoch)),
    )
    return done.vertical


def _digest(params: Params, asked: VerticalParams, ws: Workspace) -> str:
    """What the parties' panels were cut from, and how: another cut lies in another folder."""
    held = {name: party.model_dump(mode="json") for name, party in asked.parties.items()}
    versions = [_version(ws, name) for name in sorted({party_dataset(params, party) for party in asked.parties.values()})]
    what = [asked.active, held, asked.segments, params.problem.targets, params.split.model_dump(mode="json"), versions]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _who(nodes: dict[str, VerticalParty]) -> str:
    held = [f"{name} holds {', '.join(node.features)} of {len(node.panel.schema.sites)} sites" for name, node in nodes.items()]
    return "; ".join(held)


def _epoch_line(run: str, epoch: Epoch) -> str:
    return f"{run} epoch {epoch.epoch}: validation MAE {epoch.validation_mae:.5g}"


# ---- transfer


def _body(params: Params, ws: Workspace, asked: TransferParams, say: Say) -> tuple[Outcome, Task]:
    """The source's owners train; what they end with, and their task."""
    from cellwright.federation.coordinator import Coordinator
    from cellwright.federation.initial import initial

    channel, task = _owners(params, ws, asked)
    how = _how(params, asked, channel, asked.source_rounds)
    made, settings = how.pop("rule")(), how.pop("rounds")
    coordinator = Coordinator(
        channel,
        task,
        made,
        settings,
        checkpoint=_file(ws, "source"),
        on_round=lambda record: say(_round_line("source", record)),
        **how,
    )
    return coordinator.run(initial(task)), task


def _owners(params: Params, ws: Workspace, asked: TransferParams, *, rows: int | None = None) -> tuple[Channel, Task]:
    """A data set's owners on a channel, each with its own panel, and what they are asked; `rows`: how much of the training span."""
    from cellwright.federation.initial import task_for
    from cellwright.federation.owner import DataOwner, OwnerKit
    from cellwright.federation.owners import cut, groups
    from cellwright.federation.runtimes.local import open_channel
    from cellwright.panel import Panel

    panel = Panel.open(ws.panel(params.dataset))
    shares = groups(panel.schema, params.federation.owners)
    by = f"{params.federation.owners}-{_version(ws, params.dataset)[:12]}".replace(".", "-")
    kit = OwnerKit(energy=params.energy, exogenous=params.problem.exogenous)
    nodes = {name: DataOwner(name, path, kit) for name, path in cut(panel, shares, ws.owners(params.dataset, by)).items()}
    task = task_for(params, panel.schema, f"{asked.rule}:{asked.model}", f"transfer-{params.dataset}")
    if rows is not None and rows < task.train[1] - task.train[0]:
        task = task.model_copy(update={"train": (task.train[1] - rows, task.train[1])})
    return open_channel(nodes, clock="wall"), task


def _how(params: Params, asked: TransferParams, channel: Channel, rounds: int) -> dict[str, Any]:
    """What a coordinator is told beside its task, `rule` as a maker of rules at their beginning."""
    from cellwright.federation.aggregation import rule
    from cellwright.federation.compression import codec
    from cellwright.federation.management.records import Edge, Topology
    from cellwright.federation.owner_kit import deployed_values
    from cellwright.federation.privacy import mechanism
    from cellwright.federation.rounds import Rounds

    f = params.federation
    privacy = {name: f.privacy_options.get(name, {}) for name in f.privacy}
    owners = tuple(channel.nodes())
    topology = Topology(
        request=f"transfer-{params.dataset}",
        kind="star",
        coordinator=_COORDINATOR,
        edges=tuple(Edge(child=name, parent=_COORDINATOR) for name in owners),
        owners=owners,
    )
    settings = Rounds.of(
        f.model_copy(update={"rounds": rounds}), seed=params.train.seed, gradient_clip=params.train.gradient_clip
    )
    return {
        "rule": lambda: rule(str(asked.rule), f.rule_options),
        "rounds": settings,
        "codec": codec(f.compression, f.compression_options),
        "mechanisms": tuple(mechanism(name, options) for name, options in privacy.items()),
        "deploy": deployed_values(privacy, f.compression, f.compression_options, share_scalers=f.share_scalers),
        "topology": topology,
    }


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


def _version(ws: Workspace, dataset: str) -> str:
    from cellwright.versioning import data_version

    return data_version(ws, dataset).hash
