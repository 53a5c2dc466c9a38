"""COCO's matching of detections with boxes, and average precision of a weighted test set.

Lin et al., Microsoft COCO, ECCV 2014, and its evaluation program: from the best detection of an image down, each
takes the free box that it overlaps most, if by at least the threshold; of equal overlaps the later box.

Detections are matched and sorted once. Between two right detections precision only falls, so its envelope is known
from the right ones; of the others it matters only how much they weigh in between: one segmented sum a resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cmcgns.metrics.measure import Array, Kind, Measure, Measures
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray

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
        found, marked = torch.from_numpy(boxes[detection].astype(np.float64)), torch.from_numpy(truth[images])
        overlap = box_iou(found[:, None], marked).numpy()
        allowed = free[images] & (overlap >= limits[:, None])
        ranked = np.where(allowed, overlap, -1.0)[..., ::-1]
        chosen = ranked.shape[2] - 1 - ranked.argmax(axis=2)  # the later of equals
        hit = allowed.any(axis=2)
        hits[:, detection] = hit.T
        row, threshold = np.nonzero(hit)
        free[images[row], threshold, chosen[row, threshold]] = False


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union. (…, N, 4) and (…, K, 4) -> (…, N, K); 0 where both are empty."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    both, area, other = (
        _area(low, high),
        _area(first[..., :2], first[..., 2:]),
        _area(second[..., :2], second[..., 2:]),
    )
    either = area[..., :, None] + other[..., None, :] - both
    return torch.where(either > 0, both / either.clamp(min=torch.finfo(either.dtype).tiny), 0)


def _area(low: Tensor, high: Tensor) -> Tensor:
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


RECALLS = np.linspace(0, 1, 101)
"""COCO's points of the precision-recall curve."""
_CHUNK = 128  # resamples at once


@dataclass(frozen=True)
class Figures:
    """Figures of R resamples at T thresholds; NaN where no box was drawn.

    Attributes:
        precision: (R, T) average precision.
        recall: (R, T) share of the boxes that any detection finds.
        sensitivity: (R, T) share of the boxes found at the score that lets one false alarm an image through (a point
            of the free-response ROC curve).
    """

    precision: FloatArray
    recall: FloatArray
    sensitivity: FloatArray


class RankedDetections:
    """Matched detections, sorted once.

    Args:
        image: (m,) image of each detection.
        scores: (m,); of equal scores the earlier counts as higher, as in COCO's program.
        hits: (T, m) which are right.
        truths: (n,) boxes of each image.
    """

    def __init__(
        self, image: IntArray, scores: npt.NDArray[np.floating], hits: BoolArray, truths: npt.NDArray[np.integer]
    ) -> None:
        order = np.argsort(-scores, kind="stable")
        right = np.flatnonzero(hits[:, order].any(axis=0))  # right at any threshold
        self.truths = torch.from_numpy(truths.astype(np.float64))
        last = int(right[-1]) + 1 if len(right) else 0  # whatever comes later changes nothing
        self._image = torch.from_numpy(image[order[:last]].astype(np.int64))
        # A segment ends with a right detection.
        self._starts = torch.from_numpy(np.concatenate([[0], right[:-1] + 1]).astype(np.int64)[: len(right)])
        self._right_image = torch.from_numpy(image[order[right]].astype(np.int64))
        self._right_at = [torch.from_numpy(np.flatnonzero(row)) for row in hits[:, order[right]]]

    def figures(self, weights: npt.NDArray[np.generic]) -> Figures:
        """Figures of each resample.

        Args:
            weights: (R, n), how often each image was drawn; any weights ≥ 0 will do.
        """
        parts = [self._chunk(weights[start : start + _CHUNK]) for start in range(0, len(weights), _CHUNK)]
        columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
        return Figures(*columns)

    def _chunk(self, weights: npt.NDArray[np.generic]) -> tuple[Tensor, Tensor, Tensor]:
        weight = torch.from_numpy(np.ascontiguousarray(weights.T, dtype=np.float64))  # (n, R)
        boxes, images = self.truths @ weight, weight.sum(0)
        if len(self._starts):
            ranked = functional.embedding_bag(self._image, weight, self._starts, mode="sum").cumsum(0)
        else:
            ranked = weight.new_zeros(0, weight.shape[1])
        right = weight[self._right_image]
        each = [_at_threshold(right[at].cumsum(0), ranked[at], boxes, images) for at in self._right_at]
        undefined = boxes == 0
        precision, recall, sensitivity = (
            torch.stack(column, 1).masked_fill(undefined[:, None], torch.nan) for column in zip(*each, strict=True)
        )
        return precision, recall, sensitivity


def _at_threshold(right: Tensor, ranked: Tensor, boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average precision, recall and sensitivity (R,).

    Args:
        right: (P, R) weight of the right detections up to each of them, from the best down.
        ranked: (P, R) weight of all detections up to there.
        boxes: (R,) weight of the boxes.
        images: (R,) weight of the images.
    """
    if len(right) == 0:
        return boxes.new_zeros(boxes.shape), boxes.new_zeros(boxes.shape), boxes.new_zeros(boxes.shape)
    some = boxes.clamp(min=torch.finfo(boxes.dtype).tiny)
    precision = torch.where(ranked > 0, right / ranked.clamp(min=torch.finfo(ranked.dtype).tiny), 0)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    recall = right / some
    reached = torch.searchsorted(torch.from_numpy(RECALLS), recall, right=True)  # points at or below this recall
    points = reached.diff(dim=0, prepend=reached.new_zeros(1, reached.shape[1]))
    average = (points * envelope).sum(0) / len(RECALLS)
    allowed = torch.where(ranked - right <= images, recall, 0).amax(0)
    return average, recall[-1], allowed


class MatchedDetections:
    """Matched detections of n images."""

    def __init__(self, arrays: Mapping[str, Array], images: int) -> None:
        image, truth_image = arrays["image"], arrays["truth_image"]
        self.ious = [float(value) for value in arrays["ious"]]
        hits = match(image, arrays["boxes"], truth_image, arrays["truth_boxes"], self.ious)
        truths = np.bincount(truth_image, minlength=images)
        self.has_box = truths > 0
        self._ranked = RankedDetections(image, arrays["scores"], hits, truths)
        filled = (truths > 0) & (np.bincount(image, minlength=images) > 0)
        self._counted = np.where(filled | ~arrays["skip_empty"], 1.0, 0.0)

    def figures(self, counts: npt.NDArray[np.generic]) -> Figures:
        """Figures of resamples from how often (R, n) each image was drawn."""
        return self._ranked.figures(counts.astype(np.float64) * self._counted)


_AP = {0.4: "ap40", 0.5: "ap50", 0.75: "ap75"}
_FREE_RESPONSE = 0.5  # intersection over union at which false alarms are counted


def _place(iou: float, ious: Sequence[float]) -> int | None:
    """Where a threshold is among those that were asked for; None: it is not."""
    near = np.flatnonzero(np.isclose(ious, iou))
    return int(near[0]) if len(near) else None


def figure_names(ious: Sequence[float], most: int) -> list[str]:
    """Figures that these thresholds and at most so many detections of an image make, in order."""
    named = [name for iou, name in _AP.items() if _place(iou, ious) is not None]
    free = ["sensitivity@1fp"] if _place(_FREE_RESPONSE, ious) is not None else []
    return ["map", *named, f"recall@{most}", *free]


def detection_measures(arrays: Mapping[str, Array], images: int) -> Measures:
    """Mean average precision, its value at some overlaps, recall, and sensitivity.

    `map` is the mean over the overlaps of the average precision; `recall@100` the mean over the overlaps of the
    share of boxes found by any of an image's detections; `sensitivity@1fp` the share found, with an overlap of at
    least 0.5, at the score that lets one false alarm an image through.

    Args:
        arrays: `image` (m,), `boxes` (m, 4) and `scores` (m,) of detections, `truth_image` (g,) and `truth_boxes`
            (g, 4), and how they are judged: `ious` (T,), `skip_empty`, `max_detections`.
        images: n.
    """
    matched = MatchedDetections(arrays, images)
    places = [place for iou in _AP if (place := _place(iou, matched.ious)) is not None]
    free = _place(_FREE_RESPONSE, matched.ious)
    of = tuple(map(Measure, figure_names(matched.ious, int(arrays["max_detections"]))))

    def compute(counts: npt.NDArray[np.generic]) -> FloatArray:
        figures = matched.figures(counts)
        columns = [figures.precision.mean(1), *(figures.precision[:, place] for place in places)]
        columns.append(figures.recall.mean(1))
        if free is not None:
            columns.append(figures.sensitivity[:, free])
        return np.stack(columns, axis=1)

    kind = Kind("with a box", matched.has_box)
    return Measures(of, compute, {name: [kind] for name in of})
