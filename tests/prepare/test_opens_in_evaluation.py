"""What `prepare` writes, evaluation opens: labels, boxes and masks of every source that has them."""

import io

import numpy as np
import pytest
from rich.console import Console

from cmcgns.phantom.trees import write_tree
from cmcgns.prepare.run import PrepareOptions, prepare
from support.images import read_image_set

BOXES = {"rsna", "object-cxr", "vindr"}
MASKS = {"siim"}


@pytest.mark.parametrize("name", ["chexpert", "rsna", "covidx", "siim", "object-cxr", "nih", "vindr"])
def test_labels_boxes_and_masks_open(name, tmp_path):
    root = write_tree(name, tmp_path / "tree", 24, size=64)
    prepare(name, root, tmp_path / "out", PrepareOptions(size=48), Console(file=io.StringIO()))
    images = read_image_set(tmp_path / "out", "train", 48)
    assert images.pixels.shape == (len(images), 48, 48)
    assert images.labels.shape == (len(images), len(images.label_names))
    assert np.nanmin(images.labels) >= 0
    assert np.nansum(images.labels) > 0
    if name in BOXES:
        boxes = np.concatenate(images.boxes())
        assert len(boxes)
        assert (boxes >= -1e-3).all()
        assert (boxes <= 48 + 1e-3).all()
    if name in MASKS:
        assert images.masks().any(axis=(1, 2)).tolist() == (images.labels[:, 0] == 1).tolist()
