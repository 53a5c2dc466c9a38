"""A dataset in which bright rectangles are what has to be found."""

import numpy as np
import pytest

from cmcgns.data.boxes import boxes_text
from cmcgns.evaluation.open_encoder import open_encoder
from support.evaluation import job_of, parts_of, protocol_of, write_pictures

SMALL = {"head_width": 16, "epochs": 3, "batch": 8, "learning_rate": 3e-3}


@pytest.fixture(scope="session")
def resnet():
    return open_encoder("random:resnet18", image_size=64)


@pytest.fixture
def write_rectangles(tmp_path):
    """Every third image is empty, the others have one or two rectangles; every other image is wider than high."""

    def write(name="rectangles", train=24, others=8, place=None, **columns):
        rng, pictures, marked = np.random.default_rng(0), [], []
        for number in range(train + 2 * others):
            width, height = (96, 96) if number % 2 else (96, 72)
            pixels = rng.integers(0, 40, (height, width), dtype=np.uint8)
            boxes = []
            for _ in range(number % 3):
                w, h = (int(side) for side in rng.integers(16, 40, 2))
                x, y = int(rng.integers(8, width - w - 8)), int(rng.integers(8, height - h - 8))
                x, y, w, h = place or (x, y, w, h)
                pixels[y : y + h, x : x + w] = rng.integers(180, 220)
                boxes.append({"label": "a", "x": x, "y": y, "width": w, "height": h})
            pictures.append(pixels)
            marked.append(boxes_text(boxes))
        numbers = range(len(pictures))
        stated = {"boxes": marked, "split": parts_of((train, others, others))}
        stated |= {"patient_id": [f"d:{n // 2}" for n in numbers], "source": [f"{n}.dcm" for n in numbers]}
        return write_pictures(tmp_path / name, pictures, **stated | columns)

    return write


@pytest.fixture
def make_job(resnet):
    """A job over a dataset, with a small head."""

    def make(folder, encoder=resnet, cells=(), progress=lambda *_: None, whole_image=True, **settings):
        protocol = protocol_of("detection", SMALL | settings, whole_image=whole_image)
        return job_of(protocol, folder, encoder, cells, progress=progress)

    return make
