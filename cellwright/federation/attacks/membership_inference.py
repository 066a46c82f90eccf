"""Membership inference: whether a window was among those that a model was trained on, told by its loss.

After Yeom, Giacomelli, Fredrikson and Jha, Privacy risk in machine learning: analyzing the connection to overfitting, CSF 2018: a model
that has learnt its windows by heart errs less on them than on others like them. The attacker has the model and the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cellwright.training.losses import forecast_loss
from models._contract import Batch, Network


@dataclass(frozen=True)
class Membership:
    """How well members can be told from others."""

    auc: float  # probability that a member's loss is below another window's; 0.5: nothing leaks
    advantage: float  # true positive rate minus false positive rate at the best threshold, 0 to 1


def membership_inference(members: np.ndarray, others: np.ndarray) -> Membership:
    """From the losses of windows that were trained on, and of windows like them that were not; one value a window.

    Raises:
        ValueError: one of them is empty.
    """
    if not len(members) or not len(others):
        raise ValueError(f"losses of {len(members)} members and {len(others)} other windows; at least one of each is needed")
    below = (members[:, None] < others).mean() + 0.5 * (members[:, None] == others).mean()
    thresholds = np.unique(np.concatenate((members, others)))
    gains = [(members <= t).mean() - (others <= t).mean() for t in thresholds]
    return Membership(float(below), float(max(0.0, *gains)))


def window_losses(network: Network, batch: Batch, loss: str = "mse") -> np.ndarray:
    """The loss of each window of a batch, (windows,) float64; the network is not changed."""
    training = network.training
    network.eval()
    with torch.no_grad():
        forecast = network(batch.x, batch.known)
        each = [
            _loss(network, Batch(*(part[i : i + 1] for part in batch)), forecast[i : i + 1], loss) for i in range(len(batch.x))
        ]
    network.train(training)
    return np.array(each)


def _loss(network: Network, one: Batch, forecast: torch.Tensor, loss: str) -> float:
    total, count = forecast_loss(loss, network.problem, forecast, one)
    return float(total / count.clamp(min=1))
