"""Ridge regression from one pass over batches, exact also where single targets are masked.

Legend: N windows, P features, C outputs (columns of the targets), Z the standardised features with a column of ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_SUMS = ("gram_PP", "cross_PC", "x_P", "y_C", "y2_C", "measured_C")
MOST_STEPS = 1000  # of conjugate gradients: ten to a few hundred were enough, even where 999 of 1,000 targets were missing


@dataclass
class Sums:
    """Sums over the windows that have at least one measured target, in float64; partly masked ones are kept as rows too."""

    gram_PP: Tensor
    cross_PC: Tensor
    x_P: Tensor
    y_C: Tensor
    y2_C: Tensor
    measured_C: Tensor
    windows: int = 0
    partial_x: list[Tensor] = field(default_factory=list)
    partial_mask: list[Tensor] = field(default_factory=list)
    lacking: Lacking | None = None  # the partly masked windows as sums, in place of the rows

    @classmethod
    def empty(cls, features: int, outputs: int) -> Sums:
        """Nothing seen yet."""
        shapes = ((features, features), (features, outputs), (features,), (outputs,), (outputs,), (outputs,))
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, x_NP: Tensor, y_NC: Tensor, mask_NC: Tensor) -> None:
        """Add a batch; windows without any measured target say nothing and are left out."""
        kept = mask_NC.any(1)
        if not bool(kept.all()):
            x_NP, y_NC, mask_NC = x_NP[kept], y_NC[kept], mask_NC[kept]
        partial = ~mask_NC.all(1)
        if bool(partial.any()):
            self.partial_x.append(x_NP[partial].float())
            self.partial_mask.append(mask_NC[partial])
        x, y = x_NP.double(), torch.where(mask_NC, y_NC, 0.0).double()
        self.gram_PP.addmm_(x.T, x)
        self.cross_PC.addmm_(x.T, y)
        self.x_P += x.sum(0)
        self.y_C += y.sum(0)
        self.y2_C += y.square().sum(0)
        self.measured_C += mask_NC.sum(0)
        self.windows += len(x)

    def tensors(self) -> dict[str, Tensor]:
        """Sums alone, no row among them: those of several data owners add up, and `of` takes them back."""
        lacking = self.lacking or Lacking.summed(
            *self.gram_PP.shape[:1], *self.measured_C.shape, self.partial_x, self.partial_mask
        )
        sums = {name: getattr(self, name) for name in _SUMS}
        return sums | lacking._asdict() | {"windows": torch.tensor([self.windows], dtype=torch.float64)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Sums:
        """The sums that `tensors` gave."""
        lacking = Lacking(*(tensors[name] for name in Lacking._fields))
        sums = {name: tensors[name] for name in _SUMS}
        return cls(**sums, windows=int(tensors["windows"].item()), lacking=lacking if bool(lacking.count_C.any()) else None)


class Lacking(NamedTuple):
    """Per output, the sums over the windows that count for others but lack a target of its own: what is taken off again."""

    gram_CPP: Tensor
    sum_CP: Tensor
    count_C: Tensor

    @classmethod
    def summed(cls, features: int, outputs: int, x: list[Tensor], mask: list[Tensor]) -> Lacking:
        """Of rows and their masks, batch by batch."""
        shapes = ((outputs, features, features), (outputs, features), (outputs,))
        gram, total, count = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
        for x_NP, mask_NC in zip(x, mask, strict=True):
            for c in (~mask_NC).any(0).nonzero().flatten().tolist():
                rows = x_NP[~mask_NC[:, c]].double()
                gram[c].addmm_(rows.T, rows)
                total[c] += rows.sum(0)
                count[c] += len(rows)
        return cls(gram, total, count)


@dataclass(frozen=True)
class Fit:
    """y = x @ weight + bias, and the standard deviation of what is left."""

    weight_PC: Tensor
    bias_C: Tensor
    sigma_C: Tensor


class _System:
    """The normal equations in standardised features: K = Z'Z + penalty (none on the ones), block-diagonal since Z is centred.

    With a masked target the system of its column is K - D, D = the sum of z z' over the column's masked windows.
    """

    def __init__(self, sums: Sums, penalty: float) -> None:
        self.mean_P = sums.x_P / sums.windows
        covariance = sums.gram_PP / sums.windows - torch.outer(self.mean_P, self.mean_P)
        spread = covariance.diagonal().clamp_min(0).sqrt()
        constant = spread <= 1e-7 * (1 + self.mean_P.abs())  # a feature that never changes gets no weight
        self.scale_P = torch.where(constant, torch.inf, spread)
        gram = sums.windows * covariance / self.scale_P[:, None] / self.scale_P[None, :]
        self.penalty = max(penalty, 1e-9 * sums.windows)  # a trace of it keeps collinear features solvable
        gram.diagonal().add_(self.penalty)
        self.factor, self.windows = torch.linalg.cholesky(gram), sums.windows
        cross = (sums.cross_PC - torch.outer(self.mean_P, sums.y_C)) / self.scale_P[:, None]
        self.right_ZC = torch.cat((cross, sums.y_C[None]), 0)

    def solve(self, right_ZC: Tensor) -> Tensor:
        """K⁻¹ applied to columns."""
        return torch.cat((torch.cholesky_solve(right_ZC[:-1], self.factor), right_ZC[-1:] / self.windows), 0)

    def rows(self, x_NP: Tensor) -> Tensor:
        """Windows as rows of Z."""
        return torch.cat(((x_NP.double() - self.mean_P) / self.scale_P, torch.ones(len(x_NP), 1, dtype=torch.float64)), 1)


class _Gaps(Protocol):
    """D of the outputs that have masked targets, as a product."""

    columns: Tensor  # which outputs

    def product(self, b_ZK: Tensor) -> Tensor:
        """D b, column by column of `columns`."""
        ...


class _RowGaps:
    """From the masked windows themselves."""

    def __init__(self, sums: Sums, system: _System) -> None:
        self._rows = system.rows(torch.cat(sums.partial_x))
        missing = ~torch.cat(sums.partial_mask)
        self.columns = missing.any(0).nonzero().squeeze(1)
        self._where = [missing[:, c].nonzero().squeeze(1) for c in self.columns]

    def product(self, b_ZK: Tensor) -> Tensor:
        out = torch.empty_like(b_ZK)
        for c, index in enumerate(self._where):
            masked = self._rows[index]
            out[:, c] = masked.T @ (masked @ b_ZK[:, c])
        return out


class _SummedGaps:
    """From their sums."""

    def __init__(self, lacking: Lacking, system: _System) -> None:
        self.columns = lacking.count_C.nonzero().squeeze(1)
        gram, total, count = (t[self.columns] for t in lacking)
        mean, scale = system.mean_P, system.scale_P
        centred = (total - count[:, None] * mean) / scale  # (K, P)
        shifted = (
            gram - total[:, :, None] * mean - mean[:, None] * total[:, None] + count[:, None, None] * torch.outer(mean, mean)
        )
        top = torch.cat((shifted / scale[:, None] / scale, centred[:, :, None]), 2)
        bottom = torch.cat((centred, count[:, None]), 1)
        self._d_KZZ = torch.cat((top, bottom[:, None]), 1)

    def product(self, b_ZK: Tensor) -> Tensor:
        return torch.einsum("kzy,yk->zk", self._d_KZZ, b_ZK)


def solve(sums: Sums, penalty: float, *, tolerance: float = 1e-8, max_steps: int = MOST_STEPS) -> Fit:
    """Ridge with standardised features, an unpenalised intercept, and each output fitted on its own measured targets.

    All outputs share one Cholesky factor. Outputs with masked targets are then corrected by conjugate gradients on their own
    system, preconditioned by that factor, until the residual is `tolerance` of the right side.

    Raises:
        ValueError: no window has a measured target, or the residual is larger still after `max_steps`.
    """
    if sums.windows == 0 or bool((sums.measured_C == 0).any()):
        raise ValueError("ridge needs at least one measured target of each output in the training windows, found none for some")
    system = _System(sums, penalty)
    coefficients_ZC = system.solve(system.right_ZC)
    if sums.lacking is not None or sums.partial_x:
        gaps = _SummedGaps(sums.lacking, system) if sums.lacking is not None else _RowGaps(sums, system)
        _correct(coefficients_ZC, system, gaps, tolerance, max_steps)
    return _unscaled(coefficients_ZC, system, sums)


def _correct(b_ZC: Tensor, system: _System, gaps: _Gaps, tolerance: float, max_steps: int) -> None:
    """Conjugate gradients on the columns that have masked targets, in place."""
    columns = gaps.columns
    b, goal = b_ZC[:, columns], tolerance * system.right_ZC[:, columns].norm(dim=0)
    residual = gaps.product(b)  # right - (K - D) b, and K b = right at the start
    z = system.solve(residual)
    p, kp = z.clone(), residual.clone()  # K p follows p without a product, as K z = residual
    energy = (residual * z).sum(0)
    for _ in range(max_steps):
        if _settled(residual, goal):
            break
        ap = kp - gaps.product(p)
        step = energy / (p * ap).sum(0).clamp_min(torch.finfo(torch.float64).tiny)
        b = b + step * p
        residual = residual - step * ap
        z = system.solve(residual)
        previous, energy = energy, (residual * z).sum(0)
        beta = energy / previous.clamp_min(torch.finfo(torch.float64).tiny)
        p, kp = z + beta * p, residual + beta * kp
    if not _settled(residual, goal):
        share = float((residual.norm(dim=0) / system.right_ZC[:, columns].norm(dim=0)).nan_to_num(torch.inf).max())
        raise ValueError(
            f"ridge on targets with gaps: after {max_steps} steps of conjugate gradients the residual is {share:.1e} of the right "
            f"side, at most {tolerance:.0e} is accepted; raise the option penalty, or leave out sites that were hardly measured"
        )
    b_ZC[:, columns] = b


def _settled(residual_ZC: Tensor, goal_C: Tensor) -> bool:
    return bool((residual_ZC.norm(dim=0) <= goal_C).all())


def _unscaled(b_ZC: Tensor, system: _System, sums: Sums) -> Fit:
    """Coefficients for raw features, and the residual's standard deviation."""
    weight = b_ZC[:-1] / system.scale_P[:, None]
    bias = b_ZC[-1] - system.mean_P @ weight
    # at the solution (Z'Z + penalty) b = Z'y, hence |y - Z b|² = y'y - b'Z'y - penalty |b|², the intercept left out of |b|
    explained = (b_ZC * system.right_ZC).sum(0) + system.penalty * b_ZC[:-1].square().sum(0)
    left = (sums.y2_C - explained).clamp_min(0)
    return Fit(weight, bias, (left / sums.measured_C).sqrt())
