"""A federation as it leaves its files in a candidate's folder: federation.json and rounds.jsonl, through the real result classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellwright.federation.management.topology import drawn
from cellwright.federation.results import Federated, OwnerResult, OwnerRound, Round
from cellwright.results import DataVersion, EnergyReading, Reading

UP, DOWN = 61_741, 121_322  # bytes a round and owner


@dataclass(frozen=True)
class Told:
    """How the federation is made up."""

    owners: int = 4
    rounds: int = 6
    regions: int = 0  # edges; 0: a star
    compared: bool = True
    metered: bool = True
    epsilon: float | None = None  # a round
    lost: tuple[str, ...] = ()  # owners that vanish in the third round
    names: tuple[str, ...] = ()
    key: str = "fedavgm:gru"
    reason: str = "all rounds are done"
    decision: str = ""  # of the fifth round
    classified: bool = False

    @property
    def all_names(self) -> tuple[str, ...]:
        return self.names or tuple(f"cell-{i:03d}" for i in range(self.owners))


def write(folder: Path, told: Told) -> Federated:
    """Both files; returns what is in federation.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rounds = [_round(told, number) for number in range(1, told.rounds + 1)]
    (folder / "rounds.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in rounds))
    return federated(told, rounds).save(folder / "federation.json")


def _round(told: Told, number: int) -> Round:
    rebuilt = bool(told.lost) and number >= 3
    owners = [
        _owner_round(told, name, i, number) for i, name in enumerate(told.all_names) if not (number > 3 and name in told.lost)
    ]
    words = f"topology 2 after 1: {', '.join(told.lost)} cannot be reached"
    return Round(
        round=number,
        topology=2 if rebuilt else 1,
        owners=owners,
        validation_loss=0.3 + 0.5 / number,
        mae=20 + 10 / number,
        mse=900.0,
        precision=0.7 if told.classified else None,
        recall=0.6 if told.classified else None,
        auc=0.9 if told.classified else None,
        learning_rate=5e-3 * 0.96**number,
        epsilon=told.epsilon * number if told.epsilon is not None else None,
        delta=1e-5 if told.epsilon is not None else None,
        up_bytes=UP * len(owners),
        down_bytes=DOWN * len(owners),
        seconds=2.5,
        decision=told.decision if number == 5 else "",
        events=(words,) if told.lost and number == 3 else (),
    )


def _owner_round(told: Told, name: str, index: int, number: int) -> OwnerRound:
    lost = name in told.lost and number == 3
    return OwnerRound(
        owner=name,
        outcome="lost" if lost else "counted",
        reason="it vanished before its update came" if lost else "",
        steps=13,
        examples=1000 + index,
        train_loss=0.3,
        mae=10 + index / 10 + 5 / number,
        seconds=2.0,
        cpu_s=0.2,
        energy_j=0.8 if told.metered else None,
        energy_source="modelled" if told.metered else None,
        up_bytes=UP,
        down_bytes=DOWN,
        weight=1 / len(told.all_names),
    )


def federated(told: Told, rounds: list[Round]) -> Federated:
    rng, names = np.random.default_rng(5), told.all_names
    errors = 10 + 30 * rng.random(len(names))
    owners = [_owner(told, name, float(errors[i]), i, float(rng.normal())) for i, name in enumerate(names)]
    here = [name for name in names if name not in told.lost]
    parents = {name: f"edge-{i % told.regions}" if told.regions else "cloud" for i, name in enumerate(here)}
    kind, version = "hierarchy" if told.regions else "star", 2 if told.lost else 1
    reason = "nodes were lost" if told.lost else ""
    topology = drawn("request-1", kind, "cloud", parents, auditor="auditor", version=version, reason=reason)
    last = rounds[-1] if rounds else None
    return Federated(
        key=told.key,
        rule=told.key.partition(":")[0],
        rule_title="FedAvgM",
        rule_options={"momentum": 0.9},
        timing="synchronous",
        model="gru",
        runtime="local",
        status="rounds",
        reason=told.reason,
        rounds=len(rounds),
        owners=owners,
        mae=22.0,
        mae_validation=24.0,
        mae_alone=25.0 if told.compared else None,
        mae_central=20.0 if told.compared else None,
        privacy=["Central differential privacy"] if told.epsilon is not None else [],
        epsilon=last.epsilon if last else None,
        delta=last.delta if last else None,
        epsilon_unit="per owner" if told.epsilon is not None else "",
        compression="none",
        up_bytes=sum(o.up_bytes for o in owners),
        down_bytes=sum(o.down_bytes for o in owners),
        seconds=2.5 * len(rounds),
        wall_s=20.0,
        energy=_energy(owners) if told.metered else None,
        topology=topology.model_dump(mode="json"),
        topologies=version,
        audit_log="job/audit.jsonl",
        audit_head="ab" * 32,
        data=DataVersion(
            dataset="city",
            hash="0123456789abcdef0123456789abcdef.dir",
            rows=960,
            sites=16,
            first="2013-10-31T23:00:00Z",
            last="2013-11-20T22:30:00Z",
        ),
        explanation=("request: normal", f"{len(names)} owners chosen, 0 left out"),
    )


def _owner(told: Told, name: str, mae: float, index: int, drift: float) -> OwnerResult:
    gone = name in told.lost
    rounds = 2 if gone else told.rounds
    return OwnerResult(
        owner=name,
        sites=[name],
        examples=1000 + index,
        rounds=rounds,
        mae=None if gone else mae,
        mae_alone=mae * 1.1 if told.compared else None,
        mae_central=mae * 0.98 if told.compared else None,
        contribution=0.2 + 0.3 * drift if told.compared else None,
        contribution_loo=0.1 + 0.3 * drift if told.compared else None,
        reward=100 / len(told.all_names) if told.compared else None,
        reliability=0.8 if gone else 1.0,
        cpu_s=0.2 * rounds,
        energy_j=0.8 * rounds if told.metered else None,
        energy_source="modelled" if told.metered else None,
        co2_g=1e-4 * rounds if told.metered else None,
        up_bytes=UP * rounds,
        down_bytes=DOWN * rounds,
    )


def _energy(owners: list[OwnerResult]) -> EnergyReading:
    unknown = Reading(energy_j=None, source=None)
    return EnergyReading(
        cpu=Reading(energy_j=sum(o.energy_j or 0 for o in owners), source="modelled"),
        ram=unknown,
        gpu=unknown,
        duration_s=20.0,
        cpu_s=sum(o.cpu_s for o in owners),
        idle_w=None,
        co2_g=0.003,
        shared=False,
        meter="CPU-seconds × watts of a busy core",
    )
