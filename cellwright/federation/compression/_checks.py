"""What a decoder asks of arrays that came from outside, before it computes anything with them."""

from __future__ import annotations

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays


def same_names(arrays: Arrays, expected: list[str]) -> None:
    """Nothing missing, nothing more.

    Raises:
        FederationError: other names than `expected`.
    """
    if set(arrays) == set(expected):
        return
    missing, more = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
    raise FederationError(
        f"an update of other arrays: expected {_some(expected)}; missing {_some(missing)}, unexpected {_some(more)}; "
        "both sides must use the same network and the same federation.compression"
    )


def of_form(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """The array, if it has this shape and type.

    Raises:
        FederationError: it has another.
    """
    if array.shape == shape and array.dtype == np.dtype(dtype):
        return array
    raise FederationError(
        f"'{name[:80]}' of the update: expected {np.dtype(dtype).name} {shape}, found {array.dtype.name} {array.shape}; "
        "both sides must use the same network and the same federation.compression"
    )


def finite(delta: Arrays) -> None:
    """Only for codecs whose scale a value that is not finite would spoil.

    Raises:
        FederationError: a value is not finite.
    """
    for name, array in delta.items():
        if not np.isfinite(array).all():
            raise FederationError(
                f"'{name}' of the update holds values that are not finite, which cannot be compressed; lower "
                "federation.learning_rate, or clip gradients (train.gradient_clip)"
            )


def _some(names: list[str]) -> str:
    return (", ".join(name[:80] for name in names[:4]) + (" …" if len(names) > 4 else "")) or "none"
