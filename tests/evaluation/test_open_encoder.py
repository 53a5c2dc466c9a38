"""Naming an encoder: files of other programs load whole or not at all, and nothing in them is run."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file

from cmcgns.common.errors import UserError
from cmcgns.evaluation import open_encoder as module
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.models.checked_tensors import write_tensors

STATE = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> STATE:
    torch.manual_seed(1)
    return dict(timm.create_model("resnet18", num_classes=10).state_dict())


def opened(state: object, folder: Path):
    torch.save(state, folder / "weights.pth")
    return open_encoder(f"resnet18@{folder / 'weights.pth'}", image_size=32)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_prefixes_and_heads_do_not_matter(prefix: str, state: STATE, tmp_path: Path) -> None:
    found = opened({"state_dict": {prefix + key: value for key, value in state.items()}}, tmp_path)
    assert torch.equal(found.encoder.body.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert found.features_sha256 == opened(state, tmp_path).features_sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {k: v for k, v in state.items() if "layer4.1.bn1" not in k},
            r"4 missing: layer4\.1\.bn1\.bias",
        ),
        (lambda state: state | {"decoder.x": torch.zeros(1)}, r"1 unexpected: decoder\.x"),
        (
            lambda state: state | {"conv1.weight": torch.zeros(64, 3, 3, 3)},
            r"conv1\.weight \(64, 3, 3, 3\) instead of",
        ),
        (lambda state: {}, "holds no tensors"),
        (lambda state: [1, 2], "holds no tensors"),
    ],
)
def test_what_does_not_fit_is_listed(change, message: str, state: STATE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        opened(change(state), tmp_path)


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["MARK"],)


def test_a_damaged_file_of_a_run_is_named(state: STATE, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_tensors(file, state, "about", {})
    assert open_encoder(f"resnet18@{file}", image_size=32).name == "resnet18 (model)"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged \(its content has another checksum"):
        open_encoder(f"resnet18@{file}", image_size=32)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "was-run"))
    with pytest.raises(UserError, match="its code is not run"):
        opened({"conv1.weight": Code()}, tmp_path)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing is named"),
        ("  ", "nothing is named"),
        ("random:", "nothing is named"),
        ("imagenet:", "nothing is named"),
        ("runs/nowhere", r"is no run folder\. An encoder is"),
        (
            "random:resnet81",
            r"^random:resnet81: resnet81 is no run folder, and timm has no model .*Did you mean resnet18",
        ),
        ("random:x", r"^random:x: x is no run folder, and timm has no model x\. .*list_models"),
        ("imagenet:x", r"^imagenet:x: timm has no model x\. .*list_models"),
        ("imagenet:resnet1", "^imagenet:resnet1: timm has no model resnet1. Did you mean resnet"),
        ("@", r"^@: a timm name is missing; NAME@FILE is expected"),
        ("@file.pth", r"^@file\.pth: a timm name is missing"),
        ("resnet18@", r"^resnet18@: a weights file is missing; NAME@FILE is expected"),
        ("resnet18@ ", "a weights file is missing"),
        ("resnet81@nowhere.pth", r"^resnet81@nowhere\.pth: timm has no model resnet81\. Did you mean resnet18\?"),
        ("resnet18@nowhere.pth", r"nowhere\.pth: no such weights file"),
        ("resnet18@odd-model", "odd-model is a folder without a weights file"),
        ("resnet18@.", r"here\.pth: no weights but an empty file"),
        ("random:resnet18@x.pth", "contradict each other"),
        (".", r"^\. is no run folder: config\.yaml is missing\. An encoder is"),
        ("random:.", r"^\. is no run folder: config\.yaml is missing"),
        ("resnet18", "resnet18 says no weights: imagenet:resnet18 .* random:resnet18, or resnet18@FILE"),
        ("here.pth", r"here\.pth is a file: .* NAME@here\.pth"),
        ("Random:resnet18", r"Random is no kind of encoder\. Did you mean random\?"),
        ("imagnet:resnet18", r"imagnet is no kind of encoder\. Did you mean imagenet\?"),
        ("hf-hub:timm/resnet18.a1_in1k", r"`hf download timm/resnet18\.a1_in1k --local-dir FOLDER`"),
        ("some/model", r"is no run folder\. .*`hf download some/model"),
        ("a" * 5000, "^a{199}… is no run folder"),
        ("resnet18@" + "a" * 5000, "the name is too long"),
        ("a\0b", "is no run folder"),
        ("resnet18@a\0b", "no such weights file"),
        ("timm-model", r"is no run folder but a model of timm: name it resnet18@timm-model"),
        ("hf-model", r"a model of transformers \(vit\): .* NAME@hf-model, for example"),
        ("odd-model", r"odd-model is no run folder: config\.yaml is missing"),
    ],
)
def test_a_wrong_name_is_explained(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.pth").touch()
    for folder, config in (("timm", '{"architecture": "resnet18"}'), ("hf", '{"model_type": "vit"}'), ("odd", "[1")):
        (tmp_path / f"{folder}-model").mkdir()
        (tmp_path / f"{folder}-model" / "config.json").write_text(config, "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        open_encoder(text)
    assert len(str(caught.value)) < 1500


def test_a_folder_of_another_program(state: STATE, tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}', "utf-8")
    found = open_encoder(f"resnet18@{tmp_path}", image_size=32)
    assert holds(found, state)
    assert found.name == f"resnet18 ({tmp_path.name})"


def test_one_of_several_encoders_is_chosen_by_its_prefix(state: STATE, tmp_path: Path) -> None:
    other = {key: value + 1 for key, value in state.items()}
    torch.save(
        {"student": other, "teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "w.pth"
    )
    with pytest.raises(UserError, match=r"2 encoders that fit, below student\., teacher\.backbone\.; choose one"):
        open_encoder(f"resnet18@{tmp_path / 'w.pth'}", image_size=32)
    found = open_encoder(f"resnet18@{tmp_path / 'w.pth'}", image_size=32, prefix="teacher")
    assert holds(found, state)
    assert found.name == "resnet18 (w, teacher)"


@pytest.mark.parametrize("text", ["random:resnet18", "imagenet:resnet18", ".", "resnet18"])
def test_only_files_have_a_prefix(text: str) -> None:
    with pytest.raises(
        UserError, match="--prefix teacher: only weights of another program, NAME@FILE, have a prefix"
    ):
        open_encoder(text, prefix="teacher")


def test_a_random_start_is_the_same_every_time() -> None:
    first, again = (open_encoder("random:resnet18", image_size=32).sha256 for _ in range(2))
    assert first == again
    assert open_encoder("random:resnet18", image_size=32, seed=1).sha256 != first


def test_only_a_random_start_has_seen_nothing(state: STATE, tmp_path: Path) -> None:
    random = open_encoder("random:resnet18", image_size=32)
    assert random.seen_nothing
    assert random.at_size(64).seen_nothing
    assert not opened(state, tmp_path).seen_nothing


COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face on a machine that may not ask the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub" / "models--timm--resnet18.a1_in1k"


def refuse_to_ask(*_: object, **__: object) -> None:
    raise AssertionError("the hub was asked")


def answer(monkeypatch: pytest.MonkeyPatch, ask: Callable[..., object], download: Callable[..., object]) -> None:
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def holds(encoder: module.FrozenEncoder, state: STATE) -> bool:
    return torch.equal(encoder.encoder.body.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.usefixtures("hub")
def test_offline_the_ways_out_are_named() -> None:
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE.*of timm/resnet18\.a1_in1k .* resnet18@FILE,.* HF_HOME"):
        open_encoder("imagenet:resnet18", image_size=32)


def test_what_is_in_the_cache_needs_no_network(hub: Path, state: STATE, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, refuse_to_ask, refuse_to_ask)
    full = timm.create_model("resnet18").state_dict() | {k: v for k, v in state.items() if not k.startswith("fc.")}
    (hub / "snapshots" / COMMIT).mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(COMMIT)
    save_file(full, hub / "snapshots" / COMMIT / "model.safetensors")
    found = open_encoder("imagenet:resnet18", image_size=32)
    assert found.name == "imagenet resnet18"
    assert holds(found, state)


@pytest.mark.usefixtures("hub")
def test_a_host_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER", 0.2)
    over = Event()
    answer(monkeypatch, lambda *_, **__: over.wait(60), refuse_to_ask)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0\.2 s.* resnet18@FILE"):
        open_encoder("imagenet:resnet18", image_size=32)
    assert time.monotonic() - started < 30
    over.set()


@pytest.mark.usefixtures("hub")
def test_the_second_file_is_fetched_where_the_hub_lacks_the_first(
    tmp_path: Path, state: STATE, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = timm.create_model("resnet18").state_dict() | {k: v for k, v in state.items() if not k.startswith("fc.")}
    torch.save(full, tmp_path / "pytorch_model.bin")

    def ask(url: str, timeout: float) -> object:
        assert timeout <= 10
        if url.endswith("model.safetensors"):
            raise EntryNotFoundError("404")
        return SimpleNamespace()

    answer(monkeypatch, ask, lambda repository, name, revision: str(tmp_path / name))
    assert holds(open_encoder("imagenet:resnet18", image_size=32), state)


def test_a_model_without_weights_is_said_to_have_none() -> None:
    with pytest.raises(UserError, match="timm has no weights of that name; a file of yours is beit3_giant"):
        module._load_imagenet(None, "beit3_giant_patch14_224")  # type: ignore[arg-type]
