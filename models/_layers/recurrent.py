"""What the recurrent networks (LSTM, GRU) share."""

from __future__ import annotations

from torch import Tensor, nn

from models._contract import Problem, State
from models._layers.frame import Embed, Head, Steps, chain


class Recurrent(nn.Module):
    """Core: h (batch, history, width) to the last layer's state after the last step (batch, hidden)."""

    def __init__(self, cell: type[nn.LSTM | nn.GRU], width: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch puts it between layers only
        self.cells = cell(width, hidden, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def sequence(self, state: State) -> Tensor:
        """(batch, history, hidden): step t has seen no later step."""
        return self.cells(state["h"])[0]

    def forward(self, state: State) -> State:
        _, last = self.cells(state["h"])  # the final state alone: no gradient of all steps' outputs to fill with zeros
        hidden = last[0] if isinstance(last, tuple) else last  # an LSTM's is (hidden, cell)
        return {**state, "h": self.dropout(hidden[-1])}


def recurrent_blocks(
    cell: type[nn.LSTM | nn.GRU], problem: Problem, *, hidden: int, layers: int, dropout: float, residual: str, mix: str
) -> nn.Sequential:
    """embed, core and head of a recurrent network with a direct head for all target steps."""
    seen, fold, sites = chain(problem, mix)
    steps = Steps(seen)
    blocks = nn.Sequential()
    blocks.add_module("embed", Embed(seen, steps, residual=residual, fold=fold))
    blocks.add_module("core", Recurrent(cell, steps.width, hidden, layers, dropout))
    blocks.add_module("head", Head(seen, hidden, residual=residual, sites=sites))
    return blocks
