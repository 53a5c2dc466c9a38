"""Maps of phrases."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cmcgns
from cmcgns.common.errors import UserError
from support.pretrained import TEXTS


@pytest.mark.parametrize("kind", ["pooled", "patches", "attention"])
def test_grounding_maps_have_the_size_of_the_picture(run: Path, kind: str) -> None:
    model = cmcgns.load(run)
    picture = np.random.default_rng(0).integers(0, 255, (30, 50), dtype=np.uint8)
    found = model.ground(picture, "Left pleural effusion.", kind=kind)
    assert found.shape == (30, 50)
    assert np.isfinite(found).all()
    assert found.std() > 0
    bound = (0, 1) if kind == "attention" else (-1, 1)
    assert bound[0] <= found.min() <= found.max() <= bound[1]
    against = model.ground(picture, "Left pleural effusion.", against="Normal.", kind=kind)
    np.testing.assert_allclose(against, found - model.ground(picture, "Normal.", kind=kind), atol=1e-5)
    assert np.abs(model.ground(picture, "Normal.", against="Normal.", kind=kind)).max() < 1e-6


def test_grounding_says_what_this_run_cannot_give(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    objective = model.task.objective
    objective.settings = objective.settings.model_copy(update={"weight_report": 0.0})
    with pytest.raises(UserError, match=r"no map of kind attention: the run has objective\.weight_report 0"):
        model.ground(images[0], "Normal.", kind="attention")
    assert model.ground(images[0], "Normal.").shape == (44, 44)


def test_maps_of_a_phrase_follow_the_patches(run: Path) -> None:
    """Without places, shuffled tokens give shuffled maps; other phrases in the same call change nothing."""
    model = cmcgns.load(run)
    assert model.method is not None
    model.method.attention.positions = None
    tokens = model.task.model.image_encoder.tokens(torch.randn(2, 1, 32, 32))
    order = torch.randperm(tokens.shape[1])
    for kind in ("pooled", "patches", "attention"):
        maps = model.patch_maps(tokens, model.encode_texts(TEXTS), kind)
        assert maps.shape == (2, 3, tokens.shape[1])
        shuffled = model.patch_maps(tokens[:, order], model.encode_texts(TEXTS), kind)
        torch.testing.assert_close(shuffled, maps[:, :, order])
        alone = model.patch_maps(tokens[1:], model.encode_texts(TEXTS[2:]), kind)
        torch.testing.assert_close(alone, maps[1:, 2:], atol=1e-5, rtol=1e-4)
