"""DP-SGD: the owner trains with the gradient of each window clipped and noise on their sum, by Opacus.

After Abadi et al., Deep learning with differential privacy, CCS 2016. The accountant counts every local step of every round as a
Poisson-sampled Gaussian event: each window enters a batch on its own with probability batch/examples, which is how Opacus samples.
Amplification by sampling is claimed there and nowhere else: which windows an owner drew stays with the owner. Owners hold different
windows, so ε is that of the owner that is most exposed: fewest windows, most steps. A measured value lies in up to
history + horizon windows; against someone who looks for the value rather than the window, the statement is weaker by that (group
privacy).

Cost (python benchmarks/privacy.py --only dp_sgd): no bytes; per-window gradients make a step of a
GRU ten to twenty times as long.
"""

from __future__ import annotations

from dataclasses import replace

from cellwright.errors import FederationError
from cellwright.federation.contract import DpSgd, Local
from cellwright.federation.privacy import _contract
from cellwright.federation.privacy._accounting import Counted, Event
from cellwright.federation.privacy._contract import Participation, dataclass, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of DP-SGD."""

    noise_multiplier: float = option(
        1.0, "standard deviation of the noise on the sum of a batch's gradients, in clip_norm", low=1e-3
    )
    clip_norm: float = option(1.0, "largest L2 norm of one window's gradient", low=1e-9)
    epsilon: float = option(10.0, "budget: the last round that stays within it is the last", low=1e-6)
    delta: float = option(1e-5, "probability that the statement does not hold", low=1e-15, high=0.5)


class Mechanism(Counted):
    """Differentially private gradient descent at every owner."""

    title = "DP-SGD"
    paper = "Abadi et al., Deep learning with differential privacy, CCS 2016, arXiv:1607.00133"
    threat = "Whoever sees an owner's updates, the coordinator included: none can tell whether a given window was trained on."
    leaves = (
        "What is common to many windows of an owner (its level, its daily shape), its losses, errors and scalers, which are sent "
        "beside the update, and statistics that a network sets before gradient descent."
    )
    unit = "a window"

    def local(self, local: Local) -> Local:
        """Clip and noise by window; the clip of the batch's gradient goes, since it would come after the noise."""
        o = self.options
        return replace(local, dp_sgd=DpSgd(o.noise_multiplier, o.clip_norm), gradient_clip=None)

    def event(self, done: Participation) -> Event:
        """All local steps of the most exposed owner.

        Raises:
            FederationError: an owner without windows, of which nothing can be said.
        """
        if done.examples < 1 or done.steps < 1 or done.batch < 1:
            raise FederationError(f"round {done.round}: no ε can be stated for {done.steps} steps on {done.examples} windows")
        return Event(self.options.noise_multiplier, rate=min(1.0, done.batch / done.examples), count=done.steps)
