"""zstd with the base as what was said before: any bytes that lie near the same place in the base are referred to. For small files.

The target is compressed in segments of 8 MiB, each with the base's bytes from 4 MiB before to 4 MiB after it as its dictionary: a
decompressor must hold what it refers to, so the whole of a large base would not fit a device's memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from cellwright.delta.modes._contract import Binary, DeltaError, Mode, Sink, Sources, Streams
from cellwright.delta.streams import level

SEGMENT_BYTES, MARGIN_BYTES = 8 << 20, 4 << 20
_WINDOW_LOG = 25  # the dictionary and the segment
_LEAST_DICTIONARY_BYTES = 8  # zstd refuses a shorter one
_LENGTH_BYTES = 4


class Way(Mode):
    """One zstd frame a segment, each after its length."""

    title = "zstd with the base as prefix"

    def difference(self, base: Binary, target: Binary, into: Streams) -> None:
        effort = max(level(target.bytes), 9)  # below, zstd does not look for what lies far back in the dictionary
        for start, count in _segments(target.bytes):
            dictionary = _dictionary(base, start, count)
            known = len(dictionary) if dictionary else 0
            chosen = zstandard.ZstdCompressionParameters.from_level(
                effort,
                source_size=count,
                dict_size=known,
                window_log=min(_WINDOW_LOG, max(10, (known + count).bit_length())),
                enable_ldm=True,
                write_content_size=1,
                write_dict_id=0,
            )
            packer = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=chosen)
            frame = packer.compress(target.read(start, count))
            into.write_plain("frames", len(frame).to_bytes(_LENGTH_BYTES, "little") + frame)

    def rebuild(self, base: Binary, streams: Sources, sink: Sink) -> None:
        for start, count in _segments(sink.left):
            length = int.from_bytes(streams.read_plain("frames", _LENGTH_BYTES), "little")
            if length > 2 * SEGMENT_BYTES:
                raise DeltaError(f"the patch has a segment of {length} bytes for {count}; it is refused")
            sink.write(_decompressed(streams.read_plain("frames", length), _dictionary(base, start, count), count))


def _segments(total: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, SEGMENT_BYTES):
        yield start, min(SEGMENT_BYTES, total - start)


def _dictionary(base: Binary, start: int, count: int) -> zstandard.ZstdCompressionDict | None:
    low = max(0, min(start - MARGIN_BYTES, base.bytes))
    high = min(start + count + MARGIN_BYTES, base.bytes)
    if high - low < _LEAST_DICTIONARY_BYTES:
        return None
    return zstandard.ZstdCompressionDict(base.read(low, high - low), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _decompressed(frame: bytes, dictionary: zstandard.ZstdCompressionDict | None, count: int) -> bytes:
    """A frame of exactly `count` bytes; its own claim is read before anything is reserved for it."""
    try:
        claimed = zstandard.get_frame_parameters(frame).content_size
        if claimed != count:
            raise DeltaError(f"the patch has a segment that claims {claimed} bytes where {count} belong; it is refused")
        opener = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << _WINDOW_LOG)
        return opener.decompress(frame, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DeltaError(f"the patch has a damaged segment ({error}); make or fetch the patch again") from error
