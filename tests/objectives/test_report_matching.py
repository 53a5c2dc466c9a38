"""L_match beside slow loops over reports, sentences and images, written from its equations."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.report_matching import match_reports, matching_contrast
from cmcgns.settings.recipe import load_recipe
from support.objectives import (
    assert_gradient,
    assert_value,
    figures_of,
    random_batch,
    random_features,
    small_objective,
)

COUNTS = (3, 5, 2, 1, 0, 4)
TAU, TEMPERATURE = 0.3, 0.15


def objective(**changes: Any) -> CMCGNS:
    return small_objective(
        local="query_matched", negatives="in_batch", weight_image=0.0, weight_global=0.0, **changes
    )


def studies() -> tuple[Batch, Features]:
    """One report has no sentence."""
    batch = random_batch(COUNTS, 6, seed=3)
    return batch, random_features(batch, seed=3)


def slow_matching(made: CMCGNS, features: Features, image: int, report: int) -> Tensor:
    """`τ_s log Σ exp(s/τ_s)`, one sentence after the other."""
    terms = []
    for place in range(COUNTS[report]):
        sentence = F.normalize(features.sentences[report, place], dim=0)
        cosine = made.attention.score(features.patches[image : image + 1], sentence[None])[0, 0]
        terms.append((cosine / TAU).exp())
    return TAU * torch.stack(terms).sum().log()


def slow_loss(made: CMCGNS, features: Features) -> Tensor:
    """Both directions, over the reports that say something."""
    told = [report for report, count in enumerate(COUNTS) if count]
    losses = []
    for study in told:
        own = (slow_matching(made, features, study, study) / TEMPERATURE).exp()
        reports = sum((slow_matching(made, features, study, other) / TEMPERATURE).exp() for other in told)
        images = sum(
            (slow_matching(made, features, other, study) / TEMPERATURE).exp() for other in range(len(COUNTS))
        )
        losses += [-(own / reports).log() / 2, -(own / images).log() / 2]
    return torch.stack(losses).sum() / len(told)


def test_value_and_gradients_are_those_of_the_loops() -> None:
    made = objective(weight_matching=1.0, matching_temperature=TAU, matching_tau=TEMPERATURE)
    batch, features = studies()
    fast, slow = figures_of(made, features, batch)["matching"], slow_loss(made, features)
    assert_value(fast.detach(), slow.detach())
    attention = made.attention
    wanted = [features.patches, features.sentences, attention.text_query.weight, attention.image_value.weight]
    for found, right in zip(torch.autograd.grad(fast, wanted), torch.autograd.grad(slow, wanted), strict=True):
        assert_gradient(found, right)


def test_it_weighs_in_the_loss_and_is_not_computed_without_a_weight() -> None:
    batch, features = studies()
    without, some, more = (figures_of(objective(weight_matching=w), features, batch) for w in (0.0, 1.0, 3.0))
    assert "matching" not in without
    assert_value(some["loss"] - without["loss"], some["matching"])
    assert_value(more["loss"] - without["loss"], 3 * some["matching"])
    assert_value(some["report"], without["report"])


def test_fixed_sentences_get_no_gradient_from_it() -> None:
    batch, features = studies()
    loss = figures_of(objective(weight_matching=1.0, sentence_gradient=0.0), features, batch)["matching"]
    patches, sentences = torch.autograd.grad(loss, [features.patches, features.sentences], allow_unused=True)
    assert patches.abs().max() > 1e-4
    assert sentences is None


@pytest.mark.parametrize("temperature", [0.01, 0.2, 100.0])
def test_equal_sentences_add_the_logarithm_of_their_number(temperature: float) -> None:
    cosines = torch.tensor([[0.7, 0.7, 0.7, 0.7, -1.0, 0.2]])
    report, mask = torch.tensor([0, 1, 1, 1, 2, 3]), torch.tensor([True, True, True, True, True, False])
    matching, has_text = match_reports(cosines, report, mask, 5, temperature)
    assert has_text.tolist() == [True, True, True, False, False]
    assert matching[0, 0] == pytest.approx(0.7, abs=1e-4)
    assert matching[0, 1] == pytest.approx(0.7 + temperature * math.log(3), abs=1e-4)
    assert matching.isfinite().all()


def test_a_batch_that_says_nothing_costs_nothing() -> None:
    cosines = torch.rand(3, 4, requires_grad=True)
    matching, has_text = match_reports(cosines, torch.tensor([0, 0, 1, 2]), torch.zeros(4, dtype=torch.bool), 3, 0.2)
    loss = matching_contrast(matching, has_text, 0.1)
    assert float(loss.detach()) == 0
    assert torch.autograd.grad(loss, cosines)[0].abs().sum() == 0


def test_order_of_studies_does_not_matter() -> None:
    cosines, order = torch.rand(4, 6) * 2 - 1, torch.tensor([2, 0, 3, 1])
    report, mask = torch.tensor([0, 0, 1, 2, 3, 3]), torch.ones(6, dtype=torch.bool)
    place = order.argsort()
    losses = [
        matching_contrast(*match_reports(values, of, mask, 4, 0.2), 0.1)
        for values, of in ((cosines, report), (cosines[order], place[report]))
    ]
    assert_value(*losses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.weight_matching=1", "objective.weight_report=0"], "matching needs .*weight_report, which"),
        (
            ["objective.weight_matching=0", "objective.matching_tau=0.2"],
            "matching_tau has no meaning with weight_matching 0",
        ),
        (
            ["objective.local=own_query", "objective.rarity=0", "objective.bank.source=text",
             "objective.weight_matching=1"],
            "own_query has no such switches: set objective.weight_matching=0.0",
        ),
    ],
)  # fmt: skip
def test_what_it_would_not_be_read_with_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("demo", changes)
