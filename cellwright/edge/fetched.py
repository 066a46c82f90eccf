"""What became of a fetch, told honestly: what was not measured is None."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from cellwright.edge.contract import Quality
from cellwright.edge.download import Transfer
from cellwright.edge.route import Distrusted, Stop
from cellwright.hub.contract import FetchReport


@dataclass(frozen=True)
class Fetched:
    """A bundle that was fetched, verified and made active."""

    name: str
    version: str
    digest: str
    path: Path
    new: bool  # False: this version was active already
    transfer: Transfer  # bytes received over the network, resumed, reused
    seconds: float  # all of it: asking, downloading, verifying, activating
    verified_s: float = 0.0  # from the request until the last byte was verified
    deadline_s: float | None = None
    edges: tuple[Stop, ...] = ()  # that sent something, in order
    streams: int = 1  # most connections at once
    delta: str | None = None  # mode of the patch that was used; None: no patch
    qos: Quality | None = None  # as it stood when the transfer ended; None: none was asked for
    qos_held_s: float | None = None  # of the transfer, with quality that the device had asked for itself; None: it had not
    tenant: str | None = None
    why: str = ""  # it is this model
    match_age_s: float | None = None  # of the hub's answer, which was away now; None: it was there
    distrusted: tuple[Distrusted, ...] = ()  # edges that gave something else than what was signed
    notes: tuple[str, ...] = ()  # what did not go as it should, and what was done about it

    @property
    def rate_bps(self) -> float:
        """Bits a second over the network."""
        return 8 * self.transfer.received_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def met(self) -> bool | None:
        """Whether it was verified by the deadline; None: there was none."""
        return None if self.deadline_s is None else self.verified_s <= self.deadline_s


@dataclass(frozen=True)
class Attempt:
    """What is known of a fetch whether it ended well or not."""

    tenant: str
    model: str
    version: str
    device: str
    seconds: float
    deadline_s: float | None
    transfer: Transfer
    edges: tuple[Stop, ...]
    delta: str | None
    qos: Quality | None
    distrusted: tuple[Distrusted, ...] = ()

    def report(self, reason: str = "", *, refused: bool = False) -> FetchReport:
        """For the hub. `reason`: why it failed; empty: it did not. `refused`: what came was not what was signed.

        A fetch that ended well at another edge than it began names as its reason who gave wrong bytes, and which.
        """
        told = reason or ("wrong bytes came from " + "; ".join(map(str, self.distrusted)) if self.distrusted else "")
        outcome = "refused" if refused else "failed" if reason else "activated"
        rate = 8 * self.transfer.received_bytes / self.seconds if self.seconds > 0 else 0.0
        return FetchReport.model_validate(
            {
                "id": secrets.token_hex(16),
                "tenant": self.tenant,
                "model": self.model,
                "version": self.version,
                "device": self.device,
                "time_s": time.time(),
                "outcome": outcome,
                "reason": told[:500],
                "seconds": self.seconds,
                "deadline_s": self.deadline_s,
                "met": None if self.deadline_s is None else not reason and self.seconds <= self.deadline_s,
                "bytes": self.transfer.received_bytes,
                "reused_bytes": self.transfer.reused_bytes,
                "resumed_bytes": self.transfer.resumed_bytes,
                "rate_bit_s": rate,
                "edges": tuple(dict.fromkeys(stop.name for stop in self.edges if stop.name))[:16],
                "delta": self.delta,
                "qos_session": self.qos.session if self.qos else None,
            }
        )
