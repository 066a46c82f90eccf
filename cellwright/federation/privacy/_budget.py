"""Privacy budgets of a training that uses several mechanisms: each has its own, and all must allow a round."""

from __future__ import annotations

from collections.abc import Sequence

from cellwright.federation.privacy._contract import Mechanism, Participation, Spent


def over_budget(mechanisms: Sequence[Mechanism], planned: Participation) -> str:
    """Which budget a round would go over, in words; "": none."""
    for mechanism in mechanisms:
        if not mechanism.fits(planned):
            spent = mechanism.spent
            done = f"; ε = {spent.epsilon:.4g} is spent (δ = {spent.delta:g}, of {spent.unit})" if spent else ""
            return f"{mechanism.title}: round {planned.round} would go over its privacy budget{done}"
    return ""


def most_spent(mechanisms: Sequence[Mechanism]) -> Spent | None:
    """The largest ε among the budgets; None: nothing is counted."""
    known = [spent for m in mechanisms if (spent := m.spent) is not None]
    return max(known, key=lambda spent: spent.epsilon, default=None)
