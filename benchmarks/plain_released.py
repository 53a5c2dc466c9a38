"""Plain, slow Stage I objective: the released arithmetic of CM-CGNS, written the obvious way.

Lan et al. 2025 (arXiv 2506.11674). This is the baseline of the speed benchmark and an oracle for tests, never
for training. It is slow in three ways that published code is slow, and in no other: Python loops over studies
and sentences, cosines by broadcasting (N,1,D)·(1,N,D), and weight matrices built as nested lists. It is also
wrong wherever the released program departs from the paper; the docstrings say where. Float32 on the CPU;
gradients by autograd.

B studies, P patches, M sentences at most, N sentences in all, D dimensions, K centroids.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MARGIN_WEIGHT = 1e-4
ALPHA = 0.2
BETA = 0.5


@dataclass
class PlainState:
    """What one step hands to the next.

    Attributes:
        centroids: (K,D), or None while the bank has not started.
        rate: share of the members' sum that enters a centroid at each update.
        clusters: K.
        start_at: the bank is seeded once the mean of the whole cosine matrix is at or below this.
        first_index: sentence that becomes the first centroid.
        own_weight: factor on a sentence's own hard negative (mu).
    """

    centroids: Tensor | None = None
    rate: float = 1e-3
    clusters: int = 128
    start_at: float = 0.4
    first_index: int = 0
    own_weight: float = 3.0


@dataclass(frozen=True)
class Attended:
    """Both directions of the attention, one entry a study, M_i being the number of its sentences.

    Attributes:
        image_to_text: (M_i,D), what each sentence gathers from the image.
        text_to_image: (P,D), what each patch gathers from the report.
        image_to_text_weights: (M_i,P).
        text_to_image_weights: (P,M_i).
    """

    image_to_text: list[Tensor]
    text_to_image: list[Tensor]
    image_to_text_weights: list[Tensor]
    text_to_image_weights: list[Tensor]


def broadcast_cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosines (N,L) of the rows of (N,D) and (L,D).

    Pitfall: the product (N,L,D) is written out before it is summed, D times the memory of a matrix product.
    """
    left_unit = functional.normalize(left, dim=-1)
    right_unit = functional.normalize(right, dim=-1)
    return (left_unit[:, None, :] * right_unit[None, :, :]).sum(dim=-1)


def linear(inputs: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Apply the linear map called `name`: x Wᵀ + b."""
    return functional.linear(inputs, weights[f"{name}.weight"], weights[f"{name}.bias"])


def attend(image_patches: Tensor, sentences: Tensor, counts: Tensor, attention: dict[str, Tensor]) -> Attended:
    """Sigmoid cross-modal attention of (B,P,D) patches and (B,M,D) sentences, the first `counts` being real.

    Pitfall: a Python loop over studies that reads each count back from its tensor.
    """
    scale = math.sqrt(image_patches.shape[-1])
    attended = Attended([], [], [], [])
    for study in range(image_patches.shape[0]):
        patches = image_patches[study]
        report = sentences[study, : int(counts[study].item())]
        sentence_scores = linear(report, attention, "text_query") @ linear(patches, attention, "image_key").T
        patch_scores = linear(patches, attention, "image_query") @ linear(report, attention, "text_key").T
        sentence_weights = torch.sigmoid(sentence_scores / scale)
        patch_weights = torch.sigmoid(patch_scores / scale)
        attended.image_to_text.append(sentence_weights @ linear(patches, attention, "image_value"))
        attended.text_to_image.append(patch_weights @ linear(report, attention, "text_value"))
        attended.image_to_text_weights.append(sentence_weights)
        attended.text_to_image_weights.append(patch_weights)
    return attended


def predict(inputs: Tensor, predictor: dict[str, Tensor]) -> Tensor:
    """Shared SimSiam predictor: hidden, ReLU, output."""
    return linear(functional.relu(linear(inputs, predictor, "hidden")), predictor, "output")


def local_image_loss(image_patches: Tensor, text_to_image: list[Tensor], predictor: dict[str, Tensor]) -> Tensor:
    """SimSiam loss between the patches (B,P,D) and what each gathered from its report.

    Pitfall: a Python loop over studies where one call over (B,P,D) does.
    """
    losses = []
    for patches, gathered in zip(image_patches, text_to_image, strict=True):
        forth = functional.cosine_similarity(predict(patches, predictor), gathered.detach(), dim=-1)
        back = functional.cosine_similarity(predict(gathered, predictor), patches.detach(), dim=-1)
        losses.append(-(forth.mean() + back.mean()) / 2)
    return torch.stack(losses).mean()


def global_loss(image_global: Tensor, text_global: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of (B,D) and (B,D), not yet normalised; `logit_scale` is the multiplier itself.

    Pitfall: the scale is not clamped.
    """
    logits = logit_scale * broadcast_cosines(image_global, text_global)
    labels = torch.arange(logits.shape[0])
    return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2


@torch.no_grad()
def seed_bank(z_cross_modal: Tensor, clusters: int, first_index: int) -> Tensor:
    """Pick `clusters` of the N sentences (N,D) as first centroids (K,D).

    Pitfalls: each pick is the sentence least similar to the one picked just before, whatever the others are;
    and one batch must hold K sentences.

    Raises:
        ValueError: The batch holds fewer than `clusters` sentences.
    """
    if z_cross_modal.shape[0] < clusters:
        raise ValueError(f"seeding {clusters} clusters needs as many sentences, got {z_cross_modal.shape[0]}")
    chosen = [first_index]
    while len(chosen) < clusters:
        similarities = broadcast_cosines(z_cross_modal[chosen[-1]][None], z_cross_modal)[0].tolist()
        left = sorted(set(range(len(similarities))) - set(chosen))
        chosen.append(min(left, key=similarities.__getitem__))
    return torch.stack([z_cross_modal[index] for index in chosen])


@torch.no_grad()
def update_bank(centroids: Tensor, z_cross_modal: Tensor, rate: float) -> Tensor:
    """Move centroids (K,D) by the sentences (N,D) nearest to each; returns new ones.

    A centroid without members stays where it was.

    Pitfalls: the members are summed, not averaged, and the result is not renormalised.
    """
    members: list[list[Tensor]] = [[] for _ in centroids]
    for sentence, cluster in enumerate(broadcast_cosines(z_cross_modal, centroids).argmax(dim=1).tolist()):
        members[cluster].append(z_cross_modal[sentence])
    moved = []
    for centroid, group in zip(centroids, members, strict=True):
        moved.append((1 - rate) * centroid + rate * torch.stack(group).sum(dim=0) if group else centroid)
    return torch.stack(moved)


@torch.no_grad()
def hard_negatives(z_sentence: Tensor, centroids: Tensor) -> tuple[list[int], list[int]]:
    """Nearest (own cluster) and second nearest centroid (hard negative) of each sentence (N,D)."""
    nearest = broadcast_cosines(z_sentence, centroids).topk(2, dim=1).indices.tolist()
    return [own for own, _ in nearest], [hard for _, hard in nearest]


def false_negative_weights(cluster_index: list[int]) -> list[list[float]]:
    """1 where two different sentences share a cluster, else 0. Pitfall: N×N numbers in nested lists."""
    return [
        [float(own == other and row != column) for column, other in enumerate(cluster_index)]
        for row, own in enumerate(cluster_index)
    ]


def cross_entropy(cosines: Tensor, z_sentence: Tensor, hard: Tensor, own_weight: float) -> Tensor:
    """Cross-entropy over N in-batch columns, `cosines` (N,N), and N columns of hard negatives, `hard` (N,D).

    Pitfalls: the N×N weights are a nested list; they multiply, so a sentence's own hard negative of negative
    cosine becomes easier, and the N-1 columns of the others become zeros that stay in the denominator; and
    the temperature is 1.
    """
    size = cosines.shape[0]
    weights = torch.tensor([[own_weight if row == column else 0.0 for column in range(size)] for row in range(size)])
    logits = torch.cat([cosines, weights * broadcast_cosines(z_sentence, hard)], dim=1)
    return functional.cross_entropy(logits, torch.arange(size))


def margin_loss(cosines: Tensor, false_negatives: list[list[float]]) -> Tensor:
    """Bidirectional margin loss over the cosine matrix (N,N) and a nested list of 0 and 1.

    Pitfall: averaged over all N² entries, those that are no false negative counting as a difference of 0, so
    an empty set costs alpha.
    """
    difference = torch.tensor(false_negatives) * (cosines - cosines.diagonal()[:, None])
    return (functional.relu(difference + ALPHA) + functional.relu(-difference - BETA)).mean()


def local_report_loss(z_sentence: Tensor, z_cross_modal: Tensor, state: PlainState) -> dict[str, Tensor]:
    """Cross-entropy, margin loss and their weighted sum for N pairs of unit vectors; `state` is advanced.

    Until the bank has started, and in the step that seeds it, this is plain in-batch cross-entropy.

    Pitfall: the bank waits for a gate that may never open.
    """
    cosines = broadcast_cosines(z_sentence, z_cross_modal)
    if state.centroids is None:
        if cosines.mean().item() <= state.start_at:
            state.centroids = seed_bank(z_cross_modal, state.clusters, state.first_index)
        contrast = functional.cross_entropy(cosines, torch.arange(cosines.shape[0]))
        return {"cross_entropy": contrast, "margin": torch.zeros(()), "local_report": contrast}
    state.centroids = update_bank(state.centroids, z_cross_modal, state.rate)
    cluster_index, hard_index = hard_negatives(z_sentence, state.centroids)
    hard = torch.stack([state.centroids[index] for index in hard_index])
    contrast = cross_entropy(cosines, z_sentence, hard, state.own_weight)
    margin = margin_loss(cosines, false_negative_weights(cluster_index))
    return {"cross_entropy": contrast, "margin": margin, "local_report": contrast + MARGIN_WEIGHT * margin}


def plain_step(
    image_patches: Tensor,
    sentences: Tensor,
    counts: Tensor,
    attention: dict[str, Tensor],
    predictor: dict[str, Tensor],
    image_global: Tensor,
    text_global: Tensor,
    logit_scale: Tensor,
    state: PlainState,
) -> dict[str, Tensor]:
    """One forward pass of the released Stage I objective, all three weights 1; `state` is advanced.

    Args:
        image_patches: (B,P,D) unit vectors.
        sentences: (B,M,D) unit vectors, padded with zeros.
        counts: (B) sentences of each study.
        attention: `{image,text}_{query,key,value}.{weight,bias}`.
        predictor: `{hidden,output}.{weight,bias}`.
        image_global: (B,D), not normalised.
        text_global: (B,D), not normalised.
        logit_scale: the multiplier itself, not its logarithm.
        state: the bank.

    Returns:
        Scalars `loss`, `global`, `local_image`, `cross_entropy`, `margin` and `local_report`.
    """
    attended = attend(image_patches, sentences, counts, attention)
    real = [sentences[study, : int(counts[study].item())] for study in range(sentences.shape[0])]
    z_sentence = functional.normalize(torch.cat(real), dim=-1)
    z_cross_modal = functional.normalize(torch.cat(attended.image_to_text), dim=-1)
    report = local_report_loss(z_sentence, z_cross_modal, state)
    image = local_image_loss(image_patches, attended.text_to_image, predictor)
    contrast = global_loss(image_global, text_global, logit_scale)
    loss = contrast + image + report["local_report"]
    return {"loss": loss, "global": contrast, "local_image": image, **report}
