"""What the report is worth to the reconstruction of hidden regions: the right one, another study's, and none."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cmcgns.data.pairs.batch import BatchRequest, evaluation_order
from cmcgns.evaluation.study_set import StudySet
from cmcgns.metrics.intervals import mean_interval
from cmcgns.objectives.reconstruction_targets import error_of
from cmcgns.objectives.report_comparison import compare_reports
from cmcgns.pretrained import Pretrained


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
    partners = _other_reports(test, seed)
    sums, counts = torch.zeros(3, len(test.dataset)), torch.zeros(len(test.dataset))
    for request in evaluation_order(len(test.dataset), 64):
        rows = torch.from_numpy(request.rows)
        batch = test.dataset[request].to(model.device)
        partner = test.dataset[BatchRequest(partners[request.rows])].to(model.device)
        features = net(batch)
        target = method.target(net, features, batch)
        other = net(partner).sentences, partner.sentence_mask
        # A patch of a map counts by the share of it that lies in a box.
        boxes = test.box_masks(request.rows).to(model.device).float()
        inside = F.interpolate(boxes, size=target.shape[-2:], mode="area")
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
