"""Whether a patch is worth offering: fewer bytes by enough, and not lost again while the file is rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellwright.delta.patch import Patch

_MEASURED_BYTES_S = {"whole": 190e6, "chunks": 200e6, "weights": 80e6, "prefix": 150e6}


@dataclass(frozen=True)
class Policy:
    """When a patch pays. Defaults as measured (benchmarks/results/2026-11-22-delta.md): rates are those of one core."""

    least_saved: float = 0.25  # share of the full file's bytes that a patch must save; fp32 weights drawn anew save 0.15
    link_bit_s: float | None = None  # rate at which the device is reached; None: not known, only bytes count
    rebuild_bytes_s: dict[str, float] = field(default_factory=lambda: dict(_MEASURED_BYTES_S))  # of the target, by mode


def pays(patch: Patch, full_bytes: int, policy: Policy = Policy()) -> bool:
    """Whether to offer `patch` to a device that would else fetch `full_bytes`."""
    if patch.bytes > (1 - policy.least_saved) * full_bytes:
        return False
    if policy.link_bit_s is None:
        return True
    return seconds(patch, policy, policy.link_bit_s) < full_bytes * 8 / policy.link_bit_s


def seconds(patch: Patch, policy: Policy, link_bit_s: float) -> float:
    """From the first byte of the patch to the rebuilt file."""
    return patch.bytes * 8 / link_bit_s + patch.target.bytes / policy.rebuild_bytes_s[patch.mode]
