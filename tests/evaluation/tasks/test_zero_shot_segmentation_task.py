"""Maps that are cut, from prompts and boxes to Dice."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.protocols import load_protocol
from cmcgns.evaluation.tasks.zero_shot_segmentation import CUTS, TASK
from cmcgns.metrics.measure import Measure
from cmcgns.metrics.overlap import label_overlap_measures
from cmcgns.objectives.objective import MapKind
from cmcgns.pretrained.prompts import load_prompts
from support.evaluation import figures, job_of, parts_of, predict, protocol_of, same, tiny_run, write_pictures
from support.text_tasks import SIDE, Seer, frozen

PROTOCOL = protocol_of("zero_shot_segmentation", whole_image=True)
COUNTS = (0, 12, 12)
LABELS = ("Edema", "Nodule")


def write_regions(folder: Path, counts: tuple[int, int, int] = COUNTS, size: int = SIDE, **columns: Any) -> Path:
    """Black pictures; boxes of two findings, on the grid of patches, white (Edema) or gray (Nodule)."""
    rng, pictures, boxes, parts = np.random.default_rng(0), [], [], parts_of(counts)
    for number in range(len(parts)):
        pixels, marked = np.zeros((size, size), np.uint8), []
        for label, gray in list(zip(LABELS, (255, 120), strict=True))[: 1 + number % 2]:
            w, h = (int(n) for n in 4 * rng.integers(1, 4, 2))
            x, y = (int(n) for n in 4 * rng.integers(0, 5, 2))
            marked.append({"label": label, "x": x, "y": y, "width": w, "height": h})
            pixels[y : y + h, x : x + w] = np.maximum(pixels[y : y + h, x : x + w], gray)
        pictures.append(pixels)
        boxes.append(boxes_text(marked))
    patients = [f"d:{number // 2}" for number in range(len(parts))]
    return write_pictures(folder, pictures, **{"split": parts, "patient_id": patients, "boxes": boxes} | columns)


def slow_dice(drawn: np.ndarray, mask: np.ndarray) -> float:
    return 2 * float((drawn & mask).sum()) / float(drawn.sum() + mask.sum())


def slow_pixels(values: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation between the centres of patches, pixel by pixel."""
    grid = values.reshape(round(len(values) ** 0.5), -1)
    side, pixels = len(grid), np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            y, x = (min(max((n + 0.5) * side / size - 0.5, 0), side - 1) for n in (row, column))
            top, left = int(y), int(x)
            below, right = min(top + 1, side - 1), min(left + 1, side - 1)
            upper = grid[top, left] * (1 - x + left) + grid[top, right] * (x - left)
            lower = grid[below, left] * (1 - x + left) + grid[below, right] * (x - left)
            pixels[row, column] = upper * (1 - y + top) + lower * (y - top)
    return pixels


def slow_masks(images: Any, row: int, label: str, size: int) -> np.ndarray:
    import json

    mask, scale = np.zeros((size, size), bool), size / images.frame["width"].iloc[row]
    for box in json.loads(images.frame["boxes"].iloc[row]):
        if box["label"] == label:
            x, y, w, h = (round(box[key] * scale) for key in ("x", "y", "width", "height"))
            mask[y : y + h, x : x + w] = True
    return mask


def test_it_gives_what_cutting_each_map_by_hand_gives(tmp_path: Path) -> None:
    """A run with random weights: map by map, pixel by pixel, threshold by threshold."""
    encoder = tiny_run()
    size = encoder.image_size
    folder = write_regions(tmp_path / "d", size=size)
    protocol = protocol_of("zero_shot_segmentation", {"prompts": "phantom"}, whole_image=True)
    predictions = predict(protocol, folder, encoder)
    data = TaskData(protocol, folder, size, encoder.resize)
    book, run = load_prompts("phantom"), encoder.run

    def maps(images: Any, label: str) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for row in range(len(images)):
            mask = slow_masks(images, row, label, size)
            if mask.any():
                tokens = encoder.tokens(encoder.tensors(images.pixels[row : row + 1]))
                sides = []
                for side in (book.of(label).positive, book.of(label).negative):
                    each = [run.patch_maps(tokens, run.encode_texts([text]), run.map)[0, 0] for text in side]
                    sides.append(torch.stack(each).mean(0).numpy().astype(float))
                found.append((sides[0] - sides[1], mask))
        return found

    expected = []
    for label in LABELS:
        choose, test = maps(data.val, label), maps(data.test, label)
        cuts = np.quantile(np.concatenate([values for values, _ in choose]), CUTS)
        dice = [[slow_dice(slow_pixels(v, size) > cut, mask) for cut in cuts] for v, mask in choose]
        best = cuts[np.mean(dice, axis=0).argmax()]
        assert predictions.facts["thresholds"][label] == pytest.approx(best, abs=1e-5)
        expected.append(np.mean([slow_dice(slow_pixels(v, size) > best, mask) for v, mask in test]))
    found = figures(protocol, predictions)
    for label, value in zip(LABELS, expected, strict=True):
        assert found[Measure("dice", label)] == pytest.approx(value, abs=0.01)
    assert found[Measure("dice")] == pytest.approx(np.mean(expected), abs=0.01)
    assert next(iter(found)) == Measure("dice")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of what is stated show the gray of patches, those of what is denied the same turned round."""

    def maps(_: object, tokens: torch.Tensor, phrases: list[str], kind: str) -> torch.Tensor:
        denied = {text for label in LABELS for text in load_prompts().of(label).negative}
        signs = torch.tensor([-1.0 if text in denied else 1.0 for text in phrases])
        return signs[None, :, None] * tokens.mean(2)[:, None] * (0.0 if kind == "attention" else 1.0)

    monkeypatch.setattr(Seer, "encode_texts", lambda _, texts: list(texts))
    monkeypatch.setattr(Seer, "patch_maps", maps, raising=False)


@pytest.mark.usefixtures("shown")
def test_an_oracle_draws_boxes_and_a_flat_map_everything_or_nothing(tmp_path: Path) -> None:
    folder = write_regions(tmp_path / "d")
    found = figures(PROTOCOL, predict(PROTOCOL, folder, frozen(Seer({}))))
    assert found[Measure("dice", "Edema")] > 0.75
    flat = protocol_of("zero_shot_segmentation", {"kind": "attention"}, whole_image=True)
    predictions = predict(flat, folder, frozen(Seer({})))
    assert figures(flat, predictions)[Measure("dice")] == 0
    assert predictions.facts["map"] == "attention"
    area = predictions.arrays["truth"][:, 0] / SIDE**2
    assert figures(flat, predictions)[Measure("dice_chance", "Edema")] == pytest.approx(
        (2 * area / (1 + area)).mean()
    )


@pytest.mark.usefixtures("shown")
def test_test_rows_choose_nothing_and_validation_rows_choose(tmp_path: Path) -> None:
    folder = write_regions(tmp_path / "d")
    plain = predict(PROTOCOL, folder, frozen(Seer({})))
    job = job_of(PROTOCOL, folder, frozen(Seer({})))
    job.data.test.frame["boxes"] = job.data.test.frame["boxes"].to_numpy()[::-1]
    ((_, turned),) = TASK.run(job)
    assert turned.facts["thresholds"] == plain.facts["thresholds"]
    assert not same(turned, plain)


@pytest.mark.usefixtures("shown")
def test_a_label_with_few_validation_images_is_cut_where_all_are(tmp_path: Path) -> None:
    facts = predict(PROTOCOL, write_regions(tmp_path / "d", (0, 8, 12)), frozen(Seer({}))).facts
    assert facts["validation_images"] == {"Edema": 8, "Nodule": 4}
    everything = predict(PROTOCOL, write_regions(tmp_path / "e", (0, 12, 12)), frozen(Seer({}))).facts
    assert everything["thresholds"]["Nodule"] != facts["thresholds"]["Nodule"]


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    folder = write_regions(tmp_path / "d")
    data = TaskData(PROTOCOL, folder, SIDE, SIDE)
    assert "no report encoder" in TASK.lacks(data, frozen(None))
    untold = Seer({})
    untold.recipe.objective.weight_global = 0
    assert "nothing trained its map pooled" in TASK.lacks(data, frozen(untold))
    bare = TaskData(PROTOCOL, write_regions(tmp_path / "e", boxes="[]"), SIDE, SIDE)
    assert TASK.lacks(bare, frozen(Seer({}))) == "no image of val has boxes (column boxes)"
    with pytest.raises(UserError, match="needs rows of split val for val"):
        TaskData(PROTOCOL, write_regions(tmp_path / "f", (0, 0, 4)), SIDE, SIDE)


@pytest.mark.usefixtures("shown")
def test_boxes_outside_of_the_crop_are_named(tmp_path: Path) -> None:
    corner = boxes_text([{"label": "Edema", "x": 0, "y": 0, "width": 2, "height": 2}])
    folder = write_regions(tmp_path / "d", boxes=corner)
    with pytest.raises(UserError, match="all boxes of val lie outside of what the encoder sees"):
        predict(protocol_of("zero_shot_segmentation"), folder, frozen(Seer({}), resize=64))


def test_impossible_counts_are_refused() -> None:
    one = np.ones((2, 1))
    arrays = {"intersection": 3 * one, "predicted": one, "truth": one, "pixels": np.array(9), "labels": one,
              "label_names": np.array(["A"]), "counted": np.array([True])}  # fmt: skip
    with pytest.raises(UserError, match="the intersection is larger"):
        label_overlap_measures(arrays)


def test_validation_counts_in_what_decides_a_result() -> None:
    assert load_protocol("zero-shot-segmentation/v1").parts == ("val", "test")
    assert load_protocol("grounding/v1").parts == ("test",)
    assert load_protocol("linear/v1").parts == ("train", "val", "test")


@pytest.mark.parametrize("kind", ["default", *get_args(MapKind)])
def test_every_kind_of_map_can_be_asked_for(kind: str) -> None:
    """The kinds that a run's validation chooses among, so that two runs can be judged by one of them."""
    protocol = load_protocol("phantom-zero-shot-segmentation/v1", [f"settings.kind={kind}"])
    assert protocol.task_settings.model_dump()["kind"] == kind
