"""A batch whose parts do not belong together is refused at the door."""

import re
from dataclasses import fields, replace

import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch


@pytest.fixture
def batch():
    return Batch(
        images=torch.zeros(3, 1, 8, 8),
        token_ids=torch.zeros(3, 5, dtype=torch.long),
        token_mask=torch.ones(3, 5, dtype=torch.bool),
        token_sentence=torch.zeros(3, 5, dtype=torch.long),
        sentence_mask=torch.ones(3, 2, dtype=torch.bool),
        sentence_text=torch.ones(3, 2, dtype=torch.long),
        report_text=torch.ones(3, dtype=torch.long),
        report_sentences=torch.ones(3, 2, dtype=torch.long),
        study_ids=("a", "b", "c"),
    )


def test_a_whole_batch_passes(batch):
    assert batch.check() is batch
    assert len(batch) == 3


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("images", (3, 3, 8, 8)),
        ("images", (3, 8, 8)),
        ("images", (2, 1, 8, 8)),
        ("token_mask", (3, 4)),
        ("token_sentence", (5, 3)),
        ("sentence_text", (3, 5)),
        ("sentence_mask", (2, 2)),
        ("report_text", (3, 1)),
    ],
)
def test_wrong_shapes_are_named(batch, name, shape):
    wrong = replace(batch, **{name: torch.zeros(shape)})
    shape = re.escape(str(shape))
    with pytest.raises(UserError, match=rf"Batch\.{name} has shape {shape}; .* is expected"):
        wrong.check()


def test_moving_moves_every_tensor_and_keeps_the_names(batch):
    fine = torch.zeros(3, 1, 16, 16)
    batch = replace(batch, token_order=torch.arange(3), token_lengths=(5,), fine_images=fine)
    moved = batch.to("meta")
    assert moved.sentence_places is None
    for field in fields(Batch):
        if field.name not in ("study_ids", "token_lengths", "sentence_places"):
            assert getattr(moved, field.name).device.type == "meta"
            assert getattr(moved, field.name).dtype == getattr(batch, field.name).dtype
    assert (moved.study_ids, moved.token_lengths) == (("a", "b", "c"), (5,))
    assert batch.images.device.type == "cpu"
