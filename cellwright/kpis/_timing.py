"""How long a call takes: latency of single ones, rate of many in a row."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_WARM_UP = 5  # calls before the first that counts: they allocate, plan and fill caches
_LEAST_CALLS = 10

Call = Callable[[], Any]


def latencies_s(call: Call, repeats: int, cap_s: float) -> np.ndarray:
    """(calls,) seconds of each of `repeats` calls; fewer, but at least ten, once `cap_s` have gone by."""
    for _ in range(_WARM_UP):
        call()
    taken: list[float] = []
    with undisturbed():
        end_s = time.perf_counter() + cap_s
        while len(taken) < repeats and (len(taken) < _LEAST_CALLS or time.perf_counter() < end_s):
            start_s = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start_s)
    return np.array(taken)


def repeated(call: Call, least_calls: int, least_s: float, cap_s: float) -> tuple[int, float]:
    """Call until both `least_calls` and `least_s` are reached, or `cap_s`. Returns the number of calls and their seconds."""
    calls, start_s = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        gone_s = time.perf_counter() - start_s
        if (calls >= least_calls and gone_s >= least_s) or gone_s >= cap_s:
            return calls, gone_s


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection in the middle of a call."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
