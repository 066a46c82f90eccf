"""What the adaptive rules of Reddi et al. share: Flower's strategies with two moments of the mean update, and their options' names.

Both moments, m and v, last over rounds and are part of a checkpoint.
"""

from __future__ import annotations

from typing import Any

from cellwright.federation.aggregation._contract import FlowerRule


class Adaptive(FlowerRule):
    """The coordinator steps along the first moment, shortened by the root of the second."""

    paper = "Reddi et al., Adaptive federated optimization, ICLR 2021"
    adaptive = True
    keeps = ("m_t", "v_t")

    def arguments(self, owners: int) -> dict[str, Any]:
        """Flower's names of the four options."""
        o = self.options
        return {"eta": o.learning_rate, "beta_1": o.beta_1, "beta_2": o.beta_2, "tau": o.tau}
