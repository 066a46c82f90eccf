"""Vertical federated learning (M.3387 10.4): the same time stamps, different features. The coordinator aligns samples and trains.

    features of a UE or slice at a passive party ──embedding──┐
    features and targets at the active party ────embedding────┴─> head ─> forecast, loss ──gradient of each embedding──> back

The coordinator finds the common windows by private set intersection (`psi`), then relays embeddings and gradients between the parties
(see `party`); it holds no weights. Each party keeps its half of the model, so that a forecast needs all of them.

**What leaks.** An embedding is a function of a window of telemetry: who knows the bottom network can search for telemetry that gives
it (model inversion; Erdoğan et al., "UnSplit", 2022), and who has some pairs can learn the way back. `embedding_clip` and
`embedding_noise` bound this (`epsilon_embedding`) at a cost in error. A gradient is the loss's slope along an embedding: with MAE its sign
tells a passive party whether the forecast was too high or too low, with MSE by how much, so that targets can be guessed from the
passive side (Li et al., "Label leakage and protection in two-party split learning", ICLR 2022); nothing here hides that. The
coordinator sees both, and is trusted as far as either party; towards all others the channel's TLS protects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment.asking import Traffic, ask
from cellwright.federation.alignment.progress import Ledger
from cellwright.federation.alignment.psi import Intersection, intersect
from cellwright.federation.alignment.session import OnEpoch, Session
from cellwright.federation.alignment.vertical_spec import Vertical, VerticalResult, epsilon_embedding
from cellwright.federation.contract import Channel, Parcel

__all__ = ["Vertical", "VerticalResult", "epsilon_embedding", "vertical_train"]

DELTA = 1e-5  # of the ε that is stated


def vertical_train(
    channel: Channel,
    settings: Vertical,
    *,
    active: str,
    passives: Sequence[str] = (),
    alone: bool = True,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> VerticalResult:
    """Align the parties' windows, train, and measure on the test span; with `alone` also the active party without the others.

    `channel` reaches `VerticalParty` nodes by these names. Without passives the active party trains on all it holds: what a
    comparison with pooled data needs. `checkpoint`: a file, written after each epoch; the same call goes on from there, to the
    same model, if the parties still have what they kept. `on_epoch` is told the run's name and each epoch.

    Raises:
        FederationError: no common window, other cadences or clocks, a party that leaves (what was learnt until its last whole epoch
            is kept), embeddings of another size than deployed.
    """
    names = sorted(passives)
    deployed = _deploy(channel, settings, active, names)
    before = channel.now()
    found = intersect(channel, [active, *names], deadline_s=settings.deadline_s) if names else None
    align_seconds = channel.now() - before
    ledger = Ledger.open(checkpoint, _mark(settings, active, names, found))
    runs = partial(Session, channel, settings, active=active, ledger=ledger, aligned=found is not None, on_epoch=on_epoch)
    without = runs(run="alone", passives=()).through() if alone and names else None
    together = runs(run="vertical", passives=tuple(names)).through()
    # A window is sent once an epoch, one of validation once more at the end; after an interruption perhaps once more, for nothing.
    releases = len(together.trial.epochs) + ledger.runs["vertical"].starts
    noise = epsilon_embedding(settings.embedding_noise, releases, DELTA) if names else None
    return VerticalResult(
        active=active,
        passives=names,
        model=settings.model,
        seed=settings.seed,
        offered=dict(found.sizes) if found else {},
        common=found.common if found else sum(together.windows.values()),
        windows=together.windows,
        widths=together.widths,
        vertical=together.trial,
        alone=without.trial if without else None,
        align_bytes=deployed.total + (found.traffic.total if found else 0),
        align_seconds=align_seconds,
        align_energy_j=_energy_j(deployed, *([found.traffic] if found else [])),
        epsilon_embedding=noise,
        delta=DELTA,
    )


def _energy_j(*traffic: Traffic) -> float | None:
    """What the parties say they spent, together."""
    known = [joules for t in traffic for joules in t.energy_j.values()]
    return sum(known) if known else None


def _deploy(channel: Channel, settings: Vertical, active: str, passives: Sequence[str]) -> Traffic:
    """Tell everyone the settings, and see that their telemetry can belong together."""
    parcel = Parcel(values={"settings": settings.model_dump_json()})
    parcels = dict.fromkeys((active, *passives), parcel)
    traffic = Traffic()
    replies = ask(
        channel,
        "vertical_deploy",
        parcels,
        deadline_s=settings.deadline_s,
        traffic=traffic,
        wants=("active", "cadence_s", "clock"),
    )
    for party, reply in replies.items():
        if bool(reply.values["active"]) != (party == active):
            raise Refused(
                f"party '{party}' holds {'' if reply.values['active'] else 'no '}targets; exactly one party is active, "
                f"and that was to be '{active}'"
            )
    for what in ("cadence_s", "clock"):
        found = {party: reply.values[what] for party, reply in replies.items()}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{party}: {value}" for party, value in found.items())
            raise FederationError(f"the parties' {what} differs ({said}); bring all telemetry to one before it is aligned")
    return traffic


def _mark(settings: Vertical, active: str, passives: Sequence[str], found: Intersection | None) -> dict[str, Any]:
    """Which training a checkpoint belongs to."""
    sizes = [] if found is None else [*sorted(found.sizes.values()), found.common]
    return {"settings": settings.model_dump(mode="json"), "active": active, "passives": list(passives), "windows": sizes}
