"""A forecaster at work: its speed, size, memory and energy, in torch and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.energy.meter import Meter
from cellwright.errors import BundleError
from cellwright.kpis._contract import Runtime
from cellwright.kpis._macs import count_macs
from cellwright.kpis._memory import peak_memory_bytes
from cellwright.kpis._timing import latencies_s, repeated, undisturbed
from cellwright.params import Params
from cellwright.results import EnergyReading

if TYPE_CHECKING:
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster

_LATENCY_CAP_S = 1.0
_RATE_LEAST_S, _RATE_CAP_S = 0.2, 1.0

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Running:
    """What was measured of one forecaster; the ONNX part is None where it has no ONNX form, and `without_onnx` says why."""

    torch: Runtime
    onnx: Runtime | None
    macs: int
    bundle_bytes: int | None
    peak_memory_bytes: int | None
    energy: EnergyReading | None  # of ONNX Runtime
    forecasts_metered: int
    without_onnx: str | None


class Samples:
    """Real windows to run a forecaster on: one, and a batch of about `score.batch` site forecasts."""

    def __init__(self, windows: Windows, origins: np.ndarray, batch: int) -> None:
        self._windows, self._origins, self._batch = windows, origins, batch

    @cached_property
    def single(self) -> Feeds:
        """One forecast: one site, or all of them with inputs "all"."""
        return self._feeds(1)

    @cached_property
    def many(self) -> Feeds:
        """One batch."""
        return self._feeds(max(1, self._batch // self.sites_a_call))

    @property
    def sites_a_call(self) -> int:
        """Site forecasts in a forecast of batch 1."""
        return self._windows.sites if self._windows.problem.inputs == "all" else 1

    @property
    def forecasts(self) -> int:
        """Site forecasts in `many`."""
        return len(self.many["site"]) * self.sites_a_call

    def _feeds(self, count: int) -> Feeds:
        number = np.arange(count)
        site = (number % self._windows.sites).astype(np.int64) if self.sites_a_call == 1 else np.zeros(count, np.int64)
        raw = self._windows.raw(self._origins[number // self._windows.sites % len(self._origins)], site)
        arrays = {"history": raw.history, "known": raw.known, "site": site}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def observe(forecaster: Forecaster, samples: Samples, params: Params, onnx: Path | BundleError) -> Running:
    """Measure a forecaster on the CPU with `runner.threads_per_worker` threads.

    `onnx`: its exported file, or why there is none.
    """
    from cellwright.bundle.export import open_session

    torch_call = _torch_call(forecaster)
    torch_runtime, _ = _runtime(torch_call, samples, params, metered=False)
    macs = count_macs(lambda: forecaster(*_tensors(samples.single)))
    if isinstance(onnx, BundleError):
        return Running(torch_runtime, None, macs, None, None, None, 0, str(onnx))
    session = open_session(onnx, params.runner.threads_per_worker)
    runtime, (energy, metered) = _runtime(lambda feeds: lambda: session.run(None, feeds), samples, params, metered=True)
    return Running(
        torch=torch_runtime,
        onnx=runtime,
        macs=macs,
        bundle_bytes=onnx.stat().st_size,
        peak_memory_bytes=peak_memory_bytes(onnx, samples.many),
        energy=energy,
        forecasts_metered=metered,
        without_onnx=None,
    )


def _runtime(
    call_with: Callable[[Feeds], Callable[[], Any]], samples: Samples, params: Params, *, metered: bool
) -> tuple[Runtime, tuple[EnergyReading | None, int]]:
    """Latency on `single`; throughput and energy on `many`."""
    taken = latencies_s(call_with(samples.single), params.score.latency_repeats, _LATENCY_CAP_S)
    least = -(-params.score.energy_forecasts // samples.forecasts) if metered else 1
    call = call_with(samples.many)
    call()
    with undisturbed(), Meter(params.energy) as meter:
        calls, gone_s = repeated(call, least, _RATE_LEAST_S, _RATE_CAP_S)
    forecasts = calls * samples.forecasts
    return Runtime(taken, forecasts / gone_s), (meter.reading, forecasts) if metered else (None, 0)


def _torch_call(forecaster: Forecaster) -> Callable[[Feeds], Callable[[], Any]]:
    import torch

    def call_with(feeds: Feeds) -> Callable[[], Any]:
        tensors = _tensors(feeds)

        def call() -> Any:
            with torch.inference_mode():
                return forecaster(*tensors)

        return call

    return call_with


def _tensors(feeds: Feeds) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(feeds[name]) for name in ("history", "known", "site"))
