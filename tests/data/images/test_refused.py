"""Files that are no radiographs become errors that name them; nothing they ask for is run."""

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from cmcgns.check.image_facts import read_grey
from cmcgns.common.errors import UserError
from cmcgns.data.images import files, place
from cmcgns.data.images.files import STORED, image_size, open_picture, silent_decoders
from cmcgns.data.images.masks import mask_from_source
from cmcgns.data.images.read import decode_image, load_images, read_image
from support.image_faults import FAULTS, PICTURE, Fault, encoded
from support.pictures import save, smooth


@pytest.mark.parametrize("name", FAULTS)
def test_malformed_files_give_a_message_that_names_file_and_rule(name: str, tmp_path: Path, capfd) -> None:
    fault: Fault = FAULTS[name]
    path = tmp_path / fault.file
    fault.write(path)
    if fault.word is None:
        decoded = decode_image(path)
        assert decoded.pixels.ndim == 2
        assert decoded.pixels.shape == (decoded.height, decoded.width)
    else:
        with pytest.raises(UserError) as caught:
            decode_image(path)
        where, rule = str(caught.value).split(fault.file, 1)
        assert where == f"{tmp_path}{os.sep}"
        assert fault.word in rule
        assert "\n" not in rule
    assert capfd.readouterr() == ("", "")


def outcome(read, path: Path) -> str:
    """What reading a file says of it; empty: nothing."""
    with silent_decoders():
        try:
            read(path)
        except UserError as error:
            return str(error).removeprefix(f"{path}: ").replace("PNG, JPEG or DICOM", "PNG or JPEG")
    return ""


@pytest.mark.parametrize("name", [name for name in FAULTS if "dicom" not in name])
def test_every_command_reads_or_refuses_a_file_alike(name: str, tmp_path: Path) -> None:
    """prepare, embed_image, pretrain and evaluate, check."""
    path = tmp_path / FAULTS[name].file
    FAULTS[name].write(path)
    reads = [decode_image, lambda path: read_image(path, 16), lambda path: read_image(path, 16, STORED), read_grey]
    assert len({outcome(read, path) for read in reads}) == 1


def test_corpus_is_large_and_its_names_are_unique() -> None:
    assert sum(fault.word is not None for fault in FAULTS.values()) >= 40
    assert len({fault.file for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize("kind", ["png", "jpeg", "dicom"])
def test_no_damaged_file_raises_anything_but_a_user_error(kind: str, tmp_path: Path) -> None:
    source = {"png": "constant", "jpeg": "jpeg_named_png", "dicom": "dicom_named_png"}[kind]
    path = tmp_path / "picture"
    FAULTS[source].write(path)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(60):
        damaged = bytearray(content[: generator.integers(1, len(content) + 1)])
        for position in generator.integers(0, len(damaged), 3):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                decode_image(path)
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 30, "most of the damage must be noticed"
    assert all(str(path) in message for message in messages)


def test_oversized_files_are_refused_before_they_are_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 50)
    with pytest.raises(UserError, match="more than the bound 50"):
        decode_image(save(PICTURE, tmp_path / "picture.png"))


def test_pictures_between_our_bound_and_pillows_do_not_warn(tmp_path: Path) -> None:
    jpeg = bytearray(encoded(PICTURE, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (10_000).to_bytes(2, "big") * 2
    (tmp_path / "large.jpg").write_bytes(jpeg)
    with pytest.raises(UserError, match="10000×10000 pixels are more than the bound"):
        decode_image(tmp_path / "large.jpg")


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = save(PICTURE, tmp_path / "picture.png")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"picture\.png: cannot be read .*Permission denied"):
        decode_image(path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="not a file"):
        decode_image(tmp_path / "pipe.png")


def test_missing_empty_truncated_and_foreign_files_name_the_path(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png: no such file"):
        read_image(tmp_path / "nothing.png", 8)
    with pytest.raises(UserError, match="not a file"):
        read_image(tmp_path, 8)
    whole = save(smooth(), tmp_path / "whole.png").read_bytes()
    for name, content, rule in (
        ("zero.png", b"", "empty file"),
        ("text.jpg", b"hello", "not a PNG, JPEG or DICOM file"),
        ("cut.png", whole[: len(whole) // 2], "truncated PNG"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: {rule}"):
            read_image(tmp_path / name, 8)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_raise_nothing_but_user_errors(tmp_path):
    draw, refused = random.Random(0), 0
    sources = [
        save(smooth(), tmp_path / "a.jpg").read_bytes(),
        save(smooth(), tmp_path / "a.png").read_bytes(),
        save(smooth().astype(np.uint16), tmp_path / "b.png").read_bytes(),
    ]
    for trial in range(300):
        content = bytearray(sources[trial % 3])
        for _ in range(draw.randrange(1, 6)):
            content[draw.randrange(min(len(content), 300))] = draw.randrange(256)
        (tmp_path / "z").write_bytes(content[: draw.randrange(1, 2 * len(content))])
        try:
            assert read_image(tmp_path / "z", 16).shape == (16, 16)
        except UserError:
            refused += 1
    assert 50 < refused < 300


def test_bombs_are_refused_before_decoding(tmp_path, monkeypatch):
    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr(place, "MAX_PIXELS", 48 * 64)
    read_image(path, 8)
    monkeypatch.setattr(place, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(UserError, match=r"a\.png: 64×48 pixels are more than the bound 3071"):
        read_image(path, 8)


def test_our_bound_lies_below_the_one_that_pillow_warns_at():
    assert place.MAX_PIXELS <= Image.MAX_IMAGE_PIXELS


def test_pillows_own_bound_is_a_user_error_too(tmp_path, monkeypatch):
    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"a\.png: more pixels than the bound"):
        read_image(path, 8)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
{} loop
%%EOF
"""


def test_pillow_would_start_ghostscript_for_a_postscript_file(tmp_path: Path, monkeypatch) -> None:
    """Else the next test would show nothing."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: started.append(arguments))
    (tmp_path / "picture.png").write_bytes(EPS)
    with Image.open(tmp_path / "picture.png") as image, pytest.raises(AssertionError):
        image.load()  # the stand-in gives no pixels
    assert started


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "picture.eps"])
@pytest.mark.parametrize(
    "read",
    [
        decode_image,
        lambda path: read_image(path, 8),
        lambda path: read_image(str(path), 8, STORED),
        lambda path: open_picture(path).__enter__(),
        image_size,
        read_grey,
        lambda path: mask_from_source({"file": path.name}, path.parent),
    ],
)
def test_pitfall_files_no_program_is_started_for_a_postscript_file(tmp_path: Path, monkeypatch, read, name) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(UserError, match=r"PostScript|header is damaged"):
        read(tmp_path / name)


def test_what_training_does_not_read_says_how_it_becomes_readable(tmp_path: Path) -> None:
    FAULTS["dicom_named_png"].write(tmp_path / "dicom.png")
    (tmp_path / "empty.png").touch()
    _, errors = load_images([str(tmp_path / "dicom.png"), str(tmp_path / "empty.png")], 8)
    assert "dicom.png: a DICOM file, where PNG or JPEG is read; `cmcgns prepare table`" in errors[0]
    assert errors[1].endswith("empty.png: empty file")


def test_pictures_are_opened_in_one_place_alone() -> None:
    package = Path(files.__file__).parents[2]
    opening = [path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text("utf-8")]
    assert opening == ["files.py"]
