"""What published evaluation programs got wrong, one test each; the frozen encoder has a file of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cmcgns.data.boxes import boxes_text
from cmcgns.data.manifest import read_manifest, write_manifest
from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.protocols.protocol import Cell, load_protocol
from cmcgns.evaluation.subsets import nested_fraction
from cmcgns.evaluation.task_settings.learned import DetectionSettings, SegmentationSettings
from cmcgns.evaluation.tasks.detection.boxes import AnchorGrid, anchor_grid, read_boxes
from cmcgns.evaluation.tasks.detection.predict import detect
from cmcgns.evaluation.tasks.detection.train import detection_loss
from cmcgns.evaluation.tasks.linear import finetune
from cmcgns.evaluation.tasks.segmentation.decoders import turn_and_scale
from cmcgns.evaluation.tasks.segmentation.train import draw_changes
from cmcgns.metrics.detection import MatchedDetections
from cmcgns.metrics.overlap import overlap_measures
from cmcgns.prepare.sources.base import SourceOptions, SplitRule
from cmcgns.prepare.sources.siim import join_rows
from support.evaluation import job_of, protocol_of, tiny_encoder, write_set
from support.evaluation import run as run_job

BOX = boxes_text([{"label": "a", "x": 4, "y": 6, "width": 16, "height": 12}])
HEAD = {"head_width": 8, "epochs": 1, "batch": 4}
DECODER = {"target": "boxes", "unet_channels": [8], "epochs": 1, "shortest_epoch": 1, "batch_size": 4}
LAYER = {"solver": "adamw", "adamw": {"epochs": 2, "batch_size": 4}}
COPY = {"finetune": True, "finetuning": {"epochs": 1, "batch_size": 4}}
LEARNING: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}), ("linear", LAYER), ("linear", COPY), ("knn", {}), ("detection", HEAD), ("segmentation", DECODER),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 training, 6 validation, 7 test images; every other one has the label and a box."""
    return write_set(tmp_path / "data", counts=(12, 6, 7), boxes=[BOX if place % 2 else "[]" for place in range(25)])


def change(folder: Path, rows: pd.Series, **columns: Any) -> None:
    """Write other values into some rows of the manifest."""
    frame = read_manifest(folder)
    for name, values in columns.items():
        frame.loc[rows, name] = values
    write_manifest(frame, folder / "manifest.parquet")


def turn_round(folder: Path, rows: pd.Series) -> None:
    """What was positive is negative now, and the other way round."""
    frame = read_manifest(folder)[rows]
    change(folder, rows, label_Edema=1 - frame["label_Edema"], boxes=frame["boxes"].map({BOX: "[]", "[]": BOX}))


def run(folder: Path, task: str, settings: dict[str, Any], cells: tuple[Cell, ...] = (Cell(100, 0),)) -> Any:
    """Job and predictions by cell, always with the same encoder."""
    torch.manual_seed(0)
    job = job_of(protocol_of(task, settings), folder, tiny_encoder(), cells)
    return job, run_job(job)


def said(predictions: Predictions) -> list[np.ndarray]:
    """What was predicted, without the truth beside it."""
    names = {"scores", "image", "boxes", "predicted", "soft_predicted"} & set(predictions.arrays)
    assert names
    return [predictions.arrays[name] for name in sorted(names)]


def test_validation_rows_leave_training_when_numbers_and_places_of_rows_differ(tmp_path: Path) -> None:
    """Pitfall: validation rows left in training by position/label mix-up (4,907 of 5,000)."""
    views = ["LATERAL" if place % 3 == 0 else "PA" for place in range(60)]  # left out: rows keep numbers with gaps
    patients = [f"p{place // 4}" for place in range(60)]
    folder = write_set(tmp_path, counts=(50, 0, 10), view=views, patient_id=patients)
    shuffled = read_manifest(folder).sample(frac=1, random_state=1)
    write_manifest(shuffled, folder / "manifest.parquet")
    data = TaskData(load_protocol("linear/v1", ["split.val=[]", "split.validation_share=0.3"]), folder, 32, 32)
    train, val = data.train, data.val
    frontal = shuffled[(shuffled["view"] == "PA") & (shuffled["split"] == "train")]
    assert len(val) > 5
    assert sorted([*train.names, *val.names]) == sorted(frontal["source"])
    assert not set(train.patients) & set(val.patients)
    labels = shuffled.set_index("source")["label_Edema"]
    for part in (train, val, data.test):
        assert part.labels[:, 0].tolist() == [labels[name] for name in part.names]


@pytest.mark.parametrize("rule", ["v1", "legacy"])
def test_an_image_of_several_annotation_rows_is_in_one_split_with_all_its_masks(rule: SplitRule) -> None:
    """Pitfall: splits by annotation row (images of the test in training, their masks halved)."""
    images = [f"i{number % 20}" for number in range(40)]
    codes = [f"{1 + 10 * number} 5" for number in range(40)]
    frame = join_rows(
        pd.DataFrame({"ImageId": images, "EncodedPixels": codes}), "t.csv", SourceOptions(split=rule)
    ).frame
    assert sorted(frame["study_id"]) == sorted({f"siim:{image}" for image in images})
    assert all(len(json.loads(mask)["rle"]) == 2 for mask in frame["mask"])
    assert set(frame["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize(("task", "settings"), LEARNING)
def test_test_truth_decides_nothing(task: str, settings: dict[str, Any], folder: Path) -> None:
    """Pitfall: official test used to choose checkpoints."""
    _, one = run(folder, task, settings)
    turn_round(folder, read_manifest(folder)["split"] == "test")
    _, two = run(folder, task, settings)
    for before, after in zip(said(one[Cell(100, 0)]), said(two[Cell(100, 0)]), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("task", "settings"), LEARNING)
def test_a_fraction_is_of_training_once_and_the_whole_test_set_is_judged(
    task: str, settings: dict[str, Any], folder: Path
) -> None:
    """Pitfall: fractions applied twice, or with no effect; 10 % of the test set evaluated by default."""
    cells = (Cell(50, 1), Cell(100, 1))
    job, found = run(folder, task, settings, cells)
    counted = ("train_images", "training_images", "train_images_with_mask", "train_images_without_mask")
    labels = job.data.train.labels
    wanted = [len(nested_fraction(job.data.train.patients, labels, share, 1)) for share in (0.5, 1.0)]
    assert wanted == [6, 12]
    if "finetune" not in settings:
        assert [sum(found[cell].facts.get(name, 0) for name in counted) for cell in cells] == wanted
    half, whole = map(said, found.values())
    assert not all(np.array_equal(a, b) for a, b in zip(half, whole, strict=True))
    assert [found[cell].rows.tolist() for cell in cells] == [job.data.test.names.tolist()] * 2
    assert len(job.data.test) == 7


@pytest.mark.parametrize(("task", "settings"), [("linear", LAYER), ("linear", COPY), *LEARNING[4:]])
def test_the_last_rows_of_validation_count(task: str, settings: dict[str, Any], folder: Path) -> None:
    """Pitfall: last validation batch dropped (here 2 rows of 6, in batches of 4)."""
    figures = []
    for _ in range(2):
        facts = run(folder, task, settings)[1][Cell(100, 0)].facts
        figures.append(
            next(facts[name] for name in ("validation_loss", "best_validation", "best_score") if name in facts)
        )
        frame = read_manifest(folder)
        turn_round(folder, frame["source"] == frame.loc[frame["split"] == "val", "source"].iloc[-1])
    assert figures[0] != figures[1]


def test_boxes_are_the_same_at_every_access(folder: Path) -> None:
    """Pitfall: boxes normalised in place at every access."""
    train = TaskData(load_protocol("detection/v1"), folder, 32, 32).train
    first, listed = train.boxes(), read_boxes(train, 32)
    corners = listed.corners.copy()
    for _ in range(2):
        boxes, there = listed.padded(np.arange(4))
        kept = boxes.clone()
        detection_loss(torch.zeros(4, len(_grid().place), 5), boxes, there, _grid())
        listed.cut(16)
        assert torch.equal(boxes, kept)
    np.testing.assert_array_equal(listed.corners, corners)
    for before, after in zip(first, train.boxes(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert first[1].tolist() == [[4, 6, 20, 18]]


def _grid() -> AnchorGrid:
    return anchor_grid([(8, 8), (4, 4), (2, 2)], 32)


@pytest.mark.parametrize("name", ["rsna-detection/v1", "object-cxr-detection/v1", "detection/v1"])
def test_unsure_detections_and_images_without_any_count(name: str) -> None:
    """Pitfall: detections below 0.5 removed before computing AP, images without predictions skipped."""
    settings = DetectionSettings.model_validate(load_protocol(name).settings)
    raw = torch.zeros(1, len(_grid().place), 5)
    raw[..., 4] = -5  # scores of 0.007
    found = detect(raw, _grid(), settings.confidence_floor, settings.nms, settings.max_detections)
    assert len(found.scores) > 10
    corners = np.array([[0.0, 0, 9, 9], [1, 1, 8, 8]])
    arrays = {
        "image": np.array([0]), "boxes": corners[:1], "scores": np.array([0.1]), "truth_image": np.arange(2),
        "truth_boxes": corners, "ious": np.array(settings.ious), "skip_empty": np.array(settings.skip_empty),
    }  # fmt: skip
    precision = MatchedDetections(arrays, 3).figures(np.array([[1, 0, 1], [1, 1, 1]])).precision
    assert (precision[0] == 1).all()
    assert (precision[1] == 51 / 101).all()  # the box of the image without a detection was missed


def test_any_number_of_boxes_fits(tmp_path: Path) -> None:
    """Pitfall: more boxes than a fixed maximum crashing."""
    many = boxes_text(
        [{"label": "a", "x": place % 28, "y": place // 28, "width": 3, "height": 3} for place in range(500)]
    )
    folder = write_set(tmp_path, boxes=[many, *["[]"] * 25])
    boxes = read_boxes(TaskData(load_protocol("detection/v1"), folder, 32, 32).train, 32)
    corners, there = boxes.padded(np.arange(3))
    assert there.sum(1).tolist() == [500, 0, 0]
    assert detection_loss(torch.zeros(3, len(_grid().place), 5), corners, there, _grid()).isfinite()


def test_dice_is_the_mean_over_images() -> None:
    """Pitfall: Dice averaged over batches (of two: 0.75), or of all pixels together."""
    counts = [10, 0, 0], [10, 500, 0], [10, 1000, 0]  # in both, drawn, true, of three images
    both, drawn, truth = (np.array(values) for values in counts)
    measures = overlap_measures(both, drawn, truth)
    found = dict(zip([measure.metric for measure in measures.of], measures.compute(np.ones((1, 3)))[0], strict=True))
    assert found["dice_all"] == pytest.approx(2 / 3)
    assert found["dice_positive"] == pytest.approx(1 / 2)


def test_left_stays_left_in_segmentation() -> None:
    """Pitfall: flips that swap left and right under reports that say "left"."""
    settings = SegmentationSettings(augment_share=1)
    changes = draw_changes(300, settings, 0, 0)
    corner = np.zeros((300, 32, 32), dtype=np.uint8)
    corner[:, 4:12, 4:12] = 200
    pixels, masks = turn_and_scale(corner, corner > 0, changes)
    for moved in (pixels > 100, masks):
        assert moved[:, :16, :16].any((1, 2)).all()
        assert not moved[:, :, 20:].any()
        assert not moved[:, 20:].any()
    assert (masks != (corner > 0)).any((1, 2)).mean() > 0.9


def test_left_stays_left_in_fine_tuning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall: flips that swap left and right under reports that say "left"."""
    shown: list[torch.Tensor] = []
    forward = finetune.Classifier.forward

    def look(model: finetune.Classifier, images: torch.Tensor) -> torch.Tensor:
        if model.training:
            shown.append(images.detach().clone())
        return forward(model, images)

    monkeypatch.setattr(finetune.Classifier, "forward", look)
    job, _ = run(folder, "linear", COPY)
    wanted = job.encoder.tensors(np.asarray(job.data.train.pixels))
    same = (torch.cat(shown)[:, None] == wanted[None]).flatten(2).all(2)
    assert same.sum() == len(same) == 12
