"""Checkpoints and weights in files: whole, strict, no pickle."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.training.checkpoint import (
    TrainingState,
    checkpoints,
    load_optimizer,
    load_task,
    load_weights,
    read_state,
    save_checkpoint,
    save_weights,
)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(3))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def trained(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = small(seed)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    for _ in range(3):
        module(torch.randn(2, 2, 5, 5)).pow(2).sum().backward()
        optimizer.step()
    return module, optimizer


def test_weights_come_back_by_value(tmp_path: Path) -> None:
    module, other = small(0), small(1)
    save_weights(tmp_path / "w.safetensors", module, about={"epoch": 3})
    assert load_weights(tmp_path / "w.safetensors", other) == {"epoch": 3}
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", small())
    with pytest.raises(UserError, match=r"missing: 1\.weight|unexpected"):
        load_weights(tmp_path / "w.safetensors", nn.Linear(2, 2))
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(tmp_path / "nothing.safetensors", small())


def test_weights_that_did_not_arrive_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Load the best weights" whose result is thrown away must not pass in silence."""
    save_weights(tmp_path / "w.safetensors", small(0))
    other = small(1)
    monkeypatch.setattr(other, "load_state_dict", lambda *_: None)
    with pytest.raises(RuntimeError, match="did not arrive"):
        load_weights(tmp_path / "w.safetensors", other)


def test_task_optimizer_and_progress_come_back(tmp_path: Path) -> None:
    module, optimizer = trained(0)
    state = TrainingState(
        stage=1, epoch=2, step=3, global_step=45, metrics_bytes=678, ranks=2, best={"global": 0.5, "epoch": 2}
    )
    path = save_checkpoint(tmp_path, module, optimizer, state, keep=2)
    other, other_optimizer = trained(1)
    load_task(path, other)
    load_optimizer(path, other, other_optimizer)
    assert read_state(path) == state
    images = torch.randn(2, 2, 5, 5)
    for each, own in ((module, optimizer), (other, other_optimizer)):
        own.zero_grad()
        each(images).pow(2).sum().backward()
        own.step()
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_only_the_newest_stay(tmp_path: Path) -> None:
    module, optimizer = trained()
    for step in (5, 10, 100, 20_000_000):
        save_checkpoint(tmp_path, module, optimizer, TrainingState(global_step=step), keep=2)
    assert [read_state(path).global_step for path in checkpoints(tmp_path)] == [100, 20_000_000]
    assert len(list(tmp_path.iterdir())) == 2
    assert "task.0.weight" in load_file(checkpoints(tmp_path)[0])


def test_failed_write_keeps_the_old_file_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = small(0)
    save_weights(tmp_path / "w.safetensors", module)
    before = (tmp_path / "w.safetensors").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    values = 3 * 2 * 3 * 3 + 3 + 4 * 3  # of the convolution and the normalisation, whose counter has 8 bytes
    with pytest.raises(UserError, match=rf"no space is left there .* needs {4 * values + 8} bytes"):
        save_weights(tmp_path / "w.safetensors", small(1))
    assert (tmp_path / "w.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_content_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1])
    save_weights(tmp_path / "w.safetensors", small())
    assert events == ["fsync", "rename", "fsync"]  # the file, its name, the folder
