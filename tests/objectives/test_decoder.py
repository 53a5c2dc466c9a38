"""From patch tokens back to an image."""

import pytest
import torch
from torch import nn

from cmcgns.objectives.decoders import ImageDecoder


@pytest.mark.parametrize(("grid", "size"), [((7, 7), 224), ((2, 2), 32), ((14, 14), 224), ((3, 3), 40), ((4, 4), 4)])
def test_output_has_the_size_of_the_input_image(grid: tuple[int, int], size: int) -> None:
    assert ImageDecoder(8, 16, grid, size)(torch.randn(2, grid[0] * grid[1], 8)).shape == (2, 1, size, size)


def test_pitfall_03_decoder_layers_are_distinct_modules() -> None:
    decoder = ImageDecoder(8, 32, (2, 2), 32)
    layers = [module for module in decoder.modules() if isinstance(module, nn.Conv2d | nn.GroupNorm)]
    assert len(decoder.blocks) == 3
    assert len({id(layer) for layer in layers}) == len(layers) == 2 + 2 * 3
    assert len({parameter.data_ptr() for parameter in decoder.parameters()}) == 2 * len(layers)
    decoder(torch.randn(1, 4, 8)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in decoder.parameters())


def test_pitfall_04_output_is_linear_and_can_leave_the_pixel_range() -> None:
    decoder = ImageDecoder(8, 16, (2, 2), 16)
    tokens = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    plain = decoder(tokens)
    with torch.no_grad():
        decoder.output.weight.mul_(50)
        decoder.output.bias.mul_(50)
    torch.testing.assert_close(decoder(tokens), 50 * plain, rtol=1e-4, atol=1e-4)
    assert decoder(tokens).max() > 1
    assert decoder(tokens).min() < -1


def test_pitfall_01_a_token_changes_its_own_quadrant_most() -> None:
    torch.manual_seed(0)
    decoder = ImageDecoder(8, 16, (4, 4), 16)
    tokens = torch.randn(64, 16, 8, generator=torch.Generator().manual_seed(0))
    for position in range(16):
        changed = tokens.clone()
        changed[:, position] += 3
        difference = (decoder(changed) - decoder(tokens)).abs().mean((0, 1))
        by_quadrant = difference.unflatten(1, (2, 8)).unflatten(0, (2, 8)).sum((1, 3)).flatten()
        assert int(by_quadrant.argmax()) == 2 * (position // 8) + position % 4 // 2


def test_pitfall_02_changing_study_0_does_not_change_study_1() -> None:
    decoder = ImageDecoder(8, 16, (2, 2), 16)
    tokens = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0] += 1
    torch.testing.assert_close(decoder(tokens)[1], decoder(changed)[1], rtol=0, atol=1e-6)
    assert (decoder(tokens)[0] - decoder(changed)[0]).abs().max() > 1e-3


def test_untrained_output_shows_no_grid_of_single_pixels() -> None:
    image = ImageDecoder(8, 16, (2, 2), 16)(torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)))
    places = image.unflatten(3, (8, 2)).unflatten(2, (8, 2))
    torch.testing.assert_close(places, places[:, :, :, :1, :, :1].expand_as(places), rtol=0, atol=0)
