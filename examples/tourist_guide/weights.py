"""Models A and B: safetensors files with VGG-16's layers, each with the share of the weights that it has there, of exactly so many bytes.

The use case's "32 bits VGGnet, 536 MByte" are VGG-16's 138 million weights; a smaller file has fewer of each layer. The weights are drawn
from a seed: what a guide would recognise does not matter to whoever carries it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

_CONVOLUTIONS = ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512), *((512, 512),) * 5)
_DENSE = {"fc6": (25_088, 4_096), "fc7": (4_096, 4_096), "fc8": (4_096, 1_000)}
LAYERS = {f"conv{i}": 9 * a * b for i, (a, b) in enumerate(_CONVOLUTIONS, 1)} | {n: a * b for n, (a, b) in _DENSE.items()}
_HEADER_BYTES = 4_096
_BLOCK = 1 << 22  # weights made at once
LEAST_BYTES = 65_536


def write(path: Path, size: int, seed: int, *, tuned: int | None = None) -> None:
    """A file of `size` bytes (a multiple of 4). `tuned`: the seed of a fine-tuning that moved the last layer by about 1 %."""
    counts = _counts((size - _HEADER_BYTES) // 4)
    moved = None if tuned is None else np.random.default_rng(tuned)
    with path.open("wb") as file:
        file.write(_header(counts))
        for number, (name, count) in enumerate(counts.items()):
            rng = np.random.default_rng([seed, number])
            for at in range(0, count, _BLOCK):
                weights = rng.standard_normal(min(_BLOCK, count - at), dtype=np.float32) * np.float32(0.05)
                if moved is not None and name == "fc8":
                    weights += moved.standard_normal(len(weights), dtype=np.float32) * np.float32(0.0005)
                file.write(weights.tobytes())


def _counts(total: int) -> dict[str, int]:
    """Weights of each layer; the largest takes what rounding leaves."""
    whole = sum(LAYERS.values())
    counts = {name: max(1, count * total // whole) for name, count in LAYERS.items()}
    counts["fc6"] += total - sum(counts.values())
    return counts


def _header(counts: dict[str, int]) -> bytes:
    at, entries = 0, {}
    for name, count in counts.items():
        entries[f"{name}.weight"] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    text = json.dumps(entries).encode()
    return struct.pack("<Q", _HEADER_BYTES - 8) + text.ljust(_HEADER_BYTES - 8)
