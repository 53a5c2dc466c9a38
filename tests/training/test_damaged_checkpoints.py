"""Of damaged checkpoints none is used, and each is named."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from cmcgns.common.errors import UserError
from cmcgns.models.checked_tensors import DamagedWeights, read_tensors
from cmcgns.training.checkpoint import (
    TrainingState,
    checkpoints,
    load_task,
    newest_whole,
    read_state,
    save_checkpoint,
    set_aside,
)


def saved(folder: Path, *steps: int) -> list[Path]:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    for step in steps:
        save_checkpoint(folder, module, optimizer, TrainingState(global_step=step), keep=5)
    return checkpoints(folder)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def test_the_checkpoint_before_a_damaged_one_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = saved(tmp_path, 4, 8, 12)
    assert newest_whole(tmp_path) == third
    flip(third)
    second.write_bytes(second.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert newest_whole(tmp_path) == first
    for path in (second, third):
        assert f"{path} is damaged" in caplog.text
    assert f"the run goes on from the one before, {first.name}" in caplog.text
    set_aside(tmp_path, first)  # else they would count among the newest that are kept
    assert checkpoints(tmp_path) == [first]
    assert read_state(first).global_step == 4


def test_a_damaged_checkpoint_is_named_by_whoever_opens_it_first(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 4)
    flip(path)
    module = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for opens in (read_tensors, read_state, lambda path: load_task(path, module)):
        with pytest.raises(DamagedWeights, match=r"00000004\.safetensors is damaged \(its content"):
            opens(path)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert read_state(path, verify=False).global_step == 4


def test_no_checkpoint_and_none_that_is_whole(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None
    for path in saved(tmp_path, 4, 8):
        flip(path)
    with pytest.raises(UserError, match=r"no checkpoint is whole: .*00000008.* is damaged .*00000004"):
        newest_whole(tmp_path)
