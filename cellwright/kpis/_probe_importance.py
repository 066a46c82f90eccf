"""Probe: permutation importance. How much the error grows when one kind of input says nothing any more.

The values of a feature, a site of the neighbourhood, or a step of the history are exchanged between the probed windows, all at once and
after scaling, so that they keep their distribution and lose their meaning; the growth of MAE is how much the forecaster leaned on
them. Breiman, "Random forests", Machine Learning 45 (2001); as "model reliance", Fisher, Rudin and Dominici, JMLR 20 (2019).

Legend: B windows, H history, N nodes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellwright.forecaster import Forecaster, point_index
from cellwright.kpis._bed import Bed, Sample, channels, mae
from cellwright.kpis._probes import Found
from cellwright.results import Importance

FEEDS = ()  # its tables are shown beside the KPIs
CALENDAR = "calendar"
_MOST_NODES, _MOST_STEPS = 49, 24  # of more, some are taken together
_AT_ONCE = 512


@dataclass(frozen=True)
class Part:
    """A kind of input: which values of x it is, or the calendar."""

    name: str
    cells: np.ndarray  # (H, N, C) bool
    calendar: bool = False


@dataclass(frozen=True)
class Scaled:
    """The probed windows as the network sees them."""

    x: Tensor  # (B, H, N, C)
    known: Tensor
    site: Tensor

    @classmethod
    def of(cls, forecaster: Forecaster, sample: Sample) -> Scaled:
        """Scale a sample."""
        site = torch.from_numpy(sample.site)
        return cls(forecaster.normalise(torch.from_numpy(sample.history), site), torch.from_numpy(sample.known), site)


def probe(bed: Bed) -> Found:
    """Exchange each kind of input in turn."""
    sample = bed.test
    scaled = Scaled.of(bed.forecaster, sample)
    base = mae(_forecast(bed.forecaster, scaled.x, scaled), sample)
    order = torch.from_numpy(bed.rng.permutation(len(sample)))
    if base == 0:
        return Found()  # nothing can be told apart from no error at all
    importance = []
    for of, parts in (("feature", features(bed)), ("site", sites(bed)), ("step", steps(bed))):
        values = tuple(mae(_without(bed.forecaster, scaled, part, order), sample) / base - 1 for part in parts)
        importance.append(Importance(how="permutation", of=of, names=tuple(p.name for p in parts), values=values))
    return Found(importance=tuple(importance))


def _without(forecaster: Forecaster, scaled: Scaled, part: Part, order: Tensor) -> np.ndarray:
    if part.calendar:
        return _forecast(forecaster, scaled.x, Scaled(scaled.x, scaled.known[order], scaled.site))
    return _forecast(forecaster, torch.where(torch.from_numpy(part.cells), scaled.x[order], scaled.x), scaled)


def _forecast(forecaster: Forecaster, x: Tensor, scaled: Scaled) -> np.ndarray:
    """(B, F, O, T) raw units, of `x` with the calendar and the sites of `scaled`."""
    parts = []
    with torch.inference_mode():
        for first in range(0, len(x), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            y = forecaster.network(x[some], scaled.known[some])
            parts.append(forecaster.denormalise(y, scaled.site[some])[..., point_index(forecaster.problem)].numpy())
    return np.concatenate(parts)


def features(bed: Bed) -> list[Part]:
    """Each channel, over all nodes and steps, and the calendar; `valid` says nothing by itself."""
    problem, valid = bed.forecaster.problem, channels(bed)["valid"]
    found = [Part(name, _cells(bed, channel=[c])) for c, name in enumerate(problem.features) if c not in valid]
    return [*found, Part(CALENDAR, _cells(bed, channel=[]), calendar=True)] if problem.known else found


def sites(bed: Bed) -> list[Part]:
    """Each node of the neighbourhood, or rings around the centre, or groups of all sites; none for a network of single sites."""
    problem = bed.forecaster.problem
    if problem.nodes == 1:
        return []
    grouped = _all_sites(bed) if problem.inputs == "all" else _around(round(problem.nodes**0.5))
    return [Part(name, _cells(bed, node=nodes)) for name, nodes in grouped]


def _around(edge: int) -> list[tuple[str, Sequence[int]]]:
    """Nodes of a K×K patch by their place, or, of a large patch, by their distance."""
    rows, columns = np.divmod(np.arange(edge * edge), edge) - np.array(edge // 2)
    if edge * edge <= _MOST_NODES:
        return [(f"{r:+d}, {c:+d}" if r or c else "itself", [i]) for i, (r, c) in enumerate(zip(rows, columns, strict=True))]
    ring = np.maximum(np.abs(rows), np.abs(columns))
    return [(f"ring {d}" if d else "itself", np.flatnonzero(ring == d).tolist()) for d in range(edge // 2 + 1)]


def _all_sites(bed: Bed) -> list[tuple[str, Sequence[int]]]:
    """Each site, or sites that follow each other together."""
    names = bed.panel.schema.sites
    groups = np.array_split(np.arange(len(names)), min(len(names), _MOST_NODES))
    return [(names[g[0]] if len(g) == 1 else f"{names[g[0]]} … {names[g[-1]]}", g.tolist()) for g in groups]


def steps(bed: Bed) -> list[Part]:
    """Each step of the history, newest first (-1), or steps that follow each other; lags are features, and stay."""
    history, kinds = bed.forecaster.problem.history, channels(bed)
    groups = np.array_split(np.arange(1, history + 1), min(history, _MOST_STEPS))
    own = [c for kind in ("measured", "mean", "joined", "valid") for c in kinds[kind]]
    return [Part(_ago(g), _cells(bed, step=(history - g).tolist(), channel=own)) for g in groups]


def _ago(group: np.ndarray) -> str:
    return f"−{group[0]}" if len(group) == 1 else f"−{group[0]} … −{group[-1]}"


def _cells(
    bed: Bed, *, step: Sequence[int] | None = None, node: Sequence[int] | None = None, channel: Sequence[int] | None = None
) -> np.ndarray:
    """(H, N, C) bool: the values at these steps, nodes and channels; None: all of them."""
    problem = bed.forecaster.problem
    axes = ((problem.history, step), (problem.nodes, node), (len(problem.features), channel))
    h, n, c = (np.ones(size, bool) if some is None else np.isin(np.arange(size), some) for size, some in axes)
    return h[:, None, None] & n[None, :, None] & c[None, None, :]
