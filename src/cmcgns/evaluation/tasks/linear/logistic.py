"""L2-regularised logistic regressions, one per strength and class, solved to convergence over shared features.

Features are standardised a block of rows at a time, so that a matrix of 190,000 × 2,048 never exists twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from cmcgns.common.errors import UserError
from cmcgns.evaluation.tasks.linear.lbfgs import Point, minimise
from cmcgns.metrics.ranking import FloatArray, IntArray

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-8}  # of the loss above its minimum
_GRAM_ROWS = 16  # times F: rows that the preconditioner looks at
_BLOCK_CELLS = 1 << 22  # features of a block: 16 MB as float32
Features = npt.NDArray[np.floating]


class Scale(NamedTuple):
    """What standardising subtracts and divides by.

    Attributes:
        mean: (F,).
        scale: (F,) standard deviation; 1 where a feature varies by no more than rounding.
    """

    mean: FloatArray
    scale: FloatArray


@dataclass(frozen=True)
class Design:
    """Some rows of a matrix of features, standardised when they are read.

    Attributes:
        features: (N, F), floating; may be memory-mapped.
        rows: (n,) which of them, rising.
        scale: mean and deviation.
        dtype: in which to compute.
        device: where to compute.
    """

    features: Features
    rows: IntArray
    scale: Scale
    dtype: torch.dtype
    device: torch.device

    @property
    def width(self) -> int:
        """F."""
        return int(self.features.shape[1])

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Positions in `rows`, and their standardised features (b, F)."""
        mean, scale = (torch.from_numpy(values).to(self.device, self.dtype) for values in self.scale)
        for place, values in _blocks(self.features, self.rows):
            block = torch.from_numpy(values).to(self.device, self.dtype)
            yield place, block.sub_(mean).div_(scale)

    def thinned(self, most: int) -> Design:
        """This design with at most `most` of its rows, evenly spaced."""
        if len(self.rows) <= most:
            return self
        kept = self.rows[np.linspace(0, len(self.rows) - 1, most).astype(np.intp)]
        return replace(self, rows=kept)


def measure_scale(features: Features, rows: IntArray) -> Scale:
    """Mean and standard deviation of some rows, in double precision.

    Raises:
        UserError: a feature that is not finite; names the first such row.
    """
    total, squares = (torch.zeros(features.shape[1], dtype=torch.float64) for _ in range(2))
    guess: Tensor | None = None  # near the mean, so that squares lose no digits
    for place, values in _blocks(features, rows):
        block = torch.from_numpy(values).double()
        if guess is None:
            guess = block.nan_to_num().mean(0)
        block = block - guess
        total += block.sum(0)
        squares += block.square().sum(0)
        if not torch.isfinite(squares).all():
            bad = np.logical_not(np.isfinite(values).all(axis=1))
            first = rows[place.start + int(bad.argmax())]
            raise UserError(f"features of row {first} are not finite ({bad.sum()} such rows among {len(values)})")
    assert guess is not None
    shift = total / len(rows)
    mean, deviation = (guess + shift).numpy(), (squares / len(rows) - shift.square()).clamp(min=0).sqrt().numpy()
    return Scale(mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0))


def _blocks(features: Features, rows: IntArray) -> Iterator[tuple[slice, Features]]:
    """Copies of some rows at a time; a stretch of neighbours is copied as one."""
    step = max(1, _BLOCK_CELLS // features.shape[1])
    for start in range(0, len(rows), step):
        wanted = rows[start : start + step]
        neighbours = wanted[-1] - wanted[0] == len(wanted) - 1
        values = features[wanted[0] : wanted[-1] + 1].copy() if neighbours else features[wanted]
        yield slice(start, start + len(wanted)), np.asarray(values)


def solve(
    design: Design, labels: FloatArray, l2_grid: Sequence[float], multiclass: bool
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Fit every strength.

    The loss is the mean cross-entropy of the labelled rows plus ``l2 / 2 · |w|²``; the bias is free.

    Args:
        design: n rows of F standardised features.
        labels: (n, C) 1, 0 or NaN (left out).
        l2_grid: G strengths.
        multiclass: one softmax over the classes in place of C binary regressions.

    Returns:
        Weights (G, C, F + 1), the bias last, and which strengths converged (G,).
    """
    kind = SoftmaxRegressions if multiclass else BinaryRegressions
    weight, converged = minimise(kind(design, labels, l2_grid, Preconditioner(design)))
    shape = (len(l2_grid), labels.shape[1], design.width + 1)
    return weight.cpu().numpy().reshape(shape), converged.reshape(len(l2_grid), -1).all(1).cpu().numpy()


class Preconditioner:
    """The inverse of ``curvature · Gram + l2``, from one eigendecomposition for every class and strength.

    The Hessian of a logistic regression is the Gram matrix of the features with every row weighed by p (1 - p). With
    the mean weight in place of each row's own, it differs from problem to problem only by a factor and the strength.
    L-BFGS learns the rest; without this, features as correlated as those of a network need hundreds of steps.
    """

    def __init__(self, design: Design) -> None:
        sample = design.thinned(_GRAM_ROWS * design.width)
        gram = torch.zeros(design.width, design.width, dtype=design.dtype, device=design.device)
        for _, block in sample.blocks():
            gram.addmm_(block.T, block, alpha=1 / len(sample.rows))
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp(min=0).double()

    def __call__(self, gradient: Tensor, curvature: Tensor, l2: Tensor) -> Tensor:
        """(P, F + 1), (P,), (P,) -> (P, F + 1)."""
        curvature = curvature.clamp(min=1e-12)
        rotated = (gradient[:, :-1].to(self.vectors) @ self.vectors).double()
        rotated /= curvature[:, None] * self.values + l2[:, None]
        weight = rotated.to(self.vectors) @ self.vectors.T
        return torch.cat([weight.double(), gradient[:, -1:] / curvature[:, None]], 1)


class BinaryRegressions:
    """P = G · C independent regressions."""

    def __init__(
        self, design: Design, labels: FloatArray, l2_grid: Sequence[float], preconditioner: Preconditioner
    ) -> None:
        classes = labels.shape[1]
        self.design, self.preconditioner = design, preconditioner
        known = ~np.isnan(labels)
        self.target = _tensor(np.nan_to_num(labels), design)
        self.share = _tensor(known / np.maximum(known.sum(axis=0), 1), design)
        self.l2 = torch.tensor(l2_grid, dtype=torch.float64, device=design.device).repeat_interleave(classes)
        self.column = torch.arange(classes, device=design.device).repeat(len(l2_grid))
        self.tolerance, self.rounding = TOLERANCE[design.dtype], torch.finfo(design.dtype).eps

    def start(self) -> Tensor:
        """No weights, and the bias that says how common each class is. (P, F + 1)."""
        rows = (self.share > 0).sum(0).double()
        common = ((self.target * self.share).double().sum(0) * rows + 0.5) / (rows + 1)
        weight = torch.zeros(len(self.l2), self.design.width + 1, dtype=torch.float64, device=self.l2.device)
        weight[:, -1] = torch.logit(common)[self.column]
        return weight

    def evaluate(self, weight: Tensor, rows: Tensor) -> Point:
        """(A, F + 1) weights of the problems `rows` (A,)."""
        column, l2 = self.column[rows], self.l2[rows]
        loss, curvature = torch.zeros_like(l2), torch.zeros_like(l2)
        gradient = torch.zeros_like(weight)
        direct = weight.to(self.target)
        for place, block in self.design.blocks():
            target, share = self.target[place][:, column], self.share[place][:, column]
            logits = torch.addmm(direct[:, -1], block, direct[:, :-1].T)
            loss += binary_cross_entropy_with_logits(logits, target, share, reduction="none").double().sum(0)
            chance = logits.sigmoid()
            curvature += (chance * (1 - chance) * share).sum(0)
            _add_gradient(gradient, (chance - target).mul_(share), block)
        _add_penalty(loss, gradient, weight, l2)
        return Point(weight, loss, gradient, curvature[:, None])

    def precondition(self, gradient: Tensor, curvature: Tensor, rows: Tensor) -> Tensor:
        """About the inverse Hessian times (A, F + 1)."""
        return self.preconditioner(gradient, curvature[:, 0], self.l2[rows])


class SoftmaxRegressions:
    """P = G regressions over C classes that exclude each other; rows with a missing label are left out."""

    def __init__(
        self, design: Design, labels: FloatArray, l2_grid: Sequence[float], preconditioner: Preconditioner
    ) -> None:
        self.design, self.preconditioner, self.classes = design, preconditioner, labels.shape[1]
        known = ~np.isnan(labels).any(axis=1)
        self.share = _tensor(known / max(1, known.sum()), design)[:, None, None]
        self.target = _tensor(np.nan_to_num(labels), design)
        self.l2 = torch.tensor(l2_grid, dtype=torch.float64, device=design.device)
        self.tolerance, self.rounding = TOLERANCE[design.dtype], torch.finfo(design.dtype).eps

    def start(self) -> Tensor:
        """No weights, and biases that say how common each class is. (P, C · (F + 1))."""
        common = (self.target * self.share[:, 0]).double().sum(0).clamp(min=1e-6)
        weight = torch.zeros(len(self.l2), self.classes, self.design.width + 1, dtype=torch.float64)
        weight[:, :, -1] = common.log().cpu()
        return weight.flatten(1).to(self.l2.device)

    def evaluate(self, weight: Tensor, rows: Tensor) -> Point:
        """(A, C · (F + 1)) weights of the problems `rows` (A,)."""
        l2 = self.l2[rows].repeat_interleave(self.classes)
        each = weight.reshape(-1, self.design.width + 1)  # (A · C, F + 1)
        loss, curvature, gradient = torch.zeros_like(l2), torch.zeros_like(l2), torch.zeros_like(each)
        direct = each.to(self.target)
        for place, block in self.design.blocks():
            target, share = self.target[place][:, None], self.share[place]
            logits = torch.addmm(direct[:, -1], block, direct[:, :-1].T).unflatten(1, (-1, self.classes))
            log_chance = log_softmax(logits, -1)
            chance = log_chance.exp()
            loss -= (log_chance * target * share).flatten(1).double().sum(0)
            curvature += (chance * (1 - chance) * share).flatten(1).sum(0)
            _add_gradient(gradient, (chance - target).mul_(share).flatten(1), block)
        _add_penalty(loss, gradient, each, l2)
        shape = (len(rows), -1)
        return Point(weight, loss.reshape(shape).sum(1), gradient.reshape(shape), curvature.reshape(shape))

    def precondition(self, gradient: Tensor, curvature: Tensor, rows: Tensor) -> Tensor:
        """About the inverse Hessian, class by class, times (A, C · (F + 1))."""
        each, l2 = gradient.reshape(-1, self.design.width + 1), self.l2[rows].repeat_interleave(self.classes)
        return self.preconditioner(each, curvature.flatten(), l2).reshape_as(gradient)


def _tensor(values: npt.NDArray[np.floating], design: Design) -> Tensor:
    return torch.from_numpy(values).to(design.device, design.dtype)


def _add_gradient(gradient: Tensor, residual: Tensor, block: Tensor) -> None:
    """Sums of one block are short and those over blocks double: the gradient of float32 features is good to 1e-8."""
    gradient[:, :-1] += (residual.T @ block).double()
    gradient[:, -1] += residual.double().sum(0)


def _add_penalty(loss: Tensor, gradient: Tensor, weight: Tensor, l2: Tensor) -> None:
    loss += 0.5 * l2 * weight[:, :-1].square().sum(1)
    gradient[:, :-1] += l2[:, None] * weight[:, :-1]
