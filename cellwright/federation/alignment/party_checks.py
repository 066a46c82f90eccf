"""What a party of vertical learning holds its messages against, and what it builds its half from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment.rows import SPANS, Cut
from cellwright.federation.alignment.vertical_spec import Vertical
from cellwright.federation.contract import Arrays, Parcel
from models._contract import Problem

if TYPE_CHECKING:
    from cellwright.federation.alignment.halves import Half

MOST_WINDOWS = 1 << 16  # of one message


def checked(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """A float32 array of this shape whose numbers are finite.

    Raises:
        Refused: it is something else.
    """
    if array.shape != shape or array.dtype != np.float32:
        raise Refused(
            f"{what} must be float32 {shape}, found {array.dtype} {array.shape}; both parties must be deployed with the same options"
        )
    if not np.isfinite(array).all():
        raise Refused(f"{what} holds values that are not finite; lower learning_rate or set gradient_clip")
    return array


def embeddings(parcel: Parcel, half: Half, count: int) -> Arrays:
    """The other parties' embeddings, each of the width it was deployed with.

    Raises:
        Refused: one too few, too many, or of another form.
    """
    widths = half.others or {}
    found = {name.removeprefix("h/"): array for name, array in parcel.arrays.items()}
    if set(found) != set(widths):
        raise Refused(
            f"embeddings of {', '.join(sorted(widths)) or 'nobody'} were expected, found {', '.join(sorted(found)) or 'none'}"
        )
    return {name: checked(found[name], (count, width), f"the embedding of party '{name}'") for name, width in widths.items()}


def window_index(parcel: Parcel, spans: Cut) -> np.ndarray:
    """Positions of the windows of a span that a message asks for.

    Raises:
        Refused: there are none such, or too many at once.
    """
    v = parcel.values
    span, first, stop = str(v["span"]), int(v["first"]), int(v["stop"])
    if span not in SPANS or not 0 <= first < stop <= len(spans.span(span)) or stop - first > MOST_WINDOWS:
        raise Refused(f"windows {first} to {stop} of span '{span}' are none, or more than {MOST_WINDOWS} at once")
    return spans.span(span)[first:stop]


def run_of(parcel: Parcel) -> str:
    """Which run a message belongs to.

    Raises:
        Refused: there is no such run.
    """
    run = str(parcel.values.get("run", ""))
    if run not in ("vertical", "alone"):
        raise Refused(f"a run is called 'vertical' or 'alone', found '{run[:80]}'")
    return run


def about_half(settings: Vertical, problem: Problem, *, passive: bool, sites: tuple[str, ...]) -> dict[str, Any]:
    """What a forecaster says of itself, for the network of one half; a passive one corrects nothing."""
    from dataclasses import asdict, fields

    from cellwright.training.candidates import module_of, parse_options
    from cellwright.training.own_model import is_foreign, is_own

    if is_own(settings.model) or is_foreign(settings.model):
        raise FederationError(f"federation.vertical.model must be a network of the zoo, found '{settings.model}'")
    module = module_of(settings.model)
    residual = {"residual": "none"} if passive and "residual" in {f.name for f in fields(module.Options)} else {}
    options = parse_options(module.Options, {**settings.options, **residual}, settings.model, where="federation.vertical.options")
    return {
        "model": settings.model,
        "options": asdict(options),
        "problem": json.loads(json.dumps(asdict(problem))),
        "scaler": settings.scaler,
        "clip": settings.clip,
        "sites": list(sites),
        "embedding_clip": settings.embedding_clip,
    }
