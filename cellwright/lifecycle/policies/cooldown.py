"""Retrain once a change: when enough sites drifted and enough telemetry of the new regime is there, and never twice in a row."""

from __future__ import annotations

from cellwright.lifecycle.policies._contract import Decision, Situation
from cellwright.params import Monitor

title = "Settle and cool down"


def decide(situation: Situation, params: Monitor) -> Decision:
    """The rule; its limits are those of the `monitor` section."""
    sites, first = situation.drifted_sites, situation.first_drift_h
    if first is None or sites == 0:
        return Decision(False, "no site drifts")
    if sites < params.min_sites:
        return Decision(False, f"{sites} of the {params.min_sites} sites that are wanted drift")
    age_h = situation.now_h - first
    if age_h < params.settle_h:
        return Decision(
            False, f"{sites} sites drift; {params.settle_h - age_h:.0f} h more telemetry of the new regime are wanted"
        )
    last = situation.last_retraining_h
    if last is not None and situation.now_h - last < params.cooldown_h:
        left_h = params.cooldown_h - (situation.now_h - last)
        return Decision(
            False, f"{sites} sites drift, but the last retraining was {situation.now_h - last:.0f} h ago; {left_h:.0f} h to wait"
        )
    return Decision(True, f"{sites} sites have drifted for {age_h:.0f} h")
