"""Many smooth convex problems minimised side by side by limited-memory BFGS."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_HISTORY, _EVALUATIONS, _SHORTEST = 10, 1000, 1e-12


class Point(NamedTuple):
    """What is known where P problems with D parameters each stand. float64.

    Attributes:
        weight: (P, D).
        loss: (P,).
        gradient: (P, D).
        curvature: (P, K), whatever the problems' preconditioner needs to know.
    """

    weight: Tensor
    loss: Tensor
    gradient: Tensor
    curvature: Tensor

    def of(self, rows: Tensor) -> Point:
        """Some of the problems."""
        return Point(*(part[rows] for part in self))

    def put(self, other: Point, rows: Tensor, wanted: Tensor) -> None:
        """Take over the `wanted` (A,) of the problems `rows` (A,), in place."""
        for mine, theirs in zip(self, other, strict=True):
            mine[rows[wanted]] = theirs[wanted]


Pair = tuple[Tensor, Tensor, Tensor]


class Problems(Protocol):
    """Problems that share the cost of an evaluation."""

    tolerance: float
    """Converged: half the squared Newton decrement, an estimate of how far the loss is above its minimum."""
    rounding: float
    """Relative error of a loss."""

    def start(self) -> Tensor:
        """(P, D) where to begin."""
        ...

    def evaluate(self, weight: Tensor, rows: Tensor) -> Point:
        """(A, D) weights of the problems `rows` (A,)."""
        ...

    def precondition(self, gradient: Tensor, curvature: Tensor, rows: Tensor) -> Tensor:
        """About the inverse Hessian times (A, D), for the problems `rows` (A,)."""
        ...


def minimise(problems: Problems) -> tuple[Tensor, Tensor]:
    """L-BFGS with backtracking (Nocedal and Wright, Numerical Optimization, 2006, section 7.2).

    Each problem has its own history and its own step: one optimiser over the sum of all would make them share a step.
    The problems' own guess of the inverse Hessian stands in for the usual multiple of the identity. A problem that
    has converged is not evaluated any more.

    Returns:
        Weights (P, D) and whether each problem converged (P,).
    """
    weight = problems.start()
    rows = torch.arange(len(weight), device=weight.device)  # those that have not converged
    at = problems.evaluate(weight, rows)
    history: deque[Pair] = deque(maxlen=_HISTORY)
    step, direction = torch.ones_like(at.loss), torch.zeros_like(weight)
    accepted = torch.ones_like(at.loss, dtype=torch.bool)
    converged = torch.zeros_like(accepted)
    for _ in range(_EVALUATIONS):
        new = rows[accepted[rows]]
        converged[new] = _excess(problems, at.of(new), new) <= problems.tolerance
        rows = rows[~converged[rows] & (step[rows] > _SHORTEST)]
        if len(rows) == 0:
            break
        new = rows[accepted[rows]]
        direction[new] = -_inverse_hessian_product(problems, at.of(new), history, new)
        trial = problems.evaluate(at.weight[rows] + step[rows, None] * direction[rows], rows)
        slope = (direction[rows] * at.gradient[rows]).sum(1)
        bound = at.loss[rows] + 1e-4 * step[rows] * slope + problems.rounding * at.loss[rows].abs()
        enough = trial.loss <= bound  # Armijo; false for NaN as well
        history.append(_pair(at, trial, rows, enough))
        at.put(trial, rows, enough)
        accepted[rows] = enough
        step[rows] = torch.where(enough, 1.0, step[rows] / 2)
    return at.weight, converged


def _excess(problems: Problems, at: Point, rows: Tensor) -> Tensor:
    """Half the squared Newton decrement (Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5.1). (A,)."""
    return 0.5 * (at.gradient * problems.precondition(at.gradient, at.curvature, rows)).sum(1)


def _pair(at: Point, trial: Point, rows: Tensor, enough: Tensor) -> Pair:
    """Change of weights and gradient (P, D), and 1 / their product (P,); zeros for problems that stood still."""
    change, bend = torch.zeros_like(at.weight), torch.zeros_like(at.weight)
    inverse = torch.zeros_like(at.loss)
    moved = rows[enough]
    change[moved], bend[moved] = trial.weight[enough] - at.weight[moved], trial.gradient[enough] - at.gradient[moved]
    product = (change[moved] * bend[moved]).sum(1)
    inverse[moved] = torch.where(product > 0, 1 / product, 0)
    return change, bend, inverse


def _inverse_hessian_product(problems: Problems, at: Point, history: deque[Pair], rows: Tensor) -> Tensor:
    """The two-loop recursion (Nocedal and Wright, algorithm 7.4), row by row. (A, D)."""
    product, removed = at.gradient.clone(), []
    pairs = [(change[rows], bend[rows], inverse[rows]) for change, bend, inverse in history]
    for change, bend, inverse in reversed(pairs):
        amount = (inverse * (change * product).sum(1))[:, None]
        product -= amount * bend
        removed.append(amount)
    product = problems.precondition(product, at.curvature, rows)
    for (change, bend, inverse), amount in zip(pairs, reversed(removed), strict=True):
        product += change * (amount - (inverse * (bend * product).sum(1))[:, None])
    return product
