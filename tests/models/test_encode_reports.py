"""Embeddings of reports in batches: what one whole batch gives, report by report."""

import numpy as np
import pytest
import torch

from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.data.reports.tokens import tokenize_reports
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import ImageReportModel, encode_reports, mean_and_global
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.settings.config import ImageEncoderSettings, ReportEncoderSettings

TEXTS = ["No effusion. The heart is normal. No pneumothorax.", "Edema.", "", "Small effusion. Edema."]


@pytest.fixture(scope="module")
def tokens():
    tokenizer = train_tokenizer(TEXTS, 80)
    return tokenize_reports(TEXTS, tokenizer, 32, 8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    images = ImageEncoder(ImageEncoderSettings(name="resnet18", channels=1, output_stride=16), 32)
    reports = ReportEncoder(ReportEncoderSettings(layers=1, width=16, heads=2), 80, 32)
    return ImageReportModel(images, reports, 8).eval().requires_grad_(False)


def test_batches_do_not_matter(model, tokens):
    whole, split = mean_and_global(model, tokens, 4), mean_and_global(model, tokens, 3)
    for one, other in zip(whole, split, strict=True):
        torch.testing.assert_close(one, other)
    sentences = [torch.cat([each.sentences[each.mask] for each in encode_reports(model, tokens, n)]) for n in (1, 4)]
    torch.testing.assert_close(*sentences)


def test_each_report_has_the_mean_of_its_own_sentences(model, tokens):
    means, pooled = mean_and_global(model, tokens, 4)
    (batch,) = encode_reports(model, tokens, 4)
    assert batch.mask.sum(1).tolist() == np.diff(tokens.sentence_offsets).tolist() == [3, 1, 0, 2]
    for mean, sentences, real in zip(means, batch.sentences, batch.mask, strict=True):
        expected = sentences[real].mean(0) if real.any() else torch.zeros(8)
        torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(pooled.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
