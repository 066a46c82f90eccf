"""Clustered federated learning: owners whose updates point apart end with models of their own.

    while  |mean update| < relative_mean · largest |update|  in a cluster: it has come to rest, though its owners have not, so it is
    split in two where the largest cosine between an update of one side and one of the other is smallest

Sattler, Müller and Samek, Clustered federated learning: model-agnostic distributed multitask optimization under privacy constraints,
IEEE Transactions on Neural Networks and Learning Systems 32(8), 2021. Within a cluster updates are averaged as by FedAvg. All begin in
one cluster. The paper's two thresholds are here one ratio, which knows no units; a split waits for the first rounds to pass
and needs enough owners on both sides. The global weights are the mean of the clusters' by owners: what a newcomer begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples, dataclass, option, under
from cellwright.federation.aggregation._sums import flat, moved, weighted
from cellwright.federation.contract import Arrays, Update


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of clustered federated learning."""

    clusters: int = option(4, "most clusters", low=1)
    relative_mean: float = option(
        0.4, "a cluster whose mean update is shorter than this share of its longest one is split", low=0.0, high=1.0
    )
    warm_up: int = option(3, "rounds before the first split, and between two", low=0)
    members: int = option(2, "fewest owners of a cluster", low=1)


class Rule(_contract.Rule):
    """Several global models, each owner's by its cluster."""

    title = "Clustered FedAvg"
    paper = "Sattler, Müller and Samek, Clustered federated learning, IEEE TNNLS 32(8), 2021"
    linear = False
    one_model = False

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._models: list[Arrays] = []  # by cluster
        self._cluster: dict[str, int] = {}  # by owner
        self._quiet = 0  # rounds since the last split

    @property
    def clusters(self) -> dict[str, int]:
        """Number of its cluster, by owner."""
        return dict(self._cluster)

    def start_for(self, owner: str, current: Arrays) -> Arrays:
        """Its cluster's weights; the global ones for an owner not heard of yet."""
        if owner not in self._cluster:
            return current
        model = self._models[self._cluster[owner]]
        return {name: model[name] for name in current}  # in the network's order, which a checkpoint does not keep

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        self.checked(updates)
        self._models, self._cluster = list(self._models or [current]), dict(self._cluster)
        self._welcome([u.owner for u in updates])
        self._quiet += 1
        for cluster in range(len(self._models)):
            if inside := [u for u in updates if self._cluster[u.owner] == cluster]:
                self._models[cluster] = moved(self._models[cluster], inside, by_examples(inside))
                self._split(cluster, inside)
        return self._mean(current)

    def _welcome(self, owners: Sequence[str]) -> None:
        """Newcomers join the largest cluster."""
        for owner in owners:
            sizes = np.bincount(list(self._cluster.values()) or [0], minlength=len(self._models))
            self._cluster.setdefault(owner, int(np.argmax(sizes)))

    def _split(self, cluster: int, updates: Sequence[Update]) -> None:
        """Two of one cluster, if its owners pull apart; those that were not heard this round stay."""
        o = self.options
        if len(self._models) >= o.clusters or self._quiet <= o.warm_up or len(updates) < 2 * o.members:
            return
        deltas = np.stack([flat(u) for u in updates])
        longest = np.linalg.norm(deltas, axis=1).max()
        if not np.linalg.norm(by_examples(updates) @ deltas) < o.relative_mean * longest:
            return
        leaving = bipartition(cosines(deltas))
        if min(leaving.sum(), (~leaving).sum()) < o.members:
            return
        for update in (u for u, leaves in zip(updates, leaving, strict=True) if leaves):
            self._cluster[update.owner] = len(self._models)
        self._models.append({name: array.copy() for name, array in self._models[cluster].items()})
        self._quiet = 0

    def _mean(self, current: Arrays) -> Arrays:
        """Of the clusters' weights, by owners."""
        sizes = np.bincount(list(self._cluster.values()), minlength=len(self._models))
        shares = sizes / sizes.sum()
        return {name: weighted([m[name] for m in self._models], shares).astype(a.dtype) for name, a in current.items()}

    def state(self) -> Arrays:
        models = {f"model/{k:04}/{name}": array for k, model in enumerate(self._models) for name, array in model.items()}
        owners = {f"owner/{owner}": np.array([k], np.int32) for owner, k in sorted(self._cluster.items())}
        return {"quiet": np.array([self._quiet], np.int32), **models, **owners}

    def restore(self, state: Arrays) -> None:
        numbers = sorted({name.split("/")[1] for name in state if name.startswith("model/")})
        self._models = [under(state, f"model/{number}/") for number in numbers]
        self._cluster = {owner: int(k[0]) for owner, k in under(state, "owner/").items()}
        self._quiet = int(state["quiet"][0])


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of every pair of rows; 0 with a row of zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    return np.asarray(unit @ unit.T)


def bipartition(similar: np.ndarray) -> np.ndarray:
    """Two groups such that the largest similarity between them is smallest: True where a row is not in the first row's group.

    That is single linkage, cut where two clusters are left.
    """
    from sklearn.cluster import AgglomerativeClustering

    distance = np.clip(1 - similar, 0, None)  # a cosine may be a little above 1
    group = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage="single").fit_predict(distance)
    return np.asarray(group != group[0])
