"""Any timm backbone: tokens lie row-major on the grid, whatever layout timm uses."""

import pytest
import timm
import torch
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.models.freeze import freeze_unreached, train_only, trained_parameters, unreached_parameters
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.settings.config import ImageEncoderSettings

SIZE = 64
GRIDS = {
    "resnet18": (2, 2),
    "resnet50": (2, 2),
    "convnext_atto": (2, 2),
    "vit_tiny_patch16_224": (4, 4),
    "swin_tiny_patch4_window7_224": (2, 2),
    "mixer_s32_224": (2, 2),
}


@pytest.fixture(scope="module")
def encoders():
    """Small images, few layers: the layouts are what matters."""
    shallow = {"vit_tiny_patch16_224": {"depth": 2}, "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)}}
    original = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, **o: original(name, **o, **shallow.get(name, {})))
        torch.manual_seed(0)
        yield {name: ImageEncoder(ImageEncoderSettings(name=name), SIZE).eval() for name in GRIDS}


@pytest.mark.parametrize("name", GRIDS)
def test_shapes(encoders, name):
    encoder = encoders[name]
    with torch.no_grad():
        pooled, tokens = encoder(torch.randn(2, 1, SIZE, SIZE))
    assert encoder.grid == GRIDS[name]
    assert tokens.shape == (2, encoder.grid[0] * encoder.grid[1], encoder.width)
    torch.testing.assert_close(pooled, tokens.mean(1))  # a class token is trained by no loss and must not come in
    assert torch.isfinite(tokens).all()


@pytest.mark.parametrize("name", GRIDS)
def test_tokens_are_those_of_timm_in_row_major_order(encoders, name):
    encoder = encoders[name]
    images = torch.randn(2, 1, SIZE, SIZE)
    with torch.no_grad():
        tokens, features = encoder.tokens(images), encoder.body.forward_features(images.repeat(1, 3, 1, 1))
    height, width = encoder.grid
    for row in range(height):
        for column in range(width):
            if name.startswith("vit"):
                expected = features[:, 1 + row * width + column]  # behind the class token
            elif name.startswith("mixer"):
                expected = features[:, row * width + column]
            elif name.startswith("swin"):
                expected = features[:, row, column]
            else:
                expected = features[:, :, row, column]
            assert torch.equal(tokens[:, row * width + column], expected)


class Fake(nn.Module):
    """Gives the features it was made with."""

    def __init__(self, features, **attributes):
        super().__init__()
        self.features = features
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward_features(self, _):
        return self.features


def encoder_of(body):
    encoder = ImageEncoder.__new__(ImageEncoder)
    nn.Module.__init__(encoder)
    encoder.body, encoder.channels = body, 1
    return encoder


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "tokens", "tokens with a prefix"])
def test_pitfall_01_one_lit_position_is_one_token(layout):
    channels, height, width = 5, 3, 4  # not square, so that a swapped axis shows
    for row in range(height):
        for column in range(width):
            maps = torch.zeros(1, channels, height, width)
            maps[0, :, row, column] = torch.arange(1, channels + 1)
            embedding = nn.Module()
            embedding.grid_size = (height, width)
            flat = maps.flatten(2).transpose(1, 2)
            body = {
                "NCHW": Fake(maps),
                "NHWC": Fake(maps.permute(0, 2, 3, 1), output_fmt="NHWC"),
                "tokens": Fake(flat, patch_embed=embedding),
                "tokens with a prefix": Fake(
                    torch.cat([torch.full((1, 2, channels), 9.0), flat], 1),
                    patch_embed=embedding,
                    num_prefix_tokens=2,
                ),
            }[layout]
            tokens = encoder_of(body).tokens(torch.zeros(1, 1, 8, 8))
            expected = torch.zeros(height * width, channels)
            expected[row * width + column] = torch.arange(1, channels + 1)
            assert torch.equal(tokens[0], expected)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_pitfall_01_the_token_that_changes_is_where_the_pixels_change(name):
    """Whole backbones: the strongest change is at its place, off the diagonal so that a transpose shows."""
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderSettings(name=name), 192).eval()
    height, width = encoder.grid
    assert (height, width) == (6, 6)
    with torch.no_grad():
        blank = encoder.tokens(torch.zeros(1, 1, 192, 192))[0]
        for row, column in [(0, 5), (5, 0), (1, 4), (4, 1)]:
            image = torch.zeros(1, 1, 192, 192)
            image[0, 0, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = torch.randn(32, 32)
            change = (encoder.tokens(image)[0] - blank).norm(dim=1)
            found = divmod(int(change.argmax()), width)
            # A ResNet's receptive fields are centred on corners of the 32 px blocks: the neighbour may win.
            assert max(abs(found[0] - row), abs(found[1] - column)) <= 1


def test_pitfall_02_images_do_not_see_each_other(encoders):
    for encoder in encoders.values():
        images = torch.randn(2, 1, SIZE, SIZE)
        other = torch.cat([torch.randn(1, 1, SIZE, SIZE), images[1:]])
        with torch.no_grad():
            assert torch.allclose(encoder.tokens(images)[1], encoder.tokens(other)[1], atol=1e-5)


def test_one_channel_with_summed_weights_sees_what_three_see(tmp_path):
    three = ImageEncoder(ImageEncoderSettings(name="resnet18", channels=3), SIZE).eval()
    torch.save(three.body.state_dict(), tmp_path / "w.pth")
    settings = ImageEncoderSettings(name="resnet18", channels=1, weights=str(tmp_path / "w.pth"))
    one = ImageEncoder(settings, SIZE).eval()
    images = torch.randn(2, 1, SIZE, SIZE)
    with torch.no_grad():
        for a, b in zip(one(images), three(images), strict=True):
            assert torch.allclose(a, b, atol=1e-4)
    assert one.body.conv1.weight.shape[1] == 1


def test_weights_are_not_read_when_a_checkpoint_will_fill_the_model(tmp_path):
    settings = ImageEncoderSettings(name="resnet18", weights=str(tmp_path / "gone.pth"))
    ImageEncoder(settings, SIZE, load_weights=False)
    with pytest.raises(UserError, match=r"gone\.pth: no such weights file"):
        ImageEncoder(settings, SIZE)


@pytest.mark.parametrize(("stride", "side"), [(8, 8), (16, 4), (32, 2)])
def test_output_stride(stride, side):
    encoder = ImageEncoder(ImageEncoderSettings(name="resnet18", output_stride=stride), SIZE)
    assert encoder.grid == (side, side)


def test_names_that_do_not_exist_or_do_not_fit():
    with pytest.raises(UserError, match=r"timm has no model resnet5o\. Did you mean resnet50"):
        ImageEncoder(ImageEncoderSettings(name="resnet5o"), SIZE)
    with pytest.raises(UserError, match="vit_tiny_patch16_224 cannot be built"):
        ImageEncoder(ImageEncoderSettings(name="vit_tiny_patch16_224", output_stride=16), SIZE)
    with pytest.raises(UserError, match=r"4 tokens do not form the grid|16 tokens do not form the grid"):
        ImageEncoder(ImageEncoderSettings(name="xcit_nano_12_p16_224"), SIZE)


def test_building_leaves_no_gradient_and_moves_no_batch_statistics():
    encoder = ImageEncoder(ImageEncoderSettings(name="resnet18"), SIZE)
    assert encoder.body.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(not value.any() for key, value in encoder.state_dict().items() if "num_batches" in key)
    assert not encoder.body.bn1.running_mean.any()


class Half(nn.Module):
    """Uses one of its two layers."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_pitfall_12_parameters_that_get_no_gradient_are_frozen_and_named(training, gradients):
    module = Half().train(training)
    with torch.set_grad_enabled(gradients):
        frozen = freeze_unreached(module, lambda: module.used(torch.ones(1, 2)))
    assert frozen == ["unused.weight", "unused.bias"]
    assert not any(parameter.requires_grad for parameter in module.unused.parameters())
    assert all(parameter.requires_grad for parameter in module.used.parameters())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training == training
    whole = nn.ModuleDict({"first": module, "other": nn.Linear(2, 2)})
    assert unreached_parameters(whole) == ["first.unused.weight", "first.unused.bias"]
    train_only(whole, [whole])  # which does not wake them
    assert list(trained_parameters(whole)) == ["first.used.weight", "first.used.bias", "other.weight", "other.bias"]
    train_only(whole, [module.used])
    assert list(trained_parameters(whole)) == ["first.used.weight", "first.used.bias"]


@pytest.mark.parametrize("name", GRIDS)
def test_pitfall_12_every_trainable_parameter_gets_a_gradient(encoders, name):
    encoder = encoders[name]
    encoder.tokens(torch.randn(1, 1, SIZE, SIZE)).square().sum().backward()
    without = [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    encoder.zero_grad()


VITS = {
    "test_vit": {},
    "vit_small_patch16_224": {"depth": 2},
    "deit3_small_patch16_224": {"depth": 2},
    "deit_tiny_distilled_patch16_224": {"depth": 1},
    "vit_base_patch16_224": {"depth": 1, "reg_tokens": 4},
}


def vit(name):
    torch.manual_seed(0)
    return ImageEncoder(ImageEncoderSettings(name=name, channels=1, options=VITS[name]), SIZE).eval()


@pytest.mark.parametrize("name", VITS)
def test_all_patches_visible_are_the_tokens_of_the_whole_image(name):
    encoder = vit(name)
    images = torch.randn(2, 1, SIZE, SIZE)
    with torch.no_grad():
        order = torch.randperm(16).expand(2, -1)
        expected = encoder.tokens(images).gather(1, order[:, :, None].expand(-1, -1, encoder.width))
        torch.testing.assert_close(encoder.visible_tokens(images, order), expected, rtol=1e-4, atol=1e-5)
        assert encoder.tokens(images).shape[1] == 16  # nothing stays behind


@pytest.mark.parametrize("name", VITS)
def test_pixels_of_patches_that_are_left_out_have_no_influence(name):
    encoder = vit(name)
    visible = torch.tensor([[0, 5, 10], [1, 2, 15]])
    images = torch.randn(2, 1, SIZE, SIZE, requires_grad=True)
    encoder.visible_tokens(images, visible).square().sum().backward()
    cells = images.grad.abs().unflatten(3, (4, 16)).unflatten(2, (4, 16)).sum((1, 3, 5)).flatten(1)
    for study in range(2):
        assert (cells[study] > 0).nonzero().flatten().tolist() == visible[study].tolist()


def test_of_visible_patches_the_place_matters():
    encoder = vit("test_vit")
    images = torch.zeros(1, 1, SIZE, SIZE)
    with torch.no_grad():
        here, there = (encoder.visible_tokens(images, torch.tensor([[place]])) for place in (3, 9))
    assert not torch.allclose(here, there)


def test_only_plain_vision_transformers_can_leave_patches_out(encoders):
    assert {name for name, each in encoders.items() if each.can_drop_patches} == {"vit_tiny_patch16_224"}
