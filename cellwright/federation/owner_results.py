"""What each owner of a federation came to: its error, its work, what it contributed and earned (M.3387 8.4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cellwright.federation.planning import Plan
from cellwright.federation.quality.incentive import Incentive, Spending
from cellwright.federation.results import OwnerResult, OwnerRound
from cellwright.federation.rounds import Outcome
from cellwright.results import EnergyReading, Reading

if TYPE_CHECKING:
    from cellwright.federation.federate import Bed

METER = "each owner's CPU-seconds × watts of a busy core of its machine"


@dataclass(frozen=True)
class _Spent:
    """What one owner did over all rounds."""

    rounds: int
    cpu_s: float
    energy_j: float | None
    source: Literal["measured", "modelled", "constant"] | None
    co2_g: float | None
    up_bytes: int
    down_bytes: int


def owner_results(
    bed: Bed, made: Plan, outcome: Outcome, *, others: Iterable[str], scalers: Mapping[str, str]
) -> list[OwnerResult]:
    """Of every owner, sorted.

    Args:
        others: owners that did not train, and whose sites are forecast all the same.
        scalers: owners whose scaler is not known, and why.
    """
    lines: dict[str, list[OwnerRound]] = {owner: [] for owner in made.owners}
    for record in outcome.rounds:
        for entry in record.owners:
            lines.setdefault(entry.owner, []).append(entry)
    rewards = _rewards(bed, outcome, {owner: _spent(entries) for owner, entries in lines.items()})
    took_part, found = frozenset(lines), []
    for owner in sorted(took_part | set(others)):
        result = _owner(bed, owner, lines.get(owner, []), outcome, rewards)
        found.append(result.model_copy(update={"trained": owner in took_part, "scaler": scalers.get(owner, "")}))
    return found


def _owner(bed: Bed, owner: str, lines: Sequence[OwnerRound], outcome: Outcome, rewards: Mapping[str, float]) -> OwnerResult:
    evaluation, given, spent = outcome.evaluations.get(owner), outcome.contributions.get(owner), _spent(lines)
    return OwnerResult(
        owner=owner,
        sites=bed.sites_of(owner),
        examples=max((line.examples for line in lines), default=0),
        rounds=spent.rounds,
        mae=evaluation.mae if evaluation else None,
        contribution=given.shapley if given else None,
        contribution_loo=given.leave_one_out if given else None,
        reward=rewards.get(owner),
        reliability=outcome.reliability.get(owner, 1.0),
        cpu_s=spent.cpu_s,
        energy_j=spent.energy_j,
        energy_source=spent.source,
        co2_g=spent.co2_g,
        up_bytes=spent.up_bytes,
        down_bytes=spent.down_bytes,
    )


def _spent(lines: Sequence[OwnerRound]) -> _Spent:
    joules = [line.energy_j for line in lines if line.energy_j is not None]
    grams = [line.co2_g for line in lines if line.co2_g is not None]
    return _Spent(
        rounds=sum(line.outcome in ("counted", "late") for line in lines),
        cpu_s=math.fsum(line.cpu_s for line in lines),
        energy_j=math.fsum(joules) if joules else None,
        source=next((line.energy_source for line in lines if line.energy_source), None),
        co2_g=math.fsum(grams) if grams else None,
        up_bytes=sum(line.up_bytes for line in lines),
        down_bytes=sum(line.down_bytes for line in lines),
    )


def _rewards(bed: Bed, outcome: Outcome, spent: Mapping[str, _Spent]) -> dict[str, float]:
    """By contribution, work and reliability (quality/incentive.py); nothing where contribution was not measured."""
    if not outcome.contributions:
        return {}
    gains = {owner: outcome.contributions[owner].shapley if owner in outcome.contributions else 0.0 for owner in spent}
    put_in = {owner: Spending(s.cpu_s, s.energy_j, s.up_bytes + s.down_bytes) for owner, s in spent.items()}
    return Incentive(pot=bed.params.federation.reward_pot).rewards(gains, put_in, outcome.reliability)


def energy(owners: Sequence[OwnerResult], wall: float) -> EnergyReading | None:
    """All owners together; None: nobody told."""
    joules = [o.energy_j for o in owners if o.energy_j is not None]
    grams = [o.co2_g for o in owners if o.co2_g is not None]
    if not joules:
        return None
    unknown = Reading(energy_j=None, source=None)
    return EnergyReading(
        cpu=Reading(energy_j=math.fsum(joules), source=next((o.energy_source for o in owners if o.energy_source), None)),
        ram=unknown,
        gpu=unknown,
        duration_s=wall,
        cpu_s=math.fsum(o.cpu_s for o in owners),
        idle_w=None,
        co2_g=math.fsum(grams) if grams else None,
        shared=False,
        meter=METER,
    )
