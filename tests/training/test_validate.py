"""Validation changes nothing and counts every row."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmcgns.data.pairs.batch import Batch, evaluation_order
from cmcgns.data.pairs.loader import make_loader
from cmcgns.models.model import ImageReportModel
from cmcgns.training.data import PreparedData, prepare_data
from cmcgns.training.step import retrieval, validate
from cmcgns.training.task import PretrainingTask, build_task
from support.training import BATCH, VALIDATION, first_batch, tiny_recipe


@pytest.fixture(scope="module")
def prepared(studies: Path) -> PreparedData:
    return prepare_data(tiny_recipe(), studies)


@pytest.fixture
def task(prepared: PreparedData) -> PretrainingTask:
    """In train mode, with a started bank."""
    torch.manual_seed(0)
    task = build_task(tiny_recipe(), len(prepared.tokenizer)).train()
    batch = first_batch(prepared.train, list(range(BATCH)))
    for _ in range(5):
        task(batch)
    assert task.objective.bank.is_started
    return task


@pytest.mark.parametrize("stage", ["alignment", "reconstruction"])
def test_validation_moves_neither_weights_nor_bank_nor_batch_norm(
    stage: str, task: PretrainingTask, prepared: PreparedData
) -> None:
    task.set_stage(stage)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    assert any("running_mean" in name for name in before)
    assert any("bank.centroids" in name for name in before)
    validate(task, prepared.validation, BATCH, 100, "cpu")
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert all(module.training for module in task.modules())
    assert all(parameter.grad is None for parameter in task.parameters())


def test_validation_is_deterministic_and_leaves_the_mode_of_eval(
    task: PretrainingTask, prepared: PreparedData
) -> None:
    task.eval()
    assert validate(task, prepared.validation, BATCH, 100, "cpu") == validate(
        task, prepared.validation, BATCH, 100, "cpu"
    )
    assert not task.training


def test_last_incomplete_batch_counts_by_its_size(task: PretrainingTask, prepared: PreparedData) -> None:
    """Against a slow reference: the mean over studies, not over batches."""
    assert VALIDATION % BATCH
    figures = validate(task, prepared.validation, BATCH, 100, "cpu")
    rows = [list(range(BATCH)), list(range(BATCH, VALIDATION))]
    task.eval()
    with torch.no_grad():
        parts = [task(first_batch(prepared.validation, part))[0] for part in rows]
    for name in ("loss", "global", "image", "report"):
        expected = sum(float(part[name]) * len(part_rows) for part, part_rows in zip(parts, rows, strict=True))
        assert figures[name] == pytest.approx(expected / VALIDATION, rel=1e-5)
    assert {
        "report_to_image_r1",
        "report_to_image_r10",
        "image_to_report_r5",
        "score_own",
        "score_other",
    } <= figures.keys()


def test_recall_limit_takes_the_first_studies(task: PretrainingTask, prepared: PreparedData) -> None:
    figures = validate(task, prepared.validation, BATCH, 5, "cpu")
    assert figures["report_to_image_r5"] == 1.0


@pytest.mark.parametrize("limit", [100, 5])
def test_every_image_is_encoded_once_and_recall_is_that_of_embeddings(
    limit: int, task: PretrainingTask, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    tokens = task.model.image_encoder.tokens
    monkeypatch.setattr(task.model.image_encoder, "tokens", lambda x: (seen.append(len(x)), tokens(x))[1])
    figures = validate(task, prepared.validation, BATCH, limit, "cpu")
    assert sum(seen) == VALIDATION
    task.eval()
    batches = list(make_loader(prepared.validation, evaluation_order(VALIDATION, BATCH)))
    with torch.no_grad():
        parts = [task.model(batch) for batch in batches]
    image, report = (
        torch.cat([getattr(part, f"{side}_global") for part in parts])[:limit].numpy() for side in ("image", "report")
    )
    expected = retrieval(image, report, torch.cat([batch.report_text for batch in batches])[:limit].numpy())
    assert {name: figures[name] for name in expected} == expected


def test_each_direction_of_recall_has_its_name() -> None:
    """Report 1 is nearest to image 0; image 1 finds it all the same."""
    image = np.eye(3, dtype=np.float32)
    report = image.copy()
    report[1] = np.array([1, 0.1, 0]) / np.sqrt(1.01)
    found = retrieval(image, report, np.arange(3))
    assert (found["report_to_image_r1"], found["image_to_report_r1"]) == (pytest.approx(2 / 3), 1.0)


class OnDevice(torch.Tensor):
    """A tensor that NumPy cannot read before it is on the host, as those of a GPU."""

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a device's tensor to numpy")


def test_what_numpy_reads_has_come_to_the_host(
    task: PretrainingTask, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = validate(task, prepared.validation, BATCH, 100, "cpu")

    def to(batch: Batch, _: object) -> Batch:
        tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
        moved = {name: value.as_subclass(OnDevice) for name, value in tensors.items() if torch.is_tensor(value)}
        return replace(batch, **moved)

    monkeypatch.setattr(Batch, "to", to)
    assert validate(task, prepared.validation, BATCH, 100, "cpu") == expected


@pytest.mark.parametrize("limit", [100, 5])
@pytest.mark.parametrize("asked", [0, 1, 2])
def test_recall_is_of_every_study_whatever_the_objective_asks_the_model(
    asked: int, limit: int, task: PretrainingTask, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An objective may look at part of a batch, at it twice, or only at its encoders."""
    expected = validate(task, prepared.validation, BATCH, limit, "cpu")
    part = first_batch(prepared.validation, [0, 1])

    def forward(model: ImageReportModel, batch: Batch, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        for _ in range(asked):
            model(part)
        return {"loss": torch.zeros(())}, {}

    encoded: list[int] = []
    tokens = task.model.image_encoder.tokens
    monkeypatch.setattr(task.objective, "forward", forward)
    monkeypatch.setattr(task.model.image_encoder, "tokens", lambda x: (encoded.append(len(x)), tokens(x))[1])
    figures = validate(task, prepared.validation, BATCH, limit, "cpu")
    assert [count for count in encoded if count != len(part)] == (
        [BATCH, VALIDATION - BATCH] if limit > BATCH else [BATCH]
    )
    recall = {name for name in expected if "_to_" in name}
    assert recall
    assert {name: figures[name] for name in recall} == {name: expected[name] for name in recall}
