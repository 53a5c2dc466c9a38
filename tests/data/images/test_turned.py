import numpy as np
import pytest
from PIL import Image

from cmcgns.data.images.near_duplicates import CORRELATION, best_correlation, thumbnail
from support.check import picture

LARGE = [picture(seed, (256, 256)) for seed in range(6)]
SMALL = np.stack([thumbnail(each) for each in LARGE])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_mirrors_and_quarter_turns_are_exact(quarters: int, mirrored: bool) -> None:
    turned = np.rot90(SMALL[:, :, ::-1] if mirrored else SMALL, quarters, (1, 2))
    np.testing.assert_allclose(best_correlation(turned, SMALL), 1, atol=1e-5)


@pytest.mark.parametrize("angle", [-5, -1, 3, 5])
def test_small_turns_and_crops_are_found(angle: float) -> None:
    turned = [Image.fromarray(each).rotate(angle, Image.Resampling.BICUBIC) for each in LARGE]
    assert best_correlation(np.stack([thumbnail(np.asarray(each)) for each in turned]), SMALL).min() >= CORRELATION
    cropped = np.stack([thumbnail(each[15:-15, 15:-15]) for each in LARGE])
    assert best_correlation(cropped, SMALL).min() >= CORRELATION


def test_different_and_constant_pictures_are_not_alike() -> None:
    assert best_correlation(SMALL, np.roll(SMALL, 1, axis=0)).max() < 0.95
    assert best_correlation(SMALL, np.zeros_like(SMALL)).tolist() == [0] * 6


def test_no_pairs_and_many() -> None:
    assert best_correlation(SMALL[:0], SMALL[:0]).shape == (0,)
    many = np.resize(SMALL, (1500, 32, 32))
    np.testing.assert_allclose(best_correlation(many, many), 1, atol=1e-5)
