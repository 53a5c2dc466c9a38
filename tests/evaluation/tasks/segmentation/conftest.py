"""A dataset in which bright rectangles are what has to be drawn."""

import numpy as np
import pytest
from PIL import Image

from cmcgns.data.boxes import boxes_text
from support.evaluation import job_of, parts_of, protocol_of, write_pictures

SMALL = {
    "unet_channels": [16, 16, 8, 8, 8],
    "pup_channels": [16, 8],
    "epochs": 3,
    "shortest_epoch": 1,
    "batch_size": 8,
}


@pytest.fixture
def rectangles(tmp_path):
    """24, 8 and 8 images of 32 px, every third one empty; boxes and masks say the same."""
    rng, folder, side = np.random.default_rng(0), tmp_path / "rectangles", 32
    (folder / "images").mkdir(parents=True)
    pictures, marked, masks = [], [], []
    for number in range(40):
        pixels = rng.integers(0, 60, (side, side), dtype=np.uint8)
        mask, boxes = np.zeros_like(pixels), []
        if number % 3:
            (x, y), (w, h) = rng.integers(1, side // 3, 2), rng.integers(side // 4, side // 2, 2)
            pixels[y : y + h, x : x + w] += np.uint8(150)
            mask[y : y + h, x : x + w] = 255
            boxes = [{"label": "a", "x": int(x), "y": int(y), "width": int(w), "height": int(h)}]
            Image.fromarray(mask).save(folder / "images" / f"m{number}.png")
        pictures.append(pixels)
        marked.append(boxes_text(boxes))
        masks.append(f"images/m{number}.png" if number % 3 else "")
    stated = {"boxes": marked, "mask_path": masks, "split": parts_of((24, 8, 8))}
    stated |= {"patient_id": [f"d:{n // 2}" for n in range(40)], "source": [f"{n}.dcm" for n in range(40)]}
    return write_pictures(folder, pictures, **stated)


@pytest.fixture
def make_job(tmp_path):
    """A job over a dataset, with small decoders."""

    def make(folder, encoder, cells=(), progress=lambda *_: None, **settings):
        protocol = protocol_of("segmentation", SMALL | settings, whole_image=True)
        return job_of(protocol, folder, encoder, cells, tmp_path, progress)

    return make
