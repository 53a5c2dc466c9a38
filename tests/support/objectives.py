"""Comparisons, random studies, and a slow, obvious L_report to compare with."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.freeze import train_only
from cmcgns.models.model import Features
from cmcgns.objectives.centroids import Clusters, Update, assign_two
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.objective import Figures, Objective, Stage
from cmcgns.objectives.own_query import Sentences
from cmcgns.settings.config import (
    BankSettings,
    DataSettings,
    ImageEncoderSettings,
    ObjectiveSettings,
    Recipe,
    ReportEncoderSettings,
)
from cmcgns.training.task import PretrainingTask, build_task

Golden = dict[str, Tensor]
DIM, GRID, SIZE = 16, (2, 2), 8
PUBLISHED = {
    "local": "own_query",
    "negatives": "cluster",
    "centroid_negatives": True,
    "reconstruction": "cross_modal",
    "rarity": 0.0,
    "weight_matching": 0.0,
    "weight_image": 0.02,
    "weight_report": 0.2,
    "false_negatives": "soft",
    "patch_positions": False,
    "unit_values": False,
}
PUBLISHED_BANK = {"source": "cross_modal", "reseed": False}


def section(golden: Golden, prefix: str) -> Golden:
    """All values whose key starts with the prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def assert_value(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def assert_gradient(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random unit vectors."""
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def small_settings(**changes: object) -> ObjectiveSettings:
    """A small objective in the published form, with a bank that starts at once and every gradient that there is."""
    bank = PUBLISHED_BANK | {"clusters": 4, "check_every": 1, "start_cosine": 1.0, "start_from_step": 0}
    given = changes.pop("bank", {})
    bank |= given if isinstance(given, dict) else {}
    small = {"dim": DIM, "decoder_width": 16, "sentence_gradient": 1.0}
    return ObjectiveSettings.model_validate(PUBLISHED | small | changes | {"bank": bank})


def random_batch(
    counts: Sequence[int], bound: int, *, distinct: int = 1000, seed: int = 0, size: int = SIZE
) -> Batch:
    """Studies with the given numbers of sentences, of which `distinct` different ones exist."""
    generator = torch.Generator().manual_seed(seed)
    studies = len(counts)
    mask = torch.arange(bound) < torch.tensor(counts)[:, None]
    tokens = torch.full((studies, 2 * bound + 2), -1)
    tokens[:, 1:-1] = torch.where(mask, torch.arange(bound), -1).repeat_interleave(2, dim=1)
    images = torch.rand(studies, 1, size, size, generator=generator) * 2 - 1
    token_ids = torch.randint(5, 40, tokens.shape, generator=generator)
    text = torch.randint(1, distinct + 1, mask.shape, generator=generator) * mask
    return Batch(
        images=images,
        token_ids=token_ids,
        token_mask=F.pad(tokens[:, 1:] >= 0, (1, 0), value=True),
        token_sentence=tokens,
        sentence_mask=mask,
        sentence_text=text,
        report_text=torch.arange(studies),
        report_sentences=text,
        study_ids=tuple(f"study{index}" for index in range(studies)),
    )


def small_task(seed: int = 0, **changes: object) -> PretrainingTask:
    """Tiny encoders without BatchNorm and dropout, for images of 32 pixels (a 2×2 grid)."""
    recipe = Recipe(
        data=DataSettings(image_size=32, resize=32, max_tokens=32),
        image_encoder=ImageEncoderSettings(name="test_vit", channels=1),
        report_encoder=ReportEncoderSettings(layers=1, width=16, heads=2, dropout=0.0),
        objective=small_settings(**changes),
    )
    torch.manual_seed(seed)
    return build_task(recipe, vocabulary=40)


def random_features(batch: Batch, *, dim: int = DIM, seed: int = 0) -> Features:
    """Unit embeddings that want gradients; sentences of padding are 0."""
    studies, bound = batch.sentence_mask.shape
    sentences = unit(studies, bound, dim, seed=seed + 1) * batch.sentence_mask[:, :, None]
    return Features(
        patches=unit(studies, GRID[0] * GRID[1], dim, seed=seed).requires_grad_(),
        sentences=sentences.requires_grad_(),
        words=unit(*batch.token_ids.shape, dim, seed=seed + 4),
        word_mask=batch.token_sentence >= 0,
        image_global=unit(studies, dim, seed=seed + 2).requires_grad_(),
        report_global=unit(studies, dim, seed=seed + 3).requires_grad_(),
    )


COUNTS = (3, 5, 2, 4)


class GivenFeatures(nn.Module):
    """Stands for the encoders: whatever the batch, it gives these features; of painted images too."""

    def __init__(self, features: Features | None = None) -> None:
        super().__init__()
        self.features = features
        heads = ("token_projection", "patch_projection", "image_pool", "image_projection", "sentence_pool")
        for name in ("image_encoder", "report_encoder", *heads):
            setattr(self, name, nn.Identity())
        self.image_encoder.tokens = lambda _: features and features.patches

    def project_patches(self, tokens: Tensor) -> Tensor:
        return tokens

    def forward(self, batch: Batch) -> Features | None:
        return self.features


def figures_of(objective: Objective, features: Features, batch: Batch, seed: int = 0) -> Figures:
    """Losses and metrics of given features."""
    losses, metrics = objective(GivenFeatures(features), batch, seed)
    assert not losses.keys() & metrics.keys()
    assert not any(value.requires_grad for value in metrics.values())
    return {**losses, **metrics}


def set_stage(objective: Objective, stage: Stage) -> None:
    """What the task does with both parts, for an objective alone."""
    objective.stage = stage
    train_only(objective, objective.trainable_parts(GivenFeatures(), stage))  # type: ignore[arg-type]


def small_objective(**changes: object) -> CMCGNS:
    torch.manual_seed(0)
    objective = CMCGNS(small_settings(**changes), GRID, SIZE)
    set_stage(objective, "alignment")
    return objective


def new_bank(
    dim: int,
    clusters: int = 128,
    *,
    update: Update = "mean",
    queue_size: int | None = None,
    seed: int = 0,
    **changes: object,
) -> ClusterBank:
    """A slow bank that may start at once, among farthest points."""
    plain = {"clusters": clusters, "rate": 1e-3, "start_from_step": 0, "seeding": "farthest_point"}
    settings = BankSettings.model_validate(PUBLISHED_BANK | plain | changes)
    return ClusterBank(dim, settings, update=update, queue_size=queue_size, seed=seed)


def start_bank(objective: CMCGNS) -> None:
    objective.bank.start(unit(objective.bank.clusters, DIM, seed=50))


def run_objective(objective: CMCGNS, seed: int = 0, counts: tuple[int, ...] = COUNTS, bound: int = 5) -> Figures:
    """Losses and metrics of random studies."""
    batch = random_batch(counts, bound, distinct=6, seed=seed)
    return figures_of(objective, random_features(batch, seed=seed), batch, seed)


def part(batch: Batch, features: Features, rows: slice) -> tuple[Batch, Features]:
    """Some studies, with features that are leaves of their own."""
    tensors = {name: value[rows] for name, value in vars(batch).items() if value is not None}
    leaves = {
        name: getattr(features, name).detach()[rows].clone().requires_grad_()
        for name in ("patches", "sentences", "image_global", "report_global")
    }
    return Batch(**tensors), replace(features, **leaves)


def sentence_rows(z1: Tensor, z2: Tensor, mask: Tensor | None = None, text: Tensor | None = None) -> Sentences:
    """Unit vectors as they are."""
    mask = torch.ones(len(z1), dtype=torch.bool) if mask is None else mask
    return Sentences(z1, z2, mask, torch.arange(len(z1)) if text is None else text)


def compact(rows: Sentences) -> Sentences:
    """The same sentences without rows of padding."""
    return Sentences(rows.z1[rows.mask], rows.z2[rows.mask], rows.mask[rows.mask], rows.text[rows.mask])


def all_active(centroids: Tensor) -> Tensor:
    return torch.ones(len(centroids), dtype=torch.bool)


def clusters_of(z1: Tensor, centroids: Tensor) -> Clusters:
    return assign_two(z1, centroids, all_active(centroids))


def slow_contrast(
    rows: Sentences,
    centroids: Tensor | None,
    *,
    tau: float,
    mu: float = 1.0,
    mask_cluster: bool = False,
    soft: bool = False,
    duplicates: bool = False,
) -> Tensor:
    """The contrast of the method, one row and one column after the other, hard negatives written out."""
    real = [index for index in range(len(rows.z1)) if rows.mask[index]]
    own, hard = _nearest_two(rows.z1, centroids) if centroids is not None else ({}, {})
    losses = []
    for i in real:
        logits = []
        for j in real:
            logit = torch.dot(rows.z1[i], rows.z2[j]) / tau
            if i != j:
                same_text, same_cluster = bool(rows.text[i] == rows.text[j]), bool(own) and own[i] == own[j]
                if (duplicates and same_text) or (mask_cluster and same_cluster and not (duplicates and same_text)):
                    continue
                if soft and same_cluster:
                    similarity = float(torch.dot(rows.z1[i].detach(), rows.z1[j].detach()))
                    logit = logit + torch.tensor(min(max(1 - similarity, 1e-3), 1.0)).log()
            logits.append(logit)
        if centroids is not None:
            for j in real:
                if hard[j] != own[i]:
                    direction = centroids[hard[j]] / centroids[hard[j]].norm()
                    bonus = torch.tensor(mu if i == j else 1.0).log()
                    logits.append(torch.dot(rows.z1[i], direction) / tau + bonus)
        positive = torch.dot(rows.z1[i], rows.z2[i]) / tau
        losses.append(torch.stack(logits).logsumexp(0) - positive)
    return torch.stack(losses).mean()


def slow_margin(rows: Sentences, centroids: Tensor, alpha: float, beta: float, duplicates: bool) -> Tensor:
    """The margin loss of the method, entry by entry."""
    own, _ = _nearest_two(rows.z1, centroids)
    real = [index for index in range(len(rows.z1)) if rows.mask[index]]
    losses = []
    for i in real:
        for j in real:
            if i != j and own[i] == own[j] and not (duplicates and rows.text[i] == rows.text[j]):
                d = torch.dot(rows.z1[i], rows.z2[j]) - torch.dot(rows.z1[i], rows.z2[i])
                losses.append(torch.relu(d + alpha) + torch.relu(-d - beta))
    return torch.stack(losses).mean() if losses else torch.zeros(())


def _nearest_two(z1: Tensor, centroids: Tensor) -> tuple[dict[int, int], dict[int, int]]:
    own, hard = {}, {}
    for index, vector in enumerate(z1.detach()):
        cosines = [float(torch.dot(vector, c) / c.norm()) for c in centroids]
        order = sorted(range(len(cosines)), key=lambda k: -cosines[k])
        own[index], hard[index] = order[0], order[1]
    return own, hard
