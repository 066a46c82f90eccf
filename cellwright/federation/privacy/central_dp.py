"""Central differential privacy: owners' updates are clipped, and the coordinator adds noise to their average once.

After McMahan, Ramage, Talwar and Zhang, Learning differentially private recurrent language models, ICLR 2018. An owner counts
1/owners in the average (`equal_weights`), so that its update moves it by at most clip_norm/owners; the noise has noise_multiplier
times that. Neighbouring federations differ in one owner's update, which is taken as zero in one of them; how many owners took part
is public. Each round counts in full: no amplification by sampling is claimed, since owners are selected by their resources and by a
seed that is known, not by secret coins. The noise must go on the average itself, before an adaptive rule takes a step along it.

Cost (python benchmarks/privacy.py --only central_dp): no bytes; 11 ms a round for 30,000 values.
"""

from __future__ import annotations

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays
from cellwright.federation.privacy import _contract
from cellwright.federation.privacy._accounting import Counted, Event
from cellwright.federation.privacy._contract import Participation, dataclass, option
from cellwright.federation.privacy._noise import clipped, noisy


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of central differential privacy."""

    noise_multiplier: float = option(4.0, "standard deviation of the noise on the sum of updates, in clip_norm", low=1e-3)
    clip_norm: float = option(1.0, "largest L2 norm of an update", low=1e-9)
    epsilon: float = option(10.0, "budget: the last round that stays within it is the last", low=1e-6)
    delta: float = option(1e-5, "probability that the statement does not hold", low=1e-15, high=0.5)
    seeded_noise: bool = option(False, "noise from the federation's seed, which everybody knows: for tests, hides nothing")


class Mechanism(Counted):
    """Clip at the owner and at the coordinator, noise on the average."""

    title = "Central differential privacy"
    paper = "McMahan et al., Learning differentially private recurrent language models, ICLR 2018, arXiv:1710.06963"
    threat = "Whoever receives the models, other owners included: none can tell from all of them whether an owner took part with its data."
    leaves = (
        "The coordinator, which sees every update before the noise (add secure_aggregation or ckks, whose sums are then as bounded as "
        "their owners clip), and the losses and counts sent beside the updates."
    )
    unit = "an owner, all its data (its update taken as zero)"
    equal_weights = True

    def protect(self, delta: Arrays, rng: np.random.Generator) -> Arrays:
        """Clip at the owner already: a sealed update cannot be clipped later."""
        return clipped(delta, self.options.clip_norm)

    def bounded(self, delta: Arrays) -> Arrays:
        """Clip at the coordinator: owners need not be trusted with it."""
        return clipped(delta, self.options.clip_norm)

    def finish(self, average: Arrays, owners: int, rng: np.random.Generator) -> Arrays:
        """The mean of `owners` clipped updates with noise of noise_multiplier · clip_norm / owners on every value.

        Raises:
            FederationError: there are no owners.
        """
        if owners < 1:
            raise FederationError("an average over no owners cannot be published; a round needs at least one update")
        o = self.options
        return noisy(average, o.noise_multiplier * o.clip_norm / owners, rng if o.seeded_noise else None)

    def first(self) -> Event:
        return Event(self.options.noise_multiplier)

    def event(self, done: Participation) -> Event:
        return self.first()
