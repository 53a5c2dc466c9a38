"""Attention pooling of patches and sentences, and the order of patch tokens."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.models.model import AttentionPool
from cmcgns.settings.config import ImageEncoderSettings

Golden = dict[str, Tensor]


def load(pool: AttentionPool, golden: Golden, prefix: str) -> AttentionPool:
    wanted = pool.state_dict().keys()
    pool.load_state_dict({key: golden[f"{prefix}/{key}"] for key in wanted})
    return pool


def test_golden_sentence_pool(golden: Golden) -> None:
    pool = load(AttentionPool(golden["sentences"].shape[-1]), golden, "sentence_pool")
    mask = torch.arange(golden["sentences"].shape[1]) < golden["counts"][:, None]
    pooled = pool(golden["sentences"], mask)
    torch.testing.assert_close(pooled, golden["sentence_pool/output"], rtol=1e-4, atol=1e-5)
    changed = torch.where(mask[:, :, None], golden["sentences"], 9.0)
    torch.testing.assert_close(pool(changed, mask), pooled, rtol=0, atol=1e-6)


def test_golden_image_pool(golden: Golden) -> None:
    tokens = golden["image_pool/input"].flatten(2).transpose(1, 2)
    pool = load(AttentionPool(tokens.shape[2], tokens.shape[1]), golden, "image_pool")
    torch.testing.assert_close(pool(tokens), golden["image_pool/output"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_pool_is_torch_attention_of_the_mean_token_in_value_and_gradient(masked: bool) -> None:
    torch.manual_seed(0)
    pool, plain = AttentionPool(16, heads=4), nn.MultiheadAttention(16, 4, batch_first=True)
    for parameter in pool.parameters():
        nn.init.normal_(parameter, std=0.3)
    layers = (pool.q_proj, pool.k_proj, pool.v_proj)
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        plain.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        plain.out_proj.load_state_dict(pool.c_proj.state_dict())
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]]) if masked else torch.ones(2, 5).bool()
    tokens = torch.randn(2, 5, 16, requires_grad=True)
    mean = (tokens * mask[:, :, None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    everything = torch.cat([mean, tokens], 1)
    expected, _ = plain(mean, everything, everything, key_padding_mask=~F.pad(mask, (1, 0), value=True))
    found = pool(tokens, mask if masked else None)
    torch.testing.assert_close(found, expected[:, 0])
    weights = torch.randn(2, 16)
    (found * weights).sum().backward()
    gradient, tokens.grad = tokens.grad, None
    (expected[:, 0] * weights).sum().backward()
    torch.testing.assert_close(gradient, tokens.grad)
    torch.testing.assert_close(
        torch.cat([layer.weight.grad for layer in layers]), plain.in_proj_weight.grad, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("positions", [None, 5])
def test_pitfall_02_changing_study_0_does_not_change_study_1(positions: int | None) -> None:
    pool = AttentionPool(16, positions)
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0] += 1
    before, after = pool(tokens), pool(changed)
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=1e-6)
    assert (before[0] - after[0]).abs().max() > 1e-3


def test_report_without_sentences_is_finite() -> None:
    pool = AttentionPool(16)
    tokens = torch.zeros(2, 3, 16, requires_grad=True)
    pooled = pool(tokens, torch.tensor([[False] * 3, [True, False, False]]))
    pooled.square().sum().backward()
    assert pooled.isfinite().all()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


class LocalMaps(nn.Module):
    """A backbone whose every position sees its own cell of the image only; channels differ by a factor."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.output_fmt = "NHWC" if channels_last else "NCHW"

    def forward_features(self, images: Tensor) -> Tensor:
        maps = F.avg_pool2d(images[:, :1], 16) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        return maps.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else maps


@pytest.mark.parametrize("channels_last", [False, True])
def test_pitfall_01_lit_position_lights_one_token(channels_last: bool) -> None:
    encoder = ImageEncoder(ImageEncoderSettings(name="test_vit", channels=1), 64)
    assert encoder.grid == (4, 4)
    encoder.body = LocalMaps(channels_last)
    for row in range(4):
        for column in range(4):
            image = torch.zeros(1, 1, 64, 64)
            image[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
            expected = torch.zeros(16, 3)
            expected[4 * row + column] = torch.tensor([1.0, 2.0, 3.0])
            torch.testing.assert_close(encoder.tokens(image)[0], expected)
