"""ConvLSTM: an LSTM whose states are images and whose products are convolutions.

Shi et al., Convolutional LSTM network: a machine learning approach for precipitation nowcasting, NeurIPS 2015, arXiv:1506.04214.
Here without the peepholes from the cell to the gates, as most implementations have it.
Legend: B windows, T steps, C channels, K edge of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def taps(kernel: int, side: int) -> int:
    """The kernel that an image of `side` × `side` pixels needs: taps further out than its edge would only ever see zeros."""
    return min(kernel, 2 * side - 1)


class ConvLSTM(nn.Module):
    """x (B, T, C, K, K) to the hidden state after each step, (B, T, hidden, K, K); step t has seen no later step."""

    def __init__(self, inputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.into = nn.Conv2d(inputs, 4 * hidden, kernel, padding=kernel // 2)
        self.again = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)
        with torch.no_grad():  # gates lie as input, forget, output, candidate; forgetting starts rare
            self.into.bias[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        into = self.into(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1])).unbind(1)  # all steps at once: they wait for nothing
        h, c = self._step(into[0], None)
        states = [h]
        for step in into[1:]:
            h, c = self._step(step + self.again(h), c)
            states.append(h)
        return torch.stack(states, 1)

    def _step(self, gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden and cell state (B, hidden, K, K) from the gates' pre-activations; `c` None: the first step, from zeros."""
        opened, candidate = gates.split((3 * self.hidden, self.hidden), 1)
        i, f, o = opened.sigmoid().chunk(3, 1)
        new = i * candidate.tanh()
        c = new if c is None else f * c + new
        return o * c.tanh(), c
