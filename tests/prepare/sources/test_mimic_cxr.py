"""MIMIC-CXR-JPG and MIMIC-CXR from tiny trees in their official layout."""

import gzip
import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import conform
from cmcgns.data.vocabulary import CHEXPERT_FINDINGS
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from cmcgns.prepare.sources.mimic_cxr import MAX_REPORT

LABELS = sorted(CHEXPERT_FINDINGS)
FIRST, SECOND = "files/p10/p10000032/s50414267", "files/p11/p11000011/s53189527"
IMAGES = {
    "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014": (FIRST, "PA", "train"),
    "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962": (FIRST, "LATERAL", "train"),
    "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab": (SECOND, "LL", "validate"),
    "68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714": (SECOND, "AP", "validate"),
    "e084de3b-be89b11e-20fe3f9f-9c8d8dfe-4cfd202c": (SECOND, "LAO", "validate"),
    "fffabebf-74fd3a1f-673b6b41-96ec0ac9-2ab69818": (SECOND, "", "validate"),
}
REPORTS = {
    FIRST: " " * 33 + "FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___F with cough\n \n"
    " FINDINGS: \n \n The lungs are\n clear since ___.\n \n IMPRESSION: \n \n No pneumonia.\n",
    SECOND: " " * 33 + "FINAL REPORT\n HISTORY:  Fever.\n \n Small effusion.\n",
}  # fmt: skip
Rows = list[tuple[str, ...]]


def ids(folder: str) -> tuple[str, str]:
    return folder.split("/")[2][1:], folder.split("/")[3][1:]


def csv(rows: Rows) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def metadata() -> Rows:
    head = (
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    )
    return [head] + [
        (name, *ids(folder), "CHEST", view, "3056", "2544") for name, (folder, view, _) in IMAGES.items()
    ]


def split() -> Rows:
    rows = [(name, ids(folder)[1], ids(folder)[0], split) for name, (folder, _, split) in IMAGES.items()]
    return [("dicom_id", "study_id", "subject_id", "split"), *rows]


def labels(first: str = "-1.0") -> Rows:
    head = ("subject_id", "study_id", *LABELS)
    return [head, (*ids(FIRST), first, "1.0", "0.0", *[""] * 11)]


def build(root: Path, end: str = ".csv.gz", reports: str = "loose", suffix: str = "jpg") -> Path:
    for name, (folder, _, _) in IMAGES.items():
        write(root / folder / f"{name}.{suffix}", b"image")
        write(root / folder / "index.html", b"what wget leaves")
    for kind, rows in (("metadata", metadata()), ("split", split()), ("chexpert", labels())):
        write(root / f"mimic-cxr-2.0.0-{kind}{end}", csv(rows))
    write(root / f"mimic-cxr-2.0.0-negbio{end}", csv(labels("0.0")))
    if reports == "zip":
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("files/", "")
            for folder, text in REPORTS.items():
                archive.writestr(f"{folder}.txt", text)
    else:
        for folder, text in REPORTS.items():
            write(root / (reports if reports != "loose" else "") / f"{folder}.txt", text.encode())
    return root


def read(root: Path) -> SourceTable:
    table = get_source("mimic-cxr").read(root, SourceOptions())
    conform(table.frame.assign(image_path=table.frame["source"]), "test")  # what prepare does with it
    return table


def reasons(table: SourceTable) -> set[tuple[str, str]]:
    return {(item["where"], item["reason"]) for item in table.left_out}


@pytest.mark.parametrize("reports", ["loose", "mimic-cxr-reports", "zip"])
@pytest.mark.parametrize("end", [".csv.gz", ".csv"])
def test_every_layout_gives_the_same_rows(end: str, reports: str, tmp_path: Path) -> None:
    table = read(build(tmp_path, end, reports))
    frame = table.frame
    assert table.left_out == []
    assert frame["source"].tolist() == [f"{folder}/{name}.jpg" for name, (folder, _, _) in IMAGES.items()]
    assert frame["view"].tolist() == ["PA", "LATERAL", "LATERAL", "AP", "OTHER", ""]
    assert frame["split"].tolist() == ["train"] * 2 + ["val"] * 4
    assert frame["study_id"].tolist() == ["mimic-cxr:s50414267"] * 2 + ["mimic-cxr:s53189527"] * 4
    assert frame["patient_id"].tolist() == ["mimic-cxr:p10000032"] * 2 + ["mimic-cxr:p11000011"] * 4
    assert set(frame["dataset"]) == {"mimic-cxr"}
    assert frame["findings"].tolist() == ["The lungs are\nclear since."] * 2 + ["Small effusion."] * 4
    assert frame["impression"].tolist() == ["No pneumonia."] * 2 + [""] * 4
    assert frame["report"][0].startswith(
        "FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION: F with cough"
    )
    assert [frame[f"label_{label}"][0] for label in LABELS[:3]] == [-1, 1, 0]
    assert frame.filter(like="label_").shape == (6, 14)
    assert frame.filter(like="label_").iloc[2:].isna().all(axis=None)
    assert not {"dicom_id", "where", "problem", "age", "sex"} & set(frame)
    assert any("v1 and legacy alike" in note for note in table.notes)


def test_windows_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    expected = read(build(tmp_path / "a")).frame
    root = build(tmp_path / "b", ".csv")
    for file in [*root.glob("*.csv"), *root.rglob("*.txt")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read(root).frame, expected)


def test_names_of_later_versions_win(tmp_path: Path) -> None:
    build(tmp_path)
    write(tmp_path / "mimic-cxr-2.1.0-chexpert.csv.gz", csv(labels("1.0")))
    assert read(tmp_path).frame["label_Atelectasis"][0] == 1


def test_negbio_stands_in_for_chexpert(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    table = read(tmp_path)
    assert table.frame["label_Atelectasis"][0] == 0
    assert "labels: mimic-cxr-2.0.0-negbio.csv.gz" in table.notes


def test_labels_of_the_radiologist_have_their_own_columns(tmp_path: Path) -> None:
    build(tmp_path)
    head = ("study_id", *(label.replace("Lung Opacity", "Airspace Opacity") for label in LABELS))
    write(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", csv([head, ("53189527", *["1.0"] * 14)]))
    frame = read(tmp_path).frame
    assert frame["radiologist_Lung Opacity"].isna().tolist() == [True] * 2 + [False] * 4
    assert frame["label_Atelectasis"][0] == -1


def test_the_dicom_layout_without_tables(tmp_path: Path) -> None:
    build(tmp_path, suffix="dcm", reports="zip")
    for file in tmp_path.glob("*.csv.gz"):
        file.unlink()
    table = read(tmp_path)
    assert table.frame["source"].tolist() == [f"{folder}/{name}.dcm" for name, (folder, _, _) in IMAGES.items()]
    assert set(table.frame["view"]) == set(table.frame["split"]) == {""}
    assert table.frame["patient_id"].nunique() == 2
    assert {note.split(":")[0] for note in table.notes} == {"view", "split", "labels"}


def test_jpg_is_read_rather_than_dicom(tmp_path: Path) -> None:
    build(tmp_path, suffix="dcm")
    build(tmp_path)
    assert read(tmp_path).frame["source"].str.endswith(".jpg").all()


def test_what_is_missing_or_wrong_is_left_out_with_its_reason(tmp_path: Path) -> None:
    root = build(tmp_path, ".csv")
    names = list(IMAGES)
    (root / FIRST / f"{names[0]}.jpg").unlink()
    write(root / FIRST / "stray.jpg", b"image")
    rows = [*metadata(), metadata()[2]]
    write(root / "mimic-cxr-2.0.0-metadata.csv", csv(rows))
    write(root / "mimic-cxr-2.0.0-split.csv", csv(split()).replace(b"validate", b"holdout", 1))
    (root / f"{SECOND}.txt").unlink()
    table = read(root)
    assert table.frame["source"].tolist() == [f"{FIRST}/{names[1]}.jpg"]
    file = "mimic-cxr-2.0.0-metadata.csv"
    assert reasons(table) == {
        (f"{FIRST}/stray.jpg", f"{file} does not list it"),
        (f"{file}, row 1 ({names[0]})", "the image is not there"),
        (f"{file}, row 7 ({names[1]})", "the image is listed twice"),
        (f"{file}, row 3 ({names[2]})", "mimic-cxr-2.0.0-split.csv gives no known split"),
        *{(f"{file}, row {i + 1} ({names[i]})", "its report is not there") for i in (3, 4, 5)},
    }


def test_a_label_of_another_kind_costs_only_its_study(tmp_path: Path) -> None:
    root = build(tmp_path)
    write(root / "mimic-cxr-2.0.0-chexpert.csv.gz", csv(labels("yes")))
    table = read(root)
    assert len(table.frame) == 4
    assert {reason for _, reason in reasons(table)} == {
        "Atelectasis in mimic-cxr-2.0.0-chexpert.csv.gz is none of 1.0, 0.0, -1.0 and empty"
    }


def bomb() -> bytes:
    return b"FINDINGS: " + b" " * (50 * MAX_REPORT)


@pytest.mark.parametrize("reports", ["loose", "zip"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither findings nor impression"),
        (b" INDICATION: Cough.", "neither findings nor impression"),
        (b"FINDINGS: caf\xe9", "not UTF-8"),
        (bomb(), "more than 1,000,000 bytes"),
    ],
)
def test_a_bad_report_costs_only_its_study(content: bytes, reason: str, reports: str, tmp_path: Path) -> None:
    root = build(tmp_path, reports=reports)
    if reports == "loose":
        write(root / f"{SECOND}.txt", content)
    else:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{FIRST}.txt", REPORTS[FIRST])
            archive.writestr(f"{SECOND}.txt", content)
    table = read(root)
    assert table.frame["study_id"].tolist() == ["mimic-cxr:s50414267"] * 2
    assert len(table.left_out) == 4
    assert all(reason in item["reason"] for item in table.left_out)


def test_a_damaged_member_costs_only_its_study(tmp_path: Path) -> None:
    root = build(tmp_path, reports="zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for folder, text in REPORTS.items():
            archive.writestr(f"{folder}.txt", text)
    damaged = buffer.getvalue().replace(b"Small effusion", b"Large effusion", 1)
    (root / "mimic-cxr-reports.zip").write_bytes(damaged)
    table = read(root)
    assert table.frame["study_id"].nunique() == 1
    assert {item["reason"] for item in table.left_out} == {"its report cannot be read (damaged or encrypted)"}


def test_members_outside_the_layout_are_not_read(tmp_path: Path) -> None:
    root = build(tmp_path, reports="zip")
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "a") as archive:
        archive.writestr("../../etc/passwd", "x")
        archive.writestr("files/p10/p10000032/s50414267.txt.exe", "x")
    assert len(read(root).frame) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            "files",
            "mimic-cxr-reports.zip",
            *(f"mimic-cxr-2.0.0-{k}.csv.gz" for k in ("metadata", "split", "chexpert", "negbio")),
        ]
    )


def test_whole_file_problems_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image like files/p10"):
        read(tmp_path)
    root = build(tmp_path)
    for file in root.rglob("*.txt"):
        file.unlink()
    with pytest.raises(UserError, match=r"no reports; put mimic-cxr-reports\.zip"):
        read(root)
    (root / "mimic-cxr-reports.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"mimic-cxr-reports\.zip cannot be read as a zip file"):
        read(root)
    build(tmp_path, reports="zip")
    write(root / "mimic-cxr-2.0.0-chexpert.csv.gz", csv([("study_id", "Edema"), ("1", "1.0")]))
    with pytest.raises(UserError, match="missing column Atelectasis"):
        read(root)
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(gzip.compress(csv(metadata()))[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        read(root)


def test_the_source_says_where_the_data_come_from() -> None:
    source = get_source("mimic-cxr")
    assert source.name == "mimic-cxr"
    assert "Credentialed" in source.licence
    assert source.url.startswith("https://physionet.org/")
