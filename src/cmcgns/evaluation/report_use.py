"""What the report is worth to the reconstruction of hidden regions: the right one, another study's, and none."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import parse_boxes, picture_size
from cmcgns.data.images.place import place_boxes
from cmcgns.data.pairs.batch import BatchRequest, evaluation_order
from cmcgns.data.pairs.dataset import PairDataset, pair_dataset
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.metrics.intervals import mean_interval
from cmcgns.objectives.reconstruction_targets import error_of
from cmcgns.objectives.report_comparison import compare_reports
from cmcgns.pretrained import Pretrained


@dataclass(frozen=True)
class StudySet:
    """One split of a manifest."""

    frame: pd.DataFrame
    dataset: PairDataset

    @property
    def patients(self) -> NDArray[np.object_]:
        """(n,) patient ids."""
        return self.frame["patient_id"].to_numpy(dtype=object)

    def box_masks(self) -> torch.Tensor:
        """(n, 1, H, W) true inside any box of the row, in the pixels of the encoder's input.

        Boxes are in pixels of the file; the image was resized by its long side, padded and cropped at the centre.
        """
        settings = self.dataset.settings
        size = settings.image_size
        masks = torch.zeros(len(self.frame), 1, size, size, dtype=torch.bool)
        columns = (self.frame["boxes"], self.frame["width"], self.frame["height"], self.frame["image_path"])
        for row, (text, width, height, name) in enumerate(zip(*columns, strict=True)):
            boxes = parse_boxes(text, name)
            place = picture_size(width, height, name) if boxes else (1, 1)
            for x0, y0, x1, y1 in place_boxes(boxes, *place, settings.resize, size):
                rows, columns_ = (slice(max(0, int(a)), max(0, round(b))) for a, b in ((y0, y1), (x0, x1)))
                masks[row, 0, rows, columns_] = True
        return masks


def read_study_set(manifest: Path, split: str, model: Pretrained) -> StudySet:
    """Read a split as a pretrained pair of encoders wants it.

    Raises:
        UserError: no row of this split.
    """
    pairs = read_pairs(manifest, model.recipe.data)
    found = ", ".join(sorted(pairs.frame["split"].unique()))
    pairs.frame = pairs.frame[pairs.frame["split"] == split].reset_index(drop=True)
    if len(pairs.frame) == 0:
        raise UserError(f"{pairs.source}: no rows of split {split} (splits: {found})")
    fine: Literal["read"] | None = "read" if model.recipe.objective.target_scale == 2 else None
    dataset = pair_dataset(pairs, model.tokenizer, model.recipe.data, fine=fine)
    return StudySet(pairs.frame, dataset)  # the frame as `pair_dataset` leaves it: without unreadable images


@torch.no_grad()
def report_use(model: Pretrained, test: StudySet, seed: int = 0, draws: int = 4) -> dict[str, Any]:
    """Does the report help to rebuild hidden findings? The error with another study's report, and with none.

    Inside the finding boxes, where hidden, per study and averaged over random masks; less the error with the right
    report, so that above 0 the right one rebuilds the finding better. All three see the same image features and mask.
    A decoder that was never trained without a report (`report_dropout: 0`) may fail for that reason alone.

    Args:
        model: a run with reconstruction.
        test: rows with boxes; rows without one are not used.
        seed: of masks and of the choice of the other report.
        draws: masks a study.

    Returns:
        Error with the `right` report, the `other` one and `none`, the paired `difference` of the other and the right
        one, and of none and the right one (`difference_none`), each with its interval; what the `error` is.
    """
    errors = _reconstruction_errors(model, test, seed, draws)
    used = ~np.isnan(errors).any(0)
    right, other, none = errors[:, used]
    values = {
        "right": right, "other": other, "none": none, "difference": other - right, "difference_none": none - right,
    }  # fmt: skip
    patients = test.patients[used]
    intervals = {name: asdict(mean_interval(value, patients)) for name, value in values.items()}
    return intervals | {"studies": int(used.sum()), "error": error_of(model.recipe.objective)}


def _reconstruction_errors(model: Pretrained, test: StudySet, seed: int, draws: int) -> NDArray[np.float64]:
    """(3, n) mean error where hidden inside the boxes, with the right, another and no report; NaN without any."""
    net, method = model.task.model, model.method
    if method is None or method.reconstruction is None:
        raise ValueError("this run has no reconstruction")
    generator = torch.Generator().manual_seed(seed)
    boxes, order = test.box_masks(), evaluation_order(len(test.dataset), 64)
    partners = _other_reports(test, seed)
    sums, counts = torch.zeros(3, len(test.dataset)), torch.zeros(len(test.dataset))
    for request in order:
        rows = torch.from_numpy(request.rows)
        batch = test.dataset[request].to(model.device)
        partner = test.dataset[BatchRequest(partners[request.rows])].to(model.device)
        features = net(batch)
        target = method.target(net, features, batch)
        other = net(partner).sentences, partner.sentence_mask
        # A patch of a map counts by the share of it that lies in a box.
        inside = F.interpolate(boxes[rows].to(model.device).float(), size=target.shape[-2:], mode="area")
        found, places = compare_reports(
            method.reconstruction, method.attention, net, features, batch, target, other, generator,
            draws=draws, inside=inside,
        )  # fmt: skip
        sums[:, rows], counts[rows] = found.cpu(), places.cpu()
    errors = (sums / counts).numpy().astype(np.float64)  # 0 / 0 is NaN: no hidden pixel inside a box
    return np.asarray(errors)


def _other_reports(test: StudySet, seed: int) -> NDArray[np.int64]:
    """For every row a random row whose report differs."""
    text = test.dataset.tokens.report_text[test.dataset.rows]
    rng = np.random.default_rng(seed)
    partners = rng.permutation(len(text))
    for _ in range(1000):
        same = np.flatnonzero(text[partners] == text)
        if len(same) == 0:
            return partners
        partners[same] = rng.integers(0, len(text), len(same))
    raise ValueError("all reports are equal")
