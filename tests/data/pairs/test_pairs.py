"""A table of pairs is read as it is meant, or refused with the row and the way out."""

import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.rows import assign_splits, read_pairs
from cmcgns.data.pairs.table import TABLE_NAMES
from cmcgns.data.reports.text import split_sentences
from cmcgns.data.tables import find_table
from cmcgns.settings.config import DataSettings


@pytest.fixture
def folder(tmp_path):
    """Four studies with their images and no table."""
    for number in range(4):
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def rows(**columns):
    base = {
        "image_path": [f"{number}.png" for number in range(4)],
        "study_id": [f"s{number}" for number in range(4)],
        "patient_id": [f"p{number}" for number in range(4)],
        "report": ["Normal heart. Clear lungs."] * 4,
    }
    return pd.DataFrame(base | columns)


def read(folder, table, name="pairs.csv", **settings):
    path = folder / name
    if name.endswith(".csv"):
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return read_pairs(folder, DataSettings(**settings))


def test_relative_paths_start_at_the_table_and_rows_count_from_one(folder, monkeypatch):
    pairs = read(folder, rows())
    assert pairs.frame["image_path"].tolist() == [str(folder / f"{number}.png") for number in range(4)]
    assert pairs.frame["row"].tolist() == [1, 2, 3, 4]
    assert set(pairs.frame["split"]) == {"train"}
    monkeypatch.chdir(folder)
    assert read_pairs(find_table(folder.relative_to(folder)), DataSettings()).frame["image_path"][0].startswith("/")


def test_absolute_paths_and_paths_out_of_the_folder_are_taken_as_they_are(folder):
    inner = folder / "inner"
    inner.mkdir()
    table = rows(image_path=[str(folder / "0.png"), "../1.png", "../2.png", "../3.png"])
    pairs = read(inner, table)
    assert len(pairs.frame) == 4
    assert pairs.frame["image_path"][0] == str(folder / "0.png")


def test_missing_image_names_file_row_and_way_out(folder):
    (folder / "2.png").unlink()
    with pytest.raises(UserError, match=r"(?s)1 image files are missing.*row 3: .*2\.png.*bad_images=leave_out"):
        read(folder, rows())
    pairs = read(folder, rows(), bad_images="leave_out")
    assert pairs.frame["row"].tolist() == [1, 2, 4]
    assert [(left["row"], left["reason"]) for left in pairs.left_out] == [(3, "image file is missing")]


def test_a_windows_path_is_said_to_be_one(folder):
    paths = [r"C:\images\0.png", "1.png", "2.png", "3.png"]
    with pytest.raises(UserError, match=r"(?s)1 image files are missing.*of a Windows machine have to be made"):
        read(folder, rows(image_path=paths))
    pairs = read(folder, rows(image_path=[r".\0.png", r"x\..\1.png", "2.png", "3.png"]))
    assert pairs.frame["image_path"].tolist() == [str(folder / f"{number}.png") for number in range(4)]


@pytest.mark.parametrize("empty", ["", "  ", "...", "___.", "NaN"])
def test_rows_without_findings_and_impression_are_left_out_and_counted(folder, caplog, empty):
    reports = ["Normal.", empty, "Clear.", empty]
    pairs = read(folder, rows(report=reports))
    assert pairs.frame["text"].tolist() == ["Normal.", "Clear."]
    assert [left["row"] for left in pairs.left_out] == [2, 4]
    assert {left["reason"] for left in pairs.left_out} == {"empty report"}
    assert "2 rows left out: empty report (rows 2, 4" in caplog.text


def test_nothing_left_is_an_error(folder):
    with pytest.raises(UserError, match="no row is left"):
        read(folder, rows(report=[""] * 4))


@pytest.mark.parametrize("again", ["0.png", "./0.png", "x/../0.png"])
def test_an_image_stands_in_one_row(folder, again):
    table = rows(image_path=["0.png", "1.png", again, "3.png"])
    with pytest.raises(UserError, match=r"duplicate id: image_path .*0\.png stands in rows \[1, 3\]"):
        read(folder, table)


def test_a_study_belongs_to_one_patient(folder):
    with pytest.raises(UserError, match=r"duplicate id: study_id s0 belongs to 2 patients \(rows 1, 2; 1 studies"):
        read(folder, rows(study_id=["s0", "s0", "s2", "s3"]))
    assert len(read(folder, rows(study_id=["s0", "s0", "s2", "s3"], patient_id=["p", "p", "q", "r"])).frame) == 4


def test_different_reports_of_one_study_are_said_and_kept(folder, caplog):
    shared = {"study_id": ["s0", "s0", "s2", "s2"], "patient_id": ["p", "p", "q", "q"]}
    pairs = read(folder, rows(**shared, report=["Edema.", "Normal.", "Clear.", "Clear."]))
    assert len(pairs.frame) == 4
    assert "1 study ids have rows with different reports, for example s0 (rows 1, 2)" in caplog.text


@pytest.mark.parametrize(
    ("theirs", "ours"), [("Split", "split"), ("patientid", "patient_id"), ("Patient ID", "patient_id")]
)
@pytest.mark.parametrize("name", ["pairs.csv", "pairs.parquet"])
def test_an_unused_column_with_nearly_the_right_name_is_said(folder, caplog, theirs, ours, name):
    table = rows().drop(columns=[ours], errors="ignore").assign(**{theirs: "train"})
    read(folder, table, name)
    assert f"the column {theirs} is not used; if it is {ours}, say so with --set data.columns.{ours}={theirs}" in (
        caplog.text
    )
    caplog.clear()
    read(folder, table, name, columns={ours: theirs})
    assert "is not used" not in caplog.text


def test_columns_with_other_names_are_no_matter(folder, caplog):
    read(folder, rows().assign(sex="F", label_Edema=1, findings_date="x"))
    assert "is not used" not in caplog.text


def test_missing_column_names_what_is_there_and_how_to_map(folder):
    table = rows().rename(columns={"image_path": "Path"})
    with pytest.raises(UserError, match=r"missing column image_path \(found: Path, study_id.*data\.columns\.<ours>"):
        read(folder, table)
    assert len(read(folder, table, columns={"image_path": "Path"}).frame) == 4
    with pytest.raises(UserError, match=r"missing report text: one of findings, impression, report"):
        read(folder, rows().drop(columns="report"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_path": "Pth"}, r"image_path names the column Pth, which is not there \(found: image_path, study_id"),
        ({"patientid": "study_id"}, "patientid is none of our columns. Did you mean patient_id"),
        ({"zzz": "study_id"}, "zzz is none of our columns. They are image_path, findings"),
        ({"patient_id": "study_id"}, "column patient_id stands there twice"),
        ({"findings": "report", "impression": "report"}, "uses the column report more than once"),
    ],
)
def test_wrong_column_maps_are_refused(folder, columns, message):
    with pytest.raises(UserError, match=message):
        read(folder, rows(), columns=columns)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_windows_line_ends(folder, mark, newline):
    lines = [
        "image_path,patient_id,report",
        '0.png,007,"Large heart, ""huge"".\n\nNo edema."',
        "1.png,8,Größe normal.",
    ]
    (folder / "t.csv").write_bytes(mark + (newline.join(lines) + newline).encode())
    frame = read_pairs(folder, DataSettings()).frame
    assert frame["patient_id"].tolist() == ["007", "8"]
    assert frame["text"].tolist() == ['Large heart, "huge".\n\nNo edema.', "Größe normal."]


def test_rows_longer_than_the_header_do_not_shift_the_columns(folder):
    (folder / "t.csv").write_text("image_path,patient_id,report\n0.png,p0,Normal.,\n1.png,p1,Clear.,\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_pairs(folder / "t.csv", DataSettings())


def test_parquet_with_nulls_numbers_and_categories(folder):
    table = rows(
        patient_id=[12.0, 12.0, np.nan, 14.0],
        study_id=pd.Categorical(["a", "b", None, "d"]),
        report=[None, "Normal.", "Clear.", "Clear."],
        findings=["No edema.", None, np.nan, ""],
        split=pd.Categorical(["train", "train", "train", "val"]),
    )
    pairs = read(folder, table, "pairs.parquet")
    assert pairs.frame["text"].tolist() == ["No edema.", "Normal.", "Clear.", "Clear."]
    image = str(folder / "2.png")
    assert pairs.frame["study_id"].tolist() == ["a", "b", image, "d"]
    assert pairs.frame["patient_id"].tolist() == ["12", "12", image, "14"]
    assert pairs.frame["split"].tolist() == ["train", "train", "train", "val"]


def test_nan_cells_do_not_make_one_patient_of_many(folder):
    pairs = read(folder, rows(patient_id=["nan", "NaN", "p2", " p2 "]))
    assert pairs.frame["patient_id"].tolist() == ["s0", "s1", "p2", "p2"]


def test_empty_image_path_names_the_row(folder):
    with pytest.raises(UserError, match="image_path is empty in row 2"):
        read(folder, rows(image_path=["0.png", "", "2.png", "3.png"]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b'image_path,report\n0.png,"open'),
        ("a.csv", "ä".encode("latin-1")),
        ("a.parquet", b"x"),
    ],
)
def test_unreadable_tables(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read"):
        read_pairs(folder, DataSettings())


def test_which_table_is_meant(folder):
    with pytest.raises(UserError, match="no such file"):
        find_table(folder / "nothing")
    with pytest.raises(UserError, match="found: none"):
        find_table(folder, TABLE_NAMES)
    (folder / "a.csv").touch()
    assert find_table(folder, TABLE_NAMES).name == "a.csv"
    (folder / "b.csv").touch()
    with pytest.raises(UserError, match=r"found: a\.csv, b\.csv\); name the file"):
        find_table(folder, TABLE_NAMES)
    (folder / "pairs.csv").touch()
    assert find_table(folder, TABLE_NAMES).name == "pairs.csv"
    with pytest.raises(UserError, match=r"0\.png cannot be read: it is a picture; a table is expected"):
        read_pairs(folder / "0.png", DataSettings())


def test_lateral_views_are_left_out_unless_wanted(folder, caplog):
    table = rows(view=["PA", "LATERAL", "ll", "?"])
    with caplog.at_level(logging.INFO):
        pairs = read(folder, table)
    assert pairs.frame["row"].tolist() == [1, 4]
    assert "1 rows have no known view" in caplog.text
    assert len(read(folder, table, views="all").frame) == 4


@pytest.mark.parametrize("view", ["LAT", "OBLIQUE", "LAO", "rao", "AP axial", "left_lateral", "Swimmers"])
def test_views_are_known_by_the_words_that_prepare_knows(folder, view):
    assert read(folder, rows(view=["PA", view, "AP", ""])).frame["row"].tolist() == [1, 3, 4]


def test_a_view_in_unknown_words_is_kept_and_named(folder, caplog):
    assert len(read(folder, rows(view=["PA", "skyline", "AP", ""])).frame) == 4
    assert "2 rows have no known view and are kept as frontal ('skyline')" in caplog.text


def test_sections_come_before_the_whole_report(folder):
    table = rows(
        findings=["Big heart.", "", "", ""], impression=["CHF.", "Normal.", "", ""], report=["r0.", "r1.", "r2.", ""]
    )
    assert read(folder, table).frame["text"].tolist() == ["Big heart.\n\nCHF.", "Normal.", "r2."]
    assert read(folder, table, text="report").frame["text"].tolist() == ["r0.", "r1.", "r2."]
    assert read(folder, table, text="sections").frame["text"].tolist() == ["Big heart.\n\nCHF.", "Normal."]


def test_given_splits_are_kept_and_other_rows_stay_out(folder):
    pairs = read(folder, rows(split=["val", "train", "test", "train"]))
    train, val = assign_splits(pairs, DataSettings(), seed=0)
    assert (train.tolist(), val.tolist()) == ([1, 3], [0])


def test_held_out_patients_are_disjoint_complete_and_drawn_by_the_seed(folder):
    patients = [f"p{number // 2}" for number in range(40)]
    pairs = read(folder, rows())
    pairs.frame = pd.DataFrame({"patient_id": patients, "split": "train", "study_id": range(40)})
    settings = DataSettings(val_fraction=0.2)
    train, val = assign_splits(pairs, settings, seed=3)
    assert sorted([*train, *val]) == list(range(40))
    assert not set(pairs.frame.loc[train, "patient_id"]) & set(pairs.frame.loc[val, "patient_id"])
    assert len(val) == 8
    assert assign_splits(pairs, settings, seed=3)[1].equals(val)
    assert any(not assign_splits(pairs, settings, seed=seed)[1].equals(val) for seed in (4, 5, 2**40))
    shuffled = pairs.frame.sample(frac=1, random_state=0)
    pairs.frame = shuffled.reset_index(drop=True)
    again = pairs.frame.loc[assign_splits(pairs, settings, seed=3)[1], "patient_id"]
    assert set(again) == {patients[row] for row in val}, "the order of the table must not matter"


def test_a_patient_stays_to_train_on_even_with_a_large_fraction(folder):
    pairs = read(folder, rows(patient_id=["p", "p", "q", "q"]))
    train, val = assign_splits(pairs, DataSettings(val_fraction=0.9), seed=0)
    assert (len(train), len(val)) == (2, 2)


def test_one_patient_cannot_be_held_out(folder):
    with pytest.raises(UserError, match=r"none can be held out.*patient_id, or name validation rows.*val_split"):
        assign_splits(read(folder, rows(patient_id=["p"] * 4)), DataSettings(), seed=0)


def test_rows_without_a_split_are_in_none_where_others_have_one(folder, caplog):
    pairs = read(folder, rows(split=["train", " ", "train", "val"]))
    reason = "no split (empty, while other rows have one)"
    assert pairs.frame["row"].tolist() == [1, 3, 4]
    assert pairs.frame["split"].tolist() == ["train", "train", "val"]
    assert pairs.left_out == [{"row": 2, "image_path": str(folder / "1.png"), "reason": reason}]
    assert f"1 rows left out: {reason} (rows 2" in caplog.text
    train, val = assign_splits(pairs, DataSettings(), seed=0)
    assert (train.tolist(), val.tolist()) == ([0, 1], [2])


def test_rows_without_a_split_stay_out_of_parquet_with_nulls_too(folder):
    pairs = read(folder, rows(split=pd.Categorical(["train", None, "train", "val"])), "pairs.parquet")
    assert pairs.frame["row"].tolist() == [1, 3, 4]


@pytest.mark.parametrize("empty", ["", "nan"])
def test_a_table_without_any_split_is_one_of_training_rows(folder, empty):
    pairs = read(folder, rows(split=[empty] * 4))
    assert (set(pairs.frame["split"]), pairs.left_out) == ({"train"}, [])


def test_no_split_left_to_train_on_names_what_is_there(folder):
    with pytest.raises(UserError, match=r"no row has split train \(found: test\)"):
        assign_splits(read(folder, rows(split=["", "", "test", "test"])), DataSettings(), seed=0)


def test_rows_of_other_splits_are_counted_in_the_log(folder, caplog):
    with caplog.at_level("INFO"):
        read(folder, rows(split=["val", "train", "test", "test"]))
        pairs = read_pairs(folder, DataSettings(), for_training=True)
    assert pairs.frame["row"].tolist() == [1, 2]
    assert "2 rows of split test are not used" in caplog.text


def test_no_row_of_the_training_split(folder):
    with pytest.raises(UserError, match=r"no row has split train \(found: test, val\)"):
        assign_splits(read(folder, rows(split=["dev", "dev", "test", "test"])), DataSettings(), seed=0)


def test_pitfall_evaluation_patients_of_both_splits_are_named(folder, caplog):
    clean = read(folder, rows(split=["train", "train", "train", "val"]))
    assign_splits(clean, DataSettings(), seed=0)
    assert "both" not in caplog.text
    shared = read(folder, rows(split=["train", "train", "train", "val"], patient_id=["p", "q", "r", "p"]))
    assign_splits(shared, DataSettings(), seed=0)
    assert "1 patients are in both train and val, for example p" in caplog.text


def test_only_known_columns_are_read_where_that_is_asked_for(tmp_path):
    table = tmp_path / "pairs.parquet"
    frame = pd.DataFrame({"Path": ["a.png", "b.png"], "report": ["Normal.", "Edema."], "boxes": "[]", "view": "AP"})
    frame.to_parquet(table)
    settings = DataSettings(columns={"image_path": "Path"})
    whole, lean = (
        read_pairs(table, settings, look_for_files=False, everything=everything) for everything in (True, False)
    )
    assert "boxes" in whole.frame
    assert "boxes" not in lean.frame
    pd.testing.assert_frame_equal(whole.frame.drop(columns="boxes"), lean.frame)
    with pytest.raises(UserError, match=r"Wrong.*boxes"):  # a wrong mapping is named beside all that is there
        read_pairs(table, DataSettings(columns={"image_path": "Wrong"}), everything=False)


def test_findings_and_impression_are_one_text_with_a_blank_line_that_ends_a_sentence(tmp_path):
    sections = {"findings": [" Heart normal ", "", "B."], "impression": ["No edema\n", "A.", " "]}
    pd.DataFrame({"image_path": ["a", "b", "c"]} | sections).to_parquet(tmp_path / "pairs.parquet")
    texts = read_pairs(tmp_path, DataSettings(), look_for_files=False).frame["text"].tolist()
    assert texts == ["Heart normal\n\nNo edema", "A.", "B."]
    assert split_sentences(texts[0]) == ["Heart normal", "No edema"]


def test_words_for_splits_are_those_that_prepare_knows_unless_the_settings_name_them(folder):
    words = ["Training", "train", "valid", "holdout"]
    assert read(folder, rows(split=words)).frame["split"].tolist() == ["train", "train", "val", "holdout"]
    named = read(folder, rows(split=words), train_split="Training", val_split="holdout")
    assert named.frame["split"].tolist() == ["Training", "train", "val", "holdout"]


def test_cells_for_nothing_and_damaged_rows_are_left_out_with_the_reason(folder):
    pairs = read(folder, rows(report=["Normal.", "NA", "None", "No \0 effusion."]))
    assert [(left["row"], left["reason"]) for left in pairs.left_out] == [
        (4, "NUL bytes: the file is damaged"), (2, "empty report"), (3, "empty report"),
    ]  # fmt: skip


def test_two_spellings_of_a_column_are_refused_until_one_is_named(folder):
    table = rows(Report=["Edema."] * 4)
    with pytest.raises(UserError, match=r"report and Report are both there; .*data\.columns\.report=Report"):
        read(folder, table)
    assert read(folder, table, columns={"report": "Report"}).frame["text"][0] == "Edema."
    assert read(folder, table, columns={"report": "report"}).frame["text"][0] == "Normal heart. Clear lungs."


def test_columns_that_pandas_made_an_index_are_columns(folder):
    rows().set_index("patient_id").to_parquet(folder / "a.parquet")
    assert read_pairs(folder / "a.parquet", DataSettings()).frame["patient_id"].tolist() == ["p0", "p1", "p2", "p3"]
