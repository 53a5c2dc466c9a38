"""Both encoders together: shapes, unit length, independence of studies, and what may and may not move."""

import inspect
from dataclasses import replace

import pytest
import torch

from cmcgns.data.pairs.batch import Batch
from cmcgns.models import image_encoder, model, report_encoder
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import ImageReportModel
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.settings.config import ImageEncoderSettings, ReportEncoderSettings
from support.batches import checked

STUDIES, LENGTH, SENTENCES, DIM = 3, 12, 4, 16
TEXT = ("token_ids", "token_mask", "token_sentence", "sentence_mask")


def make_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([-1, 0, 0, 1, 1, 1, 2, -1, -1, -1, -1, -1]).repeat(STUDIES, 1)
    mask = torch.zeros(STUDIES, LENGTH, dtype=torch.bool)
    mask[:, :8] = True
    ids = torch.randint(5, 30, (STUDIES, LENGTH), generator=generator)
    batch = Batch(
        images=torch.randn(STUDIES, 1, 64, 64, generator=generator),
        token_ids=torch.where(mask, ids, 0),
        token_mask=mask,
        token_sentence=owner,
        sentence_mask=torch.tensor([[True, True, True, False]]).repeat(STUDIES, 1),
        sentence_text=torch.tensor([[1, 2, 3, 0]]).repeat(STUDIES, 1),
        report_text=torch.arange(STUDIES),
        report_sentences=torch.tensor([[1, 2, 3, 0]]).repeat(STUDIES, 1),
    )
    return checked(batch)


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(0)
    images = ImageEncoder(ImageEncoderSettings(name="resnet18", channels=1, output_stride=16), 64)
    reports = ReportEncoder(ReportEncoderSettings(layers=1, width=16, heads=2), 30, LENGTH)
    return ImageReportModel(images, reports, DIM).eval()


def encode(module, batch):
    with torch.no_grad():
        return module(batch)


def test_shapes_and_unit_length(both):
    features = encode(both, make_batch())
    assert features.patches.shape == (STUDIES, 16, DIM)
    assert features.sentences.shape == (STUDIES, SENTENCES, DIM)
    for name in ("patches", "image_global", "report_global"):
        assert torch.allclose(getattr(features, name).norm(dim=-1), torch.tensor(1.0), atol=1e-5), name
    assert features.image_global.shape == features.report_global.shape == (STUDIES, DIM)
    assert not features.sentences[:, 3].any(), "padding"
    assert features.sentences[:, :3].norm(dim=-1).min() > 0.1


def test_pitfall_02_changing_study_0_does_not_change_study_1(both):
    batch, other = make_batch(), make_batch(1)
    mixed = replace(
        batch,
        images=torch.cat([other.images[:1], batch.images[1:]]),
        token_ids=torch.cat([other.token_ids[:1], batch.token_ids[1:]]),
    )
    before, after = encode(both, batch), encode(both, mixed)
    for name in ("patches", "sentences", "image_global", "report_global"):
        first, second = getattr(before, name), getattr(after, name)
        assert torch.allclose(first[1:], second[1:], atol=1e-5), name
        assert not torch.allclose(first[0], second[0], atol=1e-3), name


def test_more_padding_changes_nothing(both):
    batch = make_batch()
    short = {name: getattr(batch, name)[:, :8] for name in ("token_ids", "token_mask", "token_sentence")}
    with torch.no_grad():
        sentences, report = both.encode_report(*(getattr(batch, name) for name in TEXT))
        fewer, same = both.encode_report(*short.values(), batch.sentence_mask[:, :3])
    assert torch.allclose(sentences[:, :3], fewer, atol=1e-5)
    assert torch.allclose(report, same, atol=1e-5)


def test_reports_encoded_by_length_are_the_same(both):
    """Short reports first, each part at its own length: same embeddings, whatever the order of the batch."""
    lengths = torch.tensor([8, 3, 12, 5])
    batch = make_batch()
    mask = torch.arange(LENGTH) < lengths[:STUDIES, None]
    batch = replace(batch, token_mask=mask, token_sentence=torch.where(mask, 0, -1))
    order = lengths[:STUDIES].argsort()
    longest = tuple(int(lengths[part].max()) for part in order.tensor_split(2))
    assert longest[0] < longest[1]
    together, parts = encode(both, batch), encode(both, replace(batch, token_order=order, token_lengths=longest))
    for name in ("sentences", "report_global"):
        torch.testing.assert_close(getattr(parts, name), getattr(together, name), rtol=1e-5, atol=1e-5)
    real = batch.token_sentence >= 0
    torch.testing.assert_close(parts.words[real], together.words[real], rtol=1e-5, atol=1e-5)


def test_a_sentence_moves_with_its_own_words_most(both):
    """The encoder reads the whole report, but a sentence embedding is the mean of its own word pieces."""
    batch = make_batch()
    ids = batch.token_ids.clone()
    ids[:, 6] = (ids[:, 6] + 7 - 5) % 25 + 5
    before = encode(both, batch).sentences
    change = (encode(both, replace(batch, token_ids=ids)).sentences - before).norm(dim=-1)
    assert (change[:, :3].argmax(1) == 2).all()


def test_different_reports_start_apart():
    """Embeddings that begin alike (cosine 0.998 with the usual start of `nn.Linear`) cost epochs of contrast."""
    torch.manual_seed(0)
    images = ImageEncoder(ImageEncoderSettings(name="resnet18", channels=1), 64)
    reports = ReportEncoder(ReportEncoderSettings(layers=1, width=128, dropout=0), 300, 64)
    both = ImageReportModel(images, reports, 128)
    generator = torch.Generator().manual_seed(1)
    wording = torch.randint(5, 300, (40, 8), generator=generator)  # a hospital's 40 sentences of 8 word pieces
    chosen = torch.stack([torch.randperm(40, generator=generator)[:7] for _ in range(32)])
    owner = torch.arange(7).repeat_interleave(8).repeat(32, 1)
    everything = torch.ones(32, 56, dtype=torch.bool)
    with torch.no_grad():
        _, embeddings = both.encode_report(wording[chosen].flatten(1), everything, owner, everything[:, :7])
    cosines = (embeddings @ embeddings.T)[~torch.eye(32, dtype=torch.bool)]
    assert cosines.mean() < 0.85


def test_an_image_without_report_words_stays_finite(both):
    batch = make_batch()
    empty = replace(
        batch, token_sentence=torch.full_like(batch.token_sentence, -1), sentence_mask=batch.sentence_mask & False
    )
    features = encode(both, empty)
    assert torch.isfinite(features.report_global).all()
    assert not features.sentences.any()


def test_pitfall_12_every_trainable_parameter_gets_a_gradient(both):
    features = both(make_batch())
    loss = sum(
        getattr(features, name).mul(torch.randn_like(getattr(features, name))).sum()
        for name in ("patches", "sentences", "image_global", "report_global")
    )
    loss.backward()
    without = [key for key, p in both.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    both.zero_grad()


def test_pitfall_12_no_encoder_opens_a_data_set():
    for module in (model, image_encoder, report_encoder):
        for name in dir(module):
            origin = getattr(getattr(module, name), "__module__", "") or ""
            assert not origin.startswith(
                ("cmcgns.data.pairs.table", "cmcgns.data.pairs.dataset", "cmcgns.training")
            ), name
    assert "data" not in inspect.signature(ImageReportModel.__init__).parameters


def test_parameters_are_restored_by_value(both):
    again = ImageReportModel(
        ImageEncoder(ImageEncoderSettings(name="resnet18", channels=1, output_stride=16), 64),
        ReportEncoder(ReportEncoderSettings(layers=1, width=16, heads=2), 30, LENGTH),
        DIM,
    ).eval()
    assert not torch.allclose(encode(again, make_batch()).image_global, encode(both, make_batch()).image_global)
    again.load_state_dict(both.state_dict())
    assert torch.equal(encode(again, make_batch()).image_global, encode(both, make_batch()).image_global)
