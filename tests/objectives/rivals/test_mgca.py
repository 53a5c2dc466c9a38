"""MGCA by its formulas written out, and what is easily got wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features
from cmcgns.objectives.rivals.mgca import MGCA, MGCAOptions, codes_of, swapped_prediction, token_contrast
from cmcgns.settings.config import ObjectiveSettings
from support.objectives import GRID, SIZE, figures_of, random_batch, random_features, unit

COUNTS, DIM = (3, 5, 0, 1, 2), 16
Given = tuple[Batch, Features]
FEW = MGCAOptions(prototypes=7)
IMAGE, REPORT, PROTOTYPES = unit(6, DIM), unit(6, DIM, seed=1), 3 * unit(7, DIM, seed=2)


def small_mgca(temperature: float = 0.1, **options: object) -> MGCA:
    """With biases that are not 0 and attention that is not nearly uniform, as after some training."""
    torch.manual_seed(0)
    settings = ObjectiveSettings(name="mgca", dim=DIM, temperature=temperature, options={"prototypes": 7} | options)
    objective = MGCA(settings, GRID, SIZE)
    with torch.no_grad():
        for name, value in objective.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.3)
            elif "query" in name:
                value.mul_(8)
    return objective


def given(counts: tuple[int, ...] = COUNTS) -> Given:
    """Leaves that want gradients."""
    batch = random_batch(counts, 5)
    features = random_features(batch)
    features.words.requires_grad_()
    return batch, features


def rows_of(given: Given, rows: list[int]) -> Given:
    """Some studies, or some of them twice."""
    batch, features = given
    tensors = {name: value[rows] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    parts = {name: value.detach()[rows] for name, value in vars(features).items() if isinstance(value, Tensor)}
    return Batch(**tensors), replace(features, **parts)


def tokens_of(objective: MGCA, given: Given) -> float:
    return float(figures_of(objective, given[1], given[0])["tokens"].detach())


def slow_direction(
    objective: MGCA, side: str, other: str, asking: list[Tensor], asked: list[Tensor], tau: float
) -> Tensor:
    """One direction of L_CTA of one study, one token after the other, in the dtype of its arguments."""

    def linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
        return layer.weight.to(x.dtype) @ x + layer.bias.to(x.dtype)

    attention = objective.attention
    query, key, value = (getattr(attention, name) for name in (f"{side}_query", f"{other}_key", f"{other}_value"))
    output = objective.word_output if side == "text" else objective.patch_output
    seen = []
    for x in asking:
        scores = [torch.dot(linear(query, x), linear(key, y)) / math.sqrt(DIM) for y in asked]
        parts = [score.exp() for score in scores]
        mixed = sum(part / sum(parts) * linear(value, y) for part, y in zip(parts, asked, strict=True))
        assert isinstance(mixed, Tensor)
        seen.append(linear(output, mixed))

    def likeness(x: Tensor, y: Tensor) -> Tensor:
        return (torch.dot(x, y) / x.norm() / y.norm() / tau).exp()

    loss = torch.zeros((), dtype=asking[0].dtype)
    for x, o in zip(asking, seen, strict=True):
        own = likeness(x, o)
        to_seen, to_tokens = sum(likeness(x, each) for each in seen), sum(likeness(each, o) for each in asking)
        loss = loss - ((own / to_seen).log() + (own / to_tokens).log()) / 2 / len(asking)
    return loss


def slow_tokens(objective: MGCA, batch: Batch, words: Tensor, patches: Tensor, tau: float = 0.07) -> Tensor:
    studies = []
    for i in range(len(batch)):
        spoken = [words[i, j] for j in range(words.shape[1]) if batch.token_sentence[i, j] >= 0]
        shown = list(patches[i])
        if spoken:
            to_image = slow_direction(objective, "text", "image", spoken, shown, tau)
            to_text = slow_direction(objective, "image", "text", shown, spoken, tau)
            studies.append((to_image + to_text) / 2)
    return sum(studies, torch.zeros((), dtype=words.dtype)) / max(1, len(studies))


def slow_codes(scores: np.ndarray, epsilon: float, steps: int) -> np.ndarray:
    """The published iteration: shares of 1/K for prototypes, 1/N for studies, and N times the result."""
    count, prototypes = scores.shape
    codes = np.exp(scores / epsilon)
    codes /= codes.sum()
    for _ in range(steps):
        for k in range(prototypes):
            codes[:, k] /= codes[:, k].sum() * prototypes
        for i in range(count):
            codes[i] /= codes[i].sum() * count
    return count * codes


def slow_prototypes(image: Tensor, report: Tensor, prototypes: Tensor, options: MGCAOptions) -> Tensor:
    """L_CPA with codes that are numbers, study by study."""
    directions = [c / c.norm() for c in prototypes]
    scores = [torch.stack([torch.stack([x @ c for c in directions]) for x in side]) for side in (image, report)]
    numbers = [side.detach().numpy() for side in scores]
    codes = [slow_codes(side, options.sinkhorn_epsilon, options.sinkhorn_steps) for side in numbers]
    loss = torch.zeros((), dtype=image.dtype)
    for side, other in ((0, 1), (1, 0)):
        for i in range(len(image)):
            share = (scores[side][i] / options.prototype_temperature).exp()
            for k in range(len(directions)):
                loss = loss - codes[other][i, k] * (share[k] / share.sum()).log() / (2 * len(image))
    return loss


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_global_term_is_its_formula(temperature: float) -> None:
    batch, features = given()
    cosines = (features.image_global.double() @ features.report_global.double().T).detach().numpy()
    expected = 0.0
    for i in range(len(batch)):
        row, column = np.exp(cosines[i] / temperature), np.exp(cosines[:, i] / temperature)
        expected -= (math.log(row[i] / row.sum()) + math.log(column[i] / column.sum())) / 2 / len(batch)
    found = figures_of(small_mgca(temperature), features, batch)["global"]
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [0.07, 0.3])
def test_the_token_term_is_its_formula_in_value_and_gradient(tau: float) -> None:
    batch, features = given()
    objective = small_mgca(token_temperature=tau)
    found = figures_of(objective, features, batch)["tokens"]
    of_objective = [*objective.attention.parameters(), *objective.word_output.parameters()]
    of_objective += [*objective.patch_output.parameters()]
    leaves = [features.words, features.patches, *of_objective]
    gradients = torch.autograd.grad(found, leaves)
    exact = [features.words.detach().double().requires_grad_(), features.patches.detach().double().requires_grad_()]
    expected = slow_tokens(objective, batch, exact[0], exact[1], tau)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for actual, wanted in zip(gradients, torch.autograd.grad(expected, [*exact, *of_objective]), strict=True):
        torch.testing.assert_close(actual, wanted.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"sinkhorn_epsilon": 0.5}, {"sinkhorn_steps": 1}, {"prototype_temperature": 1}]
)
def test_the_prototype_term_is_its_formula_in_value(changes: dict[str, float]) -> None:
    options = MGCAOptions.model_validate({"prototypes": 7} | changes)
    expected = slow_prototypes(IMAGE.double(), REPORT.double(), PROTOTYPES.double(), options)
    assert float(swapped_prediction(IMAGE, REPORT, PROTOTYPES, options)) == pytest.approx(float(expected), rel=1e-5)


def test_pitfall_no_gradient_flows_through_codes() -> None:
    """It is that of the formula with codes that are plain numbers."""
    leaves = [value.clone().requires_grad_() for value in (IMAGE, REPORT, PROTOTYPES)]
    gradients = torch.autograd.grad(swapped_prediction(leaves[0], leaves[1], leaves[2], FEW), leaves)
    exact = [value.double().requires_grad_() for value in (IMAGE, REPORT, PROTOTYPES)]
    expected = torch.autograd.grad(slow_prototypes(exact[0], exact[1], exact[2], FEW), exact)
    for actual, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(actual, wanted.float(), rtol=1e-3, atol=1e-6)
    assert not codes_of(leaves[0] @ PROTOTYPES.T, 0.05, 3).requires_grad


def test_codes_are_the_published_iteration() -> None:
    scores = (IMAGE @ F.normalize(PROTOTYPES, dim=-1).T).double()
    for steps in (1, 3):
        expected = slow_codes(scores.numpy(), 0.05, steps)
        torch.testing.assert_close(codes_of(scores, 0.05, steps).double().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_pitfall_codes_share_the_batch_out_among_all_prototypes() -> None:
    """Else everything may go to one prototype, where images and reports agree at no cost."""
    pull = torch.zeros(7).index_fill(0, torch.tensor([3]), 0.5)  # one prototype resembles every study most
    scores = IMAGE @ F.normalize(PROTOTYPES, dim=-1).T + pull
    assert bool((scores.argmax(1) == 3).float().mean() > 0.5)
    few, many = codes_of(scores, 0.05, 3), codes_of(scores, 0.05, 500)
    torch.testing.assert_close(few.sum(1), torch.ones(6))
    torch.testing.assert_close(many.sum(1), torch.ones(6))
    torch.testing.assert_close(many.sum(0), torch.full((7,), 6 / 7), rtol=1e-2, atol=1e-3)


def test_pitfall_codes_neither_overflow_nor_divide_by_nothing() -> None:
    scores = torch.eye(6, 7) * 2 - 1  # the last prototype is the opposite of every study
    for epsilon in (0.05, 0.001):
        codes = codes_of(scores, epsilon, 3)
        assert bool(codes.isfinite().all())
        torch.testing.assert_close(codes.sum(1), torch.ones(6))
        assert codes[:, :6].argmax(1).tolist() == list(range(6))


def test_pitfall_token_negatives_are_of_the_own_report_alone() -> None:
    """The term is the mean over single studies, and no study has a part in another's."""
    objective, whole = small_mgca(), given()
    alone = [tokens_of(objective, rows_of(whole, [i])) for i in range(len(COUNTS)) if COUNTS[i]]
    assert tokens_of(objective, whole) == pytest.approx(np.mean(alone), rel=1e-5)
    batch, features = whole
    changed = replace(features, words=features.words.detach().clone(), patches=features.patches.detach().clone())
    changed.words[1], changed.patches[1] = unit(*features.words.shape[1:], seed=9), unit(4, DIM, seed=8)
    other = tokens_of(objective, rows_of((batch, changed), [1]))
    difference = tokens_of(objective, (batch, changed)) - tokens_of(objective, whole)
    assert abs(other - alone[1]) > 1e-2
    assert difference == pytest.approx((other - alone[1]) / len(alone), abs=1e-5)


def test_pitfall_no_term_grows_with_the_batch() -> None:
    """They are means: every study twice leaves tokens and prototypes as they are."""
    objective, whole = small_mgca(), given()
    once, twice = (figures_of(objective, *rows_of(whole, [*range(5)] * times)[::-1]) for times in (1, 2))
    torch.testing.assert_close(twice["tokens"], once["tokens"])
    torch.testing.assert_close(twice["prototypes"], once["prototypes"])
    torch.testing.assert_close(twice["global"], once["global"] + math.log(2))  # one more equal negative each


def test_pitfall_long_reports_weigh_no_more_than_short_ones() -> None:
    """A report said twice: every word has each negative twice, log 2 more, and what patches see is the same."""
    objective, (batch, features) = small_mgca(), given()
    doubled = replace(batch, token_sentence=torch.cat([batch.token_sentence] * 2, 1))
    mask, words = torch.cat([features.word_mask] * 2, 1), torch.cat([features.words] * 2, 1)
    found = tokens_of(objective, (doubled, replace(features, words=words, word_mask=mask)))
    assert found == pytest.approx(tokens_of(objective, (batch, features)) + math.log(2) / 2, rel=1e-5)


def test_pitfall_special_tokens_and_padding_are_no_words() -> None:
    objective, (batch, features) = small_mgca(), given()
    found = figures_of(objective, features, batch)["tokens"]
    (gradient,) = torch.autograd.grad(found, [features.words])
    mask = features.word_mask[:, :, None]
    assert not bool(gradient.masked_fill(mask, 0).any())
    assert bool(gradient.any(2)[features.word_mask].float().mean() > 0.9)
    other = torch.where(mask, features.words.detach(), unit(*features.words.shape, seed=7))
    assert tokens_of(objective, (batch, replace(features, words=other))) == pytest.approx(
        float(found.detach()), rel=1e-6
    )


def test_a_report_without_words_counts_nothing_in_the_token_term() -> None:
    objective, whole = small_mgca(), given()
    assert tokens_of(objective, rows_of(whole, [0, 1, 3, 4])) == pytest.approx(tokens_of(objective, whole), rel=1e-6)
    assert tokens_of(objective, rows_of(whole, [2, 2])) == 0


def test_tokens_that_know_what_they_saw_cost_little() -> None:
    tokens, mask = torch.eye(DIM)[None, :5], torch.ones(1, 5, dtype=torch.bool)
    assert float(token_contrast(tokens, 3 * tokens, mask, 0.07)) < 1e-4
    assert float(token_contrast(tokens, tokens.roll(1, 1), mask, 0.07)) > 10


def test_weights_add_up_to_the_loss() -> None:
    batch, features = given()
    for options, tokens, prototypes in (({}, 0.7, 0.5), ({"token_weight": 0.0, "prototype_weight": 2.0}, 0.0, 2.0)):
        found = figures_of(small_mgca(**options), features, batch)
        expected = found["global"] + tokens * found["tokens"] + prototypes * found["prototypes"]
        torch.testing.assert_close(found["loss"], expected)


def test_there_are_as_many_prototypes_as_asked_for_and_their_length_does_not_matter() -> None:
    assert small_mgca(prototypes=12).prototypes.weight.shape == (12, DIM)
    assert MGCA(ObjectiveSettings(name="mgca", dim=DIM), GRID, SIZE).prototypes.weight.shape == (500, DIM)
    long = swapped_prediction(IMAGE, REPORT, PROTOTYPES * torch.arange(1, 8)[:, None], FEW)
    torch.testing.assert_close(long, swapped_prediction(IMAGE, REPORT, PROTOTYPES, FEW))


@pytest.mark.parametrize(("name", "value"), [("prototypes", 0), ("sinkhorn_epsilon", 0), ("tau", 0.1)])
def test_options_out_of_bounds_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        MGCA.check_options(ObjectiveSettings(name="mgca", options={name: value}))
