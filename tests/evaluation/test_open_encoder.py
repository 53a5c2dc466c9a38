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


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "was-run"))
    with pytest.raises(UserError, match="its code is not run"):
        opened({"conv1.weight": Code()}, tmp_path)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing is named"),
        ("random:", "nothing is named"),
        ("runs/nowhere", "is no run folder. An encoder is"),
        ("random:resnet81", "Did you mean resnet18"),
        ("resnet18@nowhere.pth", r"nowhere\.pth: no such weights file"),
        ("random:resnet18@x.pth", "contradict each other"),
        (".", "is no run folder"),
    ],
)
def test_a_wrong_name_is_explained(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_encoder(text)


def test_a_random_start_is_the_same_every_time() -> None:
    first, again = (open_encoder("random:resnet18", image_size=32).sha256 for _ in range(2))
    assert first == again
    assert open_encoder("random:resnet18", image_size=32, seed=1).sha256 != first


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
