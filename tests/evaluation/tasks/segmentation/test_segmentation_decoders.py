"""Decoders fit maps of every kind, use what they are given, and start from their seed alone."""

import sys

import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.task_settings.learned import SegmentationSettings
from cmcgns.evaluation.tasks.segmentation.decoders import SetrDecoder, UNetDecoder, build_decoder, decoder_name

CHANNELS = [32, 16, 8, 8, 4]


def maps_of(strides, widths, size, batch=2):
    torch.manual_seed(1)
    return [torch.randn(batch, width, size // s, size // s) for s, width in zip(strides, widths, strict=True)]


@pytest.mark.parametrize(
    ("strides", "size"),
    [
        ((2, 4, 8, 16, 32), 64),
        ((2, 4, 8, 16, 16), 64),  # dilated: the last two maps are equally large
        ((4, 8, 16, 32), 64),  # ConvNeXt: no map of half the image's size
        ((2, 4, 8, 16, 32), 72),  # 36, 18, 9, 4, 2
        ((8, 16), 64),
        ((16, 16, 16, 16), 64),
        ((1,), 32),
    ],
)
def test_unet_fits_any_pyramid_and_reads_every_map(strides, size):
    widths = [4 + place for place in range(len(strides))]
    torch.manual_seed(0)
    decoder = UNetDecoder(widths, strides, size, CHANNELS).eval()
    maps = [level.requires_grad_() for level in maps_of(strides, widths, size)]
    logits = decoder(maps)
    assert logits.shape == (2, size, size)
    logits.square().sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in maps)
    assert all(parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize(("stride", "size"), [(16, 64), (14, 70), (8, 32), (32, 64)])
def test_setr_reads_the_last_map(progressive, stride, size):
    torch.manual_seed(0)
    decoder = SetrDecoder(6, stride, size, [16, 8], progressive).eval()
    maps = [level.requires_grad_() for level in maps_of((stride, stride), (6, 6), size)]
    logits = decoder(maps)
    assert logits.shape == (2, size, size)
    logits.square().sum().backward()
    assert maps[0].grad is None
    assert maps[1].grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


def test_setr_does_not_mirror_or_shift():
    """Light one token: the logits change about its place most."""
    torch.manual_seed(0)
    for progressive in (True, False):
        decoder = SetrDecoder(6, 8, 64, [8], progressive).eval()
        dark = torch.randn(1, 6, 8, 8)
        lit = dark.clone()
        lit[0, :, 2, 5] = -lit[0, :, 2, 5]
        change = (decoder([lit]) - decoder([dark])).abs()[0]
        row, column = divmod(int(change.argmax()), 64)
        assert 12 <= row < 28
        assert 36 <= column < 52


def test_the_missing_library_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("segmentation_models_pytorch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"needs segmentation_models_pytorch.*: pip install 'cmcgns\[evaluate\]'"):
        UNetDecoder([4], [2], 8, CHANNELS)


def test_weights_depend_on_the_seed_alone():
    encoder = open_encoder("random:resnet18", image_size=32)
    settings = SegmentationSettings(unet_channels=CHANNELS)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, third = (build_decoder(encoder, settings, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_every_encoder_gets_the_decoder_that_fits():
    auto, naive = SegmentationSettings(), SegmentationSettings(decoder="naive")
    pyramid = open_encoder("random:resnet18", image_size=32)
    flat = open_encoder("random:vit_tiny_patch16_224", image_size=32)
    assert decoder_name(pyramid, auto) == "unet"
    assert decoder_name(flat, auto) == "pup"
    assert decoder_name(flat, naive) == "naive"
    assert build_decoder(flat, naive, 0)(flat.maps(torch.zeros(1, 3, 32, 32))).shape == (1, 32, 32)
