"""Naming an encoder: files of other programs load whole or not at all, and nothing in them is run."""

import os
from pathlib import Path

import pytest
import timm
import torch

from cmcgns.errors import UserError
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
