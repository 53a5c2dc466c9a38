"""Linear probe: how much a frozen encoder's features tell a logistic regression.

Features are computed once and stay fixed, so the problem is convex: it is solved to convergence rather than
trained, for every L2 strength at once, and leaves no learning rate or number of epochs to argue about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cmcgns.errors import UserError
from cmcgns.evaluation.bootstrap import patient_index
from cmcgns.evaluation.metrics import FloatArray, IntArray, check_labels, mean_auroc

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}  # largest entry of the gradient
_STEPS, _HISTORY, _HALVINGS = 2000, 20, 30


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe. All arrays float64.

    Attributes:
        weight: (C, F), for standardised features.
        bias: (C,).
        mean: (F,) of the training features.
        scale: (F,) standard deviation of the training features; 1 where a feature does not vary.
        l2: the strength chosen.
        converged: whether the gradient vanished within the allowed steps; if not, say so beside the result.
    """

    weight: FloatArray
    bias: FloatArray
    mean: FloatArray
    scale: FloatArray
    l2: float
    converged: bool

    def logits(self, features: npt.ArrayLike) -> FloatArray:
        """Log-odds, (n, F) -> (n, C): rank by these, since probabilities near 1 round to ties."""
        rows = _check_features(features)
        if rows.shape[1] != len(self.mean):
            raise UserError(f"the probe was fitted on {len(self.mean)} features, not {rows.shape[1]}")
        return np.asarray((rows - self.mean) / self.scale @ self.weight.T + self.bias)

    def predict(self, features: npt.ArrayLike) -> FloatArray:
        """Probabilities, (n, F) -> (n, C)."""
        return np.asarray(0.5 * (1 + np.tanh(self.logits(features) / 2)))


def fit_probe(
    train_features: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    val_features: npt.ArrayLike,
    val_labels: npt.ArrayLike,
    l2_grid: Sequence[float] = L2_GRID,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> LinearProbe:
    """Fit one probe per L2 strength and keep the one that does best in validation.

    Per class the loss is the mean cross-entropy of its labelled rows plus ``l2 / 2 · |w|²`` (the bias is
    free), so a strength means the same at 1 % and 100 % of the data; scikit-learn's ``C`` is ``1 / (l2 ·
    rows)``. "Best" is the highest mean area under the ROC curve, or the lowest cross-entropy where
    validation has no class with both outcomes; of equals the strongest L2 wins. A class without training
    labels gets probability 0.5.

    Args:
        train_features: (n, F).
        train_labels: (n, C) in {0, 1, NaN}; NaN is masked out.
        val_features: (v, F).
        val_labels: (v, C) in {0, 1, NaN}.
        l2_grid: strengths to try, above 0.
        dtype: float64, or float32 for speed at looser convergence.
        device: where to solve.

    Raises:
        UserError: shapes disagree, features not finite, bad labels, no label at all, or a strength ≤ 0.
    """
    grid = sorted({float(value) for value in l2_grid}, reverse=True)
    if not grid or not 0 < grid[-1] <= grid[0] < np.inf:
        raise UserError(f"l2_grid must hold finite strengths above 0, not {list(l2_grid)}")
    if dtype not in _TOLERANCE:
        raise UserError(f"dtype must be torch.float32 or torch.float64, not {dtype}")
    train, train_label = _check_pair(train_features, train_labels, "training")
    val, val_label = _check_pair(val_features, val_labels, "validation")
    if train.shape[1] != val.shape[1] or train_label.shape[1] != val_label.shape[1]:
        raise UserError("training and validation differ in the number of features or classes")
    mean, scale = _standardisation(train)
    design = torch.ones(train.shape[0], train.shape[1] + 1, dtype=dtype, device=device)
    design[:, :-1] = torch.as_tensor((train - mean) / scale)
    solution, converged = _solve(_problems(design, torch.as_tensor(train_label).to(design), grid))
    weights = solution.double().cpu().numpy().reshape(len(grid), -1, train.shape[1] + 1)
    solved = converged.reshape(len(grid), -1).all(dim=1).tolist()
    probes = [
        LinearProbe(weight[:, :-1], weight[:, -1], mean, scale, l2, bool(done))
        for weight, l2, done in zip(weights, grid, solved, strict=True)
    ]
    return max(probes, key=lambda probe: _validation_score(probe.logits(val), val_label))


def nested_fraction(groups: npt.ArrayLike, labels: npt.ArrayLike, fraction: float, seed: int) -> IntArray:
    """Rows of a share of the patients; a smaller share of the same seed lies within a larger one.

    All patients are put in one order, and a fraction takes its first patients. Each patient belongs to the
    rarest finding they have (or to "none"); the patients of each such stratum are shuffled and spread
    evenly over the order, so that every beginning has about the same mix. One patient of each finding is
    then moved to the front, rarest finding first: a fraction of at least C patients has a positive of every
    finding that occurs, at the price of a few patients too many with findings in a very small fraction.

    Args:
        groups: (n,) patient id of each row.
        labels: (n, C) in {0, 1, NaN}.
        fraction: of patients, in (0, 1]; rounded, at least one patient.
        seed: of the order. Which patients are taken does not depend on the order of the rows.

    Returns:
        Row numbers, rising.

    Raises:
        UserError: bad ids or labels, lengths that differ, or a fraction outside (0, 1].
    """
    index, patients = patient_index(groups)
    label = check_labels(labels)
    if len(label) != len(index):
        raise UserError(f"{len(label)} rows of labels for {len(index)} patient ids")
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must lie in (0, 1], not {fraction}")
    positive = np.zeros((patients, label.shape[1]), dtype=bool)
    row, column = np.nonzero(label == 1)
    positive[index[row], column] = True
    taken = np.zeros(patients, dtype=bool)
    taken[_patient_order(positive, np.random.default_rng(seed))[: max(1, round(fraction * patients))]] = True
    return np.flatnonzero(taken[index])


def _patient_order(positive: npt.NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
    """Order of patients from which fractions are cut. (P, C) -> (P,)."""
    patients, classes = positive.shape
    by_rarity = positive[:, np.argsort(positive.sum(axis=0), kind="stable")]
    stratum = np.where(by_rarity.any(axis=1), by_rarity.argmax(axis=1), classes)
    shuffled = rng.permutation(patients)
    grouped = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum, minlength=classes + 1)
    rank = np.arange(patients) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + rng.random(patients)) / sizes[stratum[grouped]]
    order = grouped[np.argsort(place, kind="stable")]
    front: list[int] = []
    for c in range(classes):
        having = by_rarity[:, c]
        if having.any() and not having[front].any():
            front.append(int(order[having[order].argmax()]))
    return np.concatenate([np.array(front, dtype=np.intp), order[~np.isin(order, front)]])


@dataclass(frozen=True)
class _Problems:
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


def _problems(design: Tensor, labels: Tensor, l2_grid: Sequence[float]) -> _Problems:
    known = (~labels.isnan()).to(design)
    share = known / known.sum(dim=0).clamp(min=1)
    strengths = torch.tensor(l2_grid).to(design).repeat_interleave(labels.shape[1])
    penalty = strengths[:, None].repeat(1, design.shape[1])
    penalty[:, -1] = 0
    times = (1, len(l2_grid))
    return _Problems(design, labels.nan_to_num().repeat(times), share.repeat(times), penalty)


def _solve(problems: _Problems) -> tuple[Tensor, Tensor]:
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
    tolerance = _TOLERANCE[weight.dtype]
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
    problems: _Problems, at: tuple[Tensor, Tensor, Tensor], along: tuple[Tensor, Tensor, Tensor]
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


def _standardisation(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (F,); the latter 1 where a feature varies by no more than rounding."""
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    return mean, np.where(scale > 1e-6 * np.abs(mean), scale, 1.0)


def _validation_score(logits: FloatArray, labels: FloatArray) -> float:
    """Higher is better: mean area under the ROC curve or, where no class has one, minus the cross-entropy."""
    area, counted = mean_auroc(logits, labels)
    if counted.any():
        return area
    known = ~np.isnan(labels)
    return -float((np.logaddexp(0, logits[known]) - labels[known] * logits[known]).mean())


def _check_pair(features: npt.ArrayLike, labels: npt.ArrayLike, name: str) -> tuple[FloatArray, FloatArray]:
    rows, label = _check_features(features), check_labels(labels)
    if len(rows) != len(label):
        raise UserError(f"{len(rows)} rows of {name} features, but {len(label)} of labels")
    if np.isnan(label).all():
        raise UserError(f"every {name} label is missing")
    return rows, label


def _check_features(features: npt.ArrayLike) -> FloatArray:
    """Features as float64 (n, F) in rows, refused unless finite."""
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UserError(f"features must be (n, F) with F > 0, not {rows.shape}")
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise UserError(f"features of row {np.flatnonzero(bad)[0]} are not finite ({bad.sum()} such rows)")
    return rows
