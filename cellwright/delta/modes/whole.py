"""The target alone, compressed: what a device without the base gets, and what every other mode has to beat."""

from __future__ import annotations

from cellwright.delta.binary import PART_BYTES
from cellwright.delta.modes._contract import Binary, Mode, Sink, Sources, Streams


class Way(Mode):
    """One zstd stream."""

    title = "Whole file, compressed"
    needs_base = False

    def difference(self, base: Binary, target: Binary, into: Streams) -> None:
        for part in target.parts():
            into.write("new", part)

    def rebuild(self, base: Binary, streams: Sources, sink: Sink) -> None:
        while sink.left:
            sink.write(streams.read("new", min(PART_BYTES, sink.left)))
