"""Which QoS profile a transfer needs: the least one whose guaranteed rate carries so many bytes by the deadline.

required rate = bytes × 8 / (deadline − set-up) × (1 + overhead)

Set-up is what of the deadline is no transfer: finding model and edge, asking the network, signatures, the last hash.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from cellwright.errors import QosError, WrongUse
from cellwright.qos.profile import ProfileStatus, QosProfile
from cellwright.qos.values import MOST_SECONDS

SETUP_SHARE = 0.05  # of a deadline, for what is still to come when the network is asked: its decision, documents, the last hash
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
    """What a transfer needs.

    `overhead`: headers and the like, as a share of the bytes. `country`: ISO 3166 code where the device is. `setup_s`: of the deadline,
    what cannot be used for the transfer.
    """

    bytes: int
    deadline_s: float
    reliability: Reliability = Reliability.ANY
    upstream: bool = False
    overhead: float = 0.0
    country: str | None = None
    setup_s: float = 0.0

    @property
    def rate_bit_s(self) -> float:
        """Rate that meets the deadline, bit/s; infinite where set-up takes all of it."""
        left_s = self.deadline_s - self.setup_s
        return self.bits / left_s if left_s > 0 else math.inf

    @property
    def bits(self) -> float:
        """All that is to be carried."""
        return self.bytes * 8 * (1 + self.overhead)


@dataclass(frozen=True)
class Chosen:
    """A profile that suffices, and why it is that one. `duration_s`: of the first grant; `expected_s`: transfer at the guaranteed rate.

    `tight`: it carries the bytes in the whole deadline, which leaves no time for the set-up; no profile leaves it.
    """

    profile: QosProfile
    required_bit_s: float
    guaranteed_bit_s: float
    deadline_s: float
    duration_s: int
    expected_s: float
    why: str
    tight: bool = False

    @property
    def name(self) -> str:
        """Name of the profile."""
        return self.profile.name


def choose(
    profiles: Iterable[QosProfile],
    bytes: int,
    deadline_s: float,
    *,
    reliability_class: Reliability = Reliability.ANY,
    upstream: bool = False,
    overhead: float = 0.0,
    country: str | None = None,
    setup_s: float = 0.0,
) -> Chosen:
    """The least sufficient ACTIVE profile: least guaranteed rate, then least reliability, then lowest priority, then by name.

    Only a guaranteed rate (targetMin…) counts; a maximum is best effort. Those for one device: `ProfilesClient.retrieve(device)`.
    Where none leaves `setup_s` of the deadline free, it is the fastest of those that carry the bytes in all of it.

    Raises:
        WrongUse: bytes or deadline are not positive, overhead or set-up negative.
        QosError: no profile suffices; names the best there is and what each lacks.
    """
    if bytes <= 0 or not math.isfinite(deadline_s) or deadline_s <= 0 or overhead < 0 or not setup_s >= 0:
        raise WrongUse(
            f"bytes and deadline must be positive, overhead and set-up not negative; found {bytes} bytes, {deadline_s} s, "
            f"{overhead}, {setup_s} s"
        )
    need = Need(bytes, deadline_s, Reliability(reliability_class), upstream, overhead, country, setup_s)
    offered = tuple(profiles)
    lacking = {profile.name: lacks(profile, need) for profile in offered}
    enough = sorted((p for p in offered if not lacking[p.name]), key=lambda p: _size(p, upstream))
    if not enough:
        return _fastest(offered, replace(need, setup_s=0.0), setup_s)
    why = _why(enough[0], need, len(enough), offered, lacking)
    return _chosen(enough[0], need, why)


def _fastest(offered: tuple[QosProfile, ...], need: Need, setup_s: float) -> Chosen:
    """For a deadline that leaves no time for the set-up. Raises QosError: no profile suffices even so."""
    lacking = {profile.name: lacks(profile, need) for profile in offered}
    enough = [p for p in offered if not lacking[p.name]]
    if not enough:
        raise QosError(_none_suffices(offered, need, lacking))
    best = min(enough, key=lambda p: (-_size(p, need.upstream)[0], *_size(p, need.upstream)[1:]))
    rate = best.guaranteed_bit_s(upstream=need.upstream) or 0.0
    why = (
        f"{_asked(need)}: {best.name} guarantees {spoken(rate)}, the most there is; "
        f"no profile leaves {setup_s:.2g} s for the set-up, so the deadline may be missed by as much"
    )
    return _chosen(best, need, why, tight=True)


def _chosen(profile: QosProfile, need: Need, why: str, *, tight: bool = False) -> Chosen:
    rate = profile.guaranteed_bit_s(upstream=need.upstream) or 0.0
    duration_s = _duration_s(profile, need.deadline_s)
    return Chosen(profile, need.rate_bit_s, rate, need.deadline_s, duration_s, need.bits / rate, why, tight)


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


def _why(least: QosProfile, need: Need, enough: int, offered: tuple[QosProfile, ...], lacking: dict[str, str | None]) -> str:
    rate = least.guaranteed_bit_s(upstream=need.upstream) or 0.0
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
    setup = f", {need.setup_s:.2g} s of it for set-up," if need.setup_s else ""
    return f"{need.bytes:,} bytes in {need.deadline_s:g} s{setup}{extra} need {spoken(need.rate_bit_s)}"


def _none_suffices(offered: tuple[QosProfile, ...], need: Need, lacking: dict[str, str | None]) -> str:
    if not offered:
        return f"{_asked(need)}, but the network offers this device no QoS profile at all; transfer without, or ask the operator"
    usable = [p for p in offered if p.status is ProfileStatus.ACTIVE and (p.guaranteed_bit_s(upstream=need.upstream) or 0) > 0]
    reasons = ", ".join(f"{name} {lack}" for name, lack in sorted(lacking.items()))
    if not usable:
        return f"{_asked(need)}, but no active profile guarantees any rate ({reasons}); transfer without, or ask the operator"
    best = max(usable, key=lambda p: _size(p, need.upstream))
    rate = best.guaranteed_bit_s(upstream=need.upstream) or 1.0
    takes_s = need.bits / rate
    return (
        f"{_asked(need)} ({need.reliability} of the packets), and no profile suffices; the best is {best.name} ({spoken(rate)}), "
        f"which takes {takes_s:.3g} s. Allow more time, send less (a delta, a quantised model), or ask for less. "
        f"Each lacks: {reasons}"
    )
