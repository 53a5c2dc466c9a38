"""Labels, boxes and masks lie where the picture lies in its square."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.boxes import boxes_text
from cmcgns.data.manifest import write_manifest
from support.images import read_image_set


def prepared(folder, sizes=((80, 40), (40, 80), (64, 64)), **changes):
    """Black pictures with one white rectangle, which is box and mask as well."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, (width, height) in enumerate(sizes):
        pixels = np.zeros((height, width), np.uint8)
        x, y, w, h = width // 4, height // 4, width // 2, height // 4
        pixels[y : y + h, x : x + w] = 255
        for name in ("i", "m"):
            Image.fromarray(pixels).save(folder / "images" / f"{name}{number}.png")
        rows.append(
            {
                "image_path": f"images/i{number}.png", "mask_path": f"images/m{number}.png", "width": width,
                "height": height, "boxes": boxes_text([{"label": "x", "x": x, "y": y, "width": w, "height": h}]),
                "study_id": f"d:{number}", "patient_id": f"d:{number}", "dataset": "d", "view": "PA", "split": "test",
                "label_A": [1, -1, None][number], "label_B": [-1, 0, 1][number], "source": f"{number}.dcm",
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    for name, values in changes.items():
        frame[name] = values
    write_manifest(frame, folder / "manifest.parquet")
    return folder


@pytest.mark.parametrize("size", [32, 80, 128])
def test_boxes_and_masks_lie_on_what_they_mark(tmp_path, size):
    images = read_image_set(prepared(tmp_path / "d"), "test", size)
    for pixels, mask, boxes in zip(images.pixels, images.masks(), images.boxes(), strict=True):
        assert boxes.shape == (1, 4)
        x0, y0, x1, y1 = boxes[0]
        box = np.zeros((size, size), bool)
        box[round(y0) : round(y1), round(x0) : round(x1)] = True
        for shape in (mask, box):
            both = (shape & (pixels > 127)).sum() / (shape | (pixels > 127)).sum()
            assert both > 0.85, size


def test_uncertain_labels_mean_what_the_protocol_says(tmp_path):
    folder = prepared(tmp_path / "d")
    labels = read_image_set(folder, "test", 32, {"A": 1, "B": 0}).labels
    assert np.array_equal(labels, [[1, 0], [1, 0], [np.nan, 1]], equal_nan=True)
    unused = read_image_set(folder, "test", 32)
    assert unused.label_names == ["A", "B"]
    assert np.array_equal(unused.labels, [[1, np.nan], [np.nan, 0], [np.nan, 1]], equal_nan=True)


def test_no_box_and_no_annotation_are_different_things(tmp_path):
    images = read_image_set(prepared(tmp_path / "d", boxes=["[]", "[]", ""]), "test", 32)
    with pytest.raises(UserError, match=r"2\.dcm: has no annotation of boxes"):
        images.boxes()
    nothing = read_image_set(prepared(tmp_path / "e", boxes="[]", mask_path=""), "test", 32)
    assert [boxes.shape for boxes in nothing.boxes()] == [(0, 4)] * 3
    assert not nothing.masks().any()


def test_faults_are_named(tmp_path):
    folder = prepared(tmp_path / "d")
    with pytest.raises(UserError, match=r"no row has split val \(found: test\)"):
        read_image_set(folder, "val", 32)
    (folder / "images" / "m1.png").write_text("no picture")
    with pytest.raises(UserError, match=r"m1\.png: not a PNG"):
        read_image_set(folder, "test", 32).masks()
    (folder / "images" / "i2.png").write_text("no picture")
    with pytest.raises(UserError, match=r"1 images cannot be read, first: .*i2\.png"):
        read_image_set(folder, "test", 32)
