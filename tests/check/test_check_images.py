import errno
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from cmcgns.check.boxes import box_table
from cmcgns.check.image_facts import CACHE, measure_images
from cmcgns.check.rule import RULES, Loaded
from cmcgns.check.run import run_checks
from cmcgns.check.text import dicom_patient_tags
from cmcgns.common import files
from cmcgns.data.images.read import decode_image
from cmcgns.data.manifest import read_manifest
from support.check import changed, found, picture, rows, write
from support.image_faults import FAULTS, dicom, dicom_bytes


def test_good_images_have_no_finding(tmp_path: Path) -> None:
    assert run_checks([write(tmp_path, rows(), images=True)]).findings == ()


def test_every_unreadable_file_is_named_and_good_rows_survive(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(10), images=True)
    broken = {number: folder / "images" / f"{number}.png" for number in range(8)}
    whole = broken[0].read_bytes()
    broken[0].write_bytes(whole[: len(whole) // 2])
    Image.fromarray(picture(9)).save(broken[1], "JPEG")
    broken[1].write_bytes(broken[1].read_bytes()[:400])
    broken[2].write_bytes(b"")
    broken[3].write_text("<html>not found</html>")
    broken[4].unlink()
    FAULTS["png_huge"].write(broken[5])
    broken[6].unlink()
    broken[6].mkdir()
    broken[7].write_bytes(whole[:40] + b"\xff" * 30 + whole[70:])
    report = run_checks([folder])
    assert {finding.rule for finding in report.findings} == {"unreadable-image"}
    assert {finding.rows[0]: finding.where for finding in report.findings} == {
        number: str(file) for number, file in broken.items()
    }
    assert "no such file" in report.findings[4].message
    assert all("\n" not in finding.message for finding in report.findings)


def test_a_constant_image_of_any_depth(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(), images=True)
    Image.new("L", (100, 120), 255).save(folder / "images/1.png")
    Image.fromarray(np.full((120, 100), 4095, dtype=np.uint16)).save(folder / "images/3.png")
    Image.fromarray(picture(4).astype(np.uint16) * 16).save(folder / "images/4.png")
    findings = run_checks([folder]).findings
    assert [(finding.rule, finding.severity, finding.rows) for finding in findings] == [
        ("constant-image", "error", (1,)),
        ("constant-image", "error", (3,)),
    ]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_picture_that_uses_under_a_tenth_of_the_gray_levels(depth: type, tmp_path: Path) -> None:
    folder = write(tmp_path, rows(), images=True)
    wide, narrow = np.arange(28), np.arange(25)  # of 255: 11 % and, without its ends, under 10 %
    for number, levels in enumerate((wide, narrow)):
        pixels = np.resize(levels, (120, 100)).astype(depth)
        pixels[:2, :30] = 255  # a dot that is brighter than anything else
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
    (finding,) = found(folder, "narrow-range", images=True)
    assert (finding.severity, finding.rows) == ("warning", (1,))


def test_another_size_than_stated(tmp_path: Path) -> None:
    frame = changed(rows(), "width", {2: 120, 3: None})
    (finding,) = run_checks([write(tmp_path, frame, images=True)]).findings
    assert (finding.rule, finding.rows) == ("image-size", (2,))
    assert re.findall(r"\d+×\d+", finding.message) == ["100×120", "120×120"]  # what it is, what is stated


def test_an_image_that_is_stored_turned_has_the_size_that_viewers_show(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(1), images=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0).T).save(folder / "images/0.png", exif=exif)
    assert found(folder, "image-size", images=True) == []


def test_text_in_the_picture_and_in_the_file(tmp_path: Path) -> None:
    folder = write(tmp_path, rows().assign(width=400, height=300))
    (folder / "images").mkdir()
    for number in range(6):
        image = Image.fromarray((picture(number, (300, 400)) * 0.5).astype(np.uint8))
        if number == 2:
            ImageDraw.Draw(image).text((5, 5), "QUINCY 1958 PORTABLE", fill=255, font_size=16)
        tags = PngImagePlugin.PngInfo()
        tags.add_text("Comment", "Dr. Quincy, 12/03/2019" if number == 4 else "8 bit, resized")
        image.save(folder / f"images/{number}.png", pnginfo=tags)
    findings = run_checks([folder]).findings
    assert [(finding.rule, finding.severity, finding.rows) for finding in findings] == [
        ("burned-in-text", "note", (2,)),
        ("identifiers-in-image-file", "warning", (4,)),
    ]
    assert "date, name after a title" in findings[1].message
    assert "Quincy" not in findings[1].message


def test_a_dicom_file_is_unreadable_for_training_and_its_patient_tags_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(2), images=True)
    names = {"PatientName": "Quincy^Jones", "PatientBirthDate": "19580101", "OperatorsName": ""}
    (folder / "images/1.png").write_bytes(dicom_bytes(dicom(**names)))
    unreadable, personal = run_checks([folder]).findings
    assert (unreadable.rule, unreadable.rows) == ("unreadable-image", (1,))
    assert "DICOM" in unreadable.message
    assert personal.message.endswith(": PatientName, PatientBirthDate")  # what stands there is not said
    (folder / "images/1.png").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    assert dicom_patient_tags(folder / "images/1.png") == []


@pytest.mark.parametrize("name", ["ANONYMOUS", "Removed", "p7", "XXXX", "___", "^^"])
def test_a_dicom_file_without_a_person_s_data_is_clean_as_prepare_finds_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.dcm"
    file.write_bytes(dicom_bytes(dicom(PatientID="p7", PatientName=name, OperatorsName=name)))
    assert dicom_patient_tags(file) == []
    assert decode_image(file).tags["identifying"] == ""


def test_urls_are_not_opened_and_that_is_said(tmp_path: Path) -> None:
    frame = changed(rows(2), "image_path", {1: "https://example.org/1.png"})
    write(tmp_path, frame.iloc[:1], images=True)
    (finding,) = run_checks([write(tmp_path, frame)]).findings
    assert (finding.rule, finding.severity, finding.rows) == ("images-not-opened", "note", (1,))


def test_unchanged_files_are_measured_once(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(), images=True)
    (folder / "images/5.png").write_bytes(b"broken")
    first = run_checks([folder]).findings
    measured: list[int] = []
    assert run_checks([folder], progress=measured.append).findings == first
    assert measured == [1]  # a broken file may have been mended
    Image.new("L", (100, 120), 7).save(folder / "images/2.png")
    os.utime(folder / "images/2.png", ns=(1, 1))
    findings = run_checks([folder], progress=measured.append).findings
    assert [(finding.rule, finding.rows) for finding in findings] == [
        ("unreadable-image", (5,)),
        ("constant-image", (2,)),
    ]
    assert measured == [1, 1, 1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_a_broken_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path, rows(), images=True)
    run_checks([folder])
    good = (folder / CACHE).read_bytes()
    (folder / CACHE).write_bytes(content or good[:500])
    assert run_checks([folder]).findings == ()
    with np.load(folder / CACHE, allow_pickle=False) as stored:
        assert len(stored["facts"]) == 6


def test_a_folder_that_cannot_be_written_to_is_checked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, rows(), images=True)

    def refused(temporary: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "no right", str(temporary))

    monkeypatch.setattr(files.np, "savez", refused)
    assert run_checks([folder]).findings == ()
    assert not (folder / CACHE).exists()


def test_cached_facts_belong_to_their_rows(tmp_path: Path) -> None:
    frame = rows(8)
    folder = write(tmp_path, frame, images=True)
    fresh = measure_images(folder, frame["image_path"].tolist()).facts
    order = [5, 2, 7, 0]
    again = measure_images(folder, frame["image_path"].iloc[order].tolist()).facts
    np.testing.assert_array_equal(again, fresh[order])


def test_progress_counts_every_image(tmp_path: Path) -> None:
    steps: list[int] = []
    run_checks([write(tmp_path, rows(), images=True)], progress=steps.append)
    assert sum(steps) == 6


def masked(folder: Path, **columns: int) -> Path:
    """Six rows: a good mask, none, an empty, a small, a broken and a missing one."""
    frame = changed(rows(), "mask_path", {number: f"masks/{number}.png" for number in (0, 2, 3, 4, 5)})
    write(folder, frame.assign(**columns), images=True)
    (folder / "masks").mkdir()
    good = Image.new("L", (100, 120))
    good.paste(255, (10, 10, 40, 40))
    good.save(folder / "masks/0.png")
    Image.new("L", (100, 120)).save(folder / "masks/2.png")
    good.resize((50, 60)).save(folder / "masks/3.png")
    (folder / "masks/4.png").write_bytes((folder / "masks/0.png").read_bytes()[:60])
    return folder


def test_masks_leave_the_warnings_of_the_caller_alone(tmp_path: Path) -> None:
    frame = read_manifest(masked(tmp_path))
    loaded = Loaded(tmp_path / "manifest.parquet", frame, box_table(frame))
    loaded = replace(loaded, images=measure_images(tmp_path, frame["image_path"].tolist()))
    filters = list(warnings.filters)
    findings = RULES["mask"].findings([loaded])
    assert next(findings).rule == "mask"
    assert list(warnings.filters) == filters, "while the others are still to come"


def test_each_bad_mask_is_named(tmp_path: Path) -> None:
    findings = found(masked(tmp_path), "mask", images=True)
    assert [(finding.rows, finding.severity, Path(finding.where).name) for finding in findings] == [
        ((2,), "warning", "2.png"),
        ((3,), "error", "3.png"),
        ((4,), "error", "4.png"),
        ((5,), "error", "5.png"),
    ]
    assert re.findall(r"\d+×\d+", findings[1].message) == ["50×60", "100×120"]  # the mask, its image
    assert "no such file" in findings[3].message


@pytest.mark.parametrize(("label", "expected"), [(0, False), (1, True), (-1, True)])
def test_an_empty_mask_is_right_where_the_labels_say_nothing(tmp_path: Path, label: int, expected: bool) -> None:
    findings = found(masked(tmp_path, label_Pneumothorax=label), "mask", images=True)
    assert any(finding.rows == (2,) for finding in findings) == expected
