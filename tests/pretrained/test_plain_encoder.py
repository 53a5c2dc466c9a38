"""The image encoder of a run as the plain timm module that it is, and the pixels that it takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

import cmcgns
from cmcgns.pretrained.embed import timm_config
from cmcgns.settings.recipe import parse_recipe


def test_image_encoder_is_the_plain_timm_module(run: Path) -> None:
    encoder = cmcgns.load(run).image_encoder
    assert type(encoder).__module__.startswith("timm.")
    with torch.no_grad():
        assert encoder(torch.zeros(2, 1, 32, 32)).shape == (2, 24)


def test_timm_prepares_images_for_the_encoder_as_the_run_did(run: Path) -> None:
    """timm's own transform, made from what the encoder carries, gives the tensor that the run gives."""
    model = cmcgns.load(run)
    settings = timm.data.resolve_model_data_config(model.image_encoder)
    assert settings["input_size"] == (1, 32, 32)
    assert (settings["mean"], settings["std"], settings["interpolation"]) == ((0.5,), (0.5,), "bilinear")
    assert settings["crop_pct"] == pytest.approx(32 / 38)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90)).astype(np.uint8)
    mine, theirs = model.images([pixels])[0], timm.data.create_transform(**settings)(Image.fromarray(pixels))
    assert theirs.shape == mine.shape
    assert (mine - theirs).abs().max() <= 2 / 127.5  # two gray values: Pillow reduces in two steps
    assert "url" not in model.image_encoder.pretrained_cfg, "these are no weights of timm's"


@pytest.mark.parametrize(("size", "resize"), [(64, 72), (128, 144), (224, 256), (224, 224), (31, 37), (100, 103)])
def test_timm_scales_to_exactly_the_run_s_size(size: int, resize: int) -> None:
    recipe = parse_recipe({"data": {"image_size": size, "resize": resize}}, "test")
    settings = timm_config(recipe, {"url": "x", "first_conv": "conv1"})
    assert int(np.floor(size / settings["crop_pct"])) == resize
    assert settings["input_size"] == (3, size, size)
    assert settings["mean"] == (0.5, 0.5, 0.5)
    assert settings["first_conv"] == "conv1"


def test_preprocess_json_says_what_is_done_to_an_image(run: Path) -> None:
    """Followed by hand, it gives what the run embeds."""
    said = json.loads((run / "preprocess.json").read_text())
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90)).astype(np.uint8)
    assert said["antialias"] is True  # as Pillow's filters are
    long_side = said["resize_long_side"]
    size = (long_side, round(60 * long_side / 90))
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling[said["resampling"].upper()]))
    square = np.zeros((long_side, long_side))
    top = (long_side - size[1]) // 2
    square[top : top + size[1]] = resized
    first = (long_side - said["crop"]) // 2
    crop = square[first : first + said["crop"], first : first + said["crop"]] / 255
    expected = (crop - said["mean"]) / said["std"]
    found = cmcgns.load(run).images([pixels])[0, 0].numpy()
    assert np.abs(found - expected).max() <= 2 / 127.5


def test_a_copy_to_train_is_thawed_and_the_run_stays_frozen(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    before = model.embed_image(images)
    encoder = model.trainable_image_encoder()
    assert encoder.training
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.training and norm.track_running_stats for norm in norms)
    running = norms[0].running_mean.clone()
    assert all(p.requires_grad for p in encoder.parameters())
    encoder(torch.rand(4, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert not torch.equal(norms[0].running_mean, running)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    assert not any(p.requires_grad for p in model.image_encoder.parameters())
    assert not model.image_encoder.training
    np.testing.assert_array_equal(model.embed_image(images), before)
    assert timm.data.resolve_model_data_config(encoder)["input_size"] == (1, 32, 32)
