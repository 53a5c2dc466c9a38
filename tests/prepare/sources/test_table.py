"""A table of one's own."""

import json
import os
import tempfile
from pathlib import Path

import hypothesis
import pandas as pd
import pytest
from hypothesis import strategies as st

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions
from support.trees import column, manifest_of, read_source, reasons, write_image, write_text

BOX = '{"label": "opacity", "x": 1, "y": 2, "width": 3, "height": 4}'


def write_table(root: Path, *rows: str, name: str = "own.csv") -> Path:
    """The table, and eight images a.png … h.png in images/."""
    for letter in "abcdefgh":
        write_image(root / "images" / f"{letter}.png")
    return write_text(root / name, *rows)


def test_only_image_path_is_needed(tmp_path: Path) -> None:
    write_table(tmp_path, "image_path", "images/a.png", "./images//b.png", "images\\c.png")
    table = read_source("table", tmp_path)
    assert list(table.frame["source"]) == ["images/a.png", "images/b.png", "images/c.png"]
    assert list(table.frame["patient_id"]) == ["table:images/a", "table:images/b", "table:images/c"]
    assert set(table.frame["split"]) <= {"train", "val", "test"}
    assert "each study counts as its own patient, each image where study_id is missing" in reasons(table)


def test_a_study_stands_for_a_missing_patient(tmp_path: Path) -> None:
    """Its images would else come into several splits, with one report."""
    lines = [f"images/{letter}.png,s{number // 2}" for number, letter in enumerate("abcdefgh")]
    write_table(tmp_path, "image_path,study_id", *lines)
    frame = read_source("table", tmp_path).frame
    assert list(frame["patient_id"]) == list(frame["study_id"]) == [f"table:s{n // 2}" for n in range(8)]
    assert frame.groupby("study_id")["split"].nunique().max() == 1


def test_a_second_row_of_an_image_is_left_out_and_named(tmp_path: Path) -> None:
    """Each would have a mask of its own in one file."""
    write_table(tmp_path, "image_path,mask_path", "images/a.png,images/b.png", "images/a.png,images/c.png")
    table = read_source("table", tmp_path)
    assert len(table.frame) == 1
    assert "an earlier row has the same image" in reasons(table)


def test_sexes_that_are_not_understood_are_noted(tmp_path: Path) -> None:
    words = ["male", " F ", "", "nan", "O", "1"]
    lines = [f"images/{letter}.png,{word}" for letter, word in zip("abcdef", words, strict=True)]
    write_table(tmp_path, "image_path,sex", *lines)
    table = read_source("table", tmp_path)
    assert list(table.frame["sex"]) == ["M", "F", "", "", "", ""]
    assert "sexes other than F and M, left empty: '1', 'O'" in reasons(table)


def test_a_path_that_climbs_is_told_a_way_out_that_helps(tmp_path: Path) -> None:
    write_table(tmp_path, "image_path")
    write_text(tmp_path / "tables" / "own.csv", "image_path", "../images/a.png")
    assert "write it as seen from a folder above both" in reasons(read_source("table", tmp_path / "tables"))
    write_text(tmp_path / "tables" / "own.csv", "image_path", "images/a.png")
    found = read_source("table", tmp_path / "tables", images=tmp_path)
    assert list(found.frame["source"]) == ["images/a.png"]


def test_mapping_labels_views_ids(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "file,patient,projection,Pneumonia,label_Edema,years,gender,where,hospital,free",
        "images/a.png,7,AP Supine,1.0,-1,058Y,female,train,clinic,text",
        "images/b.png,other:8,LL,0,,1000,m,Validation,clinic,text",
    )
    columns = {
        "image_path": "file", "patient_id": "patient", "view": "projection", "label_Pneumonia": "Pneumonia",
        "age": "years", "sex": "gender", "split": "where", "dataset": "hospital",
    }  # fmt: skip
    table = read_source("table", tmp_path, columns=columns)
    frame = table.frame
    assert list(frame["patient_id"]) == ["clinic:7", "other:8"]
    assert list(frame["study_id"]) == ["clinic:images/a", "clinic:images/b"]
    assert list(frame["view"]) == ["AP", "LATERAL"]
    assert list(frame["split"]) == ["train", "val"]
    assert list(frame["sex"]) == ["F", "M"]
    assert frame["age"].isna().tolist() == [False, True]
    assert list(frame["label_Pneumonia"]) == [1, 0]
    assert column(table, "label_Edema") == {"images/a.png": -1, "images/b.png": None}
    assert "free" not in frame
    assert "columns that are not used: free" in reasons(table)
    assert "1 ages are not" in reasons(table)
    read_manifest(manifest_of(table, tmp_path / "manifest.parquet"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "missing column image_path (found: image_file, .* Did you mean image_file"),
        ({"image_path": "image_fil"}, "missing column image_fil.* Did you mean image_file"),
        ({"image_pth": "image_file"}, "image_pth: no column of a manifest .* Did you mean image_path"),
    ],
)
def test_nearest_names(tmp_path: Path, columns: dict[str, str], words: str) -> None:
    write_table(tmp_path, "image_file,label_A", "images/a.png,1")
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        read_source("table", tmp_path, columns=columns)


def test_parquet_and_the_file_itself_as_root(tmp_path: Path) -> None:
    file = write_table(tmp_path, "image_path,label_A,label_B,age", "images/a.png,1,0,60", "images/b.png,,-1,")
    frame = pd.read_csv(file)
    frame["label_A"] = frame["label_A"] == 1
    frame.to_parquet(tmp_path / "own.parquet")
    with pytest.raises(UserError, match=r"found: own\.csv, own\.parquet\); name the file"):
        read_source("table", tmp_path)
    table = read_source("table", tmp_path / "own.parquet")
    assert list(table.frame["label_A"]) == [1, 0]
    assert list(table.frame["label_B"]) == [0, -1]
    assert column(table, "age") == {"images/a.png": 60, "images/b.png": None}
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"broken\.parquet cannot be read"):
        read_source("table", tmp_path / "broken.parquet")


def test_splits_stay_and_are_drawn_where_missing(tmp_path: Path) -> None:
    rows = ["image_path,patient_id,split", "images/a.png,1,test", "images/b.png,1,", "images/c.png,2,train"]
    write_table(tmp_path, *rows, "images/d.png,3,", "images/e.png,3,")
    table = read_source("table", tmp_path)
    split = column(table, "split")
    assert [split[f"images/{letter}.png"] for letter in "abc"] == ["test", "test", "train"]
    assert split["images/d.png"] == split["images/e.png"] != ""
    assert "3 rows without split" in reasons(table)


def test_boxes_and_masks(tmp_path: Path) -> None:
    write_image(tmp_path / "masks" / "a.png")
    quoted = BOX.replace('"', '""')
    write_table(
        tmp_path,
        "image_path,boxes,mask_path",
        f'images/a.png,"[{quoted}]",masks/a.png',
        "images/b.png,[],",
        "images/c.png,,masks/none.png",
        f'images/d.png,"[{quoted.replace("3", "NaN")}]",',
        f'images/e.png,"[{quoted.replace("4", "-4")}]",',
        "images/f.png,[[1, 2, 3, 4]],".replace("[[1, 2, 3, 4]]", '"[[1, 2, 3, 4]]"'),
        "images/g.png,{broken,",
    )
    table = read_source("table", tmp_path)
    assert column(table, "mask") == {"images/a.png": json.dumps({"file": "masks/a.png"}), "images/b.png": ""}
    assert json.loads(str(column(table, "boxes")["images/a.png"])) == [json.loads(BOX)]
    assert column(table, "boxes")["images/b.png"] == "[]"
    assert {entry["where"]: entry["reason"] for entry in table.left_out} == {
        "own.csv, row 3": "no such file: mask_path masks/none.png",
        "own.csv, row 4": "box 1 is not finite or without area (x, y, width, height: [1, 2, nan, 4])",
        "own.csv, row 5": "box 1 is not finite or without area (x, y, width, height: [1, 2, 3, -4])",
        "own.csv, row 6": "boxes are not a JSON list of {label, x, y, width, height}",
        "own.csv, row 7": "boxes are not a JSON list of {label, x, y, width, height}",
    }


def test_paths_and_links_stay_below_the_root(tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside" / "secret.png")
    root = tmp_path / "root"
    write_table(
        root,
        "image_path",
        "images/a.png",
        str(root / "images/b.png"),
        "../outside/secret.png",
        str(outside),
        "images/../../outside/secret.png",
        "images/link.png",
        "linked/secret.png",
        "images/gone.png",
        "",
        "nan",
    )
    (root / "images" / "link.png").symlink_to(outside)
    (root / "linked").symlink_to(outside.parent)
    table = read_source("table", root)
    assert list(table.frame["source"]) == ["images/a.png", "images/b.png"]
    text = reasons(table)
    assert text.count(f"image_path lies outside of {root}; name the folder of the images with --images DIR") == 1
    assert text.count(f"image_path climbs out of {root}; ") == 2
    assert text.count("symbolic link that leaves the root") == 2
    assert "images/link.png: symbolic link that leaves the root" in text
    assert "own.csv, row 8: no such file: image_path images/gone.png" in text
    assert text.count("no image_path") == 1  # the empty line is no row


@pytest.mark.real_data
@pytest.mark.skipif("CMCGNS_DEV_DATA" not in os.environ, reason="CMCGNS_DEV_DATA is not set")
@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("nih/labels.csv", {"label_Pneumonia": "Pneumonia", "label_Edema": "Edema"}, 824),
        ("case_notes/pairs.csv", {}, 268),
        ("lung_masks/masks.csv", {}, 186),
    ],
)
def test_real_tables(tmp_path: Path, name: str, columns: dict[str, str], rows: int) -> None:
    file = Path(os.environ["CMCGNS_DEV_DATA"]) / name
    table = read_source("table", file, columns=columns)
    assert len(table.frame) == rows
    assert not table.left_out
    assert set(table.frame["view"]) <= {"AP", "PA", "LATERAL", ""}
    theirs = pd.read_csv(file, dtype=str, keep_default_na=False)
    assert list(table.frame["split"]) == list(theirs["split"])
    assert not any("unknown views" in note for note in table.notes)
    for ours, column_name in columns.items():
        assert list(table.frame[ours]) == list(theirs[column_name].astype(int))
    assert ("mask" in table.frame) == ("mask_path" in theirs)
    assert len(read_manifest(manifest_of(table, tmp_path / "manifest.parquet"))) == rows


WHOLE = (
    "PATIENT NAME: John Q. Sample\nMRN: 0012345\nEXAM: Chest, two views.\nINDICATION: Cough.\n"
    "FINDINGS: The lungs are clear. The heart is normal.\nIMPRESSION: No acute disease."
)


def write_reports(root: Path, reports: list[str], **more: list[str]) -> None:
    for letter in "abcdefgh":
        write_image(root / "images" / f"{letter}.png")
    paths = [f"images/{letter}.png" for letter, _ in zip("abcdefgh", reports, strict=False)]
    pd.DataFrame({"image_path": paths, "report": reports} | more).to_csv(root / "own.csv", index=False)


def test_whole_reports_are_cut_by_the_rules(tmp_path: Path) -> None:
    spelt = WHOLE.replace("\n", "\\n")  # as some exports write a line break
    write_reports(tmp_path, [WHOLE, spelt, "INDICATION: Cough.", "Lungs clear.", ""])
    frame = (table := read_source("table", tmp_path)).frame
    assert list(frame["findings"]) == [*2 * ["The lungs are clear. The heart is normal."], "", "Lungs clear.", ""]
    assert list(frame["impression"]) == [*2 * ["No acute disease."], "", "", ""]
    assert frame["report"].map(bool).tolist() == [True, True, False, True, False]
    assert "4 whole reports cut into sections by the rules english: 3 with findings, 2 with impression" in reasons(
        table
    )
    assert "1 reports have neither findings nor impression; these rows have no text: own.csv, row 3" in reasons(table)


def test_sections_that_a_table_states_stay_without_their_headings_and_marks(tmp_path: Path) -> None:
    more = {
        "findings": ["FINDINGS: Clear.", "CHEST: Clear.", ""],
        "impression": ["**Impression:** Normal, by ___.", "", "Impression is normal."],
    }
    write_reports(tmp_path, [WHOLE, WHOLE, WHOLE], **more)
    frame = read_source("table", tmp_path).frame
    told = "The lungs are clear. The heart is normal."  # what a row does not state is that of its report
    assert list(frame["findings"]) == ["Clear.", "CHEST: Clear.", told]
    assert list(frame["impression"]) == ["Normal, by.", "No acute disease.", "Impression is normal."]


def test_the_rules_of_another_language_are_heeded_and_proposed(tmp_path: Path) -> None:
    german = "Fragestellung: Husten.\nBefund: Kein Erguss.\nBeurteilung: Normal."
    write_reports(tmp_path, [german, german.replace("Husten", "Fieber")])
    assert "headings were found in 0 of 2 reports, and in 2 with --rules german" in reasons(
        read_source("table", tmp_path)
    )
    frame = read_source("table", tmp_path, rules="german").frame
    assert list(frame["findings"]) == ["Kein Erguss."] * 2
    assert list(frame["impression"]) == ["Normal."] * 2


@pytest.mark.parametrize("name", ["report", "findings"])
def test_a_report_beyond_the_bound_is_left_out_by_its_row(name: str, tmp_path: Path) -> None:
    for letter in "ab":
        write_image(tmp_path / "images" / f"{letter}.png")
    rows = {"image_path": ["images/a.png", "images/b.png"], name: ["Clear.", "1" * 1_000_001]}
    pd.DataFrame(rows).to_csv(tmp_path / "own.csv", index=False)
    table = read_source("table", tmp_path)
    assert list(table.frame["source"]) == ["images/a.png"]
    assert f"own.csv, row 2: its {name} has more than 1,000,000 characters" in reasons(table)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["", "nan", "1", "train", WHOLE]
)


IMAGES = st.sampled_from(["a.png", "gone.png", "", "../b.png"])
NAMES = ("report", "findings", "split", "label_A", "patient_id", "view", "boxes")
ROWS = st.lists(st.fixed_dictionaries({"image": IMAGES} | dict.fromkeys(NAMES, CELLS)), min_size=1, max_size=6)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(ROWS)
def test_every_row_of_any_table_is_kept_or_named(rows: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_image(root / "a.png")
        frame = pd.DataFrame(rows).rename(columns={"image": "image_path"})
        frame.to_parquet(root / "own.parquet")
        table = get_source("table").read(root, SourceOptions())
    named = {entry["where"] for entry in table.left_out}
    places = {f"own.parquet, row {number}" for number in range(1, len(rows) + 1)}
    assert len(table.frame) + len(named & places) == len(rows)
