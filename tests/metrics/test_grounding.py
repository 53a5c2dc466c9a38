"""Figures of maps and boxes: known answers, invariances, and what counts where nothing is to be told apart."""

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.images.place import place_boxes
from cmcgns.metrics.overlap import box_masks, contrast_to_noise, mean_overlap, pointing_game
from cmcgns.objectives.phrase_maps import to_pixels


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(corners, dtype=np.float64).reshape(-1, 4)


def noise(n: int = 5, side: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, side, side))).float()


def test_pixels_whose_centre_lies_in_any_box_are_inside() -> None:
    masks = box_masks([boxes((1, 2, 4, 5), (6, 0, 8, 1)), boxes((0.6, 0, 2.4, 1))], 8)
    assert masks[0].sum() == 9 + 2
    assert masks[0][2:5, 1:4].all()
    assert masks[0][0, 6:8].all()
    assert masks[1].nonzero().tolist() == [[0, 1]]


def test_a_box_smaller_than_a_pixel_has_the_pixel_that_it_lies_in() -> None:
    assert box_masks([boxes((3.1, 5.6, 3.2, 5.9))], 8)[0].nonzero().tolist() == [[5, 3]]


def test_boxes_are_cut_at_the_border_and_gone_beyond_it() -> None:
    masks = box_masks([boxes((-5, -5, 2, 2)), boxes((8, 0, 12, 4)), boxes((9, 9, 9.2, 9.2), (0, 0, 1, 1))], 8)
    assert masks.sum((1, 2)).tolist() == [4, 0, 1]


def test_a_crop_moves_boxes() -> None:
    drawn = {"x": 4, "y": 4, "width": 2, "height": 2}, {"x": 0, "y": 0, "width": 3, "height": 3}
    seen, outside = box_masks([place_boxes([each], 14, 14, 14, 8) for each in drawn], 8)
    assert seen.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not outside.any()


def test_a_perfect_map_gets_the_best_of_every_figure() -> None:
    masks = box_masks([boxes((2, 3, 9, 8)), boxes((0, 0, 4, 4), (10, 10, 16, 12))], 16)
    maps = masks.float()
    assert pointing_game(maps, masks).tolist() == [1, 1]
    assert mean_overlap(maps, masks).tolist() == [1, 1]
    assert contrast_to_noise(maps, masks).tolist() == [1000, 1000]
    assert contrast_to_noise(1 - maps, masks).tolist() == [-1000, -1000]
    assert pointing_game(1 - maps, masks).tolist() == [0, 0]


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_a_uniform_map_points_as_a_random_point_does(value: float) -> None:
    masks = box_masks([boxes((2, 3, 9, 8))], 16)
    maps = to_pixels(torch.full((1, 9), value), (16, 16))
    assert pointing_game(maps, masks).item() == pytest.approx(35 / 256)
    assert contrast_to_noise(maps, masks).item() == 0
    assert mean_overlap(maps, masks).item() == 0


def test_ties_share_the_hit() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0] = maps[0, 3, 3] = maps[0, 3, 0] = 1
    masks = box_masks([boxes((0, 0, 1, 1))], 4)
    assert pointing_game(maps, masks).item() == pytest.approx(1 / 3)


def test_random_maps_hit_as_often_as_boxes_are_large() -> None:
    maps = noise(4000, 8)
    masks = box_masks([boxes((0, 0, 4, 4))] * 4000, 8)
    assert pointing_game(maps, masks).mean().item() == pytest.approx(0.25, abs=0.03)


def test_contrast_to_noise_of_known_numbers() -> None:
    maps = torch.tensor([[[1.0, 3.0], [0.0, 4.0]]])
    masks = torch.tensor([[[True, True], [False, False]]])
    assert contrast_to_noise(maps, masks).item() == pytest.approx(0)  # both means are 2
    maps[0, 0] += 3
    assert contrast_to_noise(maps, masks).item() == pytest.approx(3 / np.sqrt(1 + 4))
    assert contrast_to_noise(-maps, masks).item() == pytest.approx(-3 / np.sqrt(1 + 4))


def test_contrast_needs_an_inside_and_an_outside() -> None:
    everything = torch.ones(1, 16, 16, dtype=torch.bool)
    assert contrast_to_noise(noise(1), everything).isnan().all()
    assert contrast_to_noise(noise(1), ~everything).isnan().all()
    assert contrast_to_noise(torch.zeros(1, 16, 16), everything).isnan().all()


def test_overlap_of_known_numbers() -> None:
    maps = torch.tensor([[[0.0, 0.25], [0.45, 1.0]]])
    masks = torch.tensor([[[False, False], [True, True]]])
    # Above 0.1 and 0.2: three pixels, two inside; 0.3 and 0.4: the two; 0.5: one of them.
    expected = np.mean([2 / 3, 2 / 3, 1, 1, 1 / 2])
    assert mean_overlap(maps, masks).item() == pytest.approx(expected)
    assert mean_overlap(maps, masks, raw=True).item() == pytest.approx(expected)
    assert mean_overlap(maps * 0.01, masks, raw=True).item() == 0
    assert mean_overlap(maps, masks, thresholds=[0.3]).item() == 1


@pytest.mark.parametrize("figure", [pointing_game, contrast_to_noise, mean_overlap])
def test_scale_and_shift_of_a_map_change_nothing(figure) -> None:
    maps, masks = noise(), box_masks([boxes((2, 3, 9, 8))] * 5, 16)
    torch.testing.assert_close(figure(0.02 * maps + 0.5, masks), figure(maps, masks), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("figure", [pointing_game, contrast_to_noise, mean_overlap])
def test_phrases_do_not_touch_each_other(figure) -> None:
    maps = noise()
    masks = box_masks([boxes((n, n, n + 4, n + 5)) for n in range(5)], 16)
    together = figure(maps, masks)
    for n in range(5):
        torch.testing.assert_close(figure(maps[n : n + 1], masks[n : n + 1])[0], together[n])


def test_a_patch_lights_its_own_pixels() -> None:
    maps = torch.zeros(1, 16)
    maps[0, 1 * 4 + 2] = 1  # row 1, column 2
    pixels = to_pixels(maps, (32, 32))[0]
    assert pixels[8:16, 16:24].sum() > 0.5 * pixels.sum()
    assert to_pixels(maps, (20, 30)).shape == (1, 20, 30)


def test_bad_maps_are_refused() -> None:
    with pytest.raises(UserError, match="no square grid"):
        to_pixels(torch.zeros(1, 6), (8, 8))
    with pytest.raises(UserError, match="one shape"):
        pointing_game(torch.zeros(1, 4, 4), torch.ones(1, 4, 5, dtype=torch.bool))
    with pytest.raises(UserError, match="not finite"):
        pointing_game(torch.full((1, 4, 4), torch.nan), torch.ones(1, 4, 4, dtype=torch.bool))
