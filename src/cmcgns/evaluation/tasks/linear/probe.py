"""Linear probe: how much a frozen encoder's features tell a logistic regression.

Features are computed once and stay fixed, so the problem is convex: it is solved to convergence rather than
trained, for every L2 strength at once, and leaves no learning rate or number of epochs to argue about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.task_settings.base import LabelKind
from cmcgns.evaluation.task_settings.learned import L2_GRID
from cmcgns.evaluation.tasks.linear.logistic import TOLERANCE, Design, Features, measure_scale, solve
from cmcgns.metrics.ranking import FloatArray, IntArray, check_labels, mean_auroc

_ROWS = 4096  # scored at once


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe. All arrays float64.

    Attributes:
        weight: (C, F), for standardised features.
        bias: (C,).
        mean: (F,) of the training features.
        scale: (F,) standard deviation of the training features; 1 where a feature does not vary.
        l2: the strength chosen.
        converged: whether the loss reached its minimum within the allowed steps; if not, say so beside the result.
        outcome: whether the classes are independent of each other, or exclude each other (softmax).
        validation: strength -> what chose it, higher is better; empty where nothing was chosen.
    """

    weight: FloatArray
    bias: FloatArray
    mean: FloatArray
    scale: FloatArray
    l2: float
    converged: bool
    outcome: LabelKind = "binary"
    validation: dict[float, float] = field(default_factory=dict)

    def logits(self, features: npt.ArrayLike) -> FloatArray:
        """Log-odds of each class, (n, F) -> (n, C): rank by these, since probabilities near 1 round to ties."""
        rows = _check_features(features)
        if rows.shape[1] != len(self.mean):
            raise UserError(f"the probe was fitted on {len(self.mean)} features, not {rows.shape[1]}")
        linear = np.empty((len(rows), len(self.bias)))
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            linear[part] = (rows[part] - self.mean) / self.scale @ self.weight.T + self.bias
        if not np.isfinite(linear).all():
            raise UserError(f"features of row {np.flatnonzero(~np.isfinite(linear).all(axis=1))[0]} are not finite")
        return log_odds(linear, self.outcome)


def choose_dtype(rows: int, width: int) -> torch.dtype:
    """Precision that converges soonest: single, but double where there are few rows.

    With fewer rows than features the solution is decided by L2 along many directions, and at strengths of 1e-5 the
    rounding of single precision is amplified 100,000 times there: it took seven times as many steps, or failed.
    """
    return torch.float64 if rows <= 4 * width else torch.float32


def log_odds(linear: FloatArray, outcome: LabelKind) -> FloatArray:
    """Outputs of a layer -> log-odds of each class, of a softmax against all others. (n, C) -> (n, C)."""
    if outcome == "binary":
        return linear
    classes = linear.shape[1]
    others = linear[:, None, :].repeat(classes, axis=1)
    others[:, np.arange(classes), np.arange(classes)] = -np.inf
    return np.asarray(linear - np.logaddexp.reduce(others, axis=2))


def fit_probe(
    train_features: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    val_features: npt.ArrayLike,
    val_labels: npt.ArrayLike,
    l2_grid: Sequence[float] = L2_GRID,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    rows: IntArray | None = None,
    outcome: LabelKind = "binary",
) -> LinearProbe:
    """Fit one probe per L2 strength and keep the one that does best in validation.

    Per class the loss is the mean cross-entropy of its labelled rows plus ``l2 / 2 · |w|²`` (the bias is
    free), so a strength means the same at 1 % and 100 % of the data; scikit-learn's ``C`` is ``1 / (l2 ·
    rows)``. "Best" is the highest mean area under the ROC curve, or the lowest cross-entropy where
    validation has no class with both outcomes; of equals the strongest L2 wins. Of classes that exclude each other
    it is the lowest cross-entropy always. A class without training labels gets probability 0.5.

    Args:
        train_features: (n, F); may be memory-mapped: it is read in blocks and never copied.
        train_labels: (n, C) in {0, 1, NaN}; NaN is masked out.
        val_features: (v, F).
        val_labels: (v, C) in {0, 1, NaN}.
        l2_grid: strengths to try, above 0.
        dtype: float64, or float32 for speed at looser convergence.
        device: where to solve.
        rows: which of the training rows to fit, rising; by default all.
        outcome: multiclass for classes that exclude each other, whose probabilities then sum to 1.

    Raises:
        UserError: shapes disagree, features not finite, bad labels, no label at all, or a strength ≤ 0.
    """
    grid = sorted({float(value) for value in l2_grid}, reverse=True)
    if not grid or not 0 < grid[-1] <= grid[0] < np.inf:
        raise UserError(f"l2_grid must hold finite strengths above 0, not {list(l2_grid)}")
    if dtype not in TOLERANCE:
        raise UserError(f"dtype must be torch.float32 or torch.float64, not {dtype}")
    train, train_label = _check_pair(train_features, train_labels, "training", rows)
    val, val_label = _check_pair(val_features, val_labels, "validation", None)
    if train.shape[1] != val.shape[1] or train_label.shape[1] != val_label.shape[1]:
        raise UserError("training and validation differ in the number of features or classes")
    chosen = np.arange(len(train)) if rows is None else rows
    scale = measure_scale(train, chosen)
    design = Design(train, chosen, scale, dtype, torch.device(device))
    weights, converged = solve(design, train_label, grid, outcome == "multiclass")
    probes = [
        LinearProbe(weight[:, :-1], weight[:, -1], scale.mean, scale.scale, l2, bool(done), outcome)
        for weight, l2, done in zip(weights, grid, converged, strict=True)
    ]
    return _choose(probes, val, val_label)


def _choose(probes: list[LinearProbe], val: Features, labels: FloatArray) -> LinearProbe:
    score = _likelihood if probes[0].outcome == "multiclass" else _validation_score
    validation = {probe.l2: score(probe.logits(val), labels) for probe in probes}
    best = max(probes, key=lambda probe: validation[probe.l2])
    return replace(best, validation=validation)


def _validation_score(logits: FloatArray, labels: FloatArray) -> float:
    """Higher is better: mean area under the ROC curve or, where no class has one, minus the cross-entropy."""
    area, counted = mean_auroc(logits, labels)
    if counted.any():
        return area
    known = ~np.isnan(labels)
    return -float((np.logaddexp(0, logits[known]) - labels[known] * logits[known]).mean())


def _likelihood(logits: FloatArray, labels: FloatArray) -> float:
    """Mean log-probability of the right class: areas do not notice when shrinkage hands every image to one class."""
    return -float(np.logaddexp(0, -logits[labels == 1]).mean())


def _check_pair(
    features: npt.ArrayLike, labels: npt.ArrayLike, name: str, rows: IntArray | None
) -> tuple[Features, FloatArray]:
    """Features of all rows, labels of the wanted ones."""
    found, label = _check_features(features), check_labels(labels)
    if len(found) != len(label):
        raise UserError(f"{len(found)} rows of {name} features, but {len(label)} of labels")
    if rows is not None:
        label = label[rows]
    if np.isnan(label).all():
        raise UserError(f"every {name} label is missing")
    return found, label


def _check_features(features: npt.ArrayLike) -> Features:
    """Features (n, F) in rows; whether they are finite shows when they are read."""
    rows: Features = np.asarray(features)
    if not np.issubdtype(rows.dtype, np.floating):
        rows = rows.astype(np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UserError(f"features must be (n, F) with F > 0, not {rows.shape}")
    return rows
