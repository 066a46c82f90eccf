"""The parties of a vertical federation as params.yaml asks for them, all played by this process, each on a panel of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.data.split import spans
from cellwright.errors import FederationError
from cellwright.federation.alignment.asked import party_dataset, vertical_asked
from cellwright.params import Params, VerticalParams
from cellwright.versioning import data_version
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.federation.alignment.audit_summary import AuditSummary
    from cellwright.federation.alignment.party import VerticalParty
    from cellwright.federation.alignment.vertical import Vertical, VerticalResult
    from cellwright.federation.alignment.vertical_spec import Epoch, Trial
    from cellwright.federation.audit.rules import Rules
    from cellwright.federation.contract import Channel
    from cellwright.federation.owner_kit import OwnerKit
    from cellwright.panel import Panel

Say = Callable[[str], None]
_POINTS_BYTES = 1 << 20  # more than a message of an intersection has, or one without arrays
_SAME = (  # names that are the same in params.yaml and in `Vertical`
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


def train(params: Params, ws: Workspace, say: Say) -> VerticalResult:
    """All parties together, the active one alone and, where that is asked for, one that holds everything.

    Raises:
        FederationError: other cadences, no common time stamps, or a training that cannot go on.
    """
    asked, folder = vertical_asked(params), ws.run_folder / "vertical"
    folders = _parted(params, ws, asked)
    settings = _settings(params, asked, folders[asked.active])
    result, audit = _together(params, ws, asked, folders, settings, folder, say)
    pooled = _pooled(params, ws, asked, settings, say) if asked.pooled else None
    return result.model_copy(update={"pooled": pooled, "audit": audit})


def _together(
    params: Params, ws: Workspace, asked: VerticalParams, folders: dict[str, Path], settings: Vertical, folder: Path, say: Say
) -> tuple[VerticalResult, AuditSummary | None]:
    """The parties' training over a channel that signs and checks, if federation.audit asks for that."""
    from cellwright.federation.alignment.audited import AuditedChannel, Kits, audited, summed
    from cellwright.federation.alignment.vertical import vertical_train
    from cellwright.federation.runtimes.local import open_channel

    with ExitStack() as stack:
        audit = stack.enter_context(audited(params, ws, folder))
        kits = Kits.made(folders, audit, params.energy)
        nodes = {name: _party(params, asked, name, path, folder, kits.by_name[name]) for name, path in folders.items()}
        say(_who(nodes))
        channel: Channel = open_channel(nodes, clock="wall")
        if audit is not None:
            audit.begins("vertical")
            auditor = audit.auditor(_rules(asked), kits.keys, f"{ws.run}-vertical")
            channel = AuditedChannel(channel, auditor, audit.signer, state=folder / "auditor.json")
        result = vertical_train(
            channel,
            settings,
            active=asked.active,
            passives=[name for name in nodes if name != asked.active],
            alone=asked.compare,
            checkpoint=folder / "checkpoint.json",
            on_epoch=lambda run, epoch: say(_epoch_line(run, epoch)),
        )
    return result, summed(audit, ws)


def _rules(asked: VerticalParams) -> Rules:
    """No message of a party is larger than the embeddings, or the gradients, that it may be asked for."""
    from cellwright.federation.alignment.session import WINDOWS
    from cellwright.federation.audit.rules import Rules

    numbers = max(max(WINDOWS, asked.batch) * asked.embedding, asked.batch * asked.embedding * len(asked.parties))
    return Rules(max_bytes=4 * numbers + _POINTS_BYTES)


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


def _party(params: Params, asked: VerticalParams, name: str, folder: Path, kept: Path, kit: OwnerKit) -> VerticalParty:
    from cellwright.federation.alignment.party import VerticalParty
    from cellwright.panel import Panel

    panel = Panel.open(folder)
    targets = (params.problem.targets or panel.schema.targets) if name == asked.active else ()
    return VerticalParty(name, panel, targets=targets, kit=kit, folder=kept / "parties" / name)


def _settings(params: Params, asked: VerticalParams, active: Path) -> Vertical:
    from cellwright.federation.alignment.vertical import Vertical
    from cellwright.panel import Panel

    t, p, s = params.train, params.problem, params.split
    options = {"channels" if asked.model == "tcn" else "hidden": asked.embedding}
    return Vertical(
        **{name: getattr(asked, name) for name in _SAME},
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
    """The same network, windows and settings where one party holds all features: a yardstick, which talks to nobody."""
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
    versions = [
        data_version(ws, name).hash for name in sorted({party_dataset(params, party) for party in asked.parties.values()})
    ]
    what = [asked.active, held, asked.segments, params.problem.targets, params.split.model_dump(mode="json"), versions]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _who(nodes: dict[str, VerticalParty]) -> str:
    held = [f"{name} holds {', '.join(node.features)} of {len(node.panel.schema.sites)} sites" for name, node in nodes.items()]
    return "; ".join(held)


def _epoch_line(run: str, epoch: Epoch) -> str:
    return f"{run} epoch {epoch.epoch}: validation MAE {epoch.validation_mae:.5g}"
