"""What every codec keeps to: an update in, fewer bytes out; what was lost can be fed back into the next one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from cellwright.federation.contract import Arrays
from models._contract import Options, option

__all__ = ["Codec", "Encoded", "Options", "dataclass", "option"]


@dataclass(frozen=True)
class Encoded:
    """An update on its way: arrays of any dtype, and what was lost by encoding."""

    arrays: Arrays  # what travels; names are the codec's own
    lost: Arrays  # original minus decoded, float32; empty: nothing


class Codec(ABC):
    """A file holds `Options` and `Codec`."""

    title: ClassVar[str]
    paper: ClassVar[str] = ""
    feedback: ClassVar[bool] = False  # whether what is lost is added to the owner's next update (error feedback)

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def encode(self, delta: Arrays) -> Encoded:
        """Encode an update."""

    @abstractmethod
    def decode(self, arrays: Arrays, like: Arrays) -> Arrays:
        """The update in the names, shapes and order of `like`, float32.

        Raises:
            FederationError: the arrays are not what `encode` makes of such an update.
        """
