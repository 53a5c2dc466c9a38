"""The encoder is found in files of other programs, wherever it stands and however it is spelled; outputs tell."""

import logging
import re
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.models.weights import load_image_weights

State = dict[str, torch.Tensor]
VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 16, "mlp_ratio": 2}


def scrambled(model: nn.Module) -> nn.Module:
    """Every parameter and buffer drawn anew, so that one that did not arrive shows in the output."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise + 0.1)
    return model.eval()


def small_resnet(**options) -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1], channels=(8, 16, 24, 32), **{"num_classes": 0} | options)


def small_vit(name="vit_tiny_patch16_224", **options) -> nn.Module:
    return timm.create_model(name, **{"num_classes": 0} | VIT | options)


MODELS: dict[str, Callable[..., nn.Module]] = {"resnet": small_resnet, "vit": small_vit}


@pytest.fixture(scope="module", params=MODELS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(kind: str) -> nn.Module:
    return scrambled(MODELS[kind](num_classes=5))


def outputs(body: nn.Module, channels: int = 3) -> torch.Tensor:
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2)).expand(-1, channels, -1, -1)
    with torch.no_grad():
        found = body.eval().forward_features(images)
    assert found.std() > 0.1, "features that are all zero would agree with anything"
    return found


def below(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def others(prefix: str) -> State:
    """What else such a file holds: a text encoder, a projector."""
    return {f"{prefix}text_encoder.layer.{number}.weight": torch.zeros(3) for number in range(200)} | {
        f"{prefix}projector.weight": torch.zeros(3)
    }


PREFIXES = [
    "", "module.", "model.", "encoder.", "backbone.", "_orig_mod.", "model._orig_mod.", "_orig_mod.module.",
    "img_encoder_q.model.", "gloria.img_encoder.model.", "img_encoder.cnn.", "teacher.backbone.",
    "module.base_encoder.", "encoder_q.", "module.encoder_q.", "model.image_encoder.body.", "visual.trunk.",
    "student.module.backbone.", "encoder.encoder.", "a.b-c.0.d.1.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_found_and_said(tmp_path, caplog, kind, theirs, prefix):
    content = below(prefix, theirs.state_dict()) | (others("") if prefix else {})
    torch.save(content, tmp_path / "w.pth")
    body = MODELS[kind]()
    with caplog.at_level(logging.INFO):
        load_image_weights(body, tmp_path / "w.pth", 3)
    assert torch.equal(outputs(body), outputs(theirs))
    assert "weight, " in caplog.text.partition("head left out: ")[2]
    if prefix:
        assert f"below {prefix};" in caplog.text
        assert "not used: text_encoder. (200), projector. (1)" in caplog.text


WRAPPERS = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(9)}}}},
    "teacher": lambda state: {"teacher": below("backbone.", state)},
    "lightning": lambda state: {"state_dict": below("model.", state) | others(""), "hyper_parameters": {"a": [1]}},
    "data parallel": lambda state: {"state_dict": below("module.", state)},
    "twice": lambda state: {"checkpoint": {"model": below("module.encoder.", state)}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": torch.tensor(0.3)},
    "ema": lambda state: {"state_dict_ema": state},
}


@pytest.mark.parametrize("how", WRAPPERS)
def test_groups_in_a_file_are_opened(tmp_path, kind, theirs, how):
    torch.save(WRAPPERS[how](theirs.state_dict()), tmp_path / "w.ckpt")
    body = MODELS[kind]()
    load_image_weights(body, tmp_path / "w.ckpt", 3)
    assert torch.equal(outputs(body), outputs(theirs))


@pytest.mark.parametrize("how", ["groups", "prefixes"])
@pytest.mark.parametrize(("first", "second"), [("teacher", "student"), ("encoder_q", "encoder_k")])
def test_two_encoders_are_asked_for(tmp_path, kind, theirs, first, second, how):
    states = {first: theirs.state_dict(), second: scrambled(MODELS[kind](num_classes=5)).state_dict()}
    states[second] = {key: value + 1 for key, value in states[second].items()}
    flat = below(f"{first}.", states[first]) | below(f"{second}.", states[second])
    torch.save({"state_dict": states if how == "groups" else flat}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"2 encoders that fit, below .*{first}\..*{second}\..*--prefix"):
        load_image_weights(MODELS[kind](), tmp_path / "w.pth", 3)
    for prefix in (first, f"{first}.", f"state_dict.{first}."):
        body = MODELS[kind]()
        load_image_weights(body, tmp_path / "w.pth", 3, prefix)
        assert torch.equal(outputs(body), outputs(theirs)), prefix


@pytest.mark.parametrize("outer", ["", "model."])
def test_an_encoder_beside_its_copy_further_in_is_asked_for(tmp_path, kind, theirs, outer):
    """Not the copy, silently, because the keys of the copy are too many beside the encoder itself."""
    state = theirs.state_dict()
    torch.save(below(outer, state) | below(f"{outer}ema.", state), tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"2 encoders that fit, below ({outer or 'no prefix'}), {outer}ema\."):
        load_image_weights(MODELS[kind](), tmp_path / "w.pth", 3)


def test_names_of_strangers_do_not_steer_a_terminal(tmp_path, kind, theirs):
    torch.save({"\x1b[2Jbad\n" + "x" * 9999 + ".y": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="does not fit") as caught:
        load_image_weights(MODELS[kind](), tmp_path / "w.pth", 3)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_prefix_that_is_not_there_or_not_unique(tmp_path, kind, theirs):
    state = theirs.state_dict()
    torch.save(below("a.net.", state) | below("b.net.", state), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"no key lies below c; the keys begin with a\. \(\d+\), b\. \(\d+\)"):
        load_image_weights(MODELS[kind](), tmp_path / "w.pth", 3, "c")
    with pytest.raises(UserError, match=r"net is not unique: a\.net\., b\.net\.; give a longer one"):
        load_image_weights(MODELS[kind](), tmp_path / "w.pth", 3, "net")


def test_where_all_keys_stand_is_said_of_what_does_not_fit(tmp_path, theirs, kind):
    torch.save(below("net.trunk.", theirs.state_dict()), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"does not fit(?s:.*)all keys stand below net\.trunk\.") as caught:
        load_image_weights(timm.create_model("test_convnext", num_classes=0), tmp_path / "w.pth", 3)
    assert "the keys begin with net." in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_missing_tensor_below_a_prefix_is_refused(tmp_path, kind, theirs, prefix):
    state = below(prefix, theirs.state_dict())
    lost = next(key for key in reversed(state) if key.endswith("weight") and "fc" not in key and "head" not in key)
    del state[lost]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"1 missing: {lost.removeprefix(prefix)}"):
        load_image_weights(MODELS[kind](), tmp_path / "w.pth", 3)


def test_one_channel_in_the_file_is_spread_over_three(tmp_path, caplog, kind):
    gray = scrambled(MODELS[kind](in_chans=1))
    torch.save(gray.state_dict(), tmp_path / "w.pth")
    body = MODELS[kind]()
    with caplog.at_level(logging.INFO):
        load_image_weights(body, tmp_path / "w.pth", 3)
    assert torch.allclose(outputs(body), outputs(gray, 1), atol=1e-4)
    assert "one channel spread over three" in caplog.text


def test_three_channels_in_the_file_are_summed_to_one_as_timm_does(tmp_path, caplog, kind, theirs):
    torch.save(below("module.", theirs.state_dict()), tmp_path / "w.pth")
    body = MODELS[kind](in_chans=1)
    with caplog.at_level(logging.INFO):
        load_image_weights(body, tmp_path / "w.pth", 1)
    key = "conv1.weight" if kind == "resnet" else "patch_embed.proj.weight"
    assert torch.equal(body.state_dict()[key], timm.models.adapt_input_conv(1, theirs.state_dict()[key]))
    assert torch.allclose(outputs(body, 1), outputs(theirs), atol=1e-4)
    assert f"{key}: three channels summed to one" in caplog.text


def test_the_position_embedding_of_another_size_is_interpolated_as_timm_does(tmp_path, caplog):
    small = scrambled(small_vit(num_classes=5))
    torch.save({"model": small.state_dict()}, tmp_path / "w.pth")
    body = small_vit(img_size=48)
    with caplog.at_level(logging.INFO):
        load_image_weights(body, tmp_path / "w.pth", 3)
    small.set_input_size(img_size=48)  # timm's own way
    assert torch.allclose(body.pos_embed, small.pos_embed, atol=1e-6)
    assert "pos_embed: interpolated from 4 × 4 to 6 × 6" in caplog.text


def test_another_patch_size_is_refused(tmp_path):
    torch.save(small_vit(patch_size=16).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"patch_embed\.proj\.weight \(16, 3, 16, 16\) instead of \(16, 3, 8, 8\)"):
        load_image_weights(small_vit(), tmp_path / "w.pth", 3)


# transformers


TRANSFORMERS_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8, "attn_implementation": "eager",
}  # fmt: skip


def in_their_file(model, folder):
    """The state as the library's modules call it, and the folder as the library writes it."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder / "saved")
    torch.save(model.state_dict(), folder / "live.pth")
    return folder / "saved", folder / "live.pth"


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_transformers_vit(tmp_path):
    config = transformers.ViTConfig(**TRANSFORMERS_VIT, layer_norm_eps=1e-6)
    model = scrambled(transformers.ViTForImageClassification(config))
    with torch.no_grad():
        expected = model.vit(images()).last_hidden_state
    for path in in_their_file(model, tmp_path):
        body = small_vit().eval()
        load_image_weights(body, path, 3)
        with torch.no_grad():
            assert torch.allclose(body.forward_features(images()), expected, atol=1e-4)


def test_transformers_dinov2(tmp_path):
    model = scrambled(transformers.Dinov2Model(transformers.Dinov2Config(**TRANSFORMERS_VIT, mlp_ratio=2)))
    with torch.no_grad():
        expected = model(images()).last_hidden_state
    for path in in_their_file(model, tmp_path):
        body = small_vit(init_values=1.0).eval()
        load_image_weights(body, path, 3)
        with torch.no_grad():
            assert torch.allclose(body.forward_features(images()), expected, atol=1e-4)


def test_transformers_clip(tmp_path):
    config = transformers.CLIPVisionConfig(**TRANSFORMERS_VIT, hidden_act="quick_gelu", projection_dim=8)
    model = scrambled(transformers.CLIPVisionModelWithProjection(config))
    with torch.no_grad():
        hidden = model.vision_model(images()).last_hidden_state
        expected = model.vision_model.post_layernorm(hidden)  # timm normalises every token, not the first alone
    for path in in_their_file(model, tmp_path):
        body = small_vit("vit_base_patch32_clip_quickgelu_224").eval()
        load_image_weights(body, path, 3)
        with torch.no_grad():
            assert torch.allclose(body.forward_features(images()), expected, atol=1e-4)


@pytest.mark.parametrize("layer", ["basic", "bottleneck"])
def test_transformers_resnet(tmp_path, layer):
    widths = [8, 16, 24, 32] if layer == "basic" else [32, 64, 96, 128]
    config = transformers.ResNetConfig(embedding_size=64, hidden_sizes=widths, depths=[1, 2, 1, 1], layer_type=layer)
    model = scrambled(transformers.ResNetForImageClassification(config))
    block = BasicBlock if layer == "basic" else timm.models.resnet.Bottleneck
    with torch.no_grad():
        expected = model.resnet(images()).last_hidden_state
    for path in in_their_file(model, tmp_path):
        body = ResNet(block, [1, 2, 1, 1], channels=(8, 16, 24, 32), num_classes=0).eval()
        load_image_weights(body, path, 3)
        with torch.no_grad():
            assert torch.allclose(body.forward_features(images()), expected, rtol=1e-4, atol=1e-4)


# CLIP as OpenAI and open_clip write it


def clip_names(state: State) -> State:
    """timm's keys of a CLIP transformer in OpenAI's words, written independently of timm's filter."""
    words = {
        "patch_embed.proj": "conv1", "norm_pre": "ln_pre", "blocks": "transformer.resblocks", "norm1": "ln_1",
        "norm2": "ln_2", "attn.qkv.weight": "attn.in_proj_weight", "attn.qkv.bias": "attn.in_proj_bias",
        "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    renamed: State = {}
    for key, value in state.items():
        for timm_name, clip_name in words.items():
            key = key.replace(timm_name, clip_name)
        renamed["ln_post" + key.removeprefix("norm") if key.startswith("norm.") else key] = value
    renamed["class_embedding"] = renamed.pop("cls_token")[0, 0]
    renamed["positional_embedding"] = renamed.pop("pos_embed")[0]
    return renamed | {"proj": torch.zeros(16, 8)}


@pytest.mark.parametrize("prefix", ["visual.", "module.visual.", "clip.visual.", ""])
def test_clip_transformer(tmp_path, caplog, prefix):
    name = "vit_base_patch32_clip_quickgelu_224"
    theirs = scrambled(small_vit(name))
    state = below(prefix, clip_names(theirs.state_dict()))
    if prefix:
        outer = prefix.removesuffix("visual.")
        state |= {f"{outer}transformer.resblocks.{n}.ln_1.weight": torch.zeros(16) for n in range(30)}
        state |= {f"{outer}logit_scale": torch.tensor(1.0), f"{outer}positional_embedding": torch.zeros(77, 16)}
    torch.save(state, tmp_path / "w.pt")
    body = small_vit(name)
    with caplog.at_level(logging.INFO):
        load_image_weights(body, tmp_path / "w.pt", 3)
    assert torch.allclose(outputs(body), outputs(theirs), atol=1e-5)
    assert "spelled as CLIP" in caplog.text


def renamed(state: State, words: dict[str, str]) -> State:
    """Keys with regular expressions put in place of one another."""
    result: State = {}
    for key, value in state.items():
        for pattern, word in words.items():
            key = re.sub(pattern, word, key)
        result[key] = value
    return result


def test_clip_resnet(tmp_path):
    """Names as OpenAI's published model has them."""
    theirs = scrambled(timm.create_model("resnet50_clip", num_classes=0))
    openai = renamed(
        dict(theirs.state_dict()),
        {
            r"^stem\.conv(\d)\.conv": r"conv\1",
            r"^stem\.conv(\d)\.bn": r"bn\1",
            r"^stages\.0": "layer1", r"^stages\.1": "layer2", r"^stages\.2": "layer3", r"^stages\.3": "layer4",
            r"shortcut\.conv\.conv": "downsample.0", r"shortcut\.conv\.bn": "downsample.1",
            r"\.conv(\d)_\dx\d\.conv": r".conv\1", r"\.conv(\d)_kxk\.conv": r".conv\1",
            r"\.conv(\d)_(?:\dx\d|kxk)\.bn": r".bn\1",
            r"^head\.pos_embed": "attnpool.positional_embedding", r"^head\.([qkv])": r"attnpool.\1_proj",
        },
    )  # fmt: skip
    assert "layer1.0.downsample.1.running_var" in openai
    assert "layer3.5.bn2.weight" in openai
    openai |= {"attnpool.c_proj.weight": torch.zeros(8, 2048), "attnpool.c_proj.bias": torch.zeros(8)}
    save_file(below("visual.", openai) | {"logit_scale": torch.zeros(1)}, tmp_path / "w.safetensors")
    body = timm.create_model("resnet50_clip", num_classes=0)
    load_image_weights(body, tmp_path / "w.safetensors", 3)
    for key, value in theirs.state_dict().items():
        assert torch.equal(body.state_dict()[key], value), key


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_resnet_without_names(tmp_path, suffix):
    theirs = scrambled(small_resnet())
    numbered = nn.Sequential(*theirs.children())
    save = torch.save if suffix == ".pth" else save_file
    save(below("resnet.", numbered.state_dict()), tmp_path / f"w{suffix}")
    body = small_resnet()
    load_image_weights(body, tmp_path / f"w{suffix}", 3)
    assert torch.equal(outputs(body), outputs(theirs))


def test_torchvision_densenet(tmp_path):
    sizes = {"growth_rate": 8, "block_config": (1, 2, 1, 1)}
    theirs = scrambled(torchvision.models.DenseNet(**sizes, num_init_features=16, num_classes=5))
    torch.save({"model": below("model.", theirs.state_dict())}, tmp_path / "w.pth")
    body = timm.models.DenseNet(**sizes, num_classes=0).eval()
    load_image_weights(body, tmp_path / "w.pth", 3)
    with torch.no_grad():
        expected = theirs.features(images()).relu()
        assert expected.std() > 0.1
        assert torch.allclose(body.forward_features(images()), expected, atol=1e-4)


def test_original_files_of_other_architectures_by_timms_filter(tmp_path):
    """ConvNeXt as its authors name it."""
    theirs = scrambled(timm.create_model("test_convnext", num_classes=0))
    original = renamed(
        dict(theirs.state_dict()),
        {
            r"^stem\.": "downsample_layers.0.", r"^stages\.(\d)\.downsample": r"downsample_layers.\1",
            r"\.blocks\.": ".", "conv_dw": "dwconv", r"mlp\.fc": "pwconv", r"^head\.norm": "norm",
        },
    )  # fmt: skip
    assert original.keys() != theirs.state_dict().keys()
    head = {"head.weight": torch.zeros(1000, theirs.num_features), "head.bias": torch.zeros(1000)}
    torch.save({"model": original | head}, tmp_path / "w.pth")
    body = timm.create_model("test_convnext", num_classes=0)
    load_image_weights(body, tmp_path / "w.pth", 3)
    assert torch.equal(outputs(body), outputs(theirs))
