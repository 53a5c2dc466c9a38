"""Patches in the regions of findings, from boxes to average precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.data.manifest import write_manifest
from cmcgns.evaluation.contract import seed_measures
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.regions import Regions
from cmcgns.evaluation.tasks.patch_probe import TASK, _share, chosen_patches
from cmcgns.metrics.classification import patch_measures
from cmcgns.metrics.measure import Measure
from support.evaluation import figures, job_of, oracle, parts_of, predict, protocol_of, run, same, write_pictures

SIDE, BLOCK = 16, 4
PROTOCOL = protocol_of("patch_probe", whole_image=True)
COUNTS = (60, 20, 40)


def write_regions(folder: Path, seen: bool = True, counts: tuple[int, int, int] = COUNTS, **columns: Any) -> Path:
    """Noise with boxes of two findings: A brightens its box, B darkens its own; or neither shows."""
    rng, pictures, boxes = np.random.default_rng(0), [], []
    parts = parts_of(counts)
    for _ in parts:
        pixels, marked = rng.integers(90, 160, (SIDE, SIDE)), []
        for label, change in (("A", 60), ("B", -60)):
            if rng.random() < 0.6:
                x, y, w, h = (int(n) for n in (*rng.integers(0, 8, 2), *rng.integers(4, 9, 2)))
                marked.append({"label": label, "x": x, "y": y, "width": w, "height": h})
                pixels[y : y + h, x : x + w] += change * seen
        pictures.append(pixels.clip(0, 255).astype(np.uint8))
        boxes.append(boxes_text(marked))
    patients = [f"d:{number // 2}" for number in range(len(parts))]
    return write_pictures(folder, pictures, **{"split": parts, "patient_id": patients, "boxes": boxes} | columns)


def slow_labels(boxes: list[dict[str, Any]], label: str) -> np.ndarray:
    """(P,) whether a patch has half of its pixels in a box of the label, pixel by pixel."""
    mask = np.zeros((SIDE, SIDE))
    for box in boxes:
        if box["label"] == label:
            mask[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 1
    side = SIDE // BLOCK
    return np.array([
        mask[BLOCK * r : BLOCK * r + BLOCK, BLOCK * c : BLOCK * c + BLOCK].mean() >= 0.5
        for r in range(side) for c in range(side)
    ])  # fmt: skip


def truth_of(folder: Path, part: str) -> np.ndarray:
    import json

    frame = pd.read_parquet(folder / "manifest.parquet").query("split == @part")
    return np.array([[slow_labels(json.loads(text), name) for name in "AB"] for text in frame["boxes"]]).swapaxes(
        1, 2
    )


def tokens_of(folder: Path, part: str) -> np.ndarray:
    encoder = oracle()
    images = getattr(TaskData(PROTOCOL, folder, SIDE, SIDE), part)
    return encoder.tokens(encoder.tensors(np.asarray(images.pixels))).numpy()


def test_it_gives_what_scikit_learn_gives(tmp_path: Path) -> None:
    """Features, labels, regression and average precision, each made anew."""
    folder = write_regions(tmp_path / "d")
    protocol = protocol_of("patch_probe", {"l2_grid": [1e-2]}, whole_image=True)
    predictions = predict(protocol, folder, oracle())
    found = figures(protocol, predictions)
    train, test = (tokens_of(folder, part).reshape(-1, BLOCK**2).astype(float) for part in ("train", "test"))
    scale = train.std(0)
    for k, name in enumerate("AB"):
        labels, truth = (truth_of(folder, part)[:, :, k].ravel() for part in ("train", "test"))
        model = LogisticRegression(C=1 / (1e-2 * len(train)), tol=1e-10, max_iter=10_000)
        scores = model.fit((train - train.mean(0)) / scale, labels).decision_function((test - train.mean(0)) / scale)
        assert found[Measure("ap", name)] == pytest.approx(average_precision_score(truth, scores), abs=1e-3)
        assert found[Measure("ap_chance", name)] == pytest.approx(truth.mean())
        assert predictions.facts["share"][name] == pytest.approx(truth.mean())
    assert found[Measure("ap")] == pytest.approx((found[Measure("ap", "A")] + found[Measure("ap", "B")]) / 2)
    assert found[Measure("ap")] > 0.8
    np.testing.assert_array_equal(predictions.arrays["patch_labels"], truth_of(folder, "test"))


def test_what_does_not_show_gets_its_share(tmp_path: Path) -> None:
    found = figures(PROTOCOL, predict(PROTOCOL, write_regions(tmp_path / "d", seen=False), oracle()))
    assert found[Measure("ap")] == pytest.approx(found[Measure("ap_chance")], abs=0.15)


def test_a_patient_is_drawn_with_all_of_its_patches(tmp_path: Path) -> None:
    """Weights of images weigh patches, as repeating the patches does."""
    predictions = predict(PROTOCOL, write_regions(tmp_path / "d"), oracle())
    counts = np.random.default_rng(1).integers(0, 4, len(predictions.rows))
    found = figures(PROTOCOL, predictions, counts)
    scores, truth = (predictions.arrays[name].repeat(counts, axis=0) for name in ("scores", "patch_labels"))
    for k, name in enumerate("AB"):
        expected = average_precision_score(truth[:, :, k].ravel(), scores[:, :, k].ravel())
        assert found[Measure("ap", name)] == pytest.approx(expected)
        assert found[Measure("ap_chance", name)] == pytest.approx(truth[:, :, k].mean())


def test_fractions_seeds_and_cells_alone(tmp_path: Path) -> None:
    """A cell learns the same whichever cells are computed beside it, also where negatives are drawn."""
    folder = write_regions(tmp_path / "d")
    protocol = protocol_of("patch_probe", {"max_negatives": 120}, whole_image=True)
    cells = Cell(10, 0), Cell(100, 0), Cell(100, 1)
    found = run(job_of(protocol, folder, oracle(), cells))
    assert [found[cell].facts["train_images"] for cell in cells] == [6, 60, 60]
    assert same(found[cells[1]], found[cells[2]])
    (alone,) = run(job_of(protocol, folder, oracle(), cells[:1])).values()
    assert same(alone, found[cells[0]])
    everything = truth_of(folder, "train")
    per_image = 120 // 60
    kept = everything.any(2).sum() + np.minimum((~everything.any(2)).sum(1), per_image).sum()
    assert found[cells[1]].facts["train_patches"] == kept


def test_the_smallest_share_holds_a_positive_patch_of_each_finding(tmp_path: Path) -> None:
    """A box that covers half of no patch is no positive: its patient alone would teach nothing."""
    folder = write_regions(tmp_path / "d", counts=(200, 20, 40))
    frame = pd.read_parquet(folder / "manifest.parquet")
    speck = {"label": "A", "x": 3, "y": 3, "width": 2, "height": 2}
    with_b = {"label": "B", "x": 0, "y": 0, "width": 8, "height": 8}
    frame.loc[frame["split"] == "train", "boxes"] = boxes_text([speck])
    frame.loc[11, "boxes"] = boxes_text([{**with_b, "label": "A"}])
    frame.loc[50, "boxes"] = boxes_text([with_b])
    write_manifest(frame, folder / "manifest.parquet")
    (predictions,) = run(job_of(PROTOCOL, folder, oracle(), [Cell(4, 0)])).values()
    assert predictions.facts["train_images"] == 8
    assert predictions.arrays["counted"].all()


def test_positive_patches_are_always_kept() -> None:
    labels = np.zeros((20, 2))
    labels[3:6, 1], labels[10:] = 1, np.nan
    kept = chosen_patches(labels, 4, (0, 7))
    assert kept[3:6].all()
    assert not kept[10:].any()
    assert kept.sum() == 7
    assert (kept == chosen_patches(labels, 4, (0, 7))).all()
    assert chosen_patches(labels, 100, (0, 7)).sum() == 10


def test_test_rows_choose_nothing(tmp_path: Path) -> None:
    job = job_of(PROTOCOL, write_regions(tmp_path / "d"), oracle())
    plain = run(job)[job.cells[0]]
    job.data.test.frame["boxes"] = "[]"
    np.testing.assert_array_equal(run(job)[job.cells[0]].arrays["scores"], plain.arrays["scores"])


def test_nobody_said_where_a_labelled_finding_is(tmp_path: Path) -> None:
    """NIH has boxes of some images and findings alone: patches of a finding without a box are neither."""
    folder = write_regions(tmp_path / "d", label_A=1)
    data = TaskData(PROTOCOL, folder, SIDE, SIDE)
    regions = Regions(data.test, data.region_names("boxes"), "boxes", SIDE)
    labels, stated = regions.patch_labels(regions.rows, 16), regions.stated
    np.testing.assert_array_equal(np.isnan(labels).all(1)[:, 0], ~stated[:, 0])
    assert not np.isnan(labels[:, :, 1]).any()
    found = figures(PROTOCOL, predict(PROTOCOL, folder, oracle()))
    assert found[Measure("ap_chance", "A")] > truth_of(folder, "test")[:, :, 0].mean()


def test_a_small_finding_is_where_enough_of_it_is(tmp_path: Path) -> None:
    """Patches have 4 px: a speck fills none by half, but it lies in one as a whole."""
    folder = write_regions(tmp_path / "d")
    frame = pd.read_parquet(folder / "manifest.parquet")
    speck = {"label": "A", "x": 5, "y": 9, "width": 2, "height": 2}
    spread = {"label": "B", "x": 1, "y": 1, "width": 6, "height": 4}  # 9, 9, 3 and 3 of its 24 pixels in four patches
    frame["boxes"] = boxes_text([speck, spread])
    write_manifest(frame, folder / "manifest.parquet")
    data = TaskData(PROTOCOL, folder, SIDE, SIDE)
    for share, patches in ((None, ([], [0, 1])), (0.25, ([9], [0, 1])), (0.125, ([9], [0, 1, 4, 5]))):
        regions = Regions(data.test, ("A", "B"), "boxes", SIDE, share)
        labels = regions.patch_labels(regions.rows[:1], 16)[0]
        assert tuple(np.flatnonzero(column).tolist() for column in labels.T) == patches


def test_images_that_nobody_annotated_take_no_part(tmp_path: Path) -> None:
    folder = write_regions(tmp_path / "d")
    frame = pd.read_parquet(folder / "manifest.parquet")
    frame.loc[frame.index % 2 == 0, "boxes"] = ""
    write_manifest(frame, folder / "manifest.parquet")
    predictions = predict(PROTOCOL, folder, oracle())
    assert len(predictions.rows) == 20
    assert predictions.facts["train_images"] == 30


def test_masks_of_a_single_label(tmp_path: Path) -> None:
    from PIL import Image

    folder = write_regions(tmp_path / "d", label_A=0)
    frame = pd.read_parquet(folder / "manifest.parquet")
    for number in range(0, len(frame), 2):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4:12, 4:8] = 255
        Image.fromarray(mask).save(folder / f"mask{number}.png")
        frame.loc[number, "mask_path"] = f"mask{number}.png"
    write_manifest(frame, folder / "manifest.parquet")
    predictions = predict(protocol_of("patch_probe", {"target": "masks"}, whole_image=True), folder, oracle())
    expected = np.zeros(16)
    expected[[5, 9]] = 1
    np.testing.assert_array_equal(predictions.arrays["patch_labels"][0, :, 0], expected)
    assert predictions.arrays["patch_labels"][1].sum() == 0
    assert predictions.arrays["label_names"].tolist() == ["A"]


def test_findings_of_few_patients_are_not_in_the_mean(tmp_path: Path) -> None:
    predictions = predict(PROTOCOL, write_regions(tmp_path / "d"), oracle())
    arrays = dict(predictions.arrays)
    rare = np.flatnonzero((arrays["patch_labels"][:, :, 1] == 1).any(1))[4:]
    arrays["patch_labels"] = arrays["patch_labels"].copy()
    arrays["patch_labels"][rare, :, 1] = 0
    arrays["labels"] = (arrays["patch_labels"] == 1).any(1).astype(float)
    (found,) = seed_measures(TASK, [type(predictions)(predictions.rows, predictions.patients, arrays)], 5)
    values = dict(zip(found.of, found.compute(np.ones((1, 40)))[0], strict=True))
    assert values[Measure("ap")] == values[Measure("ap", "A")] != values[Measure("ap", "B")]
    assert "left out: B" in found.notes[Measure("ap")]


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    def lacks(folder: Path, settings: dict[str, Any] | None = None, **more: Any) -> str:
        protocol = protocol_of("patch_probe", settings, whole_image=True, **more)
        return TASK.lacks(TaskData(protocol, folder, SIDE, SIDE), oracle())

    boxed = write_regions(tmp_path / "a", label_A=0, label_C=0)
    assert lacks(boxed) == ""
    assert "settings.target=boxes" in lacks(boxed, {"target": "masks"})
    assert lacks(boxed, {"target": "masks"}, labels=["A"]) == "no image of train has masks (column mask_path)"
    assert lacks(boxed, labels=["C"]) == "no box is of the protocol's labels (C)"
    bare = write_regions(tmp_path / "b", boxes="[]")
    assert lacks(bare) == "no image of train has boxes (column boxes)"


def test_bad_input_is_named(tmp_path: Path) -> None:
    broken = write_regions(tmp_path / "a")
    frame = pd.read_parquet(broken / "manifest.parquet")
    frame.loc[3, "boxes"] = "no json"
    write_manifest(frame, broken / "manifest.parquet")
    with pytest.raises(UserError, match="boxes"):
        predict(PROTOCOL, broken, oracle())
    folder = write_regions(tmp_path / "b")
    encoder = oracle()
    encoder.tokens = lambda images: encoder.encoder.tokens(images)[:, :7]  # type: ignore[method-assign]
    with pytest.raises(UserError, match="7 patches form no square grid"):
        predict(PROTOCOL, folder, encoder)
    encoder.tokens = lambda images: encoder.encoder.tokens(images) * np.nan  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"tokens of 0\.png are not finite"):
        predict(PROTOCOL, folder, encoder)
    arrays = {"scores": np.zeros((2, 3)), "patch_labels": np.zeros((2, 3, 1)), "label_names": np.array(["A"])}
    with pytest.raises(UserError, match="must have one shape"):
        patch_measures(arrays)


def test_a_share_without_annotation_is_named(tmp_path: Path) -> None:
    folder = write_regions(tmp_path / "d")
    job = job_of(PROTOCOL, folder, oracle(), [Cell(5, 0)])
    job.data.train.frame["boxes"] = ["[]"] + [""] * 59
    job.data.fraction_rows = lambda *_: np.array([5, 6])  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"is annotated: ask for more than 5 %"):
        run(job)


def test_a_finding_that_no_patch_is_judged_for_has_no_share() -> None:
    truth = np.array([[[1, np.nan]], [[0, np.nan]]])
    assert _share(("Mass", "Edema"), truth) == {"Mass": 0.5, "Edema": None}
