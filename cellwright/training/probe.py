"""A network that the zoo's tests do not know is run once on a few random windows, so that what is wrong is told at once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cellwright.errors import ParamsError
from cellwright.training import seeding
from cellwright.training.own_model import told
from models._contract import Batch, Network, Options, Problem

_ROWS = 2
_BLOCKS = ("embed", "core", "head")


def probe(kind: type[Network], options: Options, problem: Problem, *, name: str, file: Path) -> None:
    """Build the network for `problem`, forecast, and go one step back through it. Torch's random state is left as it was.

    Raises:
        ParamsError: what is wrong, with the line of `file` that raised it, if one did.
    """
    with seeding.lock, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            _probe(kind, options, problem)
        except ParamsError as error:
            raise ParamsError(f"{name} {error}") from None
        except Exception as error:  # the code of others raises whatever it does
            raise ParamsError(f"{name} fails on a batch of random windows ({_words(problem)}): {told(error, file)}") from error


def _probe(kind: type[Network], options: Options, problem: Problem) -> None:
    network = kind(problem, options)
    _check_blocks(network)
    batch = random_batch(problem)
    if network.closed_form:
        _fit(network, batch)
    else:
        network.prepare([batch])
    _check_forecast(network, batch, problem)
    if not network.closed_form:
        _check_gradient(network, batch)


def random_batch(problem: Problem, rows: int = _ROWS) -> Batch:
    """Random windows of a problem; `valid` is 1, the calendar lies in 0…1."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, problem.history, problem.nodes, len(problem.features), generator=rng)
    if "valid" in problem.features:
        x[..., problem.features.index("valid")] = 1.0
    known = torch.rand(rows, problem.history + problem.horizon, len(problem.known), generator=rng)
    y = torch.randn(rows, problem.horizon, problem.outputs, len(problem.targets), generator=rng)
    return Batch(x, known, y, torch.ones_like(y))


def _check_blocks(network: Network) -> None:
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        raise ParamsError("sets no self.blocks: an nn.Sequential of named blocks, at least embed, core and head, is needed")
    names = [name for name, _ in blocks.named_children()]
    if lacking := [name for name in _BLOCKS if name not in names]:
        raise ParamsError(
            f"has the blocks {', '.join(names) or 'none'}: {' and '.join(lacking)} missing; name each by add_module"
        )


def _fit(network: Network, batch: Batch) -> None:
    from cellwright.training.fit import fit_closed_form

    with torch.no_grad():
        fit_closed_form(network, [batch], seed=0)


def _check_forecast(network: Network, batch: Batch, problem: Problem) -> None:
    with torch.no_grad():
        y = _forecast(network.eval(), batch)
    expected = (_ROWS, problem.horizon, problem.outputs, len(problem.targets), problem.out_quantiles)
    if tuple(y.shape) != expected:
        raise ParamsError(
            f"forecasts the shape {tuple(y.shape)} of {_words(problem)}; expected {expected}: "
            "(batch, horizon, outputs, targets, quantiles)"
        )
    if not bool(y.isfinite().all()):
        raise ParamsError(f"forecasts values that are no finite numbers from random windows ({_words(problem)})")


def _forecast(network: Network, batch: Batch) -> Tensor:
    """The network's answer, if it is one."""
    y = network(batch.x, batch.known)
    if not isinstance(y, Tensor) or not y.is_floating_point():
        raise ParamsError(
            f"forecasts {type(y).__name__}, not a tensor of floating-point numbers; the last block leaves it under 'y'"
        )
    return y


def _check_gradient(network: Network, batch: Batch) -> None:
    y = _forecast(network.train(), batch)
    if not y.requires_grad:
        raise ParamsError("has nothing to train: its forecast depends on no parameter; set closed_form, or add parameters")
    y.square().mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise ParamsError(f"has a gradient of {name} that is no finite number on random windows")


def _words(problem: Problem) -> str:
    """The problem in brief: what the shapes of x and known are."""
    x = (_ROWS, problem.history, problem.nodes, len(problem.features))
    known = (_ROWS, problem.history + problem.horizon, len(problem.known))
    return f"inputs '{problem.inputs}', x {x}, known {known}"
