"""`--dry-run` does everything once that a run does, and leaves nothing behind."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmcgns.data.pairs.batch import Batch
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.training import dry_run as program
from cmcgns.training import loop
from cmcgns.training.dry_run import describe_estimate, dry_run
from cmcgns.training.task import PretrainingTask
from support.training import tiny_recipe


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_it_estimates_and_leaves_nothing(
    studies: Path, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files = sorted(studies.rglob("*"))
    figures = dry_run(tiny_recipe(), studies, "cpu")
    assert not list((tmp_path / "here").iterdir())
    assert not list(temporary.iterdir())
    assert sorted(studies.rglob("*")) == files
    assert figures["peak_memory_mib"] > 50
    speeds = figures["alignment_pairs_per_second"], figures["reconstruction_pairs_per_second"]
    expected = sum(epochs * 52 / speed / 3600 for epochs, speed in zip((2, 1), speeds, strict=True))
    assert figures["hours"] == pytest.approx(expected)
    assert describe_estimate(figures).splitlines()[-1].startswith("minutes ")


PHASES = {
    "a step of the second stage": (CMCGNS, "_reconstruction"),
    "the start of the bank": (ClusterBank, "start"),
    "a step with a bank": (ClusterBank, "update"),
    "a validation": (loop, "validate"),
    "what only validation computes": (CMCGNS, "_rebuilt_with"),
    "the best weights": (loop, "keep_best"),
    "the hand-over": (loop, "hand_over"),
    "writing a checkpoint": (loop, "save_checkpoint"),
    "reading a checkpoint": (program, "load_task"),
    "reading the optimiser": (program, "load_optimizer"),
    "the final weights": (program, "save_weights"),
}


@pytest.mark.parametrize(("owner", "name"), PHASES.values(), ids=PHASES)
def test_every_phase_is_tried(
    owner: Any, name: str, studies: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(name)

    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(ZeroDivisionError, match=name):
        dry_run(tiny_recipe(), studies, "cpu", steps=1)
    assert not list(temporary.iterdir())


def test_a_recipe_that_starts_its_bank_late_tries_it_all_the_same() -> None:
    late = {"clusters": 6, "start_from_step": 10_000, "start_by_step": 20_000}
    short = program.rehearsed(tiny_recipe(objective__bank=late, alignment__epochs=40))
    assert (short.alignment.epochs, short.reconstruction.epochs) == (1, 1)
    assert (short.objective.bank.start_from_step, short.objective.bank.start_by_step) == (0, 1)
    assert short.objective.bank.clusters == 6
    assert program.rehearsed(tiny_recipe(alignment__epochs=0)).alignment.epochs == 0


def test_the_longest_reports_are_tried(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a long report meets would otherwise come hours later."""
    lengths: list[int] = []
    forward = PretrainingTask.forward

    def watched(self: PretrainingTask, batch: Batch, seed: int = 0) -> Any:
        lengths.append(int(batch.token_mask.sum(1).max()))
        return forward(self, batch, seed)

    monkeypatch.setattr(PretrainingTask, "forward", watched)
    recipe = tiny_recipe(data__sentence_dropout=0)
    dry_run(recipe, studies, "cpu", steps=1)
    train = program.prepare_data(recipe, studies).train
    assert lengths[0] == int(np.diff(train.tokens.token_offsets)[train.rows].max())


def test_it_starts_from_the_weights_of_another_run(
    studies: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    larger = tiny_recipe(data__image_size=64, data__resize=72)
    with caplog.at_level(logging.INFO):
        dry_run(larger, studies, "cpu", steps=1, init=finished)
    assert f"weights from {finished}: both encoders" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
