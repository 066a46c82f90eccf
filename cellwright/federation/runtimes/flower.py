"""Flower's own strategies as aggregation rules: its `aggregate_train` computes, on messages made from the owners' updates.

All parameters travel to the strategy as one float64 vector: every strategy works number by number or on whole models, so the result is
the same as array by array, the sums are exact to float64, and a thousand owners cost a thousand messages of one array.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import flwr.serverapp.strategy as strategies
import numpy as np
from flwr.app import ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies

from cellwright.errors import FederationError, UnknownName
from cellwright.federation.aggregation._contract import FlowerRule
from cellwright.federation.contract import Arrays, Update
from cellwright.federation.runtimes.wire import packed_array

logging.getLogger("flwr").setLevel(logging.ERROR)  # a strategy logs every aggregation

_VECTOR, _WEIGHT = "vector", "num-examples"
_KINDS = ("Fed", "Krum", "MultiKrum", "Bulyan", "QFed")  # what names of Flower's aggregating strategies begin with


def aggregate(rule: FlowerRule, current: Arrays, updates: Sequence[Update]) -> Arrays:
    """The next global weights, by the strategy that `rule` names; what the strategy remembers is kept in `rule.kept`.

    Args:
        rule: names a class of flwr.serverapp.strategy, its arguments and the attributes to keep; `rounds` and `kept` are moved on.
        current: the global weights, float32.
        updates: sorted by owner; each owner's own weights are `current` plus its delta, which holds the same arrays.

    Raises:
        UnknownName: Flower has no such strategy.
        FederationError: Flower's strategy could not aggregate them.
    """
    start, round_ = _flat(current, current), rule.rounds + 1
    strategy = _strategy(rule, start, current, len(updates))
    replies = [_reply(number, start + _flat(u.delta, current), u.examples) for number, u in enumerate(updates, start=2)]
    try:
        arrays, _ = strategy.aggregate_train(round_, replies)
    except (AggregationError, InconsistentMessageReplies, ValueError, ZeroDivisionError) as error:
        raise FederationError(f"{rule.title}: Flower's {rule.strategy} could not aggregate round {round_}: {error}") from error
    rule.kept = {name: _split(_vector(getattr(strategy, name)), current) for name in rule.keeps}
    rule.rounds = round_
    return {name: part.astype(current[name].dtype) for name, part in _split(arrays[_VECTOR].numpy(), current).items()}


def _strategy(rule: FlowerRule, start: np.ndarray, like: Arrays, owners: int) -> Any:
    """The strategy as it stands before this round."""
    known = [name for name in strategies.__all__ if name.startswith(_KINDS)]
    if rule.strategy not in known:
        raise UnknownName("strategy of Flower", rule.strategy, known)
    strategy = getattr(strategies, rule.strategy)(weighted_by_key=_WEIGHT, **rule.arguments(owners))
    of_records = isinstance(strategy, strategies.FedAvgM)  # keeps records and lists where the others keep dictionaries
    if hasattr(strategy, "current_arrays"):  # what Flower's `configure_train` would have noted
        strategy.current_arrays = ArrayRecord({_VECTOR: packed_array(start)}) if of_records else {_VECTOR: start}
    for name, arrays in rule.kept.items():
        vector = _flat(arrays, like)
        setattr(strategy, name, [vector] if of_records else {_VECTOR: vector})
    return strategy


def _vector(kept: Any) -> np.ndarray:
    """What a strategy keeps, in its own form, as the one vector that it is."""
    found: np.ndarray = kept[0] if isinstance(kept, list) else kept[_VECTOR]
    return found


def _reply(node_id: int, vector: np.ndarray, examples: int) -> Any:
    """An owner's weights as the reply that Flower's strategies read."""
    content = RecordDict({"arrays": ArrayRecord({_VECTOR: packed_array(vector)}), "metrics": MetricRecord({_WEIGHT: examples})})
    about = Metadata(1, str(node_id), node_id, 1, "asked", "", 0.0, 1.0, "train")
    return Message(content=content, metadata=about)


def _flat(arrays: Arrays, like: Arrays) -> np.ndarray:
    """All arrays, in the order of `like`, as one float64 vector."""
    return np.concatenate([arrays[name].ravel() for name in like], dtype=np.float64)


def _split(vector: np.ndarray, like: Arrays) -> Arrays:
    """A vector in the names and shapes of `like`."""
    ends = np.cumsum([array.size for array in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, np.split(vector, ends[:-1]), strict=True)}
