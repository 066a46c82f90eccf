"""What came of a vertical or a transfer federation, as rows of a table and in a sentence: terminal and UI show the same."""

from __future__ import annotations

from typing import Any

from cellwright.federation.alignment.asked import transfer_asked, vertical_asked
from cellwright.federation.alignment.audit_summary import AuditSummary
from cellwright.federation.alignment.transfer import TransferResult
from cellwright.federation.alignment.vertical_spec import VerticalResult
from cellwright.params import Params
from cellwright.workspace import Workspace

FILES = {"vertical": "federation-vertical.json", "transfer": "federation-transfer.json"}  # in the run's folder


def read(ws: Workspace, kind: str) -> VerticalResult | TransferResult:
    """The result of a run.

    Raises:
        CellwrightError: it is missing.
    """
    path = ws.run_folder / FILES[kind]
    return VerticalResult.read(path) if kind == "vertical" else TransferResult.read(path)


def rows(ws: Workspace, kind: str) -> list[dict[str, Any]]:
    """A row a training, or an owner."""
    found = read(ws, kind)
    return _trials(found) if isinstance(found, VerticalResult) else _owners(found)


def sentence(ws: Workspace, kind: str) -> str:
    """In one sentence."""
    found = read(ws, kind)
    return _of_vertical(found) if isinstance(found, VerticalResult) else _of_transfer(found)


def most_lines(params: Params, kind: str) -> int:
    """Epochs, or rounds, of all trainings at most."""
    if kind == "vertical":
        asked = vertical_asked(params)
        return asked.epochs * (1 + asked.compare + asked.pooled)
    target = transfer_asked(params)
    return target.source_rounds + target.rounds * (1 + target.compare)


def _trials(found: VerticalResult) -> list[dict[str, Any]]:
    named = {"vertical": found.vertical, f"{found.active} alone": found.alone, "pooled": found.pooled}
    return [
        {
            "training": name,
            "test MAE": _number(trial.mae),
            "against alone": _against(trial.mae, found.alone.mae if found.alone and trial is not found.alone else None),
            "validation MAE": _number(trial.mae_validation),
            "epochs": len(trial.epochs),
            "ended": trial.status,
            "kB": round(sum(trial.all_bytes) / 1000),
            "s": round(trial.seconds, 1),
        }
        for name, trial in named.items()
        if trial is not None
    ]


def _owners(found: TransferResult) -> list[dict[str, Any]]:
    apart = found.alone.mae_by_owner if found.alone else {}
    by_owner: dict[str, tuple[float | None, float | None]] = {
        name: (mae, apart.get(name)) for name, mae in found.transfer.mae_by_owner.items()
    }
    by_owner["all"] = found.transfer.mae, found.alone.mae if found.alone else None
    return [
        {"owner": name, "transfer MAE": _number(mae), "alone": _number(alone), "against alone": _against(mae, alone)}
        for name, (mae, alone) in by_owner.items()
    ]


def _of_vertical(found: VerticalResult) -> str:
    told = [f"{', '.join(found.passives)} with {found.active}: test MAE {found.vertical.mae:.4g}"]
    if found.alone:
        told.append(f"{_against(found.vertical.mae, found.alone.mae)} against {found.active} alone ({found.alone.mae:.4g})")
    if found.pooled:
        told.append(f"{_against(found.vertical.mae, found.pooled.mae)} against pooled data ({found.pooled.mae:.4g})")
    told.append(
        f"{found.common:,} windows in common, {(found.align_bytes + sum(found.vertical.all_bytes)) / 1e6:.1f} MB on the wire"
    )
    told += _spent(found.vertical.all_energy_j, found.vertical.energy_source)
    noise = "no noise, so no bound on what embeddings tell"
    told.append(
        noise
        if found.epsilon_embedding is None
        else f"ε {found.epsilon_embedding:.3g} of a window's embeddings, δ {found.delta:g}"
    )
    return "; ".join([*told, *_audited(found.audit)])


def _of_transfer(found: TransferResult) -> str:
    both = found.transfer.mae is not None and found.alone is not None and found.alone.mae is not None
    told = [f"body of {found.source} for {found.dataset}: test MAE {_number(found.transfer.mae)}"]
    if both and found.alone:
        told.append(f"{_against(found.transfer.mae, found.alone.mae)} against fresh weights ({_number(found.alone.mae)})")
    told.append(f"{found.taken_share:.0%} of the network came from the source, {found.transfer.rounds} rounds")
    told.append(f"{(found.transfer.down_bytes + found.transfer.up_bytes) / 1e6:.1f} MB on the wire")
    told += _spent(found.transfer.energy_j, found.transfer.energy_source)
    return "; ".join([*told, *_audited(found.audit)])


def _spent(energy_j: float | None, source: str | None) -> list[str]:
    return [] if energy_j is None else [f"{energy_j:.3g} J ({source})"]


def _audited(audit: AuditSummary | None) -> list[str]:
    return (
        ["not audited"] if audit is None else [f"{audit.accepted:,} messages accepted by the auditor, {audit.refused:,} refused"]
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _against(value: float | None, other: float | None) -> str:
    return "–" if value is None or not other else f"{value / other - 1:+.1%}"
