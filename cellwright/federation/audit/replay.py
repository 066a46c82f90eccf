"""Which of a sender's signed messages were taken already: none is taken twice, and one may overtake another (M.3387 9.4, 10.1).

Where several messages to one node, or several replies of it, are under way at once, they need not arrive in the order in which they
were signed: on a SuperNode each is answered by a process of its own. So the newest sequences are remembered one by one, and everything
at or below the newest that was let go counts as taken. What must not be overtaken ("deploy", the stages of a sealed sum) is taken
only above all before it, and what is older than it is then refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cellwright.errors import Refused
from cellwright.federation.audit.signing import sequence_of
from cellwright.federation.contract import Value

WIDTH = 64  # sequences of one sender that are remembered one by one
OVERTAKEN = frozenset({"train", "evaluate"})  # kinds that need no order: each says of which round it is


@dataclass
class Taken:
    """The sequences that were taken of one sender."""

    floor: int = -1  # it, and all below
    above: list[int] = field(default_factory=list)  # others, ascending; at most WIDTH

    @classmethod
    def read(cls, kept: object) -> Taken:
        """From what `kept` gave, or from the last sequence alone, as it was kept before."""
        if isinstance(kept, int):
            return cls(kept)
        if isinstance(kept, list) and kept and all(isinstance(n, int) for n in kept):
            return cls(kept[0], kept[1:])
        raise Refused(f"what was seen of a sender must be whole numbers, found {str(kept)[:80]!r}; deploy the request again")

    def kept(self) -> list[int]:
        """As JSON can hold it."""
        return [self.floor, *self.above]

    def take(self, values: Mapping[str, Value], *, request: str, kind: str, ordered: bool) -> None:
        """Take a verified parcel's sequence, once. `ordered`: only above all before, and none below it from then on.

        Raises:
            Refused: a replay, of another request, signed as a message of another kind, or too old to be told from a replay.
        """
        sequence = sequence_of(values, request=request, kind=kind)
        last = self.above[-1] if self.above else self.floor
        if sequence <= (last if ordered else self.floor) or sequence in self.above:
            raise Refused(f"the message has sequence {sequence}, after {last} was seen: it is a replay of an older one")
        if ordered:
            self.floor, self.above = sequence, []
            return
        self.above = sorted([*self.above, sequence])
        while len(self.above) > WIDTH:
            self.floor = self.above.pop(0)
