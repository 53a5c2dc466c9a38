"""L_re: what is hidden, from whom, and where the loss looks."""

import pytest
import torch
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.masked_reconstruction import MaskedReconstruction, covered_pixels, draw_hidden
from cmcgns.objectives.reconstruction_targets import high_frequencies, normalise_patches
from cmcgns.objectives.rivals.mrm import MRM
from cmcgns.objectives.rivals.prior import PRIOR
from cmcgns.settings.config import (
    DataSettings,
    ImageEncoderSettings,
    ObjectiveSettings,
    Recipe,
    ReportEncoderSettings,
)
from cmcgns.training.task import PretrainingTask, build_task
from support.objectives import DIM, GRID, SIZE, random_batch, small_settings, small_task, unit

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
    pixels = covered_pixels(torch.eye(6)[[3]].bool(), (2, 3), (4, 9))
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
    region = covered_pixels(HIDDEN, GRID, (SIZE, SIZE))
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


@pytest.mark.parametrize("mask", ["pixels", "tokens"])
@pytest.mark.parametrize("ratio", [0.25, 0.75])
@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_of_hidden_pixels_nothing_gets_through(mask: str, ratio: float, name: str) -> None:
    """Neither a value nor a gradient: the mask is drawn before the encoder."""
    task = small_task(mask=mask, mask_ratio=ratio) if name == "test_vit" else _vit_task(mask=mask, mask_ratio=ratio)
    rebuilding, model = task.objective.reconstruction, task.model
    assert rebuilding is not None
    batch, grid = random_batch((2, 1), 2, size=32), model.image_encoder.grid
    places = grid[0] * grid[1]
    hidden = draw_hidden(2, places, ratio, torch.Generator().manual_seed(3))
    covered = covered_pixels(hidden, grid, (32, 32))
    images = batch.images.clone().requires_grad_()
    sentences = unit(2, 2, DIM)

    def rebuild(images: Tensor) -> Tensor:
        with torch.no_grad():
            whole = torch.zeros(2, places, DIM)
        patches = rebuilding.seen_patches(model, whole, images, hidden)
        return rebuilding.reconstruct(patches, hidden, sentences, batch.sentence_mask, task.objective.attention)

    rebuild(images).square().sum().backward()
    assert images.grad is not None
    assert not images.grad[covered].any()
    assert images.grad[~covered].any()
    with torch.no_grad():
        other = torch.where(covered, images.roll(5, -1), images)
        assert torch.equal(rebuild(other), rebuild(images))
        assert not torch.equal(rebuild(torch.where(covered, images, 0.3)), rebuild(images))


def _vit_task(**changes: object) -> PretrainingTask:
    recipe = Recipe(
        data=DataSettings(image_size=32, resize=32, max_tokens=32),
        image_encoder=ImageEncoderSettings(
            name="vit_tiny_patch16_224", channels=1, options={"depth": 1, "patch_size": 8}
        ),
        report_encoder=ReportEncoderSettings(layers=1, width=16, heads=2, dropout=0.0),
        objective=small_settings(**changes),
    )
    return build_task(recipe, vocabulary=40)


def test_visible_tokens_stand_where_they_belong_and_hidden_ones_behind_the_mask_token() -> None:
    task = small_task(mask="tokens")
    rebuilding, model, batch = task.objective.reconstruction, task.model, random_batch((2, 1), 2, size=32)
    assert rebuilding is not None
    with torch.no_grad():
        patches = rebuilding.seen_patches(model, torch.zeros(2, PATCHES, DIM), batch.images, HIDDEN)
        for study in range(2):
            visible = (~HIDDEN[study]).nonzero().flatten()
            alone = model.image_encoder.visible_tokens(batch.images[study : study + 1], visible[None])
            torch.testing.assert_close(patches[study, visible], model.project_patches(alone)[0])
        assert not patches[HIDDEN].any()
        seen: list[Tensor] = []
        rebuilding.norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        rebuilding.reconstruct(patches, HIDDEN, unit(2, 2, DIM), batch.sentence_mask, task.objective.attention)
    assert rebuilding.mask_token is not None
    assert (seen[0][HIDDEN][:, :DIM] == rebuilding.mask_token).all()


def test_a_study_without_a_sentence_attends_to_nothing() -> None:
    scene = Scene()
    scene.mask[0] = False
    before = scene.rebuild()
    scene.sentences = torch.cat([unit(1, 3, DIM, seed=9), scene.sentences[1:]])
    assert torch.equal(scene.rebuild(), before)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (1, SIZE, SIZE)),
        ({"target_scale": 2}, (1, 2 * SIZE, 2 * SIZE)),
        ({"target": "high_frequencies", "target_per_patch": True}, (1, SIZE, SIZE)),
        ({"target": "features"}, (DIM, *GRID)),
        ({"target": "text_map"}, (1, *GRID)),
    ],
    ids=str,
)
def test_what_is_rebuilt_has_the_shape_of_its_target(changes: dict[str, object], shape: tuple[int, ...]) -> None:
    assert Scene(**changes).rebuild().shape == (2, *shape)


def test_the_target_of_an_image_is_as_its_settings_say() -> None:
    batch = random_batch((2, 1), 2)
    batch.fine_images = torch.rand(2, 1, 2 * SIZE, 2 * SIZE)
    model = torch.nn.Module()  # an image needs none

    def target(**changes: object) -> Tensor:
        return Scene(**changes).module.target(model, model, batch, unit(2, 2, DIM))  # type: ignore[arg-type]

    assert torch.equal(target(), batch.images)
    assert torch.equal(target(target_scale=2), batch.fine_images)
    assert torch.equal(target(target_per_patch=True), normalise_patches(batch.images, GRID))
    edges = high_frequencies(batch.fine_images, GRID)
    both = target(target="high_frequencies", target_scale=2, target_per_patch=True)
    assert torch.equal(both, normalise_patches(edges, GRID))
    batch.fine_images = None
    with pytest.raises(UserError, match=r"target_scale=2: Batch\.fine_images is missing"):
        target(target_scale=2)


def test_the_error_of_features_is_1_less_the_cosine_and_none_where_all_is_right() -> None:
    module = Scene(target="features").module
    first, second = torch.randn(2, 2, DIM, *GRID, generator=torch.Generator().manual_seed(0))
    expected = 1 - torch.nn.functional.cosine_similarity(first, second, dim=1)
    torch.testing.assert_close(module.errors(first, second)[:, 0], expected)
    torch.testing.assert_close(module(first, second, HIDDEN), expected.flatten(1)[HIDDEN].mean())
    assert module.errors(3 * first, first).abs().max() < 1e-5


def test_reports_are_dropped_in_training_alone_as_often_as_said_and_by_the_seed() -> None:
    module, mask = Scene(report_dropout=0.3).module, torch.ones(4000, 3, dtype=torch.bool)
    mask[:, 2] = False
    found = module.drop_reports(mask, 5)
    kept = found.any(1)
    assert abs(float(kept.float().mean()) - 0.7) < 0.03
    assert torch.equal(found[kept], mask[kept])
    assert torch.equal(module.drop_reports(mask, 5), found)
    assert not torch.equal(module.drop_reports(mask, 6), found)
    assert torch.equal(module.eval().drop_reports(mask, 5), mask)
    assert Scene().module.drop_reports(mask, 5) is mask


def test_what_no_mask_or_grid_allows_is_refused() -> None:
    for mask in ("tokens", "pixels", "features"):
        with pytest.raises(UserError, match=r"mask_ratio=1 hides all 4 positions, so none is left to see"):
            MaskedReconstruction(small_settings(mask=mask, mask_ratio=1.0), GRID, SIZE)
    with pytest.raises(UserError, match="10 pixels are no whole patches of a 3×3 grid"):
        MaskedReconstruction(small_settings(target_per_patch=True), (3, 3), 10)


def test_a_rival_is_told_its_own_keys() -> None:
    for ratio, said in ((0.01, "hides none"), (0.99, "hides all")):
        settings = ObjectiveSettings(name="prior", dim=16, options={"mask_ratio": ratio})
        with pytest.raises(UserError, match=rf"^objective\.options\.mask_ratio={ratio} {said}") as raised:
            PRIOR(settings, (2, 2), 16)
        assert "objective.reconstruct=" not in str(raised.value)  # which it does not read
    with pytest.raises(UserError, match=r"^objective\.name=mrm: 10 pixels are no whole .* another data\.image_size$"):
        MRM(ObjectiveSettings(name="mrm", dim=16), (3, 3), 10)
