"""`<rule>:<model>` as an entry of `train.models`: `fedavg:gru`, `fedprox:patchtst`, `fedavg:vmrnn:b`."""

from __future__ import annotations

from typing import NamedTuple

from cellwright.families import members

RULES = "cellwright.federation.aggregation"  # the family


class FederatedKey(NamedTuple):
    """A candidate that is trained where the data lie."""

    rule: str
    model: str  # as it would stand in train.models by itself


def federated(key: str) -> FederatedKey | None:
    """The parts of a federated candidate's key; None: it is a candidate that is trained centrally."""
    rule, colon, model = key.partition(":")
    if not colon or not model or rule.replace("-", "_") not in members(RULES):
        return None
    return FederatedKey(rule, model)
