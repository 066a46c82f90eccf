"""STGCN: gated convolutions along time around graph convolutions between sites, without recurrence.

Yu, Yin and Zhu, Spatio-temporal graph convolutional networks: a deep learning framework for traffic forecasting, IJCAI 2018.
Here the convolutions along time are padded with the past, so that six steps of history are enough, all target steps are forecast
at once with what is known of them, and sites have learnt vectors: they differ in more than their place. Edges are those between
neighbours of a grid (weight: the inverse of their distance), the data set's own, or those between the sites that correlate most
on training rows (the paper: a Gaussian kernel of road distances, cut off where it is small).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Batch, Inputs, Problem, State, Trial, option
from models._layers import views
from models._layers.frame import RESIDUALS, base, residual_option
from models._layers.graph import Correlation, chebyshev, grid_adjacency, nearest, weighted


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of STGCN."""

    channels: int = option(24, "width of the convolutions along time (paper: 64)", low=1, high=1024)
    graph_channels: int = option(16, "width of the graph convolutions", low=1, high=1024)
    blocks: int = option(2, "blocks of time, graph and time convolution", low=1, high=8)
    kernel: int = option(3, "steps of a convolution along time", low=1, high=15)
    order: int = option(3, "hops of a graph convolution, itself included (Chebyshev polynomials)", low=1, high=8)
    adjacency: str = option(
        "auto",
        "edges of the graph: the grid's, the data set's own, or the sites that correlate on training rows; auto: the first there is",
        choices=("auto", "grid", "data", "correlation"),
    )
    neighbours: int = option(8, "edges of a site to those it correlates with most", low=1, high=1000)
    site_width: int = option(8, "width of the vector learnt of each site; 0: none, as in the paper", low=0, high=256)
    dropout: float = option(0.1, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")


class TimeConv(nn.Module):
    """Gated convolution along time: (P + skip) · sigmoid(Q), step t from the steps up to t. (batch, steps, nodes, channels)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.map = nn.Linear(inputs * kernel, 2 * outputs)
        self.skip = nn.Linear(inputs, outputs, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        steps = h.shape[1]
        past = functional.pad(h, (0, 0, 0, 0, self.kernel - 1, 0))
        seen = torch.cat([past[:, i : i + steps] for i in range(self.kernel)], 3)
        value, gate = self.map(seen).chunk(2, 3)
        return (value + self.skip(h)) * torch.sigmoid(gate)


class GraphConv(nn.Module):
    """relu of a Chebyshev convolution over the nodes plus skip; `polynomials` (order - 1, nodes, nodes): all but the first."""

    def __init__(self, channels: int, order: int) -> None:
        super().__init__()
        self.map = nn.Linear(channels * order, channels)

    def forward(self, h: Tensor, polynomials: Tensor) -> Tensor:
        if not len(polynomials):
            return functional.relu(self.map(h) + h)
        nodes = h.shape[2]
        columns = h.transpose(0, 2).flatten(1)  # (nodes, steps · batch · channels): one product for all hops and windows
        hops = (polynomials.flatten(0, 1) @ columns).unflatten(1, (h.shape[1], -1, h.shape[3])).unflatten(0, (-1, nodes))
        seen = torch.cat((h, hops.permute(3, 2, 1, 0, 4).flatten(3)), 3)
        return functional.relu(self.map(seen) + h)


class Block(nn.Module):
    """Along time, between nodes, along time again; then layer norm over nodes and channels, and dropout."""

    def __init__(self, inputs: int, nodes: int, order: int, options: Options) -> None:
        super().__init__()
        self.before = TimeConv(inputs, options.graph_channels, options.kernel)
        self.graph = GraphConv(options.graph_channels, order)
        self.after = TimeConv(options.graph_channels, options.channels, options.kernel)
        self.norm = nn.LayerNorm((nodes, options.channels))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, h: Tensor, polynomials: Tensor) -> Tensor:
        return self.dropout(self.norm(self.after(self.graph(self.before(h), polynomials))))


class Known(nn.Module):
    """What each forecast site knows of the target steps: their calendar, and its own lag values; (batch, outputs, width)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        lagged = len(problem.lags) * views.lag_steps(problem) * len(problem.targets)
        self.width = problem.horizon * len(problem.known) + lagged

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        parts = []
        if self.problem.known:
            parts.append(known[:, self.problem.history :].flatten(1).unsqueeze(1).expand(-1, self.problem.outputs, -1))
        parts += [views.lag_values(x, self.problem, lag).transpose(1, 2).flatten(2) for lag in self.problem.lags]
        return torch.cat(parts, 2)


class Base(nn.Module):
    """What the forecast corrects, from each site's own history, with the same weights for all."""

    def __init__(self, problem: Problem, residual: str) -> None:
        super().__init__()
        self.seen, self.one = views.outputs(problem), base(views.per_site(problem), residual)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1 or horizon, outputs, targets, 1)."""
        own = x[:, :, self.seen]
        rows = own.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        return self.one(rows).squeeze(2).unflatten(0, (-1, own.shape[2])).transpose(1, 2)


class Embed(nn.Module):
    """h (batch, history, nodes, width): features of each node, calendar of the step, the node's learnt vector."""

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__()
        self.history, self.known = problem.history, Known(problem)
        self.base = Base(problem, options.residual) if options.residual != "none" else None
        self.site = nn.Parameter(torch.randn(problem.nodes, options.site_width) * 0.1) if options.site_width else None
        self.width = len(problem.features) + len(problem.known) + options.site_width

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        parts, nodes = [x], x.shape[2]
        if known.shape[2]:
            parts.append(known[:, : self.history].unsqueeze(2).expand(-1, -1, nodes, -1))
        if self.site is not None:
            parts.append(self.site.expand(x.shape[0], x.shape[1], -1, -1))
        out: State = {"h": torch.cat(parts, 3)}
        if self.known.width:
            out["context"] = self.known(x, known)
        if self.base is not None:
            out["base"] = self.base(x)
        return out


class Core(nn.Module):
    """The blocks, then one gated map of all steps: h (batch, history, nodes, width) to (batch, outputs, channels)."""

    polynomials: Tensor

    def __init__(self, problem: Problem, width: int, options: Options) -> None:
        super().__init__()
        order = min(options.order, problem.nodes)  # a site alone has no hops
        self.seen = views.outputs(problem)
        widths = [width] + [options.channels] * (options.blocks - 1)
        self.layers = nn.ModuleList(Block(inputs, problem.nodes, order, options) for inputs in widths)
        self.collapse = nn.Linear(problem.history * options.channels, 2 * options.channels)
        self.register_buffer("polynomials", torch.zeros(order - 1, problem.nodes, problem.nodes))

    def sequence(self, state: State) -> Tensor:
        """(batch, history, nodes, channels): step t has seen no later step."""
        h = state["h"]
        for layer in self.layers:
            h = layer(h, self.polynomials)
        return h

    def forward(self, state: State) -> State:
        steps = self.sequence(state)[:, :, self.seen]
        value, gate = self.collapse(steps.transpose(1, 2).flatten(2)).chunk(2, 2)
        return {**state, "h": value * torch.sigmoid(gate)}


class Head(nn.Module):
    """A linear map, the same for every site, of h and what is known of the target steps; adds the base."""

    def __init__(self, problem: Problem, width: int, options: Options) -> None:
        super().__init__()
        self.shape = (problem.horizon, len(problem.targets), problem.out_quantiles)
        self.map = nn.Linear(width + Known(problem).width, math.prod(self.shape))
        if options.residual != "none":  # start close to the base
            with torch.no_grad():
                self.map.weight.mul_(0.1)
                self.map.bias.zero_()

    def forward(self, state: State) -> State:
        h = torch.cat((state["h"], state["context"]), 2) if "context" in state else state["h"]
        y = self.map(h).unflatten(2, self.shape).transpose(1, 2)
        return {"y": y + state["base"] if "base" in state else y}


class Network(_contract.Network):
    """Graph convolutions between all sites (or the nodes of a patch) of a grid, or of those that correlate."""

    title = "STGCN"
    paper = "Yu, Yin and Zhu, Spatio-temporal graph convolutional networks, IJCAI 2018, arXiv:1709.04875"
    inputs: ClassVar[tuple[Inputs, ...]] = ("all", "patch", "site")
    presets: ClassVar = {"paper": {"channels": 64, "graph_channels": 16, "site_width": 0, "residual": "none"}}
    causal = True
    reads_edges = True
    max_sites = 2000  # the graph is a dense matrix of sites × sites

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        self.graph = self._chosen()
        embed = Embed(problem, options)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(problem, embed.width, options))
        self.blocks.add_module("head", Head(problem, options.channels, options))
        if problem.grid is not None and self.graph == "grid":
            self._connect(grid_adjacency(*problem.grid))
        elif self.graph == "data":
            self._connect(weighted(problem.edges, problem.nodes))

    def _chosen(self) -> str:
        """Where the edges are from.

        Raises:
            ValueError: from where there are none.
        """
        p, asked = self.problem, self.options.adjacency
        there = {"grid": p.grid is not None or p.nodes == 1, "data": bool(p.edges), "correlation": True}
        chosen: str = asked if asked != "auto" else next(name for name, known in there.items() if known)
        if not there[chosen]:
            raise ValueError(
                f"adjacency '{chosen}': these sites lie on no grid; use 'correlation' or 'auto'"
                if chosen == "grid"
                else "adjacency 'data': the data set knows no edges between these sites; use 'correlation' or 'auto'"
            )
        return chosen

    def _connect(self, adjacency: Tensor) -> None:
        core = self.blocks.core
        core.polynomials.copy_(chebyshev(adjacency, len(core.polynomials) + 1)[1:])

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "channels": trial.suggest_categorical("channels", (16, 24, 48)),
            "blocks": trial.suggest_int("blocks", 1, 2),
            "order": trial.suggest_int("order", 1, 3),
            "adjacency": trial.suggest_categorical("adjacency", ("auto", "correlation")),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Connect the nodes that correlate on training windows, where no grid says which are neighbours."""
        if self.graph != "correlation" or self.problem.nodes == 1:
            return
        correlation = Correlation(self.problem.nodes)
        for batch in batches:
            correlation.add(batch.x[..., : len(self.problem.targets)])
        self._connect(nearest(correlation.matrix(), self.options.neighbours))
