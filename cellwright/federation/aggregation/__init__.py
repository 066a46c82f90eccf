"""Aggregation rules, one a file: from the owners' updates to the next global weights (M.3387 9.3).

averages             fedavg, fedprox (owners stay near), fedadam and fedyogi (the coordinator takes an optimiser's step), scaffold
against poison       fedmedian, trimmed_mean, krum
no one is waited for fedbuff (asynchronous), semi_synchronous
several models       clustered (one a cluster), personalised (shared body, own head)
regions              hierarchical (edges first, then the cloud)
closed forms         fedgram (ridge), bagging (trees)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellwright.families import member, members

if TYPE_CHECKING:
    from cellwright.federation.aggregation._contract import Rule

__all__ = ["names", "rule"]


def names() -> tuple[str, ...]:
    """The rules there are, sorted."""
    return members(__name__)


def rule(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """A rule with its options (`federation.rule`, `federation.rule_options`), at its beginning.

    Raises:
        UnknownName: there is no such rule; the message lists those there are.
        ParamsError: an option that the rule does not have (the nearest is named), or a value out of range.
    """
    from cellwright.training.candidates import parse_options

    module = member(__name__, name, what="aggregation rule")
    made: Rule = module.Rule(parse_options(module.Options, options or {}, name, where="federation.rule_options"))
    return made
