"""Grows the forest of models/trees.py with scikit-learn, one ensemble a horizon step, target and quantile.

The newest tenth of the windows is held out: an ensemble stops where its error there has not fallen for `patience` trees, and
keeps the trees up to the best. Each ensemble may take its share of what is left of the budget; the clock is looked at after each
tree, and an ensemble keeps its best so far. Of fewer than 1,000 measured windows none is held out: an ensemble grows one tree for
every eight of them (at most `trees`), and no clock stops it. On one thread, so that equal seeds give equal trees.

Legend: N windows, P features, E ensembles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cellwright.errors import TrainingError
from cellwright.training.fitters import Ended, Ending
from models._contract import Batch, Network
from models._layers.trees import Tree

_HELD_SHARE = 0.1
_LEAST_HELD_FROM = 1000  # windows: a tenth of fewer says too little to stop by
_ROWS_PER_TREE = 8  # where nothing is held out
_LOSSES = {"absolute": "absolute_error", "squared": "squared_error"}


@dataclass(frozen=True)
class _Rows:
    """The training windows as the trees see them, in order of time."""

    h_NP: np.ndarray
    y_NE: np.ndarray  # corrections of the last value, one column a horizon step and target
    measured_NE: np.ndarray


@dataclass(frozen=True)
class _Grown:
    trees: list[Tree]
    start: float
    ended: Ending
    bins: Any  # sklearn's histogram bins of the features


def fit(network: Network, batches: Iterable[Batch], *, seed: int, budget_s: float | None = None) -> Ended:
    """Grow all ensembles of a network of models/trees.py, and plant them in it.

    Raises:
        TrainingError: an output has no measured target.
    """
    from threadpoolctl import threadpool_limits

    deadline = math.inf if budget_s is None else time.monotonic() + budget_s
    blocks: Any = network.blocks
    rows, levels = _gathered(blocks.embed, batches), network.problem.quantiles or (None,)
    jobs = [(column, level) for column in range(rows.y_NE.shape[1]) for level in levels]
    grown: list[_Grown] = []
    with threadpool_limits(limits=1, user_api="openmp"):
        for number, (column, level) in enumerate(jobs):
            now = time.monotonic()
            until = now + (deadline - now) / (len(jobs) - number)
            bins = grown[0].bins if grown else None
            grown.append(_grow(network.options, rows, column, level, seed + number, until, bins))
    blocks.core.forest.plant([g.trees for g in grown], torch.tensor([g.start for g in grown]))
    return _ended(grown, network.options)


def _gathered(design: Any, batches: Iterable[Batch]) -> _Rows:
    """Everything but the design of each window is let go of at once."""
    parts: list[tuple[np.ndarray, ...]] = []
    with torch.no_grad():
        for batch in batches:
            state = design({"x": batch.x, "known": batch.known})
            y = batch.y - state["base"].squeeze(-1)
            parts.append(tuple(t.flatten(1).cpu().numpy() for t in (state["h"], y, batch.mask > 0)))
    return _Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _grow(options: Any, rows: _Rows, column: int, level: float | None, seed: int, until: float, bins: Any) -> _Grown:
    kept = np.flatnonzero(rows.measured_NE[:, column])
    if not len(kept):
        raise TrainingError("trees need at least one measured target of each output in the training windows, found none for some")
    held = int(len(kept) * _HELD_SHARE) if len(kept) >= _LEAST_HELD_FROM else 0
    learn, check = kept[: len(kept) - held], kept[len(kept) - held :]
    model = _regressor(options, level, len(learn), bool(held), seed)
    model.until, model.bins = until, bins
    h, y = rows.h_NP, rows.y_NE[:, column]
    if held:
        model.fit(h[learn], y[learn], X_val=h[check], y_val=y[check])
    else:
        model.fit(h[learn], y[learn])
    return _taken(model, bool(held))


def _regressor(options: Any, level: float | None, rows: int, held: bool, seed: int) -> Any:
    most = options.trees if held else min(options.trees, max(1, rows // _ROWS_PER_TREE))
    return _timed()(
        loss="quantile" if level is not None else _LOSSES[options.loss],
        quantile=level,
        learning_rate=options.learning_rate,
        max_iter=most,
        max_leaf_nodes=options.leaves,
        max_depth=options.depth,
        min_samples_leaf=max(1, min(options.min_rows, rows // 20)),
        l2_regularization=options.penalty,
        max_features=options.feature_share,
        early_stopping=held,
        n_iter_no_change=options.patience,
        tol=0.0,
        random_state=seed,
    )


def _timed() -> Any:
    """The regressor, with a clock and with bins that are found once: all ensembles see the same features.

    It stops growing where it would look for early stopping, once `until` has passed. (Both hooks are sklearn's own, not public.)
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    class Timed(HistGradientBoostingRegressor):
        until = math.inf
        late = False
        bins: Any = None

        def _bin_data(self, X: Any, sample_weight: Any, is_training_data: bool) -> Any:
            if self.bins is None or not is_training_data:
                return super()._bin_data(X, sample_weight, is_training_data)
            self._bin_mapper = self.bins
            return self.bins.transform(X)

        def _check_early_stopping_loss(self, *args: Any, **kwargs: Any) -> bool:
            enough = bool(super()._check_early_stopping_loss(*args, **kwargs))
            self.late = not enough and len(self._predictors) > 0 and time.monotonic() >= self.until
            return enough or self.late

    return Timed


def _taken(model: Any, held: bool) -> _Grown:
    """The fitted trees as tensors, up to the one after which the held-out error was least."""
    best = int(np.argmax(model.validation_score_)) if held else len(model._predictors)
    ended: Ending = "budget" if model.late else "converged" if held and model.n_iter_ < model.max_iter else "max_epochs"
    trees = [_tree(predictor.nodes) for (predictor,) in model._predictors[:best]]
    return _Grown(trees, float(model._baseline_prediction.item()), ended, model._bin_mapper)


def _tree(nodes: np.ndarray) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    number = np.where(leaf, nodes["value"].astype(np.float32), _below(nodes["num_threshold"]))
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    return Tree(*(torch.from_numpy(a) for a in (nodes["feature_idx"].astype(np.int64), number, left, right)))


def _below(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 that is not above: a float32 is at most that exactly where it is at most the threshold."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _ended(grown: list[_Grown], options: Any) -> Ended:
    """What ended the growth, of all ensembles together."""
    counted = f"{sum(len(g.trees) for g in grown)} trees in {len(grown)} ensembles"
    if late := sum(g.ended == "budget" for g in grown):
        return Ended("budget", f"the budget ended the growth of {late} of {len(grown)} ensembles; {counted}")
    if full := sum(g.ended == "max_epochs" for g in grown):
        return Ended(
            "max_epochs", f"{full} of {len(grown)} ensembles took all the trees they may (trees={options.trees}); {counted}"
        )
    return Ended("converged", f"no better held-out error for {options.patience} trees in any ensemble; {counted}")
