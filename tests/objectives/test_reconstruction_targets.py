"""Targets of the reconstruction against values that are known, and against loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cmcgns.objectives.reconstruction_targets import (
    high_frequencies,
    normalise_patches,
    patch_features,
    restore_patches,
    text_map,
)
from support.objectives import random_batch, small_task, unit

GRID = (2, 3)


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_every_patch_has_mean_0_and_variance_1_whatever_its_brightness_and_contrast() -> None:
    found = normalise_patches(images(), GRID)
    for study in range(2):
        for row in range(2):
            for column in range(3):
                here = study, 0, slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)
                pixels = images()[here].double().numpy()
                expected = (pixels - pixels.mean()) / np.sqrt(pixels.var() + 1e-6)
                np.testing.assert_allclose(found[here].numpy(), expected, atol=1e-5)
                assert abs(float(found[here].var(correction=0)) - 1) < 1e-4
    torch.testing.assert_close(normalise_patches(3 * images() - 0.5, GRID), found, rtol=1e-3, atol=1e-4)


def test_a_patch_without_contrast_is_0_and_what_was_normalised_comes_back() -> None:
    assert not normalise_patches(torch.full((1, 1, 8, 12), 0.7), GRID).any()
    torch.testing.assert_close(restore_patches(normalise_patches(images(), GRID), images(), GRID), images())


def test_high_frequencies_of_a_constant_are_0_and_those_of_a_chequerboard_are_all_of_it() -> None:
    constant = torch.full((1, 1, 64, 64), -0.3)
    assert high_frequencies(constant, (4, 4)).abs().max() < 1e-6
    place = torch.arange(64)
    board = ((place[:, None] + place) % 2 * 2.0 - 1)[None, None]
    inner = (..., slice(16, 48), slice(16, 48))
    torch.testing.assert_close(high_frequencies(board, (4, 4))[inner], board[inner], rtol=0, atol=1e-3)


def test_high_frequencies_follow_the_gaussian() -> None:
    """A wave of frequency f loses the share exp(-(2πfσ)²/2) to the blurred image; σ is an eighth of a patch."""
    place = torch.arange(128.0)
    for wavelength in (8.0, 16.0, 32.0):
        wave = torch.cos(2 * torch.pi * place / wavelength).expand(1, 1, 128, 128)
        left = 1 - np.exp(-((2 * np.pi * 2 / wavelength) ** 2) / 2)
        middle = (..., slice(32, 96), slice(32, 96))
        torch.testing.assert_close(high_frequencies(wave, (8, 8))[middle], left * wave[middle], rtol=0, atol=0.01)


def test_a_brighter_image_has_the_same_high_frequencies() -> None:
    torch.testing.assert_close(
        high_frequencies(images() + 0.4, GRID), high_frequencies(images(), GRID), rtol=0, atol=1e-6
    )


def test_text_map_is_what_a_loop_over_sentences_and_patches_gives() -> None:
    patches, sentences = unit(3, 6, 16), unit(3, 4, 16, seed=1)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    found = text_map(patches, sentences, mask)
    for study in range(2):
        best = [-np.inf] * 6
        for sentence in range(4):
            if mask[study, sentence]:
                cosines = [float(torch.dot(patches[study, p], sentences[study, sentence])) for p in range(6)]
                best = [max(b, c - np.mean(cosines)) for b, c in zip(best, cosines, strict=True)]
        expected = (np.array(best) - np.mean(best)) / np.sqrt(np.var(best) + 1e-6)
        np.testing.assert_allclose(found[study].numpy(), expected, atol=1e-4)
    assert not found[2].any()  # a study without a sentence


def test_a_sentence_that_fits_everywhere_alike_does_not_matter() -> None:
    patches = unit(1, 6, 16)
    patches[..., 0] = 0.5  # in common
    everywhere = torch.zeros(1, 1, 16)
    everywhere[..., 0] = 1
    finding = 10 * patches[:, 2:3]  # its centred map is far above 0 at patch 2
    found = text_map(patches, torch.cat([finding, everywhere], 1), torch.ones(1, 2, dtype=torch.bool))
    assert int(found.argmax()) == 2


@pytest.mark.parametrize("kind", ["features", "text_map"])
def test_targets_of_the_average_encoder_are_those_of_its_weights_on_the_whole_image(kind: str) -> None:
    task = small_task(target=kind)
    task.set_stage("reconstruction")
    objective, model, batch = task.objective, task.model, random_batch((3, 2, 1, 0), 3, size=32)
    assert objective.average is not None
    objective.average.update(model)
    with torch.no_grad():
        features = model(batch)
        found = objective.target(model, features, batch)
        if kind == "features":
            torch.testing.assert_close(found, features.patches.transpose(1, 2).unflatten(2, (2, 2)))
            torch.testing.assert_close(found, patch_features(model, batch.images))
            return
        tokens = model.image_encoder.tokens(batch.images)
        patches = torch.stack([_pooled_alone(model, tokens[:, p]) for p in range(4)], 1)
        for study, count in enumerate((3, 2, 1)):
            rows = features.sentences[study, :count]
            alone = torch.stack(
                [torch.nn.functional.normalize(model.sentence_pool(r[None, None])[0], dim=0) for r in rows]
            )
            expected = text_map(patches[study][None], alone[None], torch.ones(1, count, dtype=torch.bool))
            torch.testing.assert_close(found[study].flatten(), expected[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["features", "text_map"])
def test_targets_stay_those_of_the_average_while_the_model_moves(kind: str) -> None:
    task = small_task(target=kind)
    task.set_stage("reconstruction")
    objective, model, batch = task.objective, task.model, random_batch((3, 2, 1), 3, size=32)
    assert objective.average is not None
    objective.average.update(model)
    with torch.no_grad():
        features = model(batch)
        before = objective.target(model, features, batch)
        moving = [each for name, each in model.named_parameters() if name.startswith(("image_", "patch_"))]
        for number, parameter in enumerate(moving):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(0.3 * parameter.std(correction=0) * noise + 0.01 * noise)
        torch.testing.assert_close(objective.target(model, features, batch), before)
        objective.average = None  # as of a finished run: the model itself
        assert not torch.allclose(objective.target(model, features, batch), before, atol=1e-3)


def _pooled_alone(model: torch.nn.Module, token: Tensor) -> Tensor:
    """Of one token without a place an attention pool gives the value."""
    pool = model.image_pool
    value = token @ pool.v_proj.weight.T + pool.v_proj.bias
    return torch.nn.functional.normalize(model.image_projection(pool.c_proj(value)), dim=-1)
