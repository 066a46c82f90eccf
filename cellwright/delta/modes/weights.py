"""Quantised difference of weights: numbers that were trained on are described by how far they moved. For fine-tuned models.

Tensors of the two files are aligned by name (ONNX initialisers, the header of safetensors); those that have no partner of that name, by
type and size in order; files in no known format by their bytes' place. What lies in both files anyway is copied, as in `chunks`. Of the
ways to write what is left of a tensor (cellwright/delta/numbers.py) the one is taken that a sample says is smallest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cellwright.delta.copies import copies
from cellwright.delta.formats import tensors
from cellwright.delta.formats._contract import Tensor
from cellwright.delta.instructions import Instruction, carry_out, spell
from cellwright.delta.modes._contract import Binary, Mode, Sink, Sources, Streams
from cellwright.delta.numbers import coding, entropy_bytes

_SAMPLED, _SAMPLES = 1 << 16, 16  # numbers, and the places they are taken from
_WORTH_IT = 0.99  # of what zstd makes of the plain bytes, where it may find repetitions besides
_LEAST_BYTES = 32  # a shorter run is not worth an instruction


@dataclass(frozen=True)
class Pair:
    """A tensor of the target, and where its counterpart begins in the base (None: it has none)."""

    tensor: Tensor
    base: int | None


class Way(Mode):
    """Instructions `copy`, `new` and those of numbers."""

    title = "Quantised difference of weights"

    def difference(self, base: Binary, target: Binary, into: Streams) -> None:
        pairs, at, told = aligned(base, target), 0, []
        for copy in copies(base, target):
            told += [*_gap(base, target, pairs, at, copy.start), Instruction("copy", copy.count, copy.base)]
            at = copy.stop
        told += _gap(base, target, pairs, at, target.bytes)
        spell(told, base, target, into)

    def rebuild(self, base: Binary, streams: Sources, sink: Sink) -> None:
        carry_out(base, streams, sink)


def aligned(base: Binary, target: Binary) -> list[Pair]:
    """Tensors of the target in order, with their counterparts."""
    old, new = tensors(base), tensors(target)
    if new is None:
        return _opaque(base, target)
    named: dict[tuple[object, ...], list[Tensor]] = defaultdict(list)
    for tensor in reversed(old or []):
        named[tensor.name, *_form(tensor)].append(tensor)
    partners = [some.pop() if (some := named[t.name, *_form(t)]) else None for t in new]
    left: dict[tuple[object, ...], list[Tensor]] = defaultdict(list)
    for tensor in sorted((t for some in named.values() for t in some), key=lambda t: -t.start):
        left[_form(tensor)].append(tensor)
    return [
        Pair(t, p.start if (p := partner or _last(left[_form(t)])) else None) for t, partner in zip(new, partners, strict=True)
    ]


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.floating, tensor.width, tensor.count


def _last(some: list[Tensor]) -> Tensor | None:
    return some.pop() if some else None


def _opaque(base: Binary, target: Binary) -> list[Pair]:
    """All that both have, in place, as numbers of the width that makes the difference smallest."""
    both = min(base.bytes, target.bytes)
    guesses = [
        Tensor("", floating, w, 0, both // w * w) for w in (1, 2, 4, 8) for floating in (False, True) if w > 1 or not floating
    ]
    best = min(guesses, key=lambda t: _best(base, target, Pair(t, 0), 0, t.count)[1])
    return [Pair(best, 0)] if both else []


def _gap(base: Binary, target: Binary, pairs: list[Pair], start: int, stop: int) -> Iterator[Instruction]:
    """Instructions for a stretch of the target that is not in the base."""
    at = start
    first = bisect_right(pairs, start, key=lambda p: p.tensor.stop)
    for pair in islice(pairs, first, bisect_left(pairs, stop, key=lambda p: p.tensor.start)):
        t = pair.tensor
        low = t.start + -(-max(0, start - t.start) // t.width) * t.width  # the first and the last whole number in the stretch
        high = t.start + (min(stop, t.stop) - t.start) // t.width * t.width
        code = _best(base, target, pair, low, high)[0] if high - low >= _LEAST_BYTES else "new"
        if code != "new":
            yield Instruction.new(low - at)
            yield Instruction(
                code, high - low, pair.base + low - t.start if pair.base is not None and coding(code).based else None
            )
            at = high
    yield Instruction.new(stop - at)


def _best(base: Binary, target: Binary, pair: Pair, low: int, high: int) -> tuple[str, float]:
    """The way that makes a stretch of a tensor smallest, and the share that is then left of it, judged by samples of it."""
    t = pair.tensor
    new = _sampled(target, low, high, t.width)
    if not len(new):
        return "new", 1.0
    old = None if pair.base is None else _sampled(base, pair.base + low - t.start, pair.base + high - t.start, t.width)
    codes = [f"plain{t.width}"] if t.width > 1 else []
    if old is not None:
        codes.append(f"{'ulp' if t.floating else 'int'}{t.width}")
    sizes = {code: entropy_bytes(coding(code).encode(new, old if coding(code).based else None)) / new.nbytes for code in codes}
    raw = entropy_bytes(new.view(np.uint8)[None]) / new.nbytes
    best = min(sizes, key=lambda code: (sizes[code], code), default="new")
    return (best, sizes[best]) if best != "new" and sizes[best] < _WORTH_IT * raw else ("new", raw)


def _sampled(file: Binary, low: int, high: int, width: int) -> np.ndarray:
    """Numbers from places spread evenly over a stretch, all of them where it is short."""
    count = (high - low) // width
    each = max(1, _SAMPLED // _SAMPLES)
    if count <= _SAMPLED:
        return np.frombuffer(file.read(low, count * width), f"<u{width}")
    starts = [low + place * width for place in np.linspace(0, count - each, _SAMPLES).astype(int).tolist()]
    return np.frombuffer(b"".join(file.read(start, each * width) for start in starts), f"<u{width}")
