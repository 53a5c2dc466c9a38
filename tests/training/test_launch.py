"""Starting processes: what does not fit is said before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cmcgns.common.claim import LOCK
from cmcgns.common.errors import UserError
from cmcgns.training.checkpoint import checkpoints, read_state
from cmcgns.training.journal import read_metrics
from cmcgns.training.launch import is_first_process, launch
from cmcgns.training.mixed_precision import imitated_bfloat16
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.start import claimed_run
from support.training import run, tiny_recipe


@pytest.mark.parametrize(
    ("accelerator", "message"),
    [
        ("tpu", "accelerator tpu: there are auto, cpu, cuda, mps"),
        ("cudaa", "Did you mean cuda"),
        ("", "there are auto"),
    ],
)
def test_unknown_accelerators_are_answered_with_the_known_ones(accelerator: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        launch(tiny_recipe(), 1, 1, accelerator)


@pytest.mark.parametrize("devices", [0, -1, 10**6, 1.5, "2", True])
def test_numbers_of_processes_that_make_no_sense_are_refused(devices: Any) -> None:
    with pytest.raises(UserError, match=r"--devices is .*; a whole number from 1 to"):
        launch(tiny_recipe(), devices, 1, "cpu")
    with pytest.raises(UserError, match=r"--nodes is .*; a whole number from 1 to"):
        launch(tiny_recipe(), 1, devices, "cpu")


def test_more_gpus_than_there_are_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning import fabric
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    def refuse(**_: object) -> None:
        raise MisconfigurationException("You requested gpu: [0, 1] But your machine only has: [0]")

    monkeypatch.setattr(fabric, "Fabric", refuse)
    with pytest.raises(UserError, match=r"with 2 device\(s\) cannot be used: You requested gpu"):
        launch(tiny_recipe(), 2, 1, "cuda")


@pytest.mark.parametrize(
    ("machine", "capability", "said"),
    [("x86_64", "AVX2", True), ("AMD64", "DEFAULT", True), ("x86_64", "AVX512", False), ("arm64", "DEFAULT", False)],
)
def test_a_processor_that_imitates_bfloat16_is_said_to_be_slow(
    machine: str, capability: str, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    launch(tiny_recipe(training__precision="bf16-mixed"), 1, 1, "cpu")
    assert ("no AVX-512, so 32-true is faster" in caplog.text) == said
    caplog.clear()
    launch(tiny_recipe(), 1, 1, "cpu")
    assert not caplog.text


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_imitates_bfloat16_is_said_to_be_old(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert bool(imitated_bfloat16("cuda")) != native


def test_processes_that_would_all_believe_to_be_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="started as 2 processes"):
        launch(tiny_recipe(), 1, 1, "cpu")


@pytest.mark.parametrize("name", ["RANK", "NODE_RANK", "SLURM_PROCID"])
def test_a_lone_process_that_is_told_to_be_a_later_one_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write everything, and claim nothing."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match=r"RANK.* says that this process is one of several.*unset the variable"):
        launch(tiny_recipe(), 1, 1, "cpu")


def test_resume_with_another_number_of_ranks_is_refused(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(reconstruction__epochs=0, alignment__epochs=1)
    run(studies, tmp_path / "run", recipe)
    state = read_state(checkpoints(tmp_path / "run" / "state")[-1])
    assert state.ranks == 1
    state.ranks = 2
    monkeypatch.setattr("cmcgns.training.start.read_state", lambda _, verify: state)
    with pytest.raises(UserError, match=r"the run has 2 rank\(s\), not 1"):
        run(studies, tmp_path / "run", recipe, resume=True)


def test_a_bank_that_never_started_is_said(studies: Path, tmp_path: Path) -> None:
    bank = {"clusters": 6, "start_from_step": 1000, "start_by_step": 1000}
    recipe = tiny_recipe(objective__bank=bank, reconstruction__epochs=0, alignment__epochs=1)
    run(studies, tmp_path / "run", recipe)
    events = [row["message"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "event"]
    assert any("never started" in message for message in events)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),  # as Lightning starts its second process
        ({"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),  # torchrun's second machine
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, False),
        ({"SLURM_PROCID": "0"}, True),
    ],
)
def test_one_process_of_all_claims_the_folder(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
    with claimed_run(RunFolder(tmp_path), resume=False):
        assert (tmp_path / LOCK).exists() == first
