"""Embeddings of tokenized reports, or of sentences that stand alone, some at a time and where the weights are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cmcgns.data.reports.tokens import ReportTokens
from cmcgns.models.model import ImageReportModel

_NAMES = ("token_ids", "token_mask", "token_sentence", "sentence_mask")


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
        inputs = [torch.from_numpy(arrays[name]).to(device) for name in _NAMES]
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
