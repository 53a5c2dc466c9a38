"""L_global and its temperature."""

import math

import pytest
import torch
import torch.nn.functional as F

from cmcgns.objectives.global_alignment import LogitScale, global_alignment_loss
from support.objectives import Golden, assert_value, unit


def test_golden_loss_of_embeddings_that_are_not_normalised(golden: Golden) -> None:
    loss = global_alignment_loss(golden["global/image"], golden["global/text"], golden["global/logit_scale"])
    assert_value(loss, golden["global/loss"])


def test_equals_a_slow_reference_in_value_and_gradient() -> None:
    image, report = (3 * unit(5, 8)).requires_grad_(), (2 * unit(5, 8, seed=1)).requires_grad_()
    rows = []
    for i in range(5):
        to_report = torch.stack([7 * F.cosine_similarity(image[i], report[j], dim=0) for j in range(5)])
        to_image = torch.stack([7 * F.cosine_similarity(image[j], report[i], dim=0) for j in range(5)])
        rows.append(to_report.logsumexp(0) - to_report[i] + to_image.logsumexp(0) - to_image[i])
    expected = torch.stack(rows).mean() / 2
    loss = global_alignment_loss(image, report, torch.tensor(7.0))
    assert_value(loss, expected)
    for actual, slow in zip(
        torch.autograd.grad(loss, (image, report)), torch.autograd.grad(expected, (image, report)), strict=True
    ):
        torch.testing.assert_close(actual, slow, rtol=1e-4, atol=1e-6)


def test_single_study_costs_nothing() -> None:
    assert float(global_alignment_loss(unit(1, 8), unit(1, 8, seed=1), torch.tensor(10.0))) == 0


def test_scale_is_the_inverse_temperature_and_learns() -> None:
    scale = LogitScale(0.1, learnable=True)
    assert float(scale().detach()) == pytest.approx(10)
    global_alignment_loss(unit(4, 8), unit(4, 8, seed=1), scale()).backward()
    assert scale.logarithm.grad is not None
    assert scale.logarithm.grad != 0
    assert not LogitScale(0.1, learnable=False).logarithm.requires_grad


def test_pitfall_13_a_scale_that_was_driven_to_the_bound_comes_back() -> None:
    """Above the bound the clamp of a value has no gradient: the parameter would stay there for ever."""
    scale = LogitScale(0.1, learnable=True)
    optimizer = torch.optim.Adam(scale.parameters(), lr=0.1)

    def step(direction: float) -> None:
        optimizer.zero_grad()
        (direction * scale()).backward()
        optimizer.step()
        scale.clamp()

    for _ in range(60):
        step(-1.0)
    assert float(scale().detach()) == pytest.approx(100, rel=1e-4)
    for _ in range(60):
        step(1.0)
    assert float(scale().detach()) < 50


def test_pitfall_13_logit_scale_is_clamped_at_100() -> None:
    scale = LogitScale(0.1, learnable=True)
    for value in (math.log(101), 20.0, 1000.0):
        with torch.no_grad():
            scale.logarithm.fill_(value)
        assert float(scale().detach()) == 100
    image, report = unit(4, 8).half().requires_grad_(), unit(4, 8, seed=1).half()
    loss = global_alignment_loss(image, report, scale())
    loss.backward()
    assert loss.isfinite()
    assert image.grad is not None
    assert image.grad.isfinite().all()
