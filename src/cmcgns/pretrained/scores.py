"""Scores of images with texts: by global embeddings, by what sentences see in the image, or by both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cmcgns.metrics.ranking import FloatArray
from cmcgns.pretrained.embed import By, Embedder, Floats


def text_scores(
    model: Embedder, images: torch.Tensor, texts: tuple[torch.Tensor, torch.Tensor], by: By
) -> FloatArray:
    """(B, K) scores of one batch.

    Args:
        model: of which `lacks(by)` says nothing.
        images: (B, channels, H, W) as the encoder wants them.
        texts: (K, D) mean f_R and (K, D) global embeddings, of :meth:`cmcgns.pretrained.embed.Embedder.encode_texts`.
        by: `global`: cosine of global embeddings; `local`: s of f_R; `sum`: half of each over its standard deviation
            in the run's validation.
    """
    local, pooled = texts
    if by == "local":
        return np.asarray(model.local_scores(images, local), dtype=np.float64)
    cosines = np.asarray(model.embed_tensors(images) @ pooled.cpu().numpy().T, dtype=np.float64)
    return cosines if by == "global" else _both(model, np.asarray(model.local_scores(images, local)), cosines)


def report_scores(model: Embedder, batches: Iterable[torch.Tensor], reports: Sequence[str], by: By) -> Floats:
    """(n, m) scores of images with reports: the local one is the mean of s over the sentences of a report.

    Args:
        model: of which `lacks(by)` says nothing.
        batches: of n images, (B, channels, H, W) each.
        reports: m texts; a sentence is encoded within its report.
        by: as of :func:`text_scores`.

    Raises:
        UserError: a report without a word.
    """
    sentences, counts = model.encode_sentences(reports)
    pooled = model.embed_text(reports) if by != "local" else None
    starts = np.cumsum(counts) - counts
    found: list[Floats] = []
    for images in batches:
        each = model.local_scores(images, sentences).astype(np.float64)
        scores: NDArray[np.float64] = np.add.reduceat(each, starts, axis=1) / counts
        if pooled is not None:
            scores = _both(model, scores, model.embed_tensors(images) @ pooled.T)
        found.append(scores.astype(np.float32))
    return np.concatenate(found)


def _both(model: Embedder, local: NDArray[np.floating], cosines: NDArray[np.floating]) -> FloatArray:
    spread = model.scores.deviation
    return np.asarray(0.5 * (local / spread["local"] + cosines / spread["global"]), dtype=np.float64)
