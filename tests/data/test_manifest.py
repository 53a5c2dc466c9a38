"""The manifest keeps types, fills what is missing, and names what does not fit."""

import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import NUMBERS, TEXT, conform, label_columns, read_manifest, write_manifest
from cmcgns.data.paths import image_file


def rows(**changes):
    columns = {
        "image_path": ["a.jpg", "b.jpg", "c.jpg"], "study_id": ["d:1", "d:2", "d:3"], "patient_id": ["d:p"] * 3,
        "dataset": ["d"] * 3, "view": ["AP", "", "PA"], "split": ["train"] * 3,
    }  # fmt: skip
    return pd.DataFrame(columns | changes)


def test_what_is_written_is_read_again_in_the_schema_s_types(tmp_path):
    given = rows(age=["54", None, 3.0], label_Edema=[1, None, -1], findings=["Ödem.", None, " x "], extra=[1, 2, 3])
    found = read_manifest(write_manifest(given, tmp_path / "manifest.parquet"))
    assert set(found) >= {*TEXT, *NUMBERS, "label_Edema", "extra"}
    assert found["findings"].tolist() == ["Ödem.", "", "x"]
    assert found["age"].tolist() == [54, pd.NA, 3]
    assert str(found["label_Edema"].dtype) == "Int8"
    assert found["label_Edema"].isna().tolist() == [False, True, False]
    assert found["boxes"].tolist() == ["", "", ""]
    assert read_manifest(tmp_path).equals(found), "a folder stands for its manifest"
    assert label_columns(found) == ["label_Edema"]


@pytest.mark.parametrize("name", ["image_path", "patient_id", "split"])
def test_a_missing_column_is_named(name):
    with pytest.raises(UserError, match=rf"where\.csv: missing column {name}"):
        conform(rows().drop(columns=name), "where.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": ["1", "old", "2"]}, "age in row 2 is 'old'"),
        ({"label_Edema": [0, 0, 0.5]}, "label_Edema in row 3"),
        ({"width": [1, 2, 2**40]}, "width in row 3"),
        ({"label_Edema": [0, 300, 0]}, "label_Edema in row 2"),
    ],
)
def test_values_of_another_type_are_named_with_their_row(changes, message):
    with pytest.raises(UserError, match=message):
        conform(rows(**changes), "t")


def test_no_manifest_and_a_broken_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.parquet: no such manifest; `cmcgns prepare`"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.parquet").write_text("PAR1 but not really")
    with pytest.raises(UserError, match=r"manifest\.parquet cannot be read"):
        read_manifest(tmp_path)


def test_images_lie_beside_the_manifest_or_behind_a_url(tmp_path):
    assert image_file(tmp_path, "images/a.jpg") == str(tmp_path / "images/a.jpg")
    assert image_file(tmp_path, "s3://bucket/a.jpg") == "s3://bucket/a.jpg"
    assert image_file(tmp_path, "/data/a.jpg") == "/data/a.jpg"
