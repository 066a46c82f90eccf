"""What an owner sends under a closed-form rule: its sums, or what it fitted on its own rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays

if TYPE_CHECKING:
    from models._contract import Batch, Network


def statistics(network: Network, batches: Iterable[Batch], *, seed: int) -> Arrays:
    """The `delta` of an owner's update: float64 sums of a network that has them (fedgram), else the fitted network (bagging).

    They travel as they are: no codec rounds them.

    Raises:
        FederationError: the network is trained by gradient descent.
        TrainingError, ValueError: the owner holds no measured target.
    """
    from cellwright.training.fit import fit_closed_form

    if not network.closed_form:
        raise FederationError(f"{network.title} is trained by gradient descent; a closed-form rule federates 'ridge' or 'trees'")
    if network.additive:
        return {name: tensor.cpu().numpy() for name, tensor in network.statistics(batches).items()}
    fit_closed_form(network, batches, seed=seed)
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
