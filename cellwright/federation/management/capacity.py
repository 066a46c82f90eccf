"""Arithmetic on resource capacities (M.3387 8.1.2): what is needed in all, what is left, what is lacking."""

from __future__ import annotations

from cellwright.federation.management.records import Capacity

_UNITS = {
    "cpus": "CPUs",
    "gpus": "GPUs",
    "memory_bytes": "bytes of memory",
    "bandwidth_bps": "bit/s",
    "transmit_power_w": "W of transmission power",
    "disk_bytes": "bytes of free disk",
    "reserved_bytes": "bytes of preassigned storage",
}
NOTHING = Capacity(cpus=0)


def times(need: Capacity, count: int) -> Capacity:
    """The capacity that `count` nodes need together."""
    return Capacity(**{name: getattr(need, name) * count for name in _UNITS})


def plus(one: Capacity, other: Capacity) -> Capacity:
    """The sum."""
    return Capacity(**{name: getattr(one, name) + getattr(other, name) for name in _UNITS})


def less(free: Capacity, used: Capacity) -> Capacity:
    """What is left of `free`; never below nothing."""
    return Capacity(**{name: max(getattr(free, name) - getattr(used, name), 0) for name in _UNITS})


def lacking(free: Capacity, need: Capacity) -> tuple[str, ...]:
    """Each resource of which there is too little, in words: "0 CPUs free, 1 needed"; empty: enough of all."""
    short = [name for name in _UNITS if getattr(free, name) < getattr(need, name)]
    return tuple(
        f"{getattr(free, name):g} {unit} free, {getattr(need, name):g} needed" for name, unit in _UNITS.items() if name in short
    )


def headroom(free: Capacity, need: Capacity) -> float:
    """Mean share of the needed resources that stays free; 0..1, 1 where nothing is needed."""
    asked = [name for name in _UNITS if getattr(need, name) > 0]
    shares = [1 - getattr(need, name) / getattr(free, name) if getattr(free, name) else 0.0 for name in asked]
    return max(sum(shares) / len(shares), 0.0) if shares else 1.0
