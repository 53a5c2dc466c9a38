"""Average precision over patches of images, by finding; resamples draw images with all of their patches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.classes import POSITIVE, by_class, class_mean, left_out_classes
from cmcgns.metrics.measure import Array, Measure, Measures
from cmcgns.metrics.ranking import FloatArray, RankedScores


def patch_measures(arrays: Mapping[str, Array]) -> Measures:
    """Average precision (`ap`) over all patches, by finding and its mean, and the share of positive patches.

    The share is the average precision of scores at random (`ap_chance`). The mean leaves out findings with too few
    positive patients.

    Args:
        arrays: `scores` (n, P, K), higher means more likely; `patch_labels` (n, P, K) 1, 0 or NaN; `labels` (n, K)
            whether an image has a positive patch; `label_names` (K,); `counted` (K,) whether the finding was learnt;
            `positives_alone`; optionally `left_out` (K,) of :func:`cmcgns.metrics.classes.left_out_of_mean`.

    Raises:
        UserError: scores and labels of unlike shapes, or a labelled score that is NaN.
    """
    scores, truth, names = arrays["scores"], arrays["patch_labels"], arrays["label_names"].tolist()
    if scores.shape != truth.shape or scores.ndim != 3:
        raise UserError(f"scores {scores.shape} and labels {truth.shape} of patches must have one shape, (n, P, K)")
    _, patches, findings = scores.shape
    known = np.where(arrays["counted"], truth.astype(np.float64), np.nan)
    ranked = RankedScores(scores.reshape(-1, findings), known.reshape(-1, findings), patches)
    positive, judged = (known == 1).sum(axis=1), (~np.isnan(known)).sum(axis=1)
    left_out = left_out_classes(arrays)

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        weights = np.asarray(counts, dtype=np.float64)
        total = weights @ judged
        share = np.divide(weights @ positive, total, out=np.full_like(total, np.nan), where=total > 0)
        both = ranked.average_precision(counts), share
        return np.concatenate([part for one in both for part in (class_mean(one, left_out)[:, None], one)], axis=1)

    of = tuple(Measure(metric, name) for metric in ("ap", "ap_chance") for name in ("", *names))
    return by_class(of, compute, arrays["labels"], names, left_out, POSITIVE)
