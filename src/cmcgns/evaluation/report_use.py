"""What the report is worth to the reconstruction of hidden regions: the right one against another study's."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcgns.data.order import BatchRequest, evaluation_order
from cmcgns.evaluation.bootstrap import mean_interval
from cmcgns.evaluation.study_set import StudySet
from cmcgns.objectives.masked_reconstruction import draw_hidden, to_pixels
from cmcgns.pretrained import Pretrained


@torch.no_grad()
def report_use(model: Pretrained, test: StudySet, seed: int = 0, draws: int = 4) -> dict[str, Any]:
    """Does the report help to rebuild hidden findings? L1 with another study's report minus with the right one.

    Inside the finding boxes, over hidden pixels, per study and averaged over random masks; above 0 means that the
    right report rebuilds the finding better. Both reconstructions see the same image features and mask.

    Args:
        model: a run with reconstruction.
        test: rows with boxes; rows without one are not used.
        seed: of masks and of the choice of the other report.
        draws: masks a study.

    Returns:
        L1 with the `right` and the `other` report, and their paired `difference`, each with its interval.
    """
    errors = _reconstruction_errors(model, test, seed, draws)
    used = ~np.isnan(errors).any(0)
    right, other = errors[:, used]
    patients = test.patients[used]
    return {
        "right": asdict(mean_interval(right, patients)),
        "other": asdict(mean_interval(other, patients)),
        "difference": asdict(mean_interval(other - right, patients)),
        "studies": int(used.sum()),
    }


def _reconstruction_errors(model: Pretrained, test: StudySet, seed: int, draws: int) -> NDArray[np.float64]:
    """(2, n) mean L1 over hidden pixels inside the boxes, with the right and another report; NaN without any."""
    task = model.task
    reconstruction = task.objective.reconstruction
    if reconstruction is None:
        raise ValueError("this run has no reconstruction")
    generator = torch.Generator().manual_seed(seed)
    boxes, order = test.box_masks(), evaluation_order(len(test.dataset), 64)
    partners = _other_reports(test, seed)
    sums, counts = torch.zeros(2, len(test.dataset)), torch.zeros(len(test.dataset))
    for request in order:
        rows = torch.from_numpy(request.rows)
        batch = test.dataset[request].to(model.device)
        partner = test.dataset[BatchRequest(partners[request.rows])].to(model.device)
        features, strangers = task.model(batch), task.model(partner)
        size = (batch.images.shape[-2], batch.images.shape[-1])
        for _ in range(draws):
            hidden = draw_hidden(len(batch), features.patches.shape[1], task.settings.mask_ratio, generator)
            hidden = hidden.to(model.device)
            region = to_pixels(hidden, features.grid, size) & boxes[rows].to(model.device)
            reports = ((features.sentences, batch.sentence_mask), (strangers.sentences, partner.sentence_mask))
            patches = features.patches
            if task.settings.mask == "pixels":
                patches = task.painted_patches(batch.images, hidden)
            for which, (sentences, mask) in enumerate(reports):
                rebuilt = reconstruction.reconstruct(patches, hidden, sentences, mask, task.objective.attention)
                sums[which, rows] += ((rebuilt - batch.images).abs() * region).sum((1, 2, 3)).cpu()
            counts[rows] += region.sum((1, 2, 3)).cpu()
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
