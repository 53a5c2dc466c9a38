"""Weights arrive by value under the right name, or not at all."""

import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cmcgns.common.errors import UserError
from cmcgns.models.weights import check_keys, load_image_weights, read_state_dict


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh statistics would hide that they were not loaded
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    return model.eval()


def features(resnet, images):
    body = torch.nn.Sequential(*list(resnet.children())[:-2])
    with torch.no_grad():
        maps = body(images)
    assert maps.std() > 0.1, "features that are all zero would agree with anything"
    return maps


def empty_body(**options):
    return timm.create_model("resnet18", num_classes=0, **options).eval()


def wrap(state, how):
    return {
        "bare": state,
        "state_dict": {"state_dict": state, "epoch": 3, "name": "x"},
        "nested": {"state_dict": {"model": state}},
        "module.": {f"module.{key}": value for key, value in state.items()},
        "module.backbone.": {"state_dict": {f"module.backbone.{key}": value for key, value in state.items()}},
        "moco": {
            "state_dict": {f"{q}.{key}": value for key, value in state.items() for q in ("encoder_q", "encoder_k")}
        },
    }[how]


@pytest.mark.parametrize("how", ["bare", "state_dict", "nested", "module.", "module.backbone.", "moco"])
def test_torchvision_resnet_gives_the_same_features(tmp_path, resnet, how):
    torch.save(wrap(resnet.state_dict(), how), tmp_path / "w.pth")
    body = empty_body()
    load_image_weights(body, tmp_path / "w.pth", channels=3)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(body.forward_features(images), features(resnet, images), rtol=1e-4, atol=1e-4)


def test_safetensors(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "w.safetensors")
    body = empty_body()
    load_image_weights(body, tmp_path / "w.safetensors", channels=3)
    for key, value in body.state_dict().items():
        assert torch.equal(value, resnet.state_dict()[key]), key


def test_the_head_that_is_left_out_is_said(tmp_path, resnet, caplog):
    torch.save(resnet.state_dict(), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        load_image_weights(empty_body(), tmp_path / "w.pth", channels=3)
    assert "head left out: fc.weight, fc.bias" in caplog.text


def test_one_channel_takes_the_sum_of_three(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "w.pth")
    body = empty_body(in_chans=1)
    load_image_weights(body, tmp_path / "w.pth", channels=1)
    gray = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = features(resnet, gray.expand(-1, 3, -1, -1))
        assert torch.allclose(body.forward_features(gray), expected, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def vision_transformer():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    )
    torch.nn.init.normal_(model.class_token)
    torch.nn.init.normal_(model.heads.head.weight)
    for parameter in model.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_torchvision_vision_transformer_gives_the_same_class_token(tmp_path, vision_transformer, prefix):
    state = {prefix + key: value for key, value in vision_transformer.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 16, "mlp_ratio": 2}
    body = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes).eval()
    load_image_weights(body, tmp_path / "w.pth", channels=3)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        logits = vision_transformer.heads(body.forward_head(body.forward_features(images), pre_logits=True))
        # torchvision's LayerNorm has the same epsilon as timm's (1e-6)
        assert torch.allclose(logits, vision_transformer(images), atol=1e-4)
        assert vision_transformer(images).std() > 0.1


def test_pitfall_11_other_keys_are_listed_and_nothing_is_loaded(tmp_path, resnet):
    state = dict(resnet.state_dict())
    state["layer1.0.conv9.weight"] = state.pop("layer1.0.conv1.weight")
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    body = empty_body()
    before = {key: value.clone() for key, value in body.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_image_weights(body, tmp_path / "w.pth", channels=3)
    message = str(caught.value)
    assert "w.pth does not fit the model" in message
    assert "1 missing: layer1.0.conv1.weight" in message
    assert "1 unexpected: layer1.0.conv9.weight" in message
    assert "1 other shape: conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)" in message
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())


def test_weights_of_another_architecture_are_refused(tmp_path, vision_transformer):
    torch.save(vision_transformer.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"(?s)missing: .* more\).*unexpected: "):
        load_image_weights(empty_body(), tmp_path / "w.pth", channels=3)


def test_files_of_old_releases_lack_the_batch_counters(tmp_path, resnet):
    state = {key: value for key, value in resnet.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "w.pth")
    body = empty_body()
    load_image_weights(body, tmp_path / "w.pth", channels=3)
    assert torch.equal(body.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


class Code:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pitfall_files_code_in_a_pickle_is_not_run(tmp_path, writer):
    bomb = {"conv1.weight": Code(tmp_path / "was_here")}
    if writer == "torch":
        torch.save(bomb, tmp_path / "w.pth")
    else:
        (tmp_path / "w.pth").write_bytes(pickle.dumps(bomb, protocol=2))
    with pytest.raises(UserError, match=r"w\.pth: no weights file, or one that holds more than tensors") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert not (tmp_path / "was_here").exists()
    assert "weights_only" not in str(caught.value), "torch recommends to run the code"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", [1, 2], "holds no tensors"),
        ("a.pth", torch.zeros(3), "holds no tensors"),
        ("a.pth", {}, "holds no tensors"),
        ("a.pth", {"state_dict": {"epoch": 1}}, "holds no tensors"),
        ("a.pth", b"", "not a readable weights file"),
        ("a.pth", b"text", "not a readable weights file"),
        ("a.safetensors", b"text", "not a readable weights file"),
        ("a.safetensors", {"a": torch.zeros(1)}, "not a readable weights file"),
    ],
)
def test_files_that_hold_no_weights(tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(tmp_path / name)
    assert name in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.pth: no such weights file"):
        read_state_dict(tmp_path / "a.pth")


def test_check_keys_shows_the_first_of_many():
    wanted = {f"layer{number:02}": torch.zeros(1) for number in range(20)}
    with pytest.raises(UserError, match=r"20 missing: layer00, .*layer07, … \(12 more\)"):
        check_keys({}, wanted, "file")
    check_keys(dict(wanted), wanted, "file")
