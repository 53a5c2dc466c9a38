"""GLoRIA by its formulas written out, and its pitfalls."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cmcgns.objectives.numerics as numerics
from cmcgns.objectives.global_alignment import global_alignment_loss
from cmcgns.objectives.objective import STAGES
from cmcgns.objectives.report_matching import matching_contrast
from cmcgns.objectives.rivals.gloria import GLoRIA, GLoRIAOptions, match
from cmcgns.settings.config import ObjectiveSettings
from objectives.rivals.test_every_rival import rival_task
from support.objectives import GRID, figures_of, random_batch, random_features, unit

STUDIES, REPORTS, PATCHES, LENGTH, DIM = 4, 5, 6, 7, 16
WORDS = (3, 5, 1, 4, 0)
OTHER = {"attention_temperature": 0.1, "matching_temperature": 0.5}
VARIANTS = [{}, {"double_softmax": True}, OTHER, OTHER | {"double_softmax": True}]


def studies() -> tuple[Tensor, Tensor, Tensor]:
    """Patches, words and their mask; like [CLS], the first word is none, and what is no word is not 0."""
    mask = torch.arange(LENGTH) < torch.tensor(WORDS)[:, None]
    return unit(STUDIES, PATCHES, DIM), unit(REPORTS, LENGTH, DIM, seed=1), mask.roll(1, 1)


def slow_match(patches: np.ndarray, words: np.ndarray, options: GLoRIAOptions) -> float:
    """Z of one image (P, D) and the real words (n, D) of one report, with its contexts."""
    before = words @ patches.T
    if options.double_softmax:
        before = np.array([[math.exp(s) / sum(math.exp(o) for o in row) for s in row] for row in before.T]).T
    total = 0.0
    for word, row in zip(words, before, strict=True):
        gates = np.array([math.exp(s / options.attention_temperature) for s in row])
        context = sum(gate * patch for gate, patch in zip(gates / gates.sum(), patches, strict=True))
        cosine = context @ word / (np.linalg.norm(context) * np.linalg.norm(word))
        total += math.exp(cosine / options.matching_temperature)
    return options.matching_temperature * math.log(total)


def slow_local(matching: np.ndarray, has_words: list[bool], temperature: float) -> float:
    """L_l of (B, B) Z, one study after the other."""
    real, loss = [i for i, has in enumerate(has_words) if has], 0.0
    for i in real:
        own = math.exp(matching[i, i] / temperature)
        loss -= math.log(own / sum(math.exp(matching[i, r] / temperature) for r in real)) / 2
        loss -= math.log(own / sum(math.exp(z / temperature) for z in matching[:, i])) / 2
    return loss / len(real)


@pytest.mark.parametrize("changes", VARIANTS)
def test_matching_is_its_formula(changes: dict[str, Any]) -> None:
    patches, words, mask = studies()
    options = GLoRIAOptions(**changes)
    found = match(patches, words, mask, options)
    assert found.shape == (STUDIES, REPORTS)
    for b in range(STUDIES):
        for r in range(REPORTS - 1):
            expected = slow_match(patches[b].double().numpy(), words[r][mask[r]].double().numpy(), options)
            assert float(found[b, r]) == pytest.approx(expected, rel=1e-5)
    assert bool((found[:, -1] < -100).all())  # no word at all


@pytest.mark.parametrize("changes", VARIANTS)
def test_gradient_of_the_matching_is_that_of_contexts_written_out(changes: dict[str, Any]) -> None:
    patches, words, mask = (each[:4].double() if each.is_floating_point() else each[:4] for each in studies())
    options, weights = GLoRIAOptions(**changes), unit(4, 4, seed=2).double()
    leaves = patches.requires_grad_(), words.requires_grad_()
    slow = patches.new_zeros(())
    for b in range(4):
        for r in range(4):
            real = words[r][mask[r]]
            before = real @ patches[b].T
            before = before.softmax(0) if options.double_softmax else before
            contexts = (before / options.attention_temperature).softmax(1) @ patches[b]
            along = (contexts * real).sum(1) / contexts.norm(dim=1)
            tau = options.matching_temperature
            slow = slow + weights[b, r] * tau * (along / tau).exp().sum().log()
    fast = (match(patches, words, mask, options) * weights).sum()
    expected, found = torch.autograd.grad(slow, leaves), torch.autograd.grad(fast, leaves)
    torch.testing.assert_close(found, expected)


def test_local_contrast_is_its_formula_and_reports_without_words_take_no_part() -> None:
    matching = 3 * unit(5, 5)
    for has_words in ([True] * 5, [True, True, False, True, False]):
        expected = slow_local(matching.double().numpy(), has_words, 0.1)
        assert float(matching_contrast(matching, torch.tensor(has_words), 0.1)) == pytest.approx(expected, rel=1e-5)
    assert slow_local(matching.double().numpy(), [True] * 5, 0.1) != pytest.approx(expected, rel=1e-2)
    assert float(matching_contrast(matching, torch.zeros(5, dtype=torch.bool), 0.1)) == 0


@pytest.mark.parametrize("weights", [{}, {"global_weight": 0.5, "local_weight": 3.0}])
@pytest.mark.parametrize("temperature", [0.1, 0.25])
def test_loss_is_the_weighted_sum_of_both_contrasts(weights: dict[str, float], temperature: float) -> None:
    batch = random_batch((3, 5, 0, 2, 4), 5)
    features = random_features(batch)
    objective = rival_task("gloria", local_temperature=temperature, **weights).objective
    figures = {key: float(value.detach()) for key, value in figures_of(objective, features, batch).items()}
    cosines = (features.image_global @ features.report_global.T).detach().double() / 0.1
    both = -(cosines.log_softmax(0).diagonal().mean() + cosines.log_softmax(1).diagonal().mean()) / 2
    assert figures["global"] == pytest.approx(float(both), rel=1e-5)
    matching = np.zeros((5, 5))
    patches, has_words = features.patches.detach().double().numpy(), [3, 5, 0, 2, 4]
    for b in range(5):
        for r in (0, 1, 3, 4):
            words = features.words[r][features.word_mask[r]].double().numpy()
            matching[b, r] = slow_match(patches[b], words, GLoRIAOptions())
    # The image of the report without words stays, with whatever it matches.
    expected = slow_local(matching, [bool(count) for count in has_words], temperature)
    assert figures["local"] == pytest.approx(expected, rel=1e-5)
    of_global, of_local = weights.get("global_weight", 1.0), weights.get("local_weight", 1.0)
    assert figures["loss"] == pytest.approx(of_global * float(both) + of_local * expected, rel=1e-5)


def test_temperature_of_the_global_contrast_is_that_of_the_settings_and_fixed() -> None:
    batch = random_batch((3, 5, 2, 4), 5)
    features = random_features(batch)
    for temperature in (0.1, 0.5):
        objective = GLoRIA(ObjectiveSettings(name="gloria", temperature=temperature), GRID, 32)
        expected = global_alignment_loss(features.image_global, features.report_global, torch.tensor(1 / temperature))
        torch.testing.assert_close(figures_of(objective, features, batch)["global"], expected)
        assert objective.temperature == temperature
        assert not list(objective.parameters())


def test_projection_of_patches_is_trained() -> None:
    task = rival_task("gloria")
    for stage in STAGES:
        task.set_stage(stage)
        assert task.model.patch_projection.weight.requires_grad


def test_a_patch_that_shows_the_words_finds_its_report() -> None:
    """Four findings, a patch each; the report that names an image's finding matches it best, and the other way."""
    finding = torch.eye(DIM)[:4]
    patches = torch.stack([finding, *torch.eye(DIM)[4:8].expand(5, 4, DIM)], 1)  # one patch of six shows it
    mask = torch.tensor([[False, True, False]]).expand(4, -1)
    matching = match(patches.flatten(1, -2), finding[:, None].expand(4, 3, DIM), mask, GLoRIAOptions())
    assert torch.equal(matching.argmax(1), torch.arange(4))
    assert torch.equal(matching.argmax(0), torch.arange(4))
    mixed = matching[torch.tensor([1, 0, 3, 2])]
    every = torch.ones(4, dtype=torch.bool)
    assert float(matching_contrast(matching, every, 0.1)) < math.log(4) < float(matching_contrast(mixed, every, 0.1))


def test_pitfall_double_softmax_is_off_by_default_and_another_objective() -> None:
    batch = random_batch((3, 5, 2, 4), 5)
    features = random_features(batch)
    plain, off, on = (
        figures_of(rival_task("gloria", **options).objective, features, batch)["local"]
        for options in ({}, {"double_softmax": False}, {"double_softmax": True})
    )
    assert torch.equal(plain, off)
    assert not torch.allclose(plain, on, rtol=1e-3)


def test_pitfall_double_softmax_lets_words_compete_for_a_patch() -> None:
    """A word's context depends on the report's other words with it alone."""
    patches, words, _ = studies()
    alone, beside = (torch.arange(LENGTH) < count for count in (1, 2))
    for double_softmax in (False, True):
        options = GLoRIAOptions(double_softmax=double_softmax)
        one, two, other = (
            (match(patches, words, mask.expand(REPORTS, -1), options) / 0.2).exp()
            for mask in (alone, beside, beside & ~alone)
        )
        assert torch.allclose(two, one + other) is not double_softmax


@pytest.mark.parametrize("double_softmax", [False, True])
def test_pitfall_special_tokens_and_padding_never_take_part(double_softmax: bool) -> None:
    batch = random_batch((3, 5, 0, 2, 4), 5)
    features = random_features(batch)
    assert not features.word_mask[:, 0].any()  # [CLS]
    assert not features.word_mask[:, -1].any()  # padding and, in the longest report, [SEP]
    found = []
    for seed in (10, 11):
        elsewhere = 30 * unit(*features.words.shape, seed=seed)
        words = torch.where(features.word_mask[:, :, None], features.words, elsewhere).requires_grad_()
        objective = rival_task("gloria", double_softmax=double_softmax).objective
        loss = figures_of(objective, replace(features, words=words), batch)["local"]
        gradient = torch.autograd.grad(loss, words)[0].abs().sum(-1)
        assert bool((gradient[~features.word_mask] == 0).all())
        assert bool((gradient[features.word_mask] > 0).all())
        found.append(loss.detach())
    torch.testing.assert_close(found[0], found[1])


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest result of any operation."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return result


@pytest.mark.parametrize("double_softmax", [False, True])
@pytest.mark.parametrize("images", [1, 3])
def test_pitfall_no_array_of_contexts_and_images_in_turn_change_nothing(
    monkeypatch: pytest.MonkeyPatch, images: int, double_softmax: bool
) -> None:
    patches, words, mask = studies()
    leaves = patches.requires_grad_(), words.requires_grad_()
    an_image = REPORTS * LENGTH * PATCHES  # products of its patches with all words
    found = []
    for bound in (2**27, images * an_image):
        monkeypatch.setattr(numerics, "MOST", bound)
        with Largest() as largest:
            matching = match(*leaves, mask, GLoRIAOptions(double_softmax=double_softmax))
            value = matching_contrast(matching, mask.any(1), 0.1)
            gradient = torch.autograd.grad(value, leaves)
        assert largest.elements == max(min(bound, STUDIES * an_image), words.numel())
        assert largest.elements < STUDIES * REPORTS * LENGTH * DIM
        found.append((matching.detach(), value.detach(), *gradient))
    torch.testing.assert_close(found[1], found[0])


def test_pitfall_the_sum_over_words_is_scaled_by_tau_s_and_not_a_mean() -> None:
    """The same words twice match better by tau_s log 2: neither by log 2 nor by nothing."""
    patches, words, mask = studies()
    words, mask = words[:4], mask[:4]
    for tau in (0.2, 0.5):
        options = GLoRIAOptions(matching_temperature=tau)
        once = match(patches, words, mask, options)
        twice = match(patches, torch.cat([words, words], 1), torch.cat([mask, mask], 1), options)
        torch.testing.assert_close(twice - once, torch.full_like(once, tau * math.log(2)))
    one = torch.tensor([False, True] + [False] * (LENGTH - 2)).expand(4, -1)
    alone = match(patches, words, one, GLoRIAOptions())
    weights = (torch.einsum("bpd,rd->brp", patches, words[:, 1]) / 0.25).softmax(-1)
    contexts = torch.einsum("brp,bpd->brd", weights, patches)
    torch.testing.assert_close(
        alone, F.cosine_similarity(contexts, words[None, :, 1], dim=-1)
    )  # of one word, Z is it


def test_pitfall_a_report_without_words_is_no_negative_and_gives_no_nan() -> None:
    patches, words, mask = studies()
    leaves = torch.cat([patches, unit(1, PATCHES, DIM, seed=5)]).requires_grad_(), words.requires_grad_()
    matching = match(*leaves, mask, GLoRIAOptions())
    found = matching_contrast(matching, mask.any(1), 0.1)
    gradient = torch.autograd.grad(found, leaves, retain_graph=True)
    assert all(bool(each.isfinite().all()) for each in gradient)
    assert not gradient[1][-1].any()
    to_reports = F.cross_entropy(matching[:4, :4] / 0.1, torch.arange(4))
    to_images = F.cross_entropy(matching[:, :4].T / 0.1, torch.arange(4))
    torch.testing.assert_close(found, (to_reports + to_images) / 2)
