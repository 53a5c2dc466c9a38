"""Folders of the transformers library: what of their settings and weights is followed, and what is refused."""

import json
import logging
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from cmcgns.common.errors import UserError
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.pretrained.foreign import ForeignPair, pool_alone
from cmcgns.pretrained.foreign_files import Preprocessing, read_preprocessing
from cmcgns.pretrained.foreign_weights import load_model
from support.foreign import SAID, TEXT, TEXTS, VISION, change_json, folder_of, joined

VIT = transformers.ViTConfig(**VISION)
BERT = transformers.BertConfig(**TEXT)
TOWERS = ["ViT", "DeiT", "Dinov2", "Dinov2WithRegisters", "DINOv3ViT", "CLIPVision", "SiglipVision"]


def opened(folder: Path) -> FrozenEncoder:
    return open_encoder(f"transformers:{folder}")


def refused(folder: Path) -> str:
    """The message, in one line and without advice to run a stranger's code."""
    with pytest.raises(UserError) as caught:
        opened(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert str(folder) in said
    assert "trust_remote_code" not in said
    assert "weights_only" not in said
    return said


def with_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


# Weights


@pytest.mark.parametrize("model", [transformers.ViTForImageClassification, transformers.ViTModel])
def test_what_no_patch_passes_does_not_count(model: Any, tmp_path: Path) -> None:
    """The first is saved without a pooler, which the library would draw anew at each opening."""
    folder = folder_of(model(VIT), tmp_path)
    first = opened(folder)
    assert opened(folder).sha256 == first.sha256
    assert not any("pooler" in name for name in first.encoder.state_dict())


def test_a_mask_token_does_not_count(tmp_path: Path) -> None:
    folder = folder_of("dinov2", tmp_path)
    first = opened(folder)
    with_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if "mask_token" not in k})
    assert opened(folder).sha256 == first.sha256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = folder_of("dinov2", tmp_path)
    with_tensors(folder, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    change_json(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    assert {value.dtype for value in opened(folder).encoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float8_e4m3fn])
def test_weights_that_are_no_fractions_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = with_tensors(folder_of("dinov2", tmp_path), lambda t: t | {"layernorm.weight": torch.ones(16).to(dtype)})
    assert f"layernorm.weight are {str(dtype).removeprefix('torch.')}, no plain fractions" in refused(folder)


def test_places_in_old_files_are_passed_over(tmp_path: Path) -> None:
    folder = folder_of("clip", tmp_path)
    with_tensors(folder, lambda t: t | {"text_model.embeddings.position_ids": torch.arange(24)[None]})
    assert opened(folder).pretrained is not None


@pytest.mark.parametrize(
    ("part", "setting", "shapes"),
    [
        ("text_config", {"vocab_size": 10**9}, ("(1000000000, 16)", "(80, 16)")),
        ("text_config", {"max_position_embeddings": 10**9}, ("(1000000000, 16)", "(24, 16)")),
        ("vision_config", {"intermediate_size": 10**9}, ("1000000000, 16", "32, 16")),
        ("vision_config", {"image_size": 800_000}, ("(10000000001, 16)", "(17, 16)")),
        ("text_config", {"vocab_size": 81}, ("(81, 16)", "(80, 16)")),
        ("vision_config", {"patch_size": 4}, ("(16, 3, 4, 4)", "(16, 3, 8, 8)")),
    ],
)
def test_settings_of_another_model_are_refused_with_both_shapes(
    part: str, setting: dict[str, Any], shapes: tuple[str, str], tmp_path: Path
) -> None:
    folder = folder_of("clip", tmp_path)
    change_json(folder / "config.json", part, **setting)
    said = refused(folder)
    for shape in shapes:
        assert shape in said
    assert "do not belong together" in said


@pytest.mark.parametrize(
    ("part", "setting"),
    [
        (["vision_config"], {"num_hidden_layers": 10**9}),
        (["text_config"], {"num_hidden_layers": 10**9}),
        ([], {"num_labels": 10**9}),
        (["vision_config"], {"hidden_size": 2 * 10**9}),
        (["vision_config"], {"num_hidden_layers": "many"}),
        (["vision_config"], {"num_attention_heads": 0}),
        (["vision_config"], {"patch_size": 0}),
    ],
)
def test_absurd_settings_take_no_memory(part: list[str], setting: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of("clip", tmp_path)
    change_json(folder / "config.json", *part, **setting)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refused(folder)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert taken < 2**20  # KiB: a single tensor of that size would be 4 GB or more
    assert "config.json" in said or "the weights" in said


def test_pickled_weights_are_read_as_tensors_alone(tmp_path: Path) -> None:
    folder = folder_of("dinov2", tmp_path)
    first = opened(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert opened(folder).sha256 == first.sha256
    torch.save(tensors | {"made_by": Path("a")}, folder / "pytorch_model.bin")
    assert "holds more than tensors" in refused(folder)
    torch.save({"layernorm.weight": torch.zeros(1).expand(10**9)}, folder / "pytorch_model.bin")
    assert "layernorm.weight is no plain tensor" in refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_pointer_is_no_file(name: str, tmp_path: Path) -> None:
    folder = folder_of("dinov2", tmp_path)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "a Git LFS pointer; fetch the file itself with `git lfs pull`" in refused(folder)


# Architectures


@pytest.mark.parametrize("name", [*TOWERS, "IJepa", "ViTMSN"])
def test_patches_of_every_image_tower_come_row_by_row(name: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{name}Config")(**VISION)
    encoder = opened(folder_of(getattr(transformers, f"{name}Model")(config), tmp_path))
    assert encoder.encoder.grid == (4, 4)
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for patch in (1, 14):  # each depends most on its own pixels
        (slopes,) = torch.autograd.grad(encoder.encoder.tokens(images)[0, patch].square().sum(), images)
        strength = F.avg_pool2d(slopes.abs(), 8).sum(1).flatten()
        assert int(strength.argmax()) == patch


@pytest.mark.parametrize("name", TOWERS)
def test_any_of_these_may_be_the_image_tower_of_a_pair(name: str, tmp_path: Path) -> None:
    encoder = opened(folder_of(joined(getattr(transformers, f"{name}Config")(**VISION), BERT), tmp_path))
    pair = encoder.pretrained
    assert isinstance(pair, ForeignPair)
    assert pair.embed_tensors(torch.zeros(2, 3, 32, 32)).shape == (2, 12)
    if name != "SiglipVision":  # whose head attends to all patches
        with torch.no_grad():
            classes = pair.pair.vision_model(pixel_values=torch.ones(1, 3, 32, 32)).last_hidden_state[:, :1]
            found = F.normalize(pool_alone(pair.pair, classes)[:, 0], dim=-1)
        np.testing.assert_allclose(found, pair.embed_tensors(torch.ones(1, 3, 32, 32)), atol=1e-6)


@pytest.mark.parametrize("name", ["Bert", "Roberta", "XLMRoberta", "Camembert", "CLIPText"])
def test_any_of_these_may_be_the_text_tower_of_a_pair(name: str, tmp_path: Path) -> None:
    pair = opened(folder_of(joined(VIT, getattr(transformers, f"{name}Config")(**TEXT)), tmp_path)).pretrained
    assert isinstance(pair, ForeignPair)
    np.testing.assert_allclose(pair.embed_text(TEXTS), pair.embed_text(TEXTS, batch_size=1), atol=1e-5)


OTHERS = {
    "resnet": transformers.ResNetConfig, "beit": transformers.BeitConfig, "swin": transformers.SwinConfig,
    "convnext": transformers.ConvNextConfig, "vit_mae": transformers.ViTMAEConfig, "bert": transformers.BertConfig,
    "siglip2": transformers.Siglip2Config,
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    OTHERS[kind]().save_pretrained(tmp_path)
    said = refused(tmp_path)
    assert f"model_type {kind} " in said
    assert "vit, deit, dinov2" in said
    assert "vision-text-dual-encoder" in said
    assert {"siglip2": "NaFlex", "vit_mae": "shuffles its patches"}.get(kind, "") in said


@pytest.mark.parametrize(
    ("vision", "text", "said"),
    [
        (VIT, transformers.DistilBertConfig(), "text_config.model_type distilbert is not supported"),
        (VIT, transformers.ModernBertConfig(), "text_config.model_type modernbert is not supported"),
        (VIT, transformers.GPT2Config(), "text_config.model_type gpt2 is not supported"),
        (VIT, transformers.ElectraConfig(), "text_config.model_type electra is not supported"),
        (transformers.SwinConfig(), BERT, "vision_config.model_type swin is not supported"),
        (transformers.ViTMAEConfig(), BERT, "vision_config.model_type vit_mae shuffles its patches"),
        (transformers.IJepaConfig(), BERT, "vision_config.model_type ijepa is not supported"),
    ],
)
def test_other_towers_are_refused_by_name(vision: Any, text: Any, said: str, tmp_path: Path) -> None:
    transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text).save_pretrained(tmp_path)
    assert said in refused(tmp_path)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"num_channels": 2}, "num_channels 2: images are gray here"),
        ({"patch_size": [8, 4]}, r"patch_size [8, 4]: only square patches"),
        ({"image_size": [32, 16]}, r"image_size [32, 16]: only square images"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
    ],
)
def test_other_vision_transformers_are_refused_by_setting(setting: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refused(folder_of(transformers.ViTModel(transformers.ViTConfig(**VISION | setting)), tmp_path))


def test_one_channel_is_one_gray_channel(tmp_path: Path) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**VISION | {"num_channels": 1, "patch_size": [8, 8]}))
    encoder = opened(folder_of(model, tmp_path, image_mean=[0.4], image_std=[0.2]))
    images = encoder.tensors(np.full((1, 40, 40), 51, dtype=np.uint8))
    torch.testing.assert_close(images, torch.full((1, 1, 32, 32), -1.0))
    assert encoder.tokens(images).shape == (1, 16, 16)


def test_towers_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    config = transformers.SiglipConfig(vision_config=VISION, text_config=TEXT | {"projection_size": 12})
    said = refused(folder_of(transformers.SiglipModel(config), tmp_path))
    assert "config.json makes 16 numbers of an image and 12 of a text" in said


# Code, quantisation, tokenizer


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("config.json", []),
        ("config.json", ["text_config"]),
        ("preprocessor_config.json", []),
        ("tokenizer_config.json", []),
    ],
)
def test_a_folder_that_asks_for_code_is_refused(name: str, path: list[str], tmp_path: Path) -> None:
    """Even where the library has a class of that model_type."""
    folder = folder_of("clip", tmp_path)
    change_json(folder / name, *path, auto_map={"AutoModel": "evil.M"})
    assert f"{name}: auto_map asks for code of its own, which is not run" in refused(folder)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    folder = folder_of("clip", tmp_path)
    change_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantization_config says that the weights are quantised" in refused(folder)


def test_a_larger_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = folder_of("clip", tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"[word{number}]" for number in range(81 - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    assert "word pieces up to number 80, but the text tower knows 80 (vocab_size)" in refused(folder)


# Images


def prepared(folder: Path, **said: Any) -> Preprocessing:
    (folder / "preprocessor_config.json").write_text(json.dumps(SAID | said))
    return read_preprocessing(folder, 3)


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ViTImageProcessor(size=32, image_mean=SAID["image_mean"], image_std=SAID["image_std"]),
        transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size=32, image_mean=SAID["image_mean"], image_std=SAID["image_std"]
        ),
    ],
)
def test_settings_inside_a_processor_are_read_where_there_are_no_others(processor: Any, tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": processor.to_dict()}))
    found = read_preprocessing(tmp_path, 3)
    assert (found.size, found.mean, found.std) == (32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    assert prepared(tmp_path, size=48).size == 48
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert read_preprocessing(tmp_path, 3) == found
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    with pytest.raises(UserError, match=r"preprocessor_config.json does not say size .* nor does image_processor in"):
        read_preprocessing(tmp_path, 3)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"size": 48}, 48),
        ({"size": {"shortest_edge": 48, "longest_edge": None}}, 48),
        ({"size": {"shortest_edge": 48}, "crop_size": 40}, 40),
        ({"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}, "do_center_crop": True}, 40),
        ({"size": 48, "crop_size": 40, "do_center_crop": False}, 48),
    ],
)
def test_the_size_is_what_the_model_sees(said: dict[str, Any], size: int, tmp_path: Path) -> None:
    assert prepared(tmp_path, **said).size == size


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"rescale_factor": 1 / 255, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}, -1.0),
        ({"do_normalize": False}, 0.2),
        ({"do_rescale": False, "image_mean": [102] * 3, "image_std": [51] * 3}, -1.0),
        ({"do_rescale": False, "do_normalize": False}, 51.0),
        ({"rescale_factor": 1 / 127.5, "do_normalize": False}, 0.4),
    ],
)
def test_pixels_are_what_the_steps_make_of_them(said: dict[str, Any], expected: float, tmp_path: Path) -> None:
    said = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3} | said
    encoder = opened(folder_of("dinov2", tmp_path, **said))
    images = encoder.tensors(np.full((1, 40, 40), 51, dtype=np.uint8))  # a fifth of white
    torch.testing.assert_close(images, torch.full((1, 3, 32, 32), expected))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"size": {"height": 32, "width": 24}}, r'size {"height": 32, "width": 24} is no square'),
        ({"size": {"longest_edge": 32}}, r'size {"longest_edge": 32} is no square'),
        ({"size": {"shortest_edge": 32}, "crop_size": [32, 24]}, r"crop_size \[32, 24\] is no square"),
        ({"size": 24, "crop_size": 32}, "crop_size 32 is more than size 24"),
        ({"size": 10**6}, "size 1000000 is no square of 8 to 4,096"),
        ({"size": True}, "size true is no square"),
        ({"do_resize": False}, "do_resize false cannot be followed here; edit it to true"),
        ({"do_pad": True}, "do_pad true cannot be followed here; edit it to false"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order true cannot be followed"),
        ({"do_rescale": "no"}, 'do_rescale "no" cannot be followed here; edit it to true or false'),
        ({"rescale_factor": 0}, "rescale_factor 0 cannot be; expected: 1 finite numbers, above 0"),
        ({"rescale_factor": float("inf")}, "rescale_factor Infinity cannot be"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "image_mean .*NaN.* cannot be; expected: 3 finite numbers"),
        ({"image_std": [0.5, float("inf"), 0.5]}, "image_std .*Infinity.* cannot be"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std .* cannot be; expected: 3 finite numbers, above 0"),
        ({"image_std": [0.5, -0.5, 0.5]}, "image_std .* cannot be"),
        ({"image_std": [0.5]}, r"image_std \[0.5\] cannot be; expected: 3"),
        ({"image_mean": None}, "image_mean null cannot be"),
        ({"image_mean": ["a"] * 3}, "image_mean .* cannot be"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"preprocessor_config\.json: {message}"):
        prepared(tmp_path, **said)


def test_an_image_size_is_the_towers_own(tmp_path: Path) -> None:
    folder = folder_of("clip", tmp_path / "clip", size=24)
    assert "images of 24 px do not fit config.json, whose model takes image_size 32" in refused(folder)
    assert opened(folder_of("dinov2", tmp_path / "dinov2", size=24)).image_size == 24  # it interpolates by itself


def test_how_images_become_squares_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cmcgns"):
        opened(folder_of("dinov2", tmp_path, resample=3))
    assert any("images become squares as for every encoder" in said for said in caplog.messages)


def test_nothing_is_drawn_that_counts(tmp_path: Path) -> None:
    """Two openings give equal tensors, whatever the state of the generator."""
    folder = folder_of("dual", tmp_path)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(load_model(folder).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
