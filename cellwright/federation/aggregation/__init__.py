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

from cellwright.errors import ParamsError
from cellwright.families import member, members

if TYPE_CHECKING:
    from cellwright.federation.aggregation._contract import Rule
    from models._contract import Options

__all__ = ["names", "options_of", "rule"]

_WHERE = "federation.rule_options"


def names() -> tuple[str, ...]:
    """The rules there are, sorted."""
    return members(__name__)


def rule(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """A rule with its options (`federation.rule`, `federation.rule_options`), at its beginning.

    Args:
        options: the rule's own, by name; or those of several rules, by the rule (`options_of`).

    Raises:
        UnknownName: there is no such rule; the message lists those there are.
        ParamsError: an option that the rule does not have (the nearest is named), or a value out of range.
    """
    module = member(__name__, name, what="aggregation rule")
    given = options or {}
    where = f"{_WHERE}.{name}" if _by_rule(given) else _WHERE
    made: Rule = module.Rule(_parsed(name, options_of(name, given), where))
    return made


def options_of(name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of one rule, of `federation.rule_options`: one rule's, `{share: 0.2}`, or several's, `{krum: {share: 0.2}, …}`.

    Of several, all are held against their rules, so that a benchmark of them does not fail in the middle.

    Raises:
        ParamsError: rules and options beside each other; or an option that its rule does not have, or a value out of range.
    """
    if not _by_rule(options):
        return options
    known = names()
    if mixed := [key for key, value in options.items() if key not in known or not isinstance(value, Mapping)]:
        raise ParamsError(
            f"{_WHERE}: '{mixed[0]}' stands beside options by rule ({', '.join(k for k in options if k in known)}), and is none: give "
            "each rule a mapping of its own options, or one rule's options alone"
        )
    for other, own in options.items():
        _parsed(other, own, f"{_WHERE}.{other}")
    found: Mapping[str, Any] = options.get(name, {})
    return found


def _by_rule(options: Mapping[str, Any]) -> bool:
    return any(key in names() and isinstance(value, Mapping) for key, value in options.items())


def _parsed(name: str, options: Mapping[str, Any], where: str) -> Options:
    from cellwright.training.candidates import parse_options

    return parse_options(member(__name__, name, what="aggregation rule").Options, options, name, where=where)
