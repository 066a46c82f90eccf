"""Personalised: a body that all share, and a head of its own for every owner.

    the body <- weighted mean of the owners' bodies, as by FedAvg;  heads never leave their owners

Arivazhagan et al., Federated learning with personalization layers (FedPer), arXiv 1912.00818, 2019. Body and head are trained together,
as there. In the global weights the head stays as it was at the beginning: a newcomer's, before it trains its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples, dataclass, option
from cellwright.federation.aggregation._sums import moved
from cellwright.federation.contract import Arrays, Local, Update


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of personalised federated learning."""

    private: tuple[str, ...] = option(("blocks.head",), "prefixes of the parameters that are each owner's own")


class Rule(_contract.Rule):
    """FedAvg of what is not private."""

    title = "Personalised FedAvg"
    paper = "Arivazhagan et al., Federated learning with personalization layers, arXiv 1912.00818, 2019"
    one_model = False

    def local(self, local: Local, round_: int) -> Local:
        return replace(local, private=tuple(self.options.private))

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        shared = [replace(u, delta=self._shared(u.delta)) for u in self.checked(updates)]
        return moved(current, shared, by_examples(shared))

    def _shared(self, delta: Arrays) -> Arrays:
        return {name: array for name, array in delta.items() if not name.startswith(tuple(self.options.private))}
