"""Pictures in files, in memory and in DICOM are one picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cmcgns
from cmcgns.common.errors import UserError
from support.image_faults import dicom, dicom_bytes


def test_pictures_in_memory_are_embedded_as_their_files(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    expected = model.embed_image(images)
    opened = [Image.open(path) for path in images]
    np.testing.assert_array_equal(model.embed_image(opened), expected)
    np.testing.assert_array_equal(model.embed_image([np.asarray(image) for image in opened]), expected)
    colour = [np.asarray(image.convert("RGB")) for image in opened]
    np.testing.assert_array_equal(model.embed_image(colour), expected)
    gray = [np.asarray(image).astype(np.float64) for image in opened]
    stretched = [np.rint((each - each.min()) * 255 / np.ptp(each)).astype(np.uint8) for each in gray]
    deep = [each.astype(np.uint16) * 13 + 700 for each in gray]  # 16 bits: least value black, greatest white
    np.testing.assert_allclose(model.embed_image(deep), model.embed_image(stretched), atol=0.02)


def test_dicom_is_embedded_as_the_picture_that_it_holds(run: Path, images: list[Path], tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(images[0]).convert("L"))
    inverted = dicom(255 - pixels, PhotometricInterpretation="MONOCHROME1")
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(inverted))
    model = cmcgns.load(run)
    np.testing.assert_array_equal(model.embed_image([tmp_path / "a.dcm"]), model.embed_image(images[:1]))
    assert model.ground(tmp_path / "a.dcm", "No effusion.").shape == pixels.shape


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4)), r"\(H, W\) or \(H, W, 3\) uint8.*float64"),
        (np.zeros((4, 4, 4), np.uint8), r"not \(4, 4, 4\) uint8"),
        (np.zeros((0, 4), np.uint8), r"not \(0, 4\) uint8"),
        (Image.new("F", (4, 4)), "mode F does not say what is white"),
        (3, "a picture is a path, an array or a Pillow image, not int"),
    ],
)
def test_other_pictures_are_refused(run: Path, picture: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cmcgns.load(run).embed_image([picture])  # type: ignore[list-item]


def test_a_single_picture_in_place_of_a_list_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="embed_image takes a list"):
        cmcgns.load(run).embed_image(Image.new("L", (8, 8)))  # type: ignore[arg-type]
