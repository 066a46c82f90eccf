"""Forecaster: a network with its scaler; raw telemetry goes in, raw units come out.

Legend: B windows of a batch, H history, F horizon, N nodes, O outputs, C channels, T targets, Q quantiles, S sites.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cellwright.data.windows import VALID, Windows
from cellwright.errors import TrainingError
from cellwright.files import write_bytes
from models._contract import Network, Problem

if TYPE_CHECKING:
    from cellwright.data.maps import Maps
    from cellwright.data.scaler import Scaler
    from cellwright.training.candidates import Candidate

FILE = "forecaster.safetensors"


class Forecaster(nn.Module):
    """forward(history, known, site) -> forecast

    history (B, H, N, C)       raw units, NaN = missing; channels as in `problem.features`
    known   (B, H + F, known)  calendar features as in `problem.known`
    site    (B,) int64         index of the forecast site (the centre of a patch); not read with inputs "all"
    returns (B, F, O, T, Q)    raw units
    """

    center: Tensor  # (S, C)
    scale: Tensor  # (S, C)
    logged: Tensor  # (C,) bool: channels scaled in log(1 + x)
    neighbours: Tensor  # (S, N) int64, -1 outside of the grid; (0, 0) with inputs "all"

    def __init__(self, network: Network, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """`tensors`: the four buffers above; `about`: what `load` needs beside the weights (JSON)."""
        super().__init__()
        self.network, self.about = network, about
        self.problem: Problem = network.problem
        self.clip: float | None = about["clip"]
        for name in ("center", "scale", "logged", "neighbours"):
            self.register_buffer(name, tensors[name])

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of `site`."""
        return tuple(self.about["sites"])

    def forward(self, history: Tensor, known: Tensor, site: Tensor) -> Tensor:
        """Forecast in raw units (shapes above)."""
        return self.denormalise(self.network(self.normalise(history, site), known), site)

    def forward_map(self, history: Tensor, known: Tensor, grid: tuple[int, int]) -> Tensor:
        """What `forward` says of every site, patches computed once; only where `network.maps`, and with inputs "patch".

        history (B, H, S, C) and known as in `forward`; grid: (rows, columns) of the sites. Returns (B, F, S, T, Q), raw units.
        """
        x = self._scaled(history, self.center[None, None], self.scale[None, None])
        y = self.network.forward_map(x.reshape(*x.shape[:2], *grid, -1), known)
        targets = len(self.problem.targets)
        return self._raw(y, self.center[None, None, :, :targets], self.scale[None, None, :, :targets])

    def normalise(self, history: Tensor, site: Tensor) -> Tensor:
        """Scaled history of the same shape; 0, the site's usual value, where it is missing."""
        return self._scaled(history, self._per_node(self.center, site), self._per_node(self.scale, site))

    def _scaled(self, history: Tensor, center: Tensor, scale: Tensor) -> Tensor:
        missing = torch.isnan(history)  # taken first: runtimes differ in what NaN becomes on its way
        x = torch.where(self.logged, self._log(history), history) if self.about["scaler"] == "log" else history
        x = (x - center) / scale
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        return torch.where(missing, 0.0, x)

    def _log(self, history: Tensor) -> Tensor:
        """log(1 + x). Runtimes differ in its last bit: rounded from float64, they agree for a network that jumps."""
        x = history.clamp(min=0)
        return torch.log1p(x.double()).to(x.dtype) if self.network.jumps else torch.log1p(x)

    def normalise_target(self, target: Tensor, site: Tensor) -> Tensor:
        """Scaled target (B, F, O, T), unclipped."""
        y = torch.log1p(target.clamp(min=0)) if self.about["scaler"] == "log" else target
        return (y - self._per_output(self.center, site)) / self._per_output(self.scale, site)

    def denormalise(self, y: Tensor, site: Tensor) -> Tensor:
        """Raw units of a scaled forecast (B, F, O, T, Q), its quantiles in ascending order.

        A head learns its quantiles one by one, so they may cross; put in order they are never worse (Chernozhukov, Fernández-Val
        and Galichon, "Quantile and probability curves without crossing", Econometrica 78, 2010).
        """
        return self._raw(y, self._per_output(self.center, site), self._per_output(self.scale, site))

    def _raw(self, y: Tensor, center: Tensor, scale: Tensor) -> Tensor:
        raw = y * scale.unsqueeze(-1) + center.unsqueeze(-1)
        if len(self.problem.quantiles) > 1:
            raw = raw.sort(dim=-1).values
        return torch.expm1(raw) if self.about["scaler"] == "log" else raw

    def _per_node(self, table: Tensor, site: Tensor) -> Tensor:
        """(B or 1, 1, N, C)."""
        if self.problem.inputs == "all":
            return table[None, None]
        if self.problem.inputs == "site":
            return table[site][:, None, None]
        return table[self.neighbours[site].clamp(min=0)][:, None]

    def _per_output(self, table: Tensor, site: Tensor) -> Tensor:
        """(B or 1, 1, O, T)."""
        targets = table[:, : len(self.problem.targets)]
        return targets[None, None] if self.problem.inputs == "all" else targets[site][:, None, None]

    def save(self, folder: Path) -> Path:
        """Write forecaster.safetensors: weights, scaler and, in its header, what they are. No pickle."""
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.state_dict().items()}
        write_bytes(folder / FILE, save(tensors, {"cellwright": json.dumps(self.about)}))
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote, on the CPU, in evaluation mode.

        Raises:
            TrainingError: the file is missing, damaged, or of a model whose code changed its form since.
        """
        path = folder / FILE
        try:
            with safe_open(path, framework="pt") as header:
                about = json.loads(header.metadata()["cellwright"])
            tensors = load_file(path)
        except (FileNotFoundError, SafetensorError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is missing or damaged ({error}); train this candidate again") from error
        forecaster = cls(network_of(about), {k: tensors[k] for k in ("center", "scale", "logged", "neighbours")}, about)
        try:
            forecaster.load_state_dict(tensors)
        except RuntimeError as error:
            raise TrainingError(
                f"{path} was trained with another form of model '{about['model']}'; train it again: {error}"
            ) from error
        return forecaster.eval()


def build(candidate: Candidate, scaler: Scaler) -> Forecaster:
    """A forecaster with fresh weights (torch's current seed) and the scaler's numbers."""
    c = candidate
    identity = {"key": c.key, "model": c.model, "preset": c.preset, "sha256": c.sha256}
    return assembled(c.network(c.problem, c.options), scaler, c.grid, identity)


def assembled(network: Network, scaler: Scaler, grid: tuple[int, int] | None, identity: dict[str, Any]) -> Forecaster:
    """A forecaster of a network that is there, with the scaler's numbers; `identity`: its key, model, preset and sha256."""
    from cellwright.data.channels import joined
    from cellwright.data.windows import neighbours_of

    problem = network.problem
    table = neighbours_of(problem, len(scaler.sites), grid)
    tensors = {
        "center": torch.from_numpy(scaler.center),
        "scale": torch.from_numpy(scaler.scale),
        "logged": torch.tensor([name != VALID and not joined(problem, name) for name in problem.features]),
        "neighbours": torch.zeros((0, 0), dtype=torch.int64) if table is None else torch.from_numpy(table),
    }
    about = {
        **identity,
        "options": asdict(network.options),
        "problem": asdict(problem),
        "scaler": scaler.kind,
        "clip": scaler.clip,
        "sites": list(scaler.sites),
    }
    return Forecaster(network, tensors, json.loads(json.dumps(about)))


def problem_from(stored: dict[str, Any]) -> Problem:
    """The Problem of its JSON form."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return Problem(**plain)


def network_of(about: dict[str, Any]) -> Network:
    """A network of the form that a forecaster's header names, with fresh weights."""
    from cellwright.training.candidates import module_of
    from cellwright.training.own_model import is_own

    if is_own(about["model"]) and not about.get("sha256"):  # a header must not choose what is executed
        raise TrainingError(f"the forecaster names the file {about['model']} without its SHA-256; train this candidate again")
    module = module_of(about["model"], about.get("sha256"))
    known = {f.name for f in fields(module.Options)}
    if unknown := set(about["options"]) - known:
        raise TrainingError(f"model '{about['model']}' no longer has the options {sorted(unknown)}; train it again")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in about["options"].items()}
    network: Network = module.Network(problem_from(about["problem"]), module.Options(**options))
    return network


def point_index(problem: Problem) -> int:
    """Which of the quantiles is the point forecast: the one nearest to the median."""
    return int(np.argmin(np.abs(np.array(problem.quantiles or (0.5,)) - 0.5)))


def forecast_panel(forecaster: Forecaster, windows: Windows, origins: np.ndarray, batch: int = 8192) -> np.ndarray:
    """Point forecasts of every site at every origin: (windows, horizon, sites, targets) float32, raw units.

    `batch` counts windows of one site; a network that takes all sites at once gets as many origins as make that many.
    """
    return answer_panel(forecaster, windows, origins, batch)[..., point_index(forecaster.problem)]


def answer_panel(forecaster: Forecaster, windows: Windows, origins: np.ndarray, batch: int = 8192) -> np.ndarray:
    """All that the network says: (windows, horizon, sites, targets, quantiles) float32, raw units; a point model has one."""
    problem = forecaster.problem
    shape = (len(origins), problem.horizon, windows.sites, len(problem.targets), problem.out_quantiles)
    out = np.empty(shape, dtype=np.float32)
    at_once, maps = max(1, batch // windows.sites), _maps_of(forecaster, windows)
    was_training = forecaster.training
    forecaster.eval()
    with torch.inference_mode():
        for first in range(0, len(origins), at_once):
            some = origins[first : first + at_once]
            out[first : first + len(some)] = _whole(forecaster, maps, some) if maps else _each(forecaster, windows, some, batch)
    forecaster.train(was_training)
    return out


def _maps_of(forecaster: Forecaster, windows: Windows) -> Maps | None:
    """What to forecast whole grids from; None: the network, or its inputs, want them site by site."""
    from cellwright.data.maps import Maps

    return Maps(windows) if forecaster.network.maps and forecaster.problem.inputs == "patch" else None


def _whole(forecaster: Forecaster, maps: Maps, origins: np.ndarray) -> np.ndarray:
    """(origins, F, S, T, Q), every site of the grid at once."""
    history, known = (torch.from_numpy(a).to(forecaster.center.device) for a in maps.gather(origins))
    answer: np.ndarray = forecaster.forward_map(history, known, maps.grid).cpu().numpy()
    return answer


def _each(forecaster: Forecaster, windows: Windows, origins: np.ndarray, batch: int) -> np.ndarray:
    """(origins, F, S, T, Q), site by site."""
    if forecaster.problem.inputs == "all":
        return _answer(forecaster, windows, origins, np.zeros(len(origins), np.int64))
    times, sites = np.repeat(origins, windows.sites), np.tile(np.arange(windows.sites), len(origins))
    parts = [_answer(forecaster, windows, times[i : i + batch], sites[i : i + batch]) for i in range(0, len(times), batch)]
    y = np.concatenate(parts)[:, :, 0]  # (origins · S, F, T, Q)
    return y.reshape(len(origins), windows.sites, *y.shape[1:]).transpose(0, 2, 1, 3, 4)


def _answer(forecaster: Forecaster, windows: Windows, origins: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """(B, F, O, T, Q)."""
    device = forecaster.center.device
    raw = windows.raw(origins, sites)
    arrays = (torch.from_numpy(a).to(device) for a in (raw.history, raw.known, sites.astype(np.int64)))
    answer: np.ndarray = forecaster(*arrays).cpu().numpy()
    return answer
