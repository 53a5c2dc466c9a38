"""Both encoders with their projections and pools, and what they hand to an objective."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.data.reports.tokens import ReportTokens
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.report_encoder import ReportEncoder, in_parts, pool_sentences

_REPORT = ("token_ids", "token_mask", "token_sentence", "sentence_mask")


@dataclass
class Features:
    """Embeddings of B studies.

    Attributes:
        patches: (B, P, D) unit patch tokens `f_I`, row-major on the grid.
        sentences: (B, M, D) sentence embeddings `f_R`, means of their words; rows of padding are 0.
        words: (B, L, D) unit embeddings of the word pieces.
        word_mask: (B, L) true where a sentence has a word piece: not for [CLS], [SEP] and padding.
        image_global: (B, D) unit image embeddings.
        report_global: (B, D) unit report embeddings.
    """

    patches: Tensor
    sentences: Tensor
    words: Tensor
    word_mask: Tensor
    image_global: Tensor
    report_global: Tensor


def start_plain(layer: nn.Linear) -> None:
    """Xavier weights and no bias, as PyTorch starts its own attention.

    The usual start of `nn.Linear` shrinks its input and adds a random shift that all studies share: embeddings then
    begin with cosines of 0.998 among each other, and the contrast has hardly anything to work with.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class AttentionPool(nn.Module):
    """Pools (B, T, C) tokens into (B, C): the mean token asks, all tokens answer (as CLIP pools its ResNet features).

    One query a study asks, so the maps of keys and values act on the query and on the pooled token instead of on all
    tokens: `q·(W x_t) = (Wᵀ q)·x_t` and `Σ_t w_t V x_t = V Σ_t w_t x_t`. Same function, about T times fewer products.

    Args:
        width: C, divisible by `heads`.
        tokens: number of tokens T if they have places (a learned position embedding is added); None if not.
        heads: attention heads.
    """

    positional_embedding: nn.Parameter | None

    def __init__(self, width: int, tokens: int | None = None, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            start_plain(layer)
        self.positional_embedding = None
        if tokens is not None:
            self.positional_embedding = nn.Parameter(torch.randn(tokens + 1, width) * width**-0.5)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool.

        Args:
            tokens: (B, T, C).
            mask: (B, T) true for real tokens; a row without any attends to its (zero) mean alone.

        Returns:
            (B, C), not normalised.
        """
        if mask is None:
            mean = tokens.mean(1, keepdim=True)
        else:
            count = mask.sum(1, keepdim=True).clamp(min=1)
            mean = ((tokens * mask[:, :, None]).sum(1) / count)[:, None]
        tokens = torch.cat([mean.to(tokens.dtype), tokens], dim=1)
        if self.positional_embedding is not None:
            tokens = tokens + self.positional_embedding
        query = self.q_proj(tokens[:, 0]).unflatten(1, (self.heads, -1)).transpose(0, 1)  # (heads, B, d)
        key, value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.k_proj, self.v_proj))
        # The keys' bias adds the same to all scores of a query: no matter, but its gradient is to be 0, not missing.
        same = (query * self.k_proj.bias.view(self.heads, 1, -1)).sum(-1, keepdim=True)
        scores = (tokens @ (query @ key).permute(1, 2, 0)).transpose(1, 2) + same.transpose(0, 1)  # (B, heads, T)
        scores = scores * query.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~F.pad(mask, (1, 0), value=True)[:, None], -torch.inf)
        pooled = (scores.softmax(-1).to(tokens.dtype) @ tokens).transpose(0, 1) @ value.transpose(1, 2)
        pooled = pooled.transpose(0, 1).flatten(1) + self.v_proj.bias  # weights sum to 1
        return self.c_proj(pooled)  # type: ignore[no-any-return]


class ImageReportModel(nn.Module):
    """Radiographs and reports in one space of D dimensions.

    Args:
        image_encoder: gives (B, P, C) tokens.
        report_encoder: gives (B, L, C') hidden states.
        dim: D.
    """

    def __init__(self, image_encoder: ImageEncoder, report_encoder: ReportEncoder, dim: int) -> None:
        super().__init__()
        self.image_encoder, self.report_encoder = image_encoder, report_encoder
        width, patches = image_encoder.width, image_encoder.grid[0] * image_encoder.grid[1]
        heads = next(heads for heads in (8, 4, 2, 1) if width % heads == 0)
        self.patch_projection = nn.Linear(width, dim)
        self.image_pool = AttentionPool(width, patches, heads)
        self.image_projection = nn.Linear(width, dim)
        self.token_projection = nn.Linear(report_encoder.width, dim)
        self.sentence_pool = AttentionPool(dim)
        for layer in (self.patch_projection, self.image_projection, self.token_projection):
            start_plain(layer)

    def forward(self, batch: Batch) -> Features:
        """Encode a batch of studies."""
        tokens = self.image_encoder.tokens(batch.images)
        words = self.encode_words(batch.token_ids, batch.token_mask, batch.token_order, batch.token_lengths)
        sentences, report_global = self.pool_report(words, batch.token_sentence, batch.sentence_mask)
        return Features(
            patches=self.project_patches(tokens),
            sentences=sentences,
            words=words,
            word_mask=batch.token_sentence >= 0,
            image_global=self.pool_image(tokens),
            report_global=report_global,
        )

    def project_patches(self, tokens: Tensor) -> Tensor:
        """(B, P, C) tokens -> f_I (B, P, D), unit vectors."""
        return F.normalize(self.patch_projection(tokens), dim=-1)

    def pool_image(self, tokens: Tensor) -> Tensor:
        """(B, P, C) tokens -> (B, D) unit image embeddings."""
        return F.normalize(self.image_projection(self.image_pool(tokens)), dim=-1)

    def pool_patches(self, tokens: Tensor) -> Tensor:
        """(B, P, C) tokens -> (B, P, D) unit embeddings, each pooled alone as if the image were that patch.

        Zhou et al., ECCV 2022, section 3.2, for CLIP. The position embedding is left out: they say what a patch
        shows, not where findings usually are.
        """
        pool = self.image_pool
        return F.normalize(self.image_projection(pool.c_proj(pool.v_proj(tokens))), dim=-1)

    def embed_sentences(self, sentences: Tensor) -> Tensor:
        """(B, M, D) f_R -> (B, M, D) unit embeddings, each as that of a report of this sentence alone."""
        alone = self.sentence_pool(sentences.flatten(0, 1)[:, None])
        return F.normalize(alone, dim=-1).view(sentences.shape)

    def encode_report(
        self, token_ids: Tensor, token_mask: Tensor, token_sentence: Tensor, sentence_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Word pieces -> f_R (B, M, D) and (B, D) unit report embeddings, 0 for a report without any sentence.

        Args:
            token_ids: (B, L).
            token_mask: (B, L).
            token_sentence: (B, L).
            sentence_mask: (B, M).
        """
        return self.pool_report(self.encode_words(token_ids, token_mask), token_sentence, sentence_mask)

    def encode_words(
        self, token_ids: Tensor, token_mask: Tensor, order: Tensor | None = None, lengths: tuple[int, ...] = ()
    ) -> Tensor:
        """(B, L) word pieces and their mask -> (B, L, D) unit embeddings; the rest as in :func:`in_parts`."""

        def encode(words: Tensor, mask: Tensor) -> Tensor:
            return F.normalize(self.token_projection(self.report_encoder(words, mask)), dim=-1)

        return in_parts(encode, token_ids, token_mask, order, lengths)

    def pool_report(self, words: Tensor, token_sentence: Tensor, sentence_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) embeddings of word pieces -> what `encode_report` gives."""
        sentences = pool_sentences(words, token_sentence, sentence_mask.shape[1])
        pooled = self.sentence_pool(sentences, sentence_mask)
        # An empty report has no direction, and normalising a vector near 0 would give it a gradient without bounds.
        pooled = pooled.masked_fill(~sentence_mask.any(1, keepdim=True), 0)
        return sentences, F.normalize(pooled, dim=-1)


class EncodedReports(NamedTuple):
    """Embeddings of B reports.

    Attributes:
        sentences: (B, M, D) f_R; rows of padding are 0.
        mask: (B, M) true for real sentences.
        pooled: (B, D) unit global embeddings, 0 for a report without any sentence.
    """

    sentences: Tensor
    mask: Tensor
    pooled: Tensor


def encode_reports(model: ImageReportModel, tokens: ReportTokens, batch_size: int) -> Iterator[EncodedReports]:
    """Embeddings of all reports in order, a batch at a time; mode and gradients are the caller's.

    Args:
        model: on any device.
        tokens: of n reports.
        batch_size: reports at a time.
    """
    device = next(model.parameters()).device
    count = len(tokens.report_text)
    for start in range(0, count, batch_size):
        arrays = tokens.padded(np.arange(start, min(start + batch_size, count)))
        inputs = [torch.from_numpy(arrays[name]).to(device) for name in _REPORT]
        sentences, pooled = model.encode_report(*inputs)
        yield EncodedReports(sentences, inputs[-1], pooled)


def mean_and_global(model: ImageReportModel, tokens: ReportTokens, batch_size: int) -> tuple[Tensor, Tensor]:
    """Both embeddings of each report: the mean of its sentences f_R, and the global one.

    Args:
        model: as for :func:`encode_reports`.
        tokens: of n reports, at least one.
        batch_size: reports at a time.

    Returns:
        (n, D), and (n, D) unit vectors; 0 for a report without any sentence.
    """
    means, pooled = [], []
    for each in encode_reports(model, tokens, batch_size):
        means.append(each.sentences.sum(1) / each.mask.sum(1, keepdim=True).clamp(min=1))
        pooled.append(each.pooled)
    return torch.cat(means), torch.cat(pooled)
