"""What the report is worth to the reconstruction, measured with reconstructions whose errors are known."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cmcgns.data.pairs.batch import BatchRequest
from cmcgns.evaluation.report_use import report_use
from cmcgns.objectives.masked_reconstruction import covered_pixels
from cmcgns.settings.config import ObjectiveSettings

STUDIES, SIDE = 40, 8
GRID = (2, 2)
TEXT = np.arange(STUDIES) // 2  # reports come in equal pairs
BOXED = np.arange(STUDIES) % 4 != 3


class _Studies:
    """Images full of the number of their report; a box in the upper left quarter of three in four."""

    tokens = SimpleNamespace(report_text=TEXT)
    rows = np.arange(STUDIES)

    def __len__(self) -> int:
        return STUDIES

    def __getitem__(self, request: BatchRequest) -> Any:
        value = torch.from_numpy(TEXT[request.rows]).float()
        images = value[:, None, None, None].expand(-1, 1, SIDE, SIDE).clone()
        images[:, :, SIDE // 2 :] = 99  # outside every box
        mask = torch.ones(len(value), 1, dtype=torch.bool)
        return _Batch(images=images, sentences=value[:, None, None], sentence_mask=mask)


class _Batch(SimpleNamespace):
    def to(self, device: object) -> "_Batch":
        return self

    def __len__(self) -> int:
        return len(self.images)


def _boxes() -> Tensor:
    boxes = torch.zeros(STUDIES, 1, SIDE, SIDE, dtype=torch.bool)
    boxes[BOXED, :, : SIDE // 2, : SIDE // 2] = True
    return boxes


def _encoder(rebuild: Any) -> Any:
    def encode(batch: _Batch) -> Any:
        patches = torch.zeros(len(batch), GRID[0] * GRID[1], 1)
        return SimpleNamespace(patches=patches, sentences=batch.sentences, grid=GRID)

    settings = ObjectiveSettings(mask_ratio=0.5)
    decoder = SimpleNamespace(
        settings=settings, reconstruct=rebuild, seen_patches=lambda model, patches, images, hidden: patches,
        region=lambda hidden, like: covered_pixels(hidden, GRID, like.shape[-2:]),
        errors=lambda rebuilt, target: (rebuilt - target).abs(),
    )  # fmt: skip
    method = SimpleNamespace(reconstruction=decoder, attention=None, target=lambda net, features, batch: batch.images)
    recipe = SimpleNamespace(objective=settings)
    return SimpleNamespace(
        task=SimpleNamespace(model=encode), method=method, device=torch.device("cpu"), recipe=recipe
    )


def _studies() -> Any:
    return SimpleNamespace(dataset=_Studies(), patients=np.arange(STUDIES), box_masks=lambda rows: _boxes()[rows])


def _by_report(patches: Tensor, hidden: Tensor, sentences: Tensor, mask: Tensor, attention: object) -> Tensor:
    known = torch.where(mask[..., None], sentences, -3.0)  # without a report something that no image is
    return known[..., None].expand(-1, 1, SIDE, SIDE)


def _without_report(patches: Tensor, hidden: Tensor, sentences: Tensor, mask: Tensor, attention: object) -> Tensor:
    return torch.full((len(patches), 1, SIDE, SIDE), -1.0)


def test_a_reconstruction_that_is_the_report_is_right_only_with_the_right_one() -> None:
    found = report_use(_encoder(_by_report), _studies())
    assert found["right"]["value"] == 0
    assert found["other"]["value"] >= 1  # the numbers of two different reports differ by one or more
    assert found["difference"]["low"] > 0
    assert found["error"] == "|error| (image range −1 to 1)"


def test_without_a_report_the_error_is_that_of_what_the_decoder_then_makes() -> None:
    found = report_use(_encoder(_by_report), _studies(), draws=40)
    expected = np.mean(TEXT[BOXED] + 3.0)
    assert found["none"]["value"] == pytest.approx(expected, abs=1e-4)
    assert found["difference_none"]["value"] == pytest.approx(expected, abs=1e-4)  # with the right one it is 0


def test_a_map_of_patches_counts_them_by_their_share_in_the_box() -> None:
    encoder, studies = _encoder(_by_report), _studies()
    boxes = torch.zeros(STUDIES, 1, SIDE, SIDE, dtype=torch.bool)
    boxes[:, :, : SIDE // 2, : SIDE // 4] = True  # half of the upper left patch
    boxes[:, :, SIDE // 2 :, : SIDE // 2] = True  # the lower left one
    studies.box_masks = boxes.__getitem__
    values = torch.tensor([[1.0, 7.0], [4.0, 7.0]]).expand(STUDIES, 1, 2, 2)
    encoder.method.target = lambda net, features, batch: values[: len(batch)]
    encoder.method.reconstruction.reconstruct = lambda *_: torch.zeros(STUDIES, 1, 2, 2)
    encoder.method.reconstruction.settings = ObjectiveSettings(mask_ratio=1.0)
    assert report_use(encoder, studies)["right"]["value"] == pytest.approx((0.5 * 1 + 1 * 4) / 1.5)


def test_a_reconstruction_that_ignores_the_report_shows_no_difference() -> None:
    found = report_use(_encoder(_without_report), _studies())
    assert found["right"]["value"] > 1
    assert found["difference"] == pytest.approx(
        {"value": 0, "low": 0, "high": 0, "n": found["studies"], "resamples": 2000}
    )


def test_only_studies_with_hidden_pixels_inside_a_box_count() -> None:
    # Four masks that hide half of four places miss the box's place in one study of sixteen.
    found = report_use(_encoder(_by_report), _studies())
    assert 0.75 * BOXED.sum() <= found["studies"] <= BOXED.sum()
    alone = report_use(_encoder(_by_report), _studies(), draws=40)
    assert alone["studies"] == BOXED.sum()


def test_too_few_patients_have_no_interval_and_no_number_that_json_lacks() -> None:
    studies = _studies()
    studies.patients = np.arange(STUDIES) % 4
    found = json.loads(json.dumps(report_use(_encoder(_by_report), studies), allow_nan=False))
    for name in ("right", "other", "none", "difference", "difference_none"):
        assert found[name]["value"] >= 0
        assert found[name]["low"] is found[name]["high"] is None


def test_a_run_without_reconstruction_is_refused() -> None:
    encoder = _encoder(_by_report)
    encoder.method.reconstruction = None
    with pytest.raises(ValueError, match="no reconstruction"):
        report_use(encoder, _studies())
