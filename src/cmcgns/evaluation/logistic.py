"""Many L2-regularised logistic regressions at once, solved to convergence."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}  # largest entry of the gradient
_STEPS, _HISTORY, _HALVINGS = 2000, 20, 30


@dataclass(frozen=True)
class Regressions:
    """P = G · C independent regressions (one per strength and class) that share their features."""

    design: Tensor  # (n, F + 1), the last column is 1
    target: Tensor  # (n, P)
    share: Tensor  # (n, P), 1 / labelled rows of the class; 0 where the label is missing
    penalty: Tensor  # (P, F + 1), 0 for the bias

    def loss(self, weight: Tensor, logits: Tensor) -> Tensor:
        """(P, F + 1), (n, P) -> (P,)."""
        entropy = binary_cross_entropy_with_logits(logits, self.target, self.share, reduction="none").sum(dim=0)
        return entropy + 0.5 * (self.penalty * weight.square()).sum(dim=1)

    def gradient(self, weight: Tensor, logits: Tensor) -> Tensor:
        """(P, F + 1), (n, P) -> (P, F + 1)."""
        residual = (logits.sigmoid() - self.target) * self.share
        return residual.T @ self.design + self.penalty * weight


def regressions(design: Tensor, labels: Tensor, l2_grid: Sequence[float]) -> Regressions:
    """All problems of a grid of L2 strengths.

    Args:
        design: (n, F + 1), the last column is 1.
        labels: (n, C) 1, 0 or NaN (left out).
        l2_grid: G strengths.
    """
    known = (~labels.isnan()).to(design)
    share = known / known.sum(dim=0).clamp(min=1)
    strengths = torch.tensor(l2_grid).to(design).repeat_interleave(labels.shape[1])
    penalty = strengths[:, None].repeat(1, design.shape[1])
    penalty[:, -1] = 0
    times = (1, len(l2_grid))
    return Regressions(design, labels.nan_to_num().repeat(times), share.repeat(times), penalty)


def solve(problems: Regressions) -> tuple[Tensor, Tensor]:
    """L-BFGS with backtracking (Nocedal and Wright, Numerical Optimization, 2006, section 7.2).

    Each problem has its own history and step. One optimiser over the sum of all would make them share a step,
    and needed some 15 times as many evaluations where both were tried.

    Returns:
        Weights (P, F + 1) and whether each problem converged (P,).
    """
    weight = torch.zeros_like(problems.penalty)
    logits = problems.design @ weight.T
    loss, gradient = problems.loss(weight, logits), problems.gradient(weight, logits)
    history: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_HISTORY)
    curvature = gradient.norm(dim=1).clamp(min=1)  # of the first step, before anything is known
    tolerance = TOLERANCE[weight.dtype]
    for _ in range(_STEPS):
        active = gradient.abs().amax(dim=1) > tolerance
        direction = -_inverse_hessian_product(gradient, history, curvature) * active[:, None]
        logit_direction = problems.design @ direction.T
        slope = (direction * gradient).sum(dim=1)
        step = _backtrack(problems, (weight, logits, loss), (direction, logit_direction, slope))
        if not (step * active).any():
            break
        change = step[:, None] * direction
        weight, logits = weight + change, logits + step * logit_direction
        loss, previous = problems.loss(weight, logits), gradient
        gradient = problems.gradient(weight, logits)
        bend = gradient - previous
        product = (change * bend).sum(dim=1)
        useful = product > 0  # a problem that stood still learns nothing
        inverse = torch.where(useful, 1 / product.where(useful, torch.ones_like(product)), 0)
        history.append((change, bend, inverse))
        curvature = torch.where(useful, bend.square().sum(dim=1) * inverse, curvature)
    return weight, gradient.abs().amax(dim=1) <= tolerance


def _inverse_hessian_product(
    gradient: Tensor, history: Sequence[tuple[Tensor, Tensor, Tensor]], curvature: Tensor
) -> Tensor:
    """The two-loop recursion (Nocedal and Wright, algorithm 7.4), row by row. (P, F + 1) -> (P, F + 1)."""
    product, removed = gradient.clone(), []
    for change, bend, inverse in reversed(history):
        amount = (inverse * (change * product).sum(dim=1))[:, None]
        product -= amount * bend
        removed.append(amount)
    product /= curvature[:, None]
    for (change, bend, inverse), amount in zip(history, reversed(removed), strict=True):
        product += change * (amount - (inverse * (bend * product).sum(dim=1))[:, None])
    return product


def _backtrack(
    problems: Regressions, at: tuple[Tensor, Tensor, Tensor], along: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Halve each problem's step until its loss falls enough (Armijo); 0 where it never does. Returns (P,)."""
    weight, logits, loss = at
    direction, logit_direction, slope = along
    step = torch.ones_like(loss)
    rounding = 4 * torch.finfo(loss.dtype).eps * loss.abs()
    for _ in range(_HALVINGS):
        reached = problems.loss(weight + step[:, None] * direction, logits + step * logit_direction)
        bad = ~(reached <= loss + 1e-4 * step * slope + rounding)
        if not bad.any():
            return step
        step = torch.where(bad, step / 2, step)
    return torch.where(bad, 0, step)
