"""L_re: what is hidden, from whom, and where the loss looks."""

import pytest
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction, draw_hidden, to_pixels
from support.objectives import DIM, GRID, SIZE, small_settings, unit

PATCHES = GRID[0] * GRID[1]
HIDDEN = torch.tensor([[True, False, False, True], [False, True, True, False]])


class Scene:
    """Two studies and a reconstruction of them."""

    def __init__(self, **changes: object) -> None:
        torch.manual_seed(0)
        self.module = MaskedReconstruction(small_settings(**changes), GRID, SIZE)
        self.attention = CrossModalAttention(DIM)
        self.patches, self.sentences = unit(2, PATCHES, DIM), unit(2, 3, DIM, seed=1)
        self.mask = torch.ones(2, 3, dtype=torch.bool)

    def rebuild(self, patches: Tensor | None = None, sentences: Tensor | None = None) -> Tensor:
        patches = self.patches if patches is None else patches
        sentences = self.sentences if sentences is None else sentences
        return self.module.reconstruct(patches, HIDDEN, sentences, self.mask, self.attention)


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.5, 8), (0.3, 5), (1.0, 16)])
def test_every_study_hides_the_same_number_of_positions(ratio: float, count: int) -> None:
    hidden = draw_hidden(50, 16, ratio, torch.Generator().manual_seed(0))
    assert (hidden.sum(1) == count).all()


def test_hidden_positions_differ_between_studies_and_follow_the_generator() -> None:
    first, same, other = (draw_hidden(200, 16, 0.5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len(first.unique(dim=0)) > 150
    assert (first.float().mean(0) - 0.5).abs().max() < 0.15


def test_each_position_covers_its_own_cell_of_pixels() -> None:
    pixels = to_pixels(torch.eye(6)[[3]].bool(), (2, 3), (4, 9))
    expected = torch.zeros(1, 1, 4, 9, dtype=torch.bool)
    expected[:, :, 2:, :3] = True
    assert torch.equal(pixels, expected)


def test_pitfall_05_positions_are_hidden_not_channels() -> None:
    scene = Scene(reconstruction="image_only")
    seen: list[Tensor] = []
    scene.module.norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    scene.rebuild()
    token = scene.module.mask_token
    assert token is not None
    assert torch.equal(seen[0][HIDDEN], token.detach().expand(4, DIM))
    assert torch.equal(seen[0][~HIDDEN], scene.patches[~HIDDEN])


@pytest.mark.parametrize("reconstruction", ["image_only", "cross_modal"])
def test_a_hidden_token_has_no_influence(reconstruction: str) -> None:
    scene = Scene(reconstruction=reconstruction)
    patches = scene.patches.clone().requires_grad_()
    scene.rebuild(patches).square().sum().backward()
    assert patches.grad is not None
    assert (patches.grad[HIDDEN] == 0).all()
    assert (patches.grad[~HIDDEN] != 0).any(-1).all()


def test_released_queries_let_the_hidden_token_steer_its_own_attention() -> None:
    scene = Scene(query="unmasked")
    assert scene.module.position is None
    patches = scene.patches.clone().requires_grad_()
    scene.rebuild(patches).square().sum().backward()
    assert patches.grad is not None
    assert (patches.grad[HIDDEN] != 0).any(-1).all()


def test_queries_are_masked_tokens_plus_position() -> None:
    scene = Scene()
    seen: list[Tensor] = []
    scene.module.norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    scene.rebuild()
    visible, attended = seen[0].split(DIM, dim=-1)
    assert scene.module.position is not None
    expected, _ = scene.attention.text_to_image(visible + scene.module.position, scene.sentences, scene.mask)
    torch.testing.assert_close(attended, expected)


def test_only_the_cross_modal_kind_reads_the_report() -> None:
    for kind, reads in (("cross_modal", True), ("image_only", False)):
        scene = Scene(reconstruction=kind)
        changed = scene.rebuild(sentences=unit(2, 3, DIM, seed=5))
        assert bool((changed != scene.rebuild()).any()) is reads


def test_pitfall_02_changing_study_0_does_not_change_study_1() -> None:
    scene = Scene()
    patches, sentences = scene.patches.clone(), scene.sentences.clone()
    patches[0], sentences[0] = unit(PATCHES, DIM, seed=5), unit(3, DIM, seed=6)
    before, after = scene.rebuild(), scene.rebuild(patches, sentences)
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=1e-6)
    assert (before[0] - after[0]).abs().max() > 1e-3


def test_pitfall_05_loss_looks_at_hidden_regions_only() -> None:
    module = Scene().module
    generator = torch.Generator().manual_seed(0)
    rebuilt, images = torch.randn(2, 2, 1, SIZE, SIZE, generator=generator)
    region = to_pixels(HIDDEN, GRID, (SIZE, SIZE))
    loss = module(rebuilt, images, HIDDEN)
    torch.testing.assert_close(loss, (rebuilt - images).abs()[region].mean())
    torch.testing.assert_close(module(rebuilt, torch.where(region, images, 7.0), HIDDEN), loss)
    copied = torch.where(region, rebuilt, images)  # copying what is visible earns nothing
    torch.testing.assert_close(module(copied, images, HIDDEN), loss)


def test_loss_everywhere_if_set_or_outside_training() -> None:
    generator = torch.Generator().manual_seed(0)
    rebuilt, images = torch.randn(2, 2, 1, SIZE, SIZE, generator=generator)
    expected = (rebuilt - images).abs().mean()
    torch.testing.assert_close(Scene(reconstruct="everywhere").module(rebuilt, images, HIDDEN), expected)
    torch.testing.assert_close(Scene().module.eval()(rebuilt, images, torch.zeros_like(HIDDEN)), expected)


def test_a_ratio_that_hides_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"mask_ratio=0\.01 hides none of the 4 positions"):
        MaskedReconstruction(small_settings(mask_ratio=0.01), (2, 2), 16)
    MaskedReconstruction(small_settings(mask_ratio=0.0, reconstruct="everywhere"), (2, 2), 16)


def test_pixels_kind_has_no_mask_token() -> None:
    scene = Scene(mask="pixels", reconstruction="image_only")
    assert scene.module.mask_token is None
    seen: list[Tensor] = []
    scene.module.norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    scene.rebuild()
    assert torch.equal(seen[0], scene.patches)
