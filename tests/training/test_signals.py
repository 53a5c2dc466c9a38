"""SIGTERM and SIGINT: save, leave, say so; a second signal does not wait."""

import signal
from pathlib import Path

import pytest
import yaml

from cmcgns.common.processes import handling_signals
from cmcgns.training.checkpoint import checkpoints, read_state
from cmcgns.training.launch import Interruption
from support.training import assert_same_end, command_line, in_child, run, signal_at_step, tiny_recipe


def pretrain_with_signals(studies: Path, folder: Path, step: int, *signals: int) -> tuple[int, str]:
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    arguments = ["pretrain", str(recipe), "--data", str(studies), "--out", str(folder / "run"), "--accelerator=cpu"]
    code = in_child(command_line, signal_at_step, (step, *signals), folder / "log", arguments)
    return code, (folder / "log").read_text()


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGTERM, 143, 8), (signal.SIGINT, 130, 5), (signal.SIGTERM, 143, 17)],
    ids=["SIGTERM mid-epoch", "SIGINT in the last step of an epoch", "SIGTERM in the very last step"],
)
def test_signal_saves_and_leaves(
    number: int, code: int, step: int, studies: Path, finished: Path, tmp_path: Path
) -> None:
    found, log = pretrain_with_signals(studies, tmp_path, step, number)
    assert found == code
    assert f"stopped at step {step + 1}" in log
    assert "--resume" in log
    assert "Traceback" not in log
    assert read_state(checkpoints(tmp_path / "run" / "state")[-1]).global_step == step + 1
    assert not (tmp_path / "run" / "model.safetensors").exists()
    run(studies, tmp_path / "run", resume=True)
    assert_same_end(finished, tmp_path / "run")


def test_second_signal_acts_at_once(studies: Path, tmp_path: Path) -> None:
    code, _ = pretrain_with_signals(studies, tmp_path, 2, signal.SIGTERM, signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert not checkpoints(tmp_path / "run" / "state")


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    interruption = Interruption()
    with handling_signals(interruption.remember):
        signal.raise_signal(signal.SIGTERM)
        assert interruption.caught == signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
