"""Bagging: every owner grows trees on its own rows; the federation's forest is all of them, each voting by its owner's windows.

    forecast = sum over owners of (n_i / n) forecast_i

Breiman, Bagging predictors, Machine Learning 24(2), 1996, with owners in place of bootstrap samples. One round; what travels is each
owner's forest as tables (models/trees.py). The forest is as large as all owners' together. Thresholds of splits are values of an
owner's data, normalised: its trees do tell something of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples, dataclass, under
from cellwright.federation.contract import Arrays, Update

FOREST = "blocks.core.forest."  # of models/trees.py


@dataclass(frozen=True)
class Options(_contract.Options):
    """Bagging has none."""


class Rule(_contract.Rule):
    """The weighted union of the owners' forests."""

    title = "Bagging"
    paper = "Breiman, Bagging predictors, Machine Learning 24(2), 1996"
    linear = False
    closed_form = True

    def weights(self, updates: Sequence[Update]) -> np.ndarray:
        return by_examples(updates)

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        """All owners' trees; sizes are those of the union, types as the network has them."""
        import torch

        from models._layers.trees import joined

        if not under(current, FOREST):
            raise FederationError(
                "bagging joins forests, and this network has none; federate 'trees' by it, or choose another rule"
            )
        forests = [{n: torch.from_numpy(np.array(a)) for n, a in under(u.delta, FOREST).items()} for u in self.checked(updates)]
        try:
            tables = joined(forests, self.weights(updates).tolist())
        except (KeyError, ValueError, RuntimeError) as error:
            raise FederationError(
                f"the owners' forests do not fit together ({error}); all must grow trees of one form"
            ) from error
        return {**current, **{FOREST + name: table.numpy() for name, table in tables.items()}}
