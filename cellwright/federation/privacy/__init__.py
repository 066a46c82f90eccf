"""Privacy mechanisms, one a file (M.3387 10.5); docs/privacy.md says what each protects against, costs and leaves.

noise          local_dp (at the owner), central_dp (on the average), dp_sgd (in training, by window)
sealed sums    secure_aggregation (pairwise masks), ckks (homomorphic encryption)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellwright.families import member, members

if TYPE_CHECKING:
    from cellwright.federation.privacy._contract import Mechanism

__all__ = ["mechanism", "names"]


def names() -> tuple[str, ...]:
    """The mechanisms there are, sorted."""
    return members(__name__)


def mechanism(name: str, options: Mapping[str, Any] | None = None) -> Mechanism:
    """A mechanism with its options (`federation.privacy`, `federation.privacy_options`), with nothing spent yet.

    Raises:
        UnknownName: there is no such mechanism; the message lists those there are.
        ParamsError: an option that it does not have (the nearest is named), or a value out of range.
    """
    from cellwright.training.candidates import parse_options

    module = member(__name__, name, what="privacy mechanism")
    where = f"federation.privacy_options.{name}"
    made: Mechanism = module.Mechanism(parse_options(module.Options, options or {}, name, where=where))
    return made
