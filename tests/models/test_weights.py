"""Weights arrive by value under the right name, or not at all."""

import argparse
import json
import pickle
import zipfile
from fractions import Fraction
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cmcgns.common.errors import UserError
from cmcgns.models.checked_tensors import write_tensors
from cmcgns.models.weight_files import read_state_dict
from cmcgns.models.weights import check_keys, load_image_weights


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
    }[how]


@pytest.mark.parametrize("how", ["bare", "state_dict", "nested", "module.", "module.backbone."])
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
    with pytest.raises(UserError, match=r"(?s)missing: .* more.*unexpected: "):
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
        ("a.pth", b"", "a.pth: no weights but an empty file"),
        ("a.safetensors", b"", "a.safetensors: no weights but an empty file"),
        ("a.pth", b"text", "not a readable weights file"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        ("a.pth", b"<!DOCTYPE html><html>", "a web page"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}", "holds no tensors"),
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


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.zeros(1).expand(100_000, 100_000), "repeated"),
        (torch.zeros(3).to_sparse(), "sparse"),
        (torch.zeros(3, device="meta"), "without values"),
    ],
)
def test_what_only_poses_as_a_plain_tensor_is_refused(tmp_path, value, why):
    torch.save({"fine": torch.zeros(2), "odd": value}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"w\.pth: odd is no plain tensor .*{why}"):
        read_state_dict(tmp_path / "w.pth")


def test_a_view_of_a_larger_tensor_is_plain(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save({"part": whole[:, 1:3], "turned": whole.T}, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert torch.equal(read["part"], whole[:, 1:3])
    assert torch.equal(read["turned"], whole.T)


def test_a_file_that_unpacks_to_much_more_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as plain,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as z,
    ):
        for entry in plain.infolist():
            z.writestr(entry.filename, plain.read(entry))
    with pytest.raises(UserError, match=r"b\.pth: unpacks to 4,0\d\d,\d\d\d bytes"):
        read_state_dict(tmp_path / "b.pth")


def test_groups_that_hold_themselves_or_too_much(tmp_path):
    ring = {"weight": torch.zeros(1)}
    ring["again"] = ring
    torch.save(ring, tmp_path / "ring.pth")
    assert max(read_state_dict(tmp_path / "ring.pth"), key=len) == 5 * "again." + "weight"
    group: dict[str, object] = {"weight": torch.zeros(1)}
    for _ in range(6):
        group = dict.fromkeys((f"k{number}" for number in range(50)), group)
    torch.save(group, tmp_path / "many.pth")
    assert (tmp_path / "many.pth").stat().st_size < 10_000
    with pytest.raises(UserError, match="names more than 100,000 things"):
        read_state_dict(tmp_path / "many.pth")


def test_a_command_line_beside_the_weights_does_not_matter(tmp_path, resnet):
    torch.save({"model": resnet.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    body = empty_body()
    load_image_weights(body, tmp_path / "w.pth", channels=3)
    found, stored = body.state_dict(), resnet.state_dict()
    assert all(torch.equal(found[name], stored[name]) for name in found)


def test_what_else_a_file_asks_for_is_named(tmp_path):
    torch.save(
        {"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(), "at": Fraction(1, 2)}, tmp_path / "w.pth"
    )
    with pytest.raises(UserError, match=r"more than tensors \(fractions\.Fraction\), and its code is not run"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torchscript_is_not_run(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(UserError, match="a program of TorchScript, which is not run"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_become_float32(tmp_path, resnet, dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in resnet.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    body = empty_body()
    load_image_weights(body, tmp_path / "w.safetensors", channels=3)
    assert body.conv1.weight.dtype == torch.float32
    assert torch.equal(body.conv1.weight, resnet.conv1.weight.to(dtype).float())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(64, dtype=torch.int8), r"1 no fractions: bn1\.weight torch\.int8"),
        (torch.full((64,), float("nan")), "bn1.weight holds NaN"),
        (torch.full((64,), float("inf")), "bn1.weight holds NaN or infinite"),
    ],
)
def test_values_that_are_no_weights(tmp_path, resnet, value, message):
    torch.save(dict(resnet.state_dict()) | {"bn1.weight": value}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        load_image_weights(empty_body(), tmp_path / "w.pth", channels=3)


def test_a_variance_below_zero_is_refused(tmp_path, resnet):
    torch.save(dict(resnet.state_dict()) | {"bn1.running_var": torch.full((64,), -0.5)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"bn1\.running_var is below 0"):
        load_image_weights(empty_body(), tmp_path / "w.pth", channels=3)


def test_an_optimiser_alone_holds_no_weights(tmp_path, resnet):
    optimiser = torch.optim.Adam(resnet.parameters())
    torch.save({"optimizer": optimiser.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no tensors under names"):
        load_image_weights(empty_body(), tmp_path / "w.pth", channels=3)


def shards(folder, state, index="model.safetensors.index.json"):
    """Two files and their list, as transformers writes them."""
    folder.mkdir()
    names = dict(zip(state, ["a.safetensors", "b.safetensors"] * len(state), strict=False))
    for name in ("a.safetensors", "b.safetensors"):
        save_file({key: state[key] for key in state if names[key] == name}, folder / name)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": names}), "utf-8")
    return folder


@pytest.mark.parametrize("named", ["folder", "list"])
def test_shards_are_read_together(tmp_path, resnet, named):
    folder = shards(tmp_path / "model", resnet.state_dict())
    body = empty_body()
    load_image_weights(body, folder if named == "folder" else folder / "model.safetensors.index.json", channels=3)
    for key, value in body.state_dict().items():
        assert torch.equal(value, resnet.state_dict()[key]), key


def test_shards_that_are_lost_or_elsewhere(tmp_path, resnet):
    folder = shards(tmp_path / "model", resnet.state_dict())
    (folder / "b.safetensors").rename(tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"index\.json names the shard 'b\.safetensors', which is not beside it"):
        read_state_dict(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../b.safetensors"}}), "utf-8")
    with pytest.raises(UserError, match=r"names the shard '\.\./b\.safetensors', which is not beside it"):
        read_state_dict(folder)
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}), "utf-8")
    with pytest.raises(UserError, match="lists 1 tensors that no shard holds, the first x"):
        read_state_dict(folder)
    for content in ("", "[1]", "{}", '{"weight_map": 3}', "[" * 100_000):
        index.write_text(content, "utf-8")
        with pytest.raises(UserError, match="not a readable list of shards"):
            read_state_dict(folder)


def test_folders(tmp_path, resnet):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty is a folder without a weights file"):
        read_state_dict(tmp_path / "empty")
    torch.save({"a": torch.zeros(1)}, tmp_path / "one.pth")
    assert read_state_dict(tmp_path).keys() == {"a"}
    torch.save({"b": torch.zeros(1)}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"holds several weights files \(one\.pth, two\.pth\); name one"):
        read_state_dict(tmp_path)
    save_file({"c": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert read_state_dict(tmp_path).keys() == {"c"}


def test_safetensors_under_another_name(tmp_path):
    save_file({"c": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read_state_dict(tmp_path / "pytorch_model.bin").keys() == {"c"}


def test_a_link_that_leads_to_itself(tmp_path):
    (tmp_path / "w.pth").symlink_to(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: no such weights file"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "content", [b"hello", b"\x1f\x8b\x08", b"\x89HDF\r\n", b"\x89PNG\r\n", b"\x93NUMPY", b"x" * 600]
)
def test_files_of_other_formats_are_named_as_such(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        UserError, match=r"w\.pth: not a readable weights file: neither safetensors nor PyTorch"
    ) as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "weights_only" not in str(caught.value)


def test_one_name_for_two_tensors_is_refused(tmp_path):
    torch.save({"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: a\.b stands there twice"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("url", ["https://host/w.pth", "ftp://host/w.pth", "s3://bucket/w.pth"])
def test_weights_behind_a_url_are_not_fetched(url):
    with pytest.raises(UserError, match=f"^{url}: no such weights file; weights are a file or folder on this"):
        read_state_dict(Path(url))


def test_the_checksum_of_a_run_s_file_is_compared_wherever_it_is_opened(tmp_path, resnet):
    file = tmp_path / "model.safetensors"
    write_tensors(file, resnet.state_dict(), "about", {"name": "a run"})
    assert read_state_dict(tmp_path).keys() == resnet.state_dict().keys()
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    for place in (tmp_path, file):
        with pytest.raises(UserError, match=r"model\.safetensors is damaged \(its content has another checksum"):
            read_state_dict(place)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.pth: no such weights file"):
        read_state_dict(tmp_path / "a.pth")


def test_check_keys_shows_the_first_of_many():
    wanted = {f"layer{number:02}": torch.zeros(1) for number in range(20)}
    with pytest.raises(UserError, match=r"20 missing: layer00, layer01, and 18 more"):
        check_keys({}, wanted, "file")
    check_keys(dict(wanted), wanted, "file")
