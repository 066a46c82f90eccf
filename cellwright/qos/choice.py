"""Which QoS profile a transfer needs: the least one whose guaranteed rate carries so many bytes by the deadline.

required rate = bytes × 8 / deadline × (1 + overhead)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from cellwright.errors import QosError, WrongUse
from cellwright.qos.profile import ProfileStatus, QosProfile
from cellwright.qos.values import MOST_SECONDS

_DURATION_OF_DEADLINE = 2.0  # a first grant lasts as long as two deadlines: extending is for transfers that go wrong


class Reliability(IntEnum):
    """Share of packets that must arrive, as the exponent that profiles name (packetErrorLossRate): 3 is 99.9 %."""

    ANY = 0
    THREE_NINES = 3  # a model's weights
    FIVE_NINES = 5  # a model's structure, without which no weight has a place
    SIX_NINES = 6

    def __str__(self) -> str:
        return "any" if not self else f"{100 * (1 - 10.0**-self):.{max(0, self - 2)}f} %"


@dataclass(frozen=True)
class Need:
    """What a transfer needs. `overhead`: headers and the like, as a share of the bytes. `country`: ISO 3166 code where the device is."""

    bytes: int
    deadline_s: float
    reliability: Reliability = Reliability.ANY
    upstream: bool = False
    overhead: float = 0.0
    country: str | None = None

    @property
    def rate_bit_s(self) -> float:
        """Rate that meets the deadline, bit/s."""
        return self.bytes * 8 / self.deadline_s * (1 + self.overhead)


@dataclass(frozen=True)
class Chosen:
    """A profile that suffices, and why it is that one. `duration_s`: of the first grant."""

    profile: QosProfile
    required_bit_s: float
    guaranteed_bit_s: float
    deadline_s: float
    duration_s: int
    why: str

    @property
    def name(self) -> str:
        """Name of the profile."""
        return self.profile.name

    @property
    def expected_s(self) -> float:
        """How long the transfer takes at the guaranteed rate."""
        return self.deadline_s * self.required_bit_s / self.guaranteed_bit_s


def choose(
    profiles: Iterable[QosProfile],
    bytes: int,
    deadline_s: float,
    *,
    reliability_class: Reliability = Reliability.ANY,
    upstream: bool = False,
    overhead: float = 0.0,
    country: str | None = None,
) -> Chosen:
    """The least sufficient ACTIVE profile: least guaranteed rate, then least reliability, then lowest priority, then by name.

    Only a guaranteed rate (targetMin…) counts; a maximum is best effort. Those for one device: `ProfilesClient.retrieve(device)`.

    Raises:
        WrongUse: bytes or deadline are not positive.
        QosError: no profile suffices; names the best there is and what each lacks.
    """
    if bytes <= 0 or not math.isfinite(deadline_s) or deadline_s <= 0 or overhead < 0:
        raise WrongUse(
            f"bytes and deadline must be positive, overhead not negative; found {bytes} bytes, {deadline_s} s, {overhead}"
        )
    need = Need(bytes, deadline_s, Reliability(reliability_class), upstream, overhead, country)
    offered = tuple(profiles)
    lacking = {profile.name: lacks(profile, need) for profile in offered}
    enough = sorted((p for p in offered if not lacking[p.name]), key=lambda p: _size(p, upstream))
    if not enough:
        raise QosError(_none_suffices(offered, need, lacking))
    least = enough[0]
    rate = least.guaranteed_bit_s(upstream=upstream) or 0.0
    why = _why(least, need, rate, len(enough), offered, lacking)
    return Chosen(least, need.rate_bit_s, rate, deadline_s, _duration_s(least, deadline_s), why)


def lacks(profile: QosProfile, need: Need) -> str | None:
    """What a profile lacks for a need; None: it suffices."""
    rate = profile.guaranteed_bit_s(upstream=need.upstream)
    most = profile.most_bit_s(upstream=need.upstream)
    if profile.status is not ProfileStatus.ACTIVE:
        return f"is {profile.status}"
    if rate is None:
        return "guarantees no rate"
    if min(rate, most if most is not None else rate) < need.rate_bit_s:
        return f"guarantees {spoken(min(rate, most if most is not None else rate))} only"
    if need.reliability and (profile.packet_error_loss_rate or 0) < need.reliability:
        return (
            f"allows packet loss of 1e-{profile.packet_error_loss_rate}"
            if profile.packet_error_loss_rate
            else "names no packet loss"
        )
    if profile.longest_s is not None and profile.longest_s < need.deadline_s:
        return f"lasts {profile.longest_s:g} s at most"
    if need.country and profile.country_availability is not None:
        offered = {found.country_name for found in profile.country_availability}
        if need.country not in offered:
            return f"is not offered in {need.country}"
    return None


def spoken(bit_s: float) -> str:
    """A rate for people: 4.29 Gbit/s."""
    for size, unit in ((1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bit_s >= 0.9995 * size:  # what would round to a thousand of the next smaller unit
            return f"{bit_s / size:.3g} {unit}"
    return f"{bit_s:.3g} bit/s"


def _size(profile: QosProfile, upstream: bool) -> tuple[float, int, int, str]:
    rate = profile.guaranteed_bit_s(upstream=upstream) or 0.0
    return rate, profile.packet_error_loss_rate or 0, -(profile.priority or 100), profile.name


def _duration_s(profile: QosProfile, deadline_s: float) -> int:
    """Seconds of the first grant, within what the profile allows; it ends with the transfer anyway."""
    wanted = max(math.ceil(profile.shortest_s), math.ceil(_DURATION_OF_DEADLINE * deadline_s), 1)
    most = MOST_SECONDS if profile.longest_s is None else max(1, int(profile.longest_s))
    return min(wanted, most)


def _why(
    least: QosProfile, need: Need, rate: float, enough: int, offered: tuple[QosProfile, ...], lacking: dict[str, str | None]
) -> str:
    smaller = [
        p.name
        for p in offered
        if lacking[p.name] and p.status is ProfileStatus.ACTIVE and _size(p, need.upstream) < _size(least, need.upstream)
    ]
    passed = f"; {', '.join(f'{name} {lacking[name]}' for name in smaller)}" if smaller else ""
    reliable = f" with {need.reliability} of the packets" if need.reliability else ""
    return (
        f"{_asked(need)}{reliable}: {least.name} guarantees {spoken(rate)}, the least of {enough} profiles that suffice "
        f"out of {len(offered)}{passed}"
    )


def _asked(need: Need) -> str:
    extra = f" and {100 * need.overhead:g} % overhead" if need.overhead else ""
    return f"{need.bytes:,} bytes in {need.deadline_s:g} s{extra} need {spoken(need.rate_bit_s)}"


def _none_suffices(offered: tuple[QosProfile, ...], need: Need, lacking: dict[str, str | None]) -> str:
    if not offered:
        return f"{_asked(need)}, but the network offers this device no QoS profile at all; transfer without, or ask the operator"
    usable = [p for p in offered if p.status is ProfileStatus.ACTIVE and (p.guaranteed_bit_s(upstream=need.upstream) or 0) > 0]
    reasons = ", ".join(f"{name} {lack}" for name, lack in sorted(lacking.items()))
    if not usable:
        return f"{_asked(need)}, but no active profile guarantees any rate ({reasons}); transfer without, or ask the operator"
    best = max(usable, key=lambda p: _size(p, need.upstream))
    rate = best.guaranteed_bit_s(upstream=need.upstream) or 1.0
    takes_s = need.bytes * 8 * (1 + need.overhead) / rate
    return (
        f"{_asked(need)} ({need.reliability} of the packets), and no profile suffices; the best is {best.name} ({spoken(rate)}), "
        f"which takes {takes_s:.3g} s. Allow more time, send less (a delta, a quantised model), or ask for less. "
        f"Each lacks: {reasons}"
    )
