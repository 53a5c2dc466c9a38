"""COCO's greedy matching of detections with boxes, for all images and thresholds at once.

Lin et al., Microsoft COCO, ECCV 2014, and its evaluation program: from the best detection of an image down, each
takes the free box that it overlaps most, if by at least the threshold; of equal overlaps the later box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cmcgns.evaluation.metrics import BoolArray, FloatArray, IntArray

_CHUNK_CELLS = 1 << 22  # images × thresholds × boxes at once
_BELOW_ONE = 1 - 1e-10  # a threshold of 1 must forgive rounding


def match(
    image: IntArray,
    boxes: npt.NDArray[np.floating],
    truth_image: IntArray,
    truth_boxes: npt.NDArray[np.floating],
    thresholds: Sequence[float],
) -> BoolArray:
    """Which detections are right.

    Args:
        image: (m,) image of each detection, rising; within an image by falling score.
        boxes: (m, 4) x0, y0, x1, y1.
        truth_image: (g,) image of each marked box, rising.
        truth_boxes: (g, 4).
        thresholds: T intersections over union.

    Returns:
        (T, m).
    """
    hits = np.zeros((len(thresholds), len(image)), dtype=bool)
    both = np.intersect1d(image, truth_image)
    if len(both) == 0:
        return hits
    first, count = _spans(image, both)
    truth_first, truth_count = _spans(truth_image, both)
    order = np.argsort(truth_count, kind="stable")  # images of few boxes do not pay for those of many
    step = max(1, _CHUNK_CELLS // (len(thresholds) * int(truth_count.max())))
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), _BELOW_ONE)
    for start in range(0, len(order), step):
        part = order[start : start + step]
        truth, there = _padded(truth_boxes, truth_first[part], truth_count[part])
        _match_images(hits, boxes, first[part], count[part], truth, there, limits)
    return hits


def _spans(image: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Where each image's entries begin, and how many there are."""
    first = np.searchsorted(image, wanted, side="left")
    return first, np.searchsorted(image, wanted, side="right") - first


def _padded(boxes: npt.NDArray[np.floating], first: IntArray, count: IntArray) -> tuple[FloatArray, BoolArray]:
    places = np.arange(int(count.max()))
    there = places < count[:, None]
    return boxes[np.where(there, first[:, None] + places, 0)].astype(np.float64), there


def _match_images(
    hits: BoolArray,
    boxes: npt.NDArray[np.floating],
    first: IntArray,
    count: IntArray,
    truth: FloatArray,
    there: BoolArray,
    limits: FloatArray,
) -> None:
    """Fill (T, m) `hits` for some images: truth (I, K, 4), there (I, K). One step for each rank of a detection."""
    free = np.repeat(there[:, None], len(limits), axis=1)  # (I, T, K)
    for rank in range(int(count.max())):
        images = np.flatnonzero(rank < count)
        detection = first[images] + rank
        overlap = _iou(boxes[detection].astype(np.float64), truth[images])[:, None]
        allowed = free[images] & (overlap >= limits[:, None])
        ranked = np.where(allowed, overlap, -1.0)[..., ::-1]
        chosen = ranked.shape[2] - 1 - ranked.argmax(axis=2)  # the later of equals
        hit = allowed.any(axis=2)
        hits[:, detection] = hit.T
        row, threshold = np.nonzero(hit)
        free[images[row], threshold, chosen[row, threshold]] = False


def _iou(box: FloatArray, truth: FloatArray) -> FloatArray:
    """(I, 4), (I, K, 4) -> (I, K)."""
    low = np.maximum(box[:, None, :2], truth[..., :2])
    high = np.minimum(box[:, None, 2:], truth[..., 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    area, other = (
        np.prod(box[:, 2:] - box[:, :2], axis=-1)[:, None],
        np.prod(truth[..., 2:] - truth[..., :2], axis=-1),
    )
    either = area + other - both
    return np.asarray(np.divide(both, either, out=np.zeros_like(both), where=either > 0))
