"""A first judgement of a pair of encoders: linear probe, zero-shot, retrieval, use of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcgns.data.order import BatchRequest, evaluation_order
from cmcgns.evaluation.bootstrap import (
    Interval,
    auroc_interval,
    mean_interval,
    paired_auroc_difference,
)
from cmcgns.evaluation.fractions import nested_fraction
from cmcgns.evaluation.metrics import auroc
from cmcgns.evaluation.probe import fit_probe
from cmcgns.evaluation.retrieval import chance_recall, recall_at_k
from cmcgns.evaluation.study_set import StudySet
from cmcgns.evaluation.zero_shot import zero_shot_scores
from cmcgns.objectives.masked_reconstruction import draw_hidden, to_pixels
from cmcgns.pretrained import Pretrained

Prompts = Mapping[str, tuple[Sequence[str], Sequence[str]]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What one encoder says about every test study.

    Attributes:
        linear: (n, C) logits of the probe, one array a seed of the label fraction.
        zero_shot: (n, C).
        recall: (n,) hits of report -> image at 10.
        chance: expected recall at 10 of a random ranking.
    """

    linear: list[Floats]
    zero_shot: Floats
    recall: Floats
    chance: float


def score(
    model: Pretrained,
    train: StudySet,
    validation: StudySet,
    test: StudySet,
    prompts: Prompts,
    fraction: float = 0.1,
    seeds: int = 3,
) -> Scores:
    """Score the test studies; the test rows choose nothing.

    Args:
        model: the encoders.
        train: rows the probe may learn from.
        validation: rows that choose its L2 strength.
        test: rows that are scored.
        prompts: label -> positive and negative prompts.
        fraction: share of the training patients whose labels are used.
        seeds: draws of that share.
    """
    features = {name: part.embed(model) for name, part in (("train", train), ("val", validation), ("test", test))}
    linear = []
    for seed in range(seeds):
        rows = nested_fraction(train.patients, train.labels, fraction, seed)
        probe = fit_probe(
            features["train"].pooled[rows], train.labels[rows], features["val"].pooled, validation.labels
        )
        linear.append(probe.logits(features["test"].pooled))
    wanted = [prompts[name] for name in test.label_names]
    positive = [model.embed_text(list(texts)) for texts, _ in wanted]
    negative = [model.embed_text(list(texts)) for _, texts in wanted]
    found = features["test"]
    ids = found.report_text
    return Scores(
        linear=linear,
        zero_shot=zero_shot_scores(found.image, positive, negative),
        recall=recall_at_k(found.report, found.image, ids, ids, (10,))[10],
        chance=chance_recall(ids, ids, 10),
    )


def summarise(scores: Scores, test: StudySet) -> dict[str, Any]:
    """Figures with 95 % intervals from a patient-clustered bootstrap; the linear probe's is of its first seed."""
    linear = [float(np.nanmean(auroc(logits, test.labels))) for logits in scores.linear]
    return {
        "linear_auroc": asdict(auroc_interval(scores.linear[0], test.labels, test.patients)),
        "linear_auroc_seeds": {"mean": float(np.mean(linear)), "sd": float(np.std(linear, ddof=len(linear) > 1))},
        "zero_shot_auroc": asdict(auroc_interval(scores.zero_shot, test.labels, test.patients)),
        "report_to_image_r10": asdict(mean_interval(scores.recall, test.patients)),
        "chance_r10": scores.chance,
        "per_label": {
            name: {"linear": float(a), "zero_shot": float(b)}
            for name, a, b in zip(
                test.label_names,
                auroc(scores.linear[0], test.labels),
                auroc(scores.zero_shot, test.labels),
                strict=True,
            )
        },
    }


def compare(first: Scores, second: Scores, test: StudySet) -> dict[str, Any]:
    """Paired differences first - second on the same test patients."""
    labels, patients = test.labels, test.patients
    return {
        "linear_auroc": asdict(paired_auroc_difference(first.linear[0], second.linear[0], labels, patients)),
        "zero_shot_auroc": asdict(paired_auroc_difference(first.zero_shot, second.zero_shot, labels, patients)),
        "report_to_image_r10": asdict(mean_interval(first.recall - second.recall, patients)),
    }


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


def _reconstruction_errors(model: Pretrained, test: StudySet, seed: int, draws: int) -> Floats:
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


def interval_text(interval: Mapping[str, float] | Interval, digits: int = 3) -> str:
    """`0.912 (0.897 to 0.926)`."""
    values = asdict(interval) if isinstance(interval, Interval) else interval
    return f"{values['value']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"
