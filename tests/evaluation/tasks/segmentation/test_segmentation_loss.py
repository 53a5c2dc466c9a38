"""10 · focal - log Dice, against slow arithmetic and another library's focal loss."""

import math
from itertools import chain

import pytest
import torch

from cmcgns.evaluation.task_settings.learned import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.train import focal_per_image, mixed_loss, soft_overlap


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    masks = torch.rand(4, 6, 5, generator=generator) < 0.3
    masks[2] = False
    return logits.requires_grad_(), masks


def slow_loss(logits, masks, over):
    """Pixel by pixel."""
    focal, dice = [], []
    for image, mask in zip(logits.tolist(), masks.tolist(), strict=True):
        both = drawn = truth = 0.0
        for logit, inside in zip(chain(*image), chain(*mask), strict=True):
            p = 1 / (1 + math.exp(-logit))
            right = p if inside else 1 - p
            focal.append(-((1 - right) ** 2) * math.log(right))
            both, drawn, truth = both + p * inside, drawn + p, truth + inside
        dice.append((both, drawn, truth))
    if over == "batch":
        dice = [tuple(map(sum, zip(*dice, strict=True)))]
    logs = [math.log((2 * both + 1) / (drawn + truth + 1)) for both, drawn, truth in dice]
    return 10 * sum(focal) / len(focal) - sum(logs) / len(logs)


@pytest.mark.parametrize("over", ["batch", "image"])
def test_agrees_with_slow_arithmetic(drawn, over):
    logits, masks = drawn
    settings = SegmentationSettings(dice_over=over)
    loss = mixed_loss(focal_per_image(logits, masks, 2.0), soft_overlap(logits, masks), settings)
    assert loss.item() == pytest.approx(slow_loss(logits, masks, over), rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: mixed_loss(focal_per_image(x, masks, 2.0), soft_overlap(x, masks), settings), logits
    )


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_loss_agrees_with_a_library(drawn, gamma):
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, masks = drawn
    expected = smp.losses.FocalLoss("binary", gamma=gamma)(logits, masks.double())
    assert focal_per_image(logits, masks, gamma).mean().item() == pytest.approx(expected.item(), rel=1e-9)


def test_images_may_be_summed_in_any_parts(drawn):
    logits, masks = drawn
    whole = focal_per_image(logits, masks, 2.0), soft_overlap(logits, masks)
    for first, second in zip(whole, (focal_per_image, soft_overlap), strict=True):
        extra = (2.0,) if second is focal_per_image else ()
        parts = [second(logits[some], masks[some], *extra) for some in (slice(0, 3), slice(3, 4))]
        assert torch.allclose(first, torch.cat(parts), rtol=1e-12)


@pytest.mark.parametrize("over", ["batch", "image"])
def test_extremes_stay_finite(over):
    settings = SegmentationSettings(dice_over=over)
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:5] = True
    right = torch.where(masks, 200.0, -200.0)
    values = []
    for factor in (1, -1):
        logits = (factor * right).requires_grad_()
        loss = mixed_loss(focal_per_image(logits, masks, 2.0), soft_overlap(logits, masks), settings)
        loss.backward()
        assert logits.grad.isfinite().all()
        values.append(loss.item())
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[1] > 100
    assert math.isfinite(values[1])
