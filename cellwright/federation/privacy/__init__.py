"""Privacy mechanisms (M.3387 10.5), one a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellwright.federation.privacy._contract import Mechanism

FAMILY = "cellwright.federation.privacy"


def mechanism(name: str, options: Mapping[str, Any] | None = None) -> Mechanism:
    """The mechanism of that name, with options as in `federation.privacy_options.<name>`.

    Raises:
        UnknownName: there is no such mechanism; the message lists those there are.
        ParamsError: an unknown option, a value of the wrong type or out of range.
    """
    from cellwright.families import member
    from cellwright.training.candidates import parse_options

    module = member(FAMILY, name, what="privacy mechanism")
    parsed = parse_options(module.Options, options or {}, name, where=f"federation.privacy_options.{name}")
    made: Mechanism = module.Mechanism(parsed)
    return made
