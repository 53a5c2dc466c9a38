"""Maps are computed once, and reading them is the same as computing them."""

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.evaluation import features
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.features import FrozenMaps
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.tasks.detection.head import Detector, SimpleFeaturePyramid, choose_maps, level_grids

PIXELS = np.random.default_rng(0).integers(0, 255, (70, 64, 64), dtype=np.uint8)
ROOM = 1e9


def quiet(*_):
    pass


@pytest.fixture
def counted(monkeypatch):
    """How many images the encoder has seen."""
    seen = []
    original = FrozenEncoder.maps

    def maps(self, images):
        seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(FrozenEncoder, "maps", maps)
    return seen


def test_files_are_written_once_and_hold_the_maps(resnet, counted, tmp_path):
    chosen = choose_maps(resnet)
    first = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path, ROOM, quiet)
    assert sum(counted) == 71  # an example to know the shapes
    rows = np.array([3, 69, 3])
    read = first.read(rows)
    expected = resnet.maps(resnet.tensors(PIXELS[rows]))
    assert [tuple(each.shape[1:]) for each in read] == first.shapes
    for number, level in zip(chosen, read, strict=True):
        assert torch.allclose(level, expected[number], rtol=2e-3, atol=1e-3)
        assert level.dtype == torch.float32
        assert not level.requires_grad
    counted.clear()
    again = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path, ROOM, quiet)
    assert all(torch.equal(a, b) for a, b in zip(again.read(rows), read, strict=True))
    assert sum(counted) == 1
    assert again.bytes == sum(np.load(file, mmap_mode="r").nbytes for file in tmp_path.glob("*/*.npy"))


def test_without_room_they_are_computed_anew_and_are_the_same(resnet, tmp_path):
    chosen = choose_maps(resnet)
    kept = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "a", ROOM, quiet)
    anew = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "b", 0, quiet)
    assert kept.kept
    assert not anew.kept
    assert not list((tmp_path / "b").iterdir())
    for a, b in zip(kept.read(np.arange(5)), anew.read(np.arange(5)), strict=True):
        assert torch.allclose(a, b, rtol=2e-3, atol=1e-4)


def test_other_images_and_sizes_get_other_files(resnet, tmp_path):
    chosen = choose_maps(resnet)
    FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path, ROOM, quiet)
    changed = PIXELS.copy()
    changed[69, 0, 0] ^= 1
    FrozenMaps(resnet, changed, 64, chosen, tmp_path, ROOM, quiet)
    FrozenMaps(resnet, PIXELS, 32, chosen, tmp_path, ROOM, quiet)
    assert len(list(tmp_path.glob("*/*.npy"))) == 3


def test_an_interruption_costs_little(resnet, counted, tmp_path):
    chosen = choose_maps(resnet)

    def interrupt(_text, share):
        if share > 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "a", ROOM, interrupt, block=32)
    counted.clear()
    resumed = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "a", ROOM, quiet, block=32)
    assert sum(counted) == 1 + 38  # a block of 32 of 70 was kept
    straight = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "b", ROOM, quiet)
    rows = np.arange(70)
    assert all(torch.equal(a, b) for a, b in zip(resumed.read(rows), straight.read(rows), strict=True))
    assert {file.suffix for file in (tmp_path / "a").glob("*/*")} == {".npy"}


def test_maps_on_the_disk_need_no_room_again(resnet, tmp_path, monkeypatch):
    chosen = choose_maps(resnet)

    def interrupt(_text, share):
        if share > 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path, ROOM, interrupt, block=32)
    whole = FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "other", 0, quiet).bytes
    monkeypatch.setattr(features, "free_bytes", lambda _: 0.8 * whole)  # enough for the two blocks that are missing
    assert not FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path / "other", ROOM, quiet, block=32).kept
    assert FrozenMaps(resnet, PIXELS, 64, chosen, tmp_path, ROOM, quiet, block=32).kept


def test_maps_that_are_not_finite_are_refused(resnet, tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenEncoder, "maps", lambda *_: [torch.full((1, 2, 4, 4), torch.nan)])
    with pytest.raises(UserError, match="not finite"):
        FrozenMaps(resnet, PIXELS, 64, [0], tmp_path, ROOM, quiet)


@pytest.mark.parametrize(
    ("strides", "chosen"),
    [
        ((2, 4, 8, 16, 32), [2, 3, 4]),
        ((2, 4, 8, 16, 16), [1, 2, 4]),
        ((2, 4, 8, 8, 8), [0, 1, 4]),
        ((16, 16, 16, 16), [3]),
        ((16, 32), [1]),
    ],
)
def test_levels_are_the_deepest_of_the_three_coarsest_strides(resnet, monkeypatch, strides, chosen):
    monkeypatch.setattr(resnet, "strides", strides)
    assert choose_maps(resnet) == chosen


def test_the_pyramid_halves_and_doubles_and_all_of_it_learns():
    torch.manual_seed(0)
    pyramid = SimpleFeaturePyramid(24)
    levels = pyramid(torch.randn(2, 24, 7, 7))
    assert [tuple(each.shape) for each in levels] == [(2, 256, 14, 14), (2, 256, 7, 7), (2, 256, 4, 4)]
    sum(each.pow(3).mean() for each in levels).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in pyramid.parameters())


def test_the_pyramid_keeps_places():
    torch.manual_seed(0)
    pyramid = SimpleFeaturePyramid(8)
    dark = torch.zeros(1, 8, 8, 8)
    light = dark.clone()
    light[0, :, 1, 6] = 5.0
    for level, before in zip(pyramid(light), pyramid(dark), strict=True):
        change = (level - before).abs().sum(1)[0]
        row, column = divmod(int(change.argmax()), change.shape[1])
        side = change.shape[0]
        assert abs((row + 0.5) / side - 1.5 / 8) <= 1 / side
        assert abs((column + 0.5) / side - 6.5 / 8) <= 1 / side


def test_a_transformer_has_three_levels(tmp_path):
    encoder = open_encoder("random:vit_tiny_patch16_224", image_size=64)
    maps = FrozenMaps(encoder, PIXELS, 64, choose_maps(encoder), tmp_path, ROOM, quiet)
    detector = Detector([shape[0] for shape in maps.shapes], 16)
    example = maps.read(np.arange(2))
    assert level_grids(detector, example) == [(8, 8), (4, 4), (2, 2)]
    assert detector(example).shape == (2, 3 * (64 + 16 + 4), 5)
