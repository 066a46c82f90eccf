"""One meter for the energy of a stretch of work: CPU, RAM and GPU apart, each with where its figure comes from.

    measured   a hardware counter (RAPL, NVML) over work that had the machine to itself, less the idle baseline
    modelled   computed from what was used: CPU-seconds × watts of a busy core, memory held × watts of the memory, or a counter's
               reading apportioned by CPU-seconds because others ran too
    constant   a power that does not depend on the work, times its duration; nothing here uses it

No counter and no model is `None`, never 0. The model counts busy seconds only: idling is no part of it, nothing is subtracted.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from cellwright.energy.counters import Nvml, Rapl
from cellwright.energy.profile import PowerProfile, co2_g_per_kwh, profile
from cellwright.energy.usage import Usage, machine_busy_s, usage
from cellwright.params import Energy
from cellwright.results import EnergyReading, Reading

J_PER_KWH = 3.6e6
_IDLE_HANDED_DOWN = "CELLWRIGHT_IDLE_POWER"
_QUIET_SHARE = 0.15  # of all cores: above it a machine is not idle and has no baseline to measure

_lock = threading.RLock()
_running: set[Meter] = set()


@dataclass(frozen=True)
class Counters:
    """The hardware counters there are."""

    cpu: Rapl | None
    gpu: Nvml | None

    @classmethod
    def open(cls) -> Self:
        """Start whatever this machine has."""
        return cls(Rapl.open(), Nvml.open())

    def close(self) -> None:
        """Stop them."""
        for counter in (self.cpu, self.gpu):
            if counter is not None:
                counter.close()


@dataclass(frozen=True)
class Idle:
    """Power that the machine draws while it does nothing; None where there is no counter, or it was not idle."""

    cpu_w: float | None
    gpu_w: float | None

    @property
    def total_w(self) -> float | None:
        """Sum of what is known."""
        known = [w for w in (self.cpu_w, self.gpu_w) if w is not None]
        return sum(known) if known else None


class Meter:
    """Measures what happens inside `with Meter(params.energy) as meter: ...`; then `meter.reading` has it.

    `shared` says that other candidates run at the same time: readings are apportioned by CPU-seconds and marked modelled.
    Meters that overlap in several threads of one process notice that by themselves, and count the seconds of their own
    thread; `threads` is then how many threads each one's work may use.
    """

    def __init__(
        self, energy: Energy, *, shared: bool = False, threads: int | None = None, counters: Counters | None = None
    ) -> None:
        self._energy, self._shared, self._threads = energy, shared, threads
        self._given = counters
        self._overlapped = False
        self._reading: EnergyReading | None = None

    @property
    def reading(self) -> EnergyReading:
        """What was measured, once the block has ended."""
        if self._reading is None:
            raise RuntimeError("the meter has no reading yet: leave its `with` block first")
        return self._reading

    def __enter__(self) -> Self:
        self._idle = idle_baseline(self._energy, self._given)
        self._counters = self._given or Counters.open()
        self._power = profile()
        self._thread = threading.get_ident()
        with _lock:
            rivals = {meter for meter in _running if meter._thread != self._thread}
            for meter in rivals:
                meter._overlapped = True
            self._overlapped = bool(rivals)
            _running.add(self)
        self._zero = _joules(self._counters)
        self._start = usage()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stop, counted = usage(), _joules(self._counters)
        with _lock:
            _running.discard(self)
        if self._given is None:
            self._counters.close()
        cpu_j, gpu_j = (_less(now, then) for now, then in zip(counted, self._zero, strict=True))
        self._reading = self._read(self._start, stop, cpu_j, gpu_j)

    def _read(self, start: Usage, stop: Usage, counted_cpu_j: float | None, counted_gpu_j: float | None) -> EnergyReading:
        duration_s = stop.at_s - start.at_s
        cpu_s = self._cpu_s(start, stop)
        busy_s = max(stop.machine_busy_s - start.machine_busy_s, cpu_s)
        shared = self._shared or self._overlapped
        share = cpu_s / busy_s if shared and busy_s > 0 else 1.0
        cpu = _counted(counted_cpu_j, self._idle.cpu_w, duration_s, share, shared=shared)
        if cpu.energy_j is None:
            cpu = Reading(energy_j=cpu_s * self._w_per_core, source="modelled")
        held = (start.memory_bytes + stop.memory_bytes) / 2 / self._power.ram_bytes
        ram = Reading(energy_j=self._power.ram_w * held * duration_s, source="modelled")
        gpu = _counted(counted_gpu_j, self._idle.gpu_w, duration_s, share, shared=shared)
        joules = sum(part.energy_j or 0.0 for part in (cpu, ram, gpu))
        return EnergyReading(
            cpu=cpu,
            ram=ram,
            gpu=gpu,
            duration_s=duration_s,
            cpu_s=cpu_s,
            idle_w=self._idle.total_w,
            co2_g=joules / J_PER_KWH * co2_g_per_kwh(self._energy.country),
            shared=shared,
            meter=self._words(),
        )

    def _cpu_s(self, start: Usage, stop: Usage) -> float:
        process_s = max(0.0, stop.cpu_s - start.cpu_s)
        if not self._overlapped or threading.get_ident() != self._thread:
            return process_s
        return min(process_s, (stop.thread_s - start.thread_s) * (self._threads or 1))

    @property
    def _w_per_core(self) -> float:
        return self._energy.cpu_w_per_core or self._power.cpu_w_per_core

    def _words(self) -> str:
        return describe(self._energy, self._power, self._counters, self._idle)


def describe(energy: Energy, power: PowerProfile, counters: Counters, idle: Idle) -> str:
    """In words, what a reading rests on."""
    if counters.cpu is not None:
        cpu = "CPU by RAPL" + ("" if idle.cpu_w is not None else ", idle power not subtracted (the machine was busy)")
    elif energy.cpu_w_per_core:
        cpu = f"CPU-seconds × {energy.cpu_w_per_core:g} W a busy core (energy.cpu_w_per_core)"
    else:
        cpu = f"CPU-seconds × {power.cpu_words}"
    gpu = "no GPU meter" if counters.gpu is None else f"{len(counters.gpu.handles)} GPU by NVML"
    return f"{cpu}; RAM: share held × {power.ram_w:g} W (CodeCarbon); {gpu}"


def idle_baseline(energy: Energy, counters: Counters | None = None) -> Idle:
    """Power of the idle machine, measured once a process tree over `energy.idle_s`; at no cost where there is no counter.

    Call it before starting workers: they inherit the figure, and could not measure it while they run.
    """
    with _lock:
        handed = os.environ.get(_IDLE_HANDED_DOWN)
        if handed and counters is None:
            return Idle(**json.loads(handed))
        opened = counters or Counters.open()
        idle = _measure_idle(opened, energy.idle_s)
        if counters is None:
            opened.close()
            os.environ[_IDLE_HANDED_DOWN] = json.dumps(asdict(idle))
        return idle


def _measure_idle(counters: Counters, seconds: float) -> Idle:
    if seconds == 0 or (counters.cpu is None and counters.gpu is None):
        return Idle(None, None)
    busy_before, start_s, zero = machine_busy_s(), time.monotonic(), _joules(counters)
    time.sleep(seconds)
    elapsed_s, counted = time.monotonic() - start_s, _joules(counters)
    share = (machine_busy_s() - busy_before) / elapsed_s / (os.cpu_count() or 1)
    cpu_j, gpu_j = (_less(now, then) for now, then in zip(counted, zero, strict=True))
    gpu_idle = counters.gpu is not None and not counters.gpu.busy()
    return Idle(
        cpu_w=cpu_j / elapsed_s if cpu_j is not None and share < _QUIET_SHARE else None,
        gpu_w=gpu_j / elapsed_s if gpu_j is not None and gpu_idle else None,
    )


def _joules(counters: Counters) -> tuple[float | None, float | None]:
    return (
        None if counters.cpu is None else counters.cpu.joules(),
        None if counters.gpu is None else counters.gpu.joules(),
    )


def _less(now: float | None, then: float | None) -> float | None:
    return None if now is None or then is None else now - then


def _counted(counted_j: float | None, idle_w: float | None, duration_s: float, share: float, *, shared: bool) -> Reading:
    """A counter's reading, less the idle baseline, apportioned where others ran."""
    if counted_j is None:
        return Reading(energy_j=None, source=None)
    above_idle_j = max(0.0, counted_j - (idle_w or 0.0) * duration_s)
    return Reading(energy_j=above_idle_j * share, source="modelled" if shared else "measured")
