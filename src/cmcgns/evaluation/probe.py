"""Linear probe: how much a frozen encoder's features tell a logistic regression.

Features are computed once and stay fixed, so the problem is convex: it is solved to convergence rather than
trained, for every L2 strength at once, and leaves no learning rate or number of epochs to argue about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.errors import UserError
from cmcgns.evaluation.logistic import TOLERANCE, regressions, solve
from cmcgns.evaluation.metrics import FloatArray, check_labels, mean_auroc

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


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
    if dtype not in TOLERANCE:
        raise UserError(f"dtype must be torch.float32 or torch.float64, not {dtype}")
    train, train_label = _check_pair(train_features, train_labels, "training")
    val, val_label = _check_pair(val_features, val_labels, "validation")
    if train.shape[1] != val.shape[1] or train_label.shape[1] != val_label.shape[1]:
        raise UserError("training and validation differ in the number of features or classes")
    mean, scale = _standardisation(train)
    design = torch.ones(train.shape[0], train.shape[1] + 1, dtype=dtype, device=device)
    design[:, :-1] = torch.as_tensor((train - mean) / scale)
    solution, converged = solve(regressions(design, torch.as_tensor(train_label).to(design), grid))
    weights = solution.double().cpu().numpy().reshape(len(grid), -1, train.shape[1] + 1)
    solved = converged.reshape(len(grid), -1).all(dim=1).tolist()
    probes = [
        LinearProbe(weight[:, :-1], weight[:, -1], mean, scale, l2, bool(done))
        for weight, l2, done in zip(weights, grid, solved, strict=True)
    ]
    return max(probes, key=lambda probe: _validation_score(probe.logits(val), val_label))


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
