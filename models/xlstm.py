"""xLSTM: LSTMs with exponential gates, one kind with a matrix for its memory (mLSTM), one whose cells mix (sLSTM).

Beck et al., xLSTM: extended long short-term memory, NeurIPS 2024, arXiv:2405.04517. The mLSTM is computed in its parallel form
(quadratic in the history, no loop), the sLSTM step by step, in plain PyTorch on any device. Here a direct head forecasts all
steps from the last state and corrects the last value, and widths are those of telemetry instead of language.
Legend: B windows, T steps, D width, H heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.attention import check_heads
from models._layers.frame import RESIDUALS, Embed, Head, Steps, chain, mix_option, residual_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of xLSTM."""

    width: int = option(32, "width of the stream that the blocks read and add to", low=2, high=2048)
    layout: str = option("ms", "the blocks in order, one letter each: m for mLSTM, s for sLSTM; the paper's [7:1] is mmmmmmms")
    heads: int = option(4, "heads of each cell; divides the width", low=1, high=64)
    kernel: int = option(4, "steps of the causal convolution before the gates", low=1, high=16)
    dropout: float = option(0.0, "share of each block's output dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("flat")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)
        if not self.layout or set(self.layout) - {"m", "s"}:
            raise ValueError(f"layout must be letters m (mLSTM) and s (sLSTM), not {self.layout!r}")


def matrix_memory(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, i_BHT: Tensor, f_BHT: Tensor) -> Tensor:
    """The mLSTM of all steps at once, (B, H, T, E), from queries, keys, values and the gates' pre-activations.

    What step t reads from step s ≤ t is q_t·k_s weighed by the input gate exp(i_s) and all forget gates sigmoid(f) after s.
    Each row of these weights is divided by its largest (the paper's stabiliser state), so that no exponential overflows.
    """
    steps = q_BHTE.shape[2]
    passed = functional.logsigmoid(f_BHT).cumsum(2)
    log_weight = passed.unsqueeze(3) - passed.unsqueeze(2) + i_BHT.unsqueeze(2)
    later = torch.ones(steps, steps, dtype=torch.bool, device=q_BHTE.device).triu(1)
    log_weight = log_weight.masked_fill(later, -torch.inf)
    largest = log_weight.amax(3, keepdim=True)
    read = (q_BHTE @ k_BHTE.transpose(2, 3)) * q_BHTE.shape[3] ** -0.5 * (log_weight - largest).exp()
    total = torch.maximum(read.sum(3, keepdim=True).abs(), (-largest).exp())
    return (read / total.clamp_min(1e-6)) @ v_BHTE


class CausalConv(nn.Module):
    """Each channel's own convolution over the present and the past, then SiLU: (B, T, D) to the same."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.past = kernel - 1
        self.conv = nn.Conv1d(width, width, kernel, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.conv(functional.pad(x.transpose(1, 2), (self.past, 0))).transpose(1, 2))


class HeadLinear(nn.Module):
    """A linear map within each head, `parts` of them side by side: (B, T, H · E) to (H, B, T, parts · E)."""

    def __init__(self, heads: int, width: int, parts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, width, parts * width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        heads, width, _ = self.weight.shape
        rows = x.unflatten(2, (heads, width)).permute(2, 0, 1, 3)
        return torch.bmm(rows.flatten(1, 2), self.weight).unflatten(1, (-1, x.shape[1]))


class HeadNorm(nn.Module):
    """Each head normalised alone, with a scale a channel: (B, T, H, E) to (B, T, H · E)."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(heads, width))

    def forward(self, h: Tensor) -> Tensor:
        return (functional.layer_norm(h, h.shape[-1:]) * self.scale).flatten(2)


def gate_bias(heads: int, *, forget: bool) -> Tensor:
    """Biases (H) that start the gates: forgetting rare, from one head to the next over longer spans; input gates about open."""
    return torch.linspace(3.0, 6.0, heads) if forget else torch.randn(heads) * 0.1


class MLSTM(nn.Module):
    """mLSTM block: norm, twice as wide, convolution, matrix memory, gated by the other branch, back to the width; skipped around."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        width, inner, heads = options.width, 2 * options.width, options.heads
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * inner)
        self.conv = CausalConv(inner, options.kernel)
        self.query_key = HeadLinear(heads, inner // heads, 2)
        self.value = HeadLinear(heads, inner // heads, 1)
        self.gates = nn.Linear(inner, 2 * heads)
        self.head_norm = HeadNorm(heads, inner // heads)
        self.skip = nn.Parameter(torch.ones(inner))
        self.down = nn.Linear(inner, width)
        self.drop = nn.Dropout(options.dropout)
        with torch.no_grad():
            self.gates.bias.copy_(torch.cat((gate_bias(heads, forget=False), gate_bias(heads, forget=True))))
            self.gates.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        inner, gate = self.up(self.norm(x)).chunk(2, 2)
        seen = self.conv(inner)
        q, k = self.query_key(seen).transpose(0, 1).chunk(2, 3)
        i, f = self.gates(seen).transpose(1, 2).chunk(2, 1)
        h = matrix_memory(q, k, self.value(inner).transpose(0, 1), i, f)
        h = self.head_norm(h.transpose(1, 2)) + self.skip * seen
        return x + self.drop(self.down(h * functional.silu(gate)))


class ScalarMemory(nn.Module):
    """The sLSTM's loop. Gates' pre-activations (H, B, T, 4 · E) of the inputs, as i, f, z, o; returns h (B, T, H, E).

    c' = f c + i z, n' = f n + i, h' = sigmoid(o) c' / n' with i = exp(·), f = sigmoid(·), z = tanh(·). Both gates are divided by
    exp(m'), where m' = max(log f + m, log i): the quotient stays, the exponentials do not overflow. `again` mixes the
    cells of a head through the h of the step before.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.again = nn.Parameter(torch.empty(heads, width, 4 * width).uniform_(-(width**-0.5), width**-0.5) * 0.5)

    def forward(self, gates: Tensor) -> Tensor:
        first, *rest = gates.unbind(2)
        i, _, z, o = first.chunk(4, 2)
        c, n, m = z.tanh(), torch.ones_like(i), i  # from zeros: c = exp(i - m) tanh(z), n = exp(i - m), and m = i
        hidden = [o.sigmoid() * c]
        for step in rest:
            i, f, z, o = torch.baddbmm(step, hidden[-1], self.again).chunk(4, 2)
            kept = functional.logsigmoid(f) + m
            m = torch.maximum(kept, i)
            keep, take = (kept - m).exp(), (i - m).exp()
            c, n = keep * c + take * z.tanh(), keep * n + take
            hidden.append(o.sigmoid() * c / n)
        return torch.stack(hidden, 2).permute(1, 2, 0, 3)


class SLSTM(nn.Module):
    """sLSTM block: norm, cells whose input and forget gates see a convolution; then a gated feed-forward part; both skipped around."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        width, heads = options.width, options.heads
        wide = max(1, round(width * 4 / 3))
        self.norm = nn.LayerNorm(width)
        self.conv = CausalConv(width, options.kernel)
        self.gates = HeadLinear(heads, width // heads, 2)
        self.cell = HeadLinear(heads, width // heads, 2)
        biases = [gate_bias(heads, forget=False), gate_bias(heads, forget=True), torch.zeros(2 * heads)]
        biases = torch.cat(biases).view(4, heads, 1, 1, 1).expand(-1, -1, -1, -1, width // heads)
        self.bias = nn.Parameter(torch.cat(tuple(biases), 3))  # (H, 1, 1, 4 · E)
        self.memory = ScalarMemory(heads, width // heads)
        self.head_norm = HeadNorm(heads, width // heads)
        self.feed_norm = nn.LayerNorm(width)
        self.wider = nn.Linear(width, 2 * wide)
        self.narrower = nn.Linear(wide, width)
        self.drop = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        gates = torch.cat((self.gates(self.conv(normal)), self.cell(normal)), 3) + self.bias
        x = x + self.drop(self.head_norm(self.memory(gates)))
        gate, value = self.wider(self.feed_norm(x)).chunk(2, 2)
        return x + self.drop(self.narrower(functional.gelu(gate) * value))


class Core(nn.Module):
    """h (B, T, features) to the last step's stream after all blocks (B, D)."""

    def __init__(self, features: int, options: Options) -> None:
        super().__init__()
        self.into = nn.Linear(features, options.width)
        self.layers = nn.Sequential(*(MLSTM(options) if kind == "m" else SLSTM(options) for kind in options.layout))
        self.norm = nn.LayerNorm(options.width)

    def sequence(self, state: State) -> Tensor:
        """(B, T, D): step t has seen no later step."""
        return self.norm(self.layers(self.into(state["h"])))

    def forward(self, state: State) -> State:
        return {**state, "h": self.norm(self.layers(self.into(state["h"]))[:, -1])}


class Network(_contract.Network):
    """mLSTM and sLSTM blocks over the steps, with the calendar beside each step and beside the head."""

    title = "xLSTM"
    paper = "Beck et al., xLSTM: extended long short-term memory, NeurIPS 2024, arXiv:2405.04517"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    causal = True
    presets: ClassVar = {"paper": {"width": 128, "layout": "mmmmmmms", "residual": "none"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        steps = Steps(seen)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, steps, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(steps.width, options))
        self.blocks.add_module("head", Head(seen, options.width, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (16, 32, 64)),
            "layout": trial.suggest_categorical("layout", ("m", "s", "ms", "mms")),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
