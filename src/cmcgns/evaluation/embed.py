"""Embeddings of a whole data set."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cmcgns.data.batch import Batch
from cmcgns.models.model import ImageReportModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Row i of everything belongs to study i.

    Attributes:
        image: (n, D) unit image embeddings.
        report: (n, D) unit report embeddings.
        pooled: (n, C) the backbone's own pooled features, for probes.
        report_text: (n,) equal numbers mean equal reports.
    """

    image: Floats
    report: Floats
    pooled: Floats
    report_text: NDArray[np.int64]


@torch.no_grad()
def embed(model: ImageReportModel, batches: Iterable[Batch], device: torch.device | str = "cpu") -> Embeddings:
    """Embed every batch with the model in eval mode; the mode is put back afterwards."""
    training = model.training
    model.eval()
    parts: list[tuple[torch.Tensor, ...]] = []
    try:
        for host_batch in batches:
            batch = host_batch.to(device)
            pooled, tokens = model.image_encoder(batch.images)
            _, report = model.encode_report(
                batch.token_ids, batch.token_mask, batch.token_sentence, batch.sentence_mask
            )
            row = (model.pool_image(tokens), report, pooled)
            parts.append((*(tensor.float().cpu() for tensor in row), host_batch.report_text))
    finally:
        model.train(training)
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    return Embeddings(*columns)
