"""Attention between sentences and patches: released values, masks, independence of studies."""

import pytest
import torch
from torch import Tensor

from cmcgns.objectives.cross_attention import AttentionKind, CrossModalAttention
from support.objectives import Golden, assert_value, section, unit


def golden_attention(golden: Golden) -> CrossModalAttention:
    attention = CrossModalAttention(golden["image_patches"].shape[-1])
    attention.load_state_dict(section(golden, "attention/"))
    return attention


def golden_mask(golden: Golden) -> Tensor:
    return torch.arange(golden["sentences"].shape[1]) < golden["counts"][:, None]


def test_sentence_looks_at_image(golden: Golden) -> None:
    mask = golden_mask(golden)
    vectors, weights = golden_attention(golden).image_to_text(golden["image_patches"], golden["sentences"], mask)
    assert_value(vectors, golden["image_to_text"])
    assert_value(weights, golden["attention_image_to_text"])
    assert not mask.all()
    assert (vectors[~mask] == 0).all()
    assert (weights[~mask] == 0).all()


def test_patch_looks_at_report(golden: Golden) -> None:
    mask = golden_mask(golden)
    vectors, weights = golden_attention(golden).text_to_image(golden["image_patches"], golden["sentences"], mask)
    assert_value(vectors, golden["text_to_image"])
    assert_value(weights, golden["attention_text_to_image"])
    assert (weights.transpose(1, 2)[~mask] == 0).all()


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_content_of_padding_changes_nothing(kind: AttentionKind) -> None:
    attention = CrossModalAttention(8, kind)
    patches, sentences = unit(2, 5, 8), unit(2, 3, 8, seed=1)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    changed = torch.where(mask[:, :, None], sentences, 100.0)
    for direction in (attention.image_to_text, attention.text_to_image):
        for before, after in zip(direction(patches, sentences, mask), direction(patches, changed, mask), strict=True):
            torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_pitfall_02_changing_study_0_does_not_change_study_1(kind: AttentionKind) -> None:
    attention = CrossModalAttention(8, kind)
    patches, sentences, mask = unit(2, 5, 8), unit(2, 3, 8, seed=1), torch.ones(2, 3, dtype=torch.bool)
    other_patches, other_sentences = patches.clone(), sentences.clone()
    other_patches[0], other_sentences[0] = unit(5, 8, seed=2), unit(3, 8, seed=3)
    for direction in (attention.image_to_text, attention.text_to_image):
        before, after = direction(patches, sentences, mask)[0], direction(other_patches, other_sentences, mask)[0]
        torch.testing.assert_close(before[1], after[1], rtol=0, atol=1e-7)
        assert (before[0] - after[0]).abs().max() > 1e-3


def test_softmax_weights_sum_to_one_over_real_keys() -> None:
    attention = CrossModalAttention(8, "softmax")
    mask = torch.tensor([[True, True, False], [True, True, True]])
    patches, sentences = unit(2, 5, 8), unit(2, 3, 8, seed=1)
    torch.testing.assert_close(attention.text_to_image(patches, sentences, mask)[1].sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(attention.image_to_text(patches, sentences, mask)[1].sum(-1), mask.float())


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_study_without_sentences_gives_zeros_and_finite_gradients(kind: AttentionKind) -> None:
    attention = CrossModalAttention(8, kind)
    mask = torch.tensor([[False, False], [True, False]])
    patches = unit(2, 4, 8).requires_grad_()
    vectors, weights = attention.text_to_image(patches, unit(2, 2, 8, seed=1), mask)
    assert (vectors[0] == 0).all()
    assert (weights[0] == 0).all()
    vectors.square().sum().backward()
    assert patches.grad is not None
    assert patches.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in attention.parameters())


def test_patches_that_know_their_place_are_told_apart_by_it_alone() -> None:
    attention = CrossModalAttention(8, patches=5)
    patches, sentences, mask = (
        unit(1, 1, 8).expand(1, 5, 8),
        unit(1, 2, 8, seed=1),
        torch.ones(1, 2, dtype=torch.bool),
    )
    weights = attention.image_to_text(patches, sentences, mask)[1]
    torch.testing.assert_close(weights, weights[:, :, :1].expand_as(weights))  # they begin at 0
    assert attention.positions is not None
    with torch.no_grad():
        attention.positions.position.copy_(unit(5, 8, seed=2))
    weights = attention.image_to_text(patches, sentences, mask)[1]
    keys = attention.image_key(patches[0]) + attention.positions.position
    torch.testing.assert_close(weights[0], (attention.text_query(sentences[0]) @ keys.T / 8**0.5).sigmoid())
    assert weights.std(-1).min() > 0.01


def test_unit_values_make_what_is_gathered_a_sum_of_unit_vectors() -> None:
    attention = CrossModalAttention(8, unit_values=True)
    with torch.no_grad():
        attention.image_value.weight.mul_(100)
        attention.image_value.bias.zero_()
    patches, sentences, mask = unit(1, 5, 8), unit(1, 2, 8, seed=1), torch.ones(1, 2, dtype=torch.bool)
    seen, weights = attention.image_to_text(patches, sentences, mask)
    values = attention.image_value(patches)[0]
    torch.testing.assert_close(seen[0], weights[0] @ (values / values.norm(dim=-1, keepdim=True)))
