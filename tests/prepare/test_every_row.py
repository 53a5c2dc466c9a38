"""Whatever stands in a table of one's own: each of its rows arrives in pretraining, or is named with a reason."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from cmcgns.check.run import run_checks
from cmcgns.data.manifest import read_manifest
from cmcgns.data.pairs.rows import read_pairs
from cmcgns.prepare.run import PrepareOptions, prepare, read_report
from cmcgns.settings.config import DataSettings
from support.trees import write_image

ODD = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
COLUMNS = ("patient_id", "view", "split", "age", "report", "label_Edema", "boxes")
ROW = st.fixed_dictionaries(
    {
        "patient_id": st.sampled_from(["7", "7.0", "007", "", "None", "[/bold]", "=1+1"]) | ODD,
        "view": st.sampled_from(["PA", "AP Supine", "LAT", "?", "[/x]", ""]) | ODD,
        "split": st.sampled_from(["train", "Training", "", "valid", "holdout"]),
        "age": st.sampled_from(["057Y", "58,5", "2020/1/2", "-1", "NaN"]) | ODD,
        "report": st.sampled_from(["Normal. Clear.", "", "NA", "No \0 effusion.", 'He said "normal", twice.']) | ODD,
        "label_Edema": st.sampled_from(["1", "0", "-1", "", "nan", "1,0", "Yes", "2"]),
        "boxes": st.sampled_from(["", "[]", "null", "[1]", '[{"x": 1, "y": 1, "width": 2, "height": 2}]']),
    }
)
PATHS = ("{}.png", "./{}.png", ".\\{}.png", "{}.png", "gone{}.png", "../{}.png", "https://example.org/{}.png", "")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        write_image(folder / f"{number}.png", number)
    return folder


@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    rows=st.lists(ROW, min_size=1, max_size=5),
    paths=st.lists(st.sampled_from(PATHS), min_size=5, max_size=5),
    mark=st.sampled_from(",;\t|"),
)
def test_every_row_arrives_or_is_named(tmp_path_factory, pictures: Path, rows, paths, mark) -> None:
    folder = tmp_path_factory.mktemp("table")
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark, quoting=csv.QUOTE_ALL)
    sound = {"patient_id": "sound", "view": "PA", "split": "train", "report": "Normal."}
    writer.writerow(["image_path", *COLUMNS])
    writer.writerow(["0.png", *(sound.get(name, "") for name in COLUMNS)])
    names = [path.format(number) for number, path in enumerate(paths, start=1)]
    names[3] = names[3].replace("4", "1")  # sometimes an image stands in two rows
    writer.writerows([name, *map(row.get, COLUMNS)] for name, row in zip(names, rows, strict=False))
    (folder / "own.csv").write_text(text.getvalue(), "utf-8", newline="")
    said = io.StringIO()
    options = PrepareOptions(images=pictures, size=32)
    prepare("table", folder, folder.parent / f"{folder.name}-out", options, Console(file=said, width=300))
    out = folder.parent / f"{folder.name}-out"
    manifest, left_out = read_manifest(out), read_report(out)["left_out"]
    assert len(manifest) + len(left_out) == len(rows) + 1
    assert all(re.match(r"own\.csv, row \d$", entry["where"]) and entry["reason"] for entry in left_out)
    assert "patients: " in said.getvalue() or manifest["split"].nunique() < 2 or len(manifest) < 3
    report = run_checks([out])
    if "repeated-images" in report.by_rule or "studies-of-several-patients" in report.by_rule:
        return  # pretraining refuses these, with the rows
    pairs = read_pairs(out, DataSettings())
    named = pairs.frame["row"].tolist() + [left["row"] for left in pairs.left_out]
    assert sorted(map(int, named)) == list(range(1, len(manifest) + 1))  # type: ignore[call-overload]
