"""L_image: SimSiam between patches and what their report says about them."""

import torch
import torch.nn.functional as F

from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.local_image import Predictor, local_image_loss
from support.objectives import Golden, assert_gradient, assert_value, section, unit


def golden_predictor(golden: Golden) -> Predictor:
    predictor = Predictor(golden["image_patches"].shape[-1])
    predictor.load_state_dict(section(golden, "predictor/"))
    return predictor


def test_golden_loss_and_gradient_through_the_attention(golden: Golden) -> None:
    attention = CrossModalAttention(golden["image_patches"].shape[-1])
    attention.load_state_dict(section(golden, "attention/"))
    patches = golden["image_patches"].clone().requires_grad_()
    mask = torch.arange(golden["sentences"].shape[1]) < golden["counts"][:, None]
    attended, _ = attention.text_to_image(patches, golden["sentences"], mask)
    loss = local_image_loss(patches, attended, golden_predictor(golden))
    loss.backward()
    assert_value(loss, golden["local_image_loss"])
    assert_gradient(patches.grad, golden["local_image_loss_grad_patches"])


def test_equals_a_slow_reference_in_value_and_gradients() -> None:
    predictor = Predictor(8)
    patches, attended = unit(2, 3, 8).requires_grad_(), (5 * unit(2, 3, 8, seed=1)).requires_grad_()
    terms = []
    for study in range(2):
        for p in range(3):
            one, other = patches[study, p], attended[study, p]
            terms.append(-F.cosine_similarity(predictor(one), other.detach(), dim=0) / 2)
            terms.append(-F.cosine_similarity(predictor(other), one.detach(), dim=0) / 2)
    expected = torch.stack(terms).sum() / 6
    loss = local_image_loss(patches, attended, predictor)
    assert_value(loss, expected)
    wanted = (patches, attended, *predictor.parameters())
    for actual, slow in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        assert_gradient(actual, slow)


def test_the_target_side_gets_no_gradient() -> None:
    predictor = Predictor(8)
    with torch.no_grad():  # the prediction no longer depends on its input: only the target side is left
        predictor.hidden.weight.zero_()
    patches, attended = unit(1, 3, 8).requires_grad_(), unit(1, 3, 8, seed=1).requires_grad_()
    local_image_loss(patches, attended, predictor).backward()
    for side in (patches, attended):
        assert side.grad is None or (side.grad == 0).all()


def test_study_without_sentences_is_finite() -> None:
    predictor = Predictor(8)
    patches, attended = unit(2, 3, 8).requires_grad_(), torch.zeros(2, 3, 8, requires_grad=True)
    loss = local_image_loss(patches, attended, predictor)
    loss.backward()
    assert -1 <= float(loss.detach()) <= 1
    for tensor in (patches, attended, *predictor.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
