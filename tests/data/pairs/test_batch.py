"""A batch as a whole."""

from dataclasses import fields, replace

import pytest
import torch

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


def test_moving_moves_every_tensor_and_keeps_the_names(batch):
    fine = torch.zeros(3, 1, 16, 16)
    batch = replace(batch, token_order=torch.arange(3), token_lengths=(5,), fine_images=fine)
    moved = batch.to("meta")
    assert moved.sentence_places is None
    for field in fields(Batch):
        if field.name not in ("study_ids", "token_lengths", "sentence_places"):
            assert getattr(moved, field.name).device.type == "meta"
            assert getattr(moved, field.name).dtype == getattr(batch, field.name).dtype
    assert len(batch) == 3
    assert (moved.study_ids, moved.token_lengths) == (("a", "b", "c"), (5,))
    assert batch.images.device.type == "cpu"
