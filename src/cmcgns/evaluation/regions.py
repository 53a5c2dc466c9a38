"""Where findings are: regions of labels, of boxes by their own label or of masks that show the only one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from cmcgns.data.boxes import parse_boxes
from cmcgns.evaluation.image_set import ImageSet
from cmcgns.evaluation.targets import Target, fill_boxes
from cmcgns.metrics.ranking import BoolArray, FloatArray, IntArray
from cmcgns.pretrained.phrase_maps import grid_side

_ROUNDING = 1e-6  # of a mean in single precision
_INSIDE = 0.5 - _ROUNDING  # half of a patch


@dataclass(frozen=True)
class Regions:
    """Regions of findings in the images of a split, as the encoder sees them.

    Attributes:
        images: the split.
        findings: K names.
        kind: boxes are filled, those of one label together; masks are of the only finding.
        size: s, side of the crop that the encoder sees.
        finding_share: a patch with this share of a finding's region is positive too; None: only half full ones are.
        rows: images that were annotated: all, where masks are (no mask: nothing is there), or those with a list of
            boxes, which may be empty.
    """

    images: ImageSet
    findings: tuple[str, ...]
    kind: Target
    size: int
    finding_share: float | None = None

    @cached_property
    def rows(self) -> IntArray:
        """(n,) numbers of the annotated images."""
        if self.kind == "masks":
            return np.arange(len(self.images))
        return np.flatnonzero(self.images.frame["boxes"].to_numpy() != "")

    @cached_property
    def _boxes(self) -> dict[int, dict[str, FloatArray]]:
        """Corners (k, 4) in the crop, by image and label."""
        there = replace(self.images, frame=self.images.frame.iloc[self.rows])
        stated = zip(self.rows.tolist(), there.frame["boxes"], there.names, there.boxes(self.size), strict=True)
        found = {}
        for row, text, name, corners in stated:
            labels = np.array([str(box.get("label", "")) for box in parse_boxes(text, str(name))], dtype=object)
            found[row] = {label: corners[labels == label] for label in set(labels)}
        return found

    @cached_property
    def stated(self) -> BoolArray:
        """(n, K) whether an annotated image has a region of a finding, be it outside of the crop."""
        if self.kind == "masks":
            return np.asarray(self.images.frame["mask_path"].to_numpy() != "")[:, None]
        return np.array([[name in self._boxes[row] for name in self.findings] for row in self.rows.tolist()])

    def masks(self, rows: IntArray) -> BoolArray:
        """(b, K, s, s) true inside, of some annotated images (b,).

        Raises:
            UserError: malformed boxes, or a mask that cannot be read; names the row or the file.
        """
        if self.kind == "masks":
            first = (self.images.pixels.shape[1] - self.size) // 2
            inside = slice(first, first + self.size)
            return self.images.masks(rows)[:, None, inside, inside]
        none = np.zeros((0, 4))
        each = [self._boxes[row].get(name, none) for row in rows.tolist() for name in self.findings]
        return fill_boxes(each, self.size, self.size).reshape(len(rows), len(self.findings), self.size, self.size)

    def patch_labels(self, rows: IntArray, patches: int) -> FloatArray:
        """(b, P, K) 1 where half of a patch or more lies in the region of a finding, or enough of the region, else 0.

        NaN for all patches of an image that has the label but no region of it: nobody said where.

        Args:
            rows: (b,) annotated images.
            patches: P, of a square grid.
        """
        masks = torch.from_numpy(self.masks(rows)).float()
        share = functional.adaptive_avg_pool2d(masks, grid_side(patches)).flatten(2)
        inside = share >= _INSIDE
        if self.finding_share is not None:
            enough = self.finding_share * share.sum(-1, keepdim=True)
            inside |= (share >= enough - _ROUNDING) & (share > _ROUNDING)
        labels = inside.numpy().astype(np.float64).transpose(0, 2, 1)
        for k, name in enumerate(self.findings):
            if name in self.images.label_names:
                has = self.images.labels[rows, self.images.label_names.index(name)] == 1
                labels[has & ~self.stated[np.searchsorted(self.rows, rows), k], :, k] = np.nan
        return labels
