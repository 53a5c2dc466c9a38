"""Rivals that compare whole images and reports: CLIP, SigLIP, ConVIRT, by their formulas written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.rivals.convirt import draw_sentence, only_sentence
from cmcgns.objectives.rivals.siglip import sigmoid_loss
from objectives.rivals.test_every_rival import rival_task
from support.objectives import random_batch, unit

IMAGE, REPORT = unit(5, 8), unit(5, 8, seed=1)


def cosines() -> np.ndarray:
    return IMAGE.double().numpy() @ REPORT.double().numpy().T


def test_clip_is_the_global_term() -> None:
    task = rival_task("clip")
    batch = random_batch((3, 5, 2, 4), 5, size=32)
    features = task.model(batch)
    expected = global_alignment_loss(features.image_global, features.report_global, torch.tensor(10.0))
    torch.testing.assert_close(task(batch, 0)[0]["loss"], expected)


def test_siglip_is_its_formula() -> None:
    scale, bias, expected = 10.0, -10.0, 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if i == j else -1
            expected += math.log(1 + math.exp(-sign * (scale * cosines()[i, j] + bias))) / 5
    found = sigmoid_loss(IMAGE, REPORT, torch.tensor(scale), torch.tensor(bias))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_pitfall_siglip_trains_its_formula_with_b_added() -> None:
    """The objective itself, with a scale and a bias that count for something: b subtracted would cost another sum."""
    task = rival_task("siglip", bias=-1.5)
    with torch.no_grad():
        task.objective.logit_scale.logarithm.fill_(math.log(6.0))
    batch = random_batch((3, 5, 2, 4), 5, size=32)
    features, expected, slope = task.model(batch), 0.0, 0.0
    cosines = (features.image_global @ features.report_global.T).tolist()
    for i in range(4):
        for j in range(4):
            sign = 1 if i == j else -1
            logit = 6 * cosines[i][j] - 1.5
            expected += math.log(1 + math.exp(-sign * logit)) / 4
            slope -= sign / (1 + math.exp(sign * logit)) / 4  # of b
    losses, metrics = task(batch, 0)
    assert float(losses["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    losses["loss"].backward()
    assert float(task.objective.bias.grad) == pytest.approx(slope, rel=1e-4)
    assert (float(metrics["temperature"]), float(metrics["bias"])) == pytest.approx((1 / 6, -1.5))


def test_pitfall_siglip_negatives_of_a_fresh_model_cost_next_to_nothing() -> None:
    """With the sign of b as in the paper's equation every negative would begin at a cost of 10, a pair at none."""
    image, report = torch.eye(8)[:4], torch.eye(8)[4:]  # nothing resembles anything
    objective = rival_task("siglip").objective
    loss = sigmoid_loss(image, report, objective.logit_scale().detach(), objective.bias.detach())
    assert float(loss) == pytest.approx(10, abs=1e-3)
    assert float(objective.bias.detach()) == -10


def test_convirt_is_its_formula_and_weighs_its_directions() -> None:
    expected = 0.0
    for i in range(5):
        row, column = np.exp(cosines()[i] / 0.1), np.exp(cosines()[:, i] / 0.1)
        expected -= (0.75 * math.log(row[i] / row.sum()) + 0.25 * math.log(column[i] / column.sum())) / 5
    loss, other = (global_alignment_loss(IMAGE, REPORT, 10.0, image_weight=weight) for weight in (0.75, 0.25))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(other) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("one_sentence", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_convirt_trains_its_formula(one_sentence: bool, training: bool) -> None:
    """The objective itself: temperature and lambda of the settings, a drawn sentence in training alone."""
    task = rival_task("convirt", image_weight=0.9, one_sentence=one_sentence).train(training)
    batch, seed = random_batch((3, 5, 2, 4), 5, size=32), 3
    drawn = only_sentence(batch, draw_sentence(batch.sentence_mask, seed))
    features = task.model(drawn if one_sentence and training else batch)
    image, report = features.image_global.detach().double(), features.report_global.detach().double()
    expected = 0.0
    for i in range(4):
        row = [math.exp(float(image[i] @ report[j]) / 0.1) for j in range(4)]
        column = [math.exp(float(image[j] @ report[i]) / 0.1) for j in range(4)]
        expected -= (0.9 * math.log(row[i] / sum(row)) + 0.1 * math.log(column[i] / sum(column))) / 4
    assert float(task(batch, seed)[0]["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_convirt_draws_every_sentence_and_no_padding() -> None:
    mask = random_batch((3, 1, 0, 5), 5).sentence_mask
    draws = torch.stack([draw_sentence(mask, seed) for seed in range(60)])
    assert torch.equal(draws.any(0), mask)
    assert torch.equal(draws.sum(2), mask.any(1).long().expand(60, -1))
    gaps = torch.tensor([[True, False, True, True]])  # a sentence may have been left out
    shares = torch.stack([draw_sentence(gaps, seed) for seed in range(600)]).float().mean(0)
    torch.testing.assert_close(shares, torch.tensor([[1 / 3, 0, 1 / 3, 1 / 3]]), atol=0.06, rtol=0)


def test_convirt_s_encoder_sees_the_drawn_sentence_alone() -> None:
    batch, model = random_batch((3, 5, 2, 4), 5, size=32), rival_task("convirt").eval().model
    chosen = draw_sentence(batch.sentence_mask, 3)
    report = model(only_sentence(batch, chosen)).report_global
    kept = chosen.gather(1, batch.token_sentence.clamp(min=0)) | (batch.token_sentence < 0)
    changed = replace(only_sentence(batch, chosen), token_ids=torch.where(kept, batch.token_ids, 7))
    torch.testing.assert_close(model(changed).report_global, report)
    assert not torch.allclose(model(batch).report_global, report, atol=1e-3)
