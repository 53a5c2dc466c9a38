"""The step benchmark on a tiny recipe."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cmcgns.cli import app
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import parse_recipe
from cmcgns.training import bench
from cmcgns.training.bench import random_batch, random_task
from support.batches import checked

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"image_size": 32, "resize": 32, "max_tokens": 20, "max_sentences": 4},
    "image_encoder": {
        "name": "resnet10t", "channels": 1, "output_stride": 8,
        "options": {"channels": [8, 8, 16, 24], "stem_width": 8},
    },
    "report_encoder": {"layers": 1, "width": 32, "heads": 2, "vocabulary": 100},
    "objective": {"dim": 32, "decoder_width": 16, "bank": {"clusters": 4}},
    "training": {"batch_size": 6},
}  # fmt: skip


def recipe(**groups: dict[str, Any]) -> Recipe:
    return parse_recipe({**SETTINGS, **{name: SETTINGS.get(name, {}) | group for name, group in groups.items()}}, "t")


def test_figures_fit_together() -> None:
    figures = bench.bench_step(recipe(), device="cpu", steps=3)
    assert figures.stage == "reconstruction"
    assert figures.batch_size == 6
    assert figures.ratio == pytest.approx(figures.whole_seconds / figures.encoders_seconds)
    assert figures.encoders_seconds > 0
    assert figures.beyond_encoders == pytest.approx(1 - 1 / figures.ratio)
    assert figures.whole_pairs_per_second == pytest.approx(6 / figures.whole_seconds)
    assert figures.whole_memory_mib >= figures.encoders_memory_mib > 50
    assert figures.host_synchronisation == "not measured"
    assert figures.torch == torch.__version__


def test_stage_is_alignment_without_epochs_of_reconstruction_or_when_asked() -> None:
    assert bench.bench_step(recipe(reconstruction={"epochs": 0}), device="cpu", steps=1).stage == "alignment"
    assert bench.bench_step(recipe(), device="cpu", steps=1, stage="alignment").stage == "alignment"


def test_work_beyond_the_encoders_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower objective moves the whole step and not the encoders' one."""
    forward = CMCGNS.forward

    def slow(self: CMCGNS, *batch: Any) -> Any:
        time.sleep(0.5)
        return forward(self, *batch)

    monkeypatch.setattr(CMCGNS, "forward", slow)
    figures = bench.bench_step(recipe(), device="cpu", steps=3, batch_size=2)
    assert figures.whole_seconds > 0.5
    assert figures.encoders_seconds < figures.whole_seconds
    assert figures.beyond_encoders > 0


def test_batch_fills_the_padded_bounds() -> None:
    batch = checked(random_batch(recipe(), 3, 100))
    assert batch.images.shape == (3, 1, 32, 32)
    assert bool(batch.token_mask.all())
    assert bool(batch.sentence_mask.all())
    assert batch.token_sentence.unique().tolist() == [-1, 0, 1, 2, 3]
    assert len(batch.sentence_text.unique()) == 12
    assert int(batch.token_ids.max()) < 100


def test_fewer_words_than_sentences_leave_sentences_empty() -> None:
    batch = checked(random_batch(recipe(data={"max_tokens": 5, "max_sentences": 8}), 2, 100))
    assert batch.sentence_mask.sum(1).tolist() == [3, 3]
    assert batch.sentence_text[:, 3:].eq(0).all()


def test_every_trained_parameter_of_the_encoders_gets_a_gradient() -> None:
    """Otherwise the floor would be too low."""
    task = random_task(recipe())
    module = bench.encoders_task(task, recipe())
    module(random_batch(recipe(), 4, 100))[0]["loss"].backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    assert task.objective.bank.is_started


def test_bert_base_is_built_without_a_hub() -> None:
    task = random_task(recipe(report_encoder={"name": "no/such-hub-name"}), "bert-base")
    config = task.model.report_encoder.config
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (768, 12, 30522)


def test_command_line_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.setattr(
        sys, "argv",
        ["cmcgns", "bench", "step", str(tmp_path / "tiny.yaml"), "--device=cpu", "--batch=4", "--steps=2",
         "--set=training.precision=bf16-mixed", "--stage=alignment", f"--json={tmp_path / 'out.json'}"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "whole pairs per second" in printed
    assert "beyond encoders" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["batch_size"], written["precision"], written["stage"]) == (4, "bf16-mixed", "alignment")
