"""Tables damaged by spreadsheets, exports and downloads: a message names file and rule, good rows stay."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from support.trees import read_source, reasons, write_image

HEADER = b"image_path,patient_id,view,label_Edema,boxes\n"
GOOD = b"images/a.png,1,PA,1,\nimages/b.png,2,AP,0,\n"
NESTED = HEADER + GOOD + b"images/c.png,3,PA,1," + b"[" * 100_000 + b"\n"

# name: content of the table, words of the message, rows that survive (None: the whole file is refused)
TABLES: dict[str, tuple[bytes, str, int | None]] = {
    "byte order mark": (b"\xef\xbb\xbf" + HEADER + GOOD, "", 2),
    "windows line ends": ((HEADER + GOOD).replace(b"\n", b"\r\n"), "", 2),
    "old macintosh line ends": ((HEADER + GOOD).replace(b"\n", b"\r"), "", 2),
    "blank lines": (HEADER + b"\n\n" + GOOD + b"\n", "", 2),
    "short row": (HEADER + GOOD + b"images/c.png,3\n", "", 3),
    "repeated header": (HEADER.replace(b"view", b"patient_id") + GOOD, "'patient_id' stands there twice", None),
    "missing column": (HEADER.replace(b"image_path", b"picture") + GOOD, "missing column image_path", None),
    "empty file": (b"", "own.csv cannot be read", None),
    "semicolons": ((HEADER + GOOD).replace(b",", b";"), "", 2),
    "rows longer than the header": (HEADER + GOOD + b"images/c.png,3,PA,1,,,,\n", "line 4", None),
    "quote never closed": (HEADER + GOOD + b'"images/c.png,3,PA,1,\n', "line 4: a quote that opens", None),
    "latin-1 text": (HEADER + GOOD + b"images/caf\xe9.png,3,PA,1,\n", "byte 0xe9 in line 4 is not utf-8", None),
    "utf-16": ((HEADER + GOOD).decode().encode("utf-16"), "", 2),
    "NUL bytes": (HEADER + GOOD + b"images/c.png,\x003,PA,1,\n", "row 3: NUL bytes", 2),
    "label 2": (HEADER + GOOD + b"images/c.png,3,PA,2,\n", "row 3: label_Edema is '2'; 1, 0, -1", 2),
    "label in words": (HEADER + GOOD + b"images/c.png,3,PA,positive,\n", "label_Edema is 'positive'", 2),
    "label infinite": (HEADER + GOOD + b"images/c.png,3,PA,inf,\n", "label_Edema is 'inf'", 2),
    "label with comma": (HEADER + GOOD + b'images/c.png,3,PA,"0,5",\n', "label_Edema is '0,5'", 2),
    "unknown view": (HEADER + GOOD + b"images/c.png,3,skyline,1,\n", "unknown views, kept as OTHER: 'skyline'", 3),
    "path with dots": (HEADER + GOOD + b"../x.png,3,PA,1,\n", "row 3: ../x.png: image_path climbs out of", 2),
    "absolute path": (HEADER + GOOD + b"/etc/passwd,3,PA,1,\n", "/etc/passwd: image_path lies outside of", 2),
    "image is a folder": (HEADER + GOOD + b"images,3,PA,1,\n", "row 3: no such file: image_path images", 2),
    "no such image": (HEADER + GOOD + b"images/gone.png,3,PA,1,\n", "row 3: no such file", 2),
    "NaN box": (
        HEADER + GOOD + b'images/c.png,3,PA,1,"[{""x"": NaN, ""y"": 1, ""width"": 2, ""height"": 3}]"\n',
        "row 3: box 1 is not finite",
        2,
    ),
    "box of text": (
        HEADER + GOOD + b'images/c.png,3,PA,1,"[{""x"": ""1"", ""y"": 1, ""width"": 2, ""height"": 3}]"\n',
        "row 3: box 1 is not finite",
        2,
    ),
    "boxes nested without end": (NESTED, "row 3: boxes are not a JSON list", 2),
    "header only": (HEADER, "", 0),
}  # fmt: skip


def write_own(root: Path, content: bytes) -> Path:
    for letter in "abc":
        write_image(root / "images" / f"{letter}.png")
    (root / "own.csv").write_bytes(content)
    return root


@pytest.mark.parametrize("name", TABLES)
def test_table(tmp_path: Path, name: str) -> None:
    content, words, rows = TABLES[name]
    write_own(tmp_path, content)
    if rows is None:
        with pytest.raises(UserError) as error:
            read_source("table", tmp_path)
        assert words in str(error.value)
        assert "own.csv" in str(error.value)
        return
    table = read_source("table", tmp_path)
    assert len(table.frame) == rows
    assert words in reasons(table)
    if rows:
        assert list(table.frame["source"])[:2] == ["images/a.png", "images/b.png"]
        assert list(table.frame["label_Edema"])[:2] == [1, 0]


def chexpert(root: Path) -> Path:
    from test_chexpert import write_tree

    write_tree(root, 2)
    return root / "CheXpert-v1.0-small/train.csv"


def nih(root: Path) -> Path:
    from test_nih import write_tree

    return write_tree(root, 2) / "Data_Entry_2017.csv"


def nih_boxes(root: Path) -> Path:
    nih(root)
    return root / "BBox_List_2017.csv"


def vindr(root: Path) -> Path:
    from test_vindr import write_physionet

    return write_physionet(root, 2, 1) / "annotations/image_labels_train.csv"


def covidx(root: Path) -> Path:
    from test_covidx import three_classes

    return three_classes(root, 3) / "train_COVIDx9A.txt"


TREES = {"chexpert": chexpert, "nih": nih, "nih boxes": nih_boxes, "vindr": vindr, "covidx": covidx}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("mark", ["byte order mark", "windows line ends", "utf-16"])
def test_other_editors_change_nothing(tmp_path: Path, name: str, mark: str) -> None:
    file = TREES[name](tmp_path)
    source = name.split()[0]
    before = read_source(source, tmp_path)
    content = file.read_bytes()
    written = {
        "byte order mark": b"\xef\xbb\xbf" + content,
        "windows line ends": content.replace(b"\n", b"\r\n"),
        "utf-16": content.decode().encode("utf-16"),
    }
    file.write_bytes(written[mark])
    after = read_source(source, tmp_path)
    assert after.frame.equals(before.frame)
    assert after.left_out == before.left_out


def empty(content: bytes) -> bytes:
    return content[:0]


def longer_row(content: bytes) -> bytes:
    return content + b"more" + b"," * 60 + b"\n"


def not_text(content: bytes) -> bytes:
    return content + b"\xff\xfe\n"


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("damage", [empty, longer_row, not_text])
def test_unreadable_files_are_named(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = TREES[name](tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    if name == "covidx" and damage is longer_row:  # its lists have no columns
        return
    with pytest.raises(UserError) as error:
        read_source(name.split()[0], tmp_path)
    assert file.name in str(error.value)


def header_only(content: bytes) -> bytes:
    return content.splitlines(keepends=True)[0]


def all_bad(content: bytes) -> bytes:
    header, *rows = content.splitlines(keepends=True)
    return header + b"".join(b"\0" + row for row in rows)


@pytest.mark.parametrize("name", ["chexpert", "nih", "nih boxes", "vindr"])
@pytest.mark.parametrize("damage", [header_only, all_bad])
def test_tables_without_a_good_row(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = TREES[name](tmp_path)
    rows = len(file.read_bytes().splitlines()) - 1
    file.write_bytes(damage(file.read_bytes()))
    table = read_source(name.split()[0], tmp_path)
    named = [entry for entry in table.left_out if entry["where"].startswith(file.name)]
    assert len(named) == (0 if damage is header_only else rows)


def test_lists_without_a_good_line(tmp_path: Path) -> None:
    file = covidx(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(b"\0" + line for line in lines))
    for split in ("v1", "legacy"):
        table = read_source("covidx", tmp_path, split=split)
        assert set(table.frame["split"]) == {"test"}
        assert sum(each["where"].startswith(file.name) for each in table.left_out) == len(lines)


def test_no_image_is_there(tmp_path: Path) -> None:
    """The tables alone, as after a first download: every row is named."""
    for name, tree in TREES.items():
        root = tmp_path / name
        tree(root)
        for image in [path for path in root.rglob("*") if path.suffix in (".png", ".jpg", ".dicom")]:
            image.unlink()
        table = read_source(name.split()[0], root)
        assert table.frame.empty
        assert any(entry["reason"] == "no such image" for entry in table.left_out)
