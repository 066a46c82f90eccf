"""Content-defined chunks: what the base has is copied from where it lies there, the rest is compressed. For insertions and moves."""

from __future__ import annotations

from cellwright.delta.copies import copies
from cellwright.delta.instructions import Instruction, carry_out, spell
from cellwright.delta.modes._contract import Binary, Mode, Sink, Sources, Streams


class Way(Mode):
    """Instructions `copy` and `new`."""

    title = "Content-defined chunks"

    def difference(self, base: Binary, target: Binary, into: Streams) -> None:
        at, told = 0, []
        for copy in copies(base, target):
            told += [Instruction.new(copy.start - at), Instruction("copy", copy.count, copy.base)]
            at = copy.stop
        spell([*told, Instruction.new(target.bytes - at)], base, target, into)

    def rebuild(self, base: Binary, streams: Sources, sink: Sink) -> None:
        carry_out(base, streams, sink)
