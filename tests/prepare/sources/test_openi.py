"""The Indiana University collection from tiny trees in both of its layouts."""

import os
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import conform
from cmcgns.data.reports.section_rules import load_rules
from cmcgns.data.reports.sections import remove_marks
from cmcgns.prepare.sources import get_source
from cmcgns.prepare.sources.base import SourceOptions, SourceTable
from cmcgns.prepare.sources.openi import MAX_REPORT

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <meta type="rr"/>
   <uId id="CXR{number}"/>
   <pmcId id="{number}"/>
   <licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
            <AbstractText Label="COMPARISON">None.</AbstractText>
            <AbstractText Label="INDICATION">Cough</AbstractText>
            <AbstractText Label="FINDINGS">{findings}</AbstractText>
            <AbstractText Label="IMPRESSION">{impression}</AbstractText>
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>
      <major>Opacity/lung/base</major>
      <major>Cardiomegaly/mild  </major>
      <automatic>opacity</automatic>
   </MeSH>
{images}
</eCitation>
"""
IMAGE = """   <parentImage id="{name}">
      <figureId>F1</figureId>
      <caption>{caption}</caption>
      <panel type="single"><url>/hadoop/storage/radiology/extract/{name}.jpg</url></panel>
   </parentImage>"""


def report(number: int, names: dict[str, str], findings: str = "Clear.", impression: str = "Normal.") -> str:
    images = "\n".join(IMAGE.format(name=name, caption=caption) for name, caption in names.items())
    return REPORT.format(number=number, findings=findings, impression=impression, images=images)


def build_xml(root: Path) -> Path:
    names = {"CXR1_1_IM-0001-3001": "Xray Chest PA and Lateral", "CXR1_1_IM-0001-4001": "Xray Chest PA and Lateral"}
    texts = {
        "1": report(1, names, "Heart is normal &amp; clear.\n  No XXXX effusion.", "Normal chest x-XXXX."),
        "2": report(2, {"CXR2_IM-0652-1001": "PA", "CXR2_IM-0652-2001": "Lateral, left"}, findings=""),
        "10": report(10, {}),
    }
    for number, text in texts.items():
        write(root / "ecgen-radiology" / f"{number}.xml", text.encode())
    for name in (*names, "CXR2_IM-0652-1001", "CXR2_IM-0652-2001"):
        write(root / "NLMCXR_png" / f"{name}.png", b"png")
    return root


def build_csv(root: Path, reports: pd.DataFrame | None = None) -> Path:
    if reports is None:
        reports = pd.DataFrame(
            {
                "uid": [1, 2],
                "MeSH": ["normal", "Cardiomegaly/mild;Opacity"],
                "Problems": ["normal", "Cardiomegaly"],
                "image": ["Xray Chest PA and Lateral"] * 2,
                "indication": ["Cough", ""],
                "comparison": ["None.", ""],
                "findings": ['The "heart", is\nnormal. No XXXX.', ""],
                "impression": ["Normal.", "Large heart."],
            }
        )
    root.mkdir(parents=True, exist_ok=True)
    reports.to_csv(root / "indiana_reports.csv", index=False)
    rows = ["uid,filename,projection"]
    for uid in reports["uid"]:
        for serial, projection in ((3001, "Frontal"), (4001, "Lateral")):
            name = f"{uid}_IM-0001-{serial}.dcm.png"
            rows.append(f"{uid},{name},{projection}")
            write(root / "images" / "images_normalized" / name, b"png")
    write(root / "indiana_projections.csv", "\n".join([*rows, ""]).encode())
    return root


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def read(root: Path, seed: int = 0) -> SourceTable:
    table = get_source("openi").read(root, SourceOptions(seed=seed))
    conform(table.frame.assign(image_path=table.frame["source"]), "test")  # what prepare does with it
    return table


def reasons(table: SourceTable) -> set[tuple[str, str]]:
    return {(item["where"], item["reason"]) for item in table.left_out}


def test_the_xml_form(tmp_path: Path) -> None:
    table = read(build_xml(tmp_path))
    frame = table.frame
    assert frame["source"].tolist() == [
        "NLMCXR_png/CXR1_1_IM-0001-3001.png", "NLMCXR_png/CXR1_1_IM-0001-4001.png",
        "NLMCXR_png/CXR2_IM-0652-1001.png", "NLMCXR_png/CXR2_IM-0652-2001.png",
    ]  # fmt: skip
    assert frame["view"].tolist() == ["", "", "PA", "LATERAL"]
    assert frame["study_id"].tolist() == ["openi:CXR1"] * 2 + ["openi:CXR2"] * 2
    assert frame["patient_id"].tolist() == frame["study_id"].tolist()
    assert set(frame["dataset"]) == {"openi"}
    assert frame["findings"].tolist() == ["Heart is normal & clear.\n  No effusion."] * 2 + [""] * 2
    assert frame["impression"].tolist() == ["Normal chest x."] * 2 + ["Normal."] * 2
    assert frame["mesh"][0] == "Opacity/lung/base; Cardiomegaly/mild"
    assert reasons(table) == {("CXR10", "the report names no image")}
    assert not {"study", "name", "where", "row"} & set(frame)


def test_archives_unpacked_without_their_folder(tmp_path: Path) -> None:
    build_xml(tmp_path)
    for file in (tmp_path / "NLMCXR_png").iterdir():
        file.rename(tmp_path / file.name)
    assert read(tmp_path).frame["source"][0] == "CXR1_1_IM-0001-3001.png"


def test_the_csv_form(tmp_path: Path) -> None:
    table = read(build_csv(tmp_path))
    frame = table.frame
    assert frame["source"][0] == "images/images_normalized/1_IM-0001-3001.dcm.png"
    assert frame["view"].tolist() == ["FRONTAL", "LATERAL"] * 2
    assert frame["study_id"].tolist() == ["openi:CXR1"] * 2 + ["openi:CXR2"] * 2
    assert frame["findings"].tolist() == ['The "heart", is\nnormal. No.'] * 2 + [""] * 2
    assert frame["impression"].tolist() == ["Normal."] * 2 + ["Large heart."] * 2
    assert frame["mesh"].tolist() == ["normal"] * 2 + ["Cardiomegaly/mild;Opacity"] * 2
    assert table.left_out == []


def test_both_forms_draw_the_same_split(tmp_path: Path) -> None:
    splits = [read(build(tmp_path / build.__name__), 3).frame["split"] for build in (build_csv,)]
    (tmp_path / "build_csv" / "indiana_reports.csv").rename(tmp_path / "kept.csv")
    reports = pd.read_csv(tmp_path / "kept.csv", keep_default_na=False)
    for _, row in reports.iterrows():
        names = {f"{row['uid']}_IM-0001-{serial}.dcm": "" for serial in (3001, 4001)}
        text = report(row["uid"], names, row["findings"], row["impression"])
        write(tmp_path / "build_csv" / "ecgen-radiology" / f"{row['uid']}.xml", text.encode())
    assert read(tmp_path / "build_csv", 3).frame["split"].tolist() == splits[0].tolist()


def test_the_split_is_by_patient_and_does_not_depend_on_missing_images(tmp_path: Path) -> None:
    reports = pd.DataFrame({"uid": range(1, 201), "MeSH": "", "findings": "Clear.", "impression": ""})
    frame = read(build_csv(tmp_path, reports)).frame
    patients = frame.drop_duplicates("patient_id").set_index("patient_id")["split"]
    assert frame.groupby("patient_id")["split"].nunique().max() == 1
    assert patients.value_counts().to_dict() == {"train": 160, "val": 20, "test": 20}
    for uid in range(1, 100):
        (tmp_path / "images" / "images_normalized" / f"{uid}_IM-0001-3001.dcm.png").unlink()
    fewer = read(tmp_path).frame.drop_duplicates("patient_id").set_index("patient_id")["split"]
    assert fewer.equals(patients)
    assert not read(tmp_path, seed=1).frame["split"].equals(read(tmp_path).frame["split"])


def test_windows_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    expected = read(build_csv(tmp_path / "a")).frame
    root = build_csv(tmp_path / "b")
    for file in root.glob("*.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    got = read(root).frame
    got["findings"] = got["findings"].str.replace("\r\n", "\n")
    pd.testing.assert_frame_equal(got, expected)
    root = build_xml(tmp_path / "c")
    expected = read(root).frame
    for file in root.rglob("*.xml"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read(root).frame, expected)


def test_what_is_missing_or_wrong_in_the_csv_form(tmp_path: Path) -> None:
    root = build_csv(tmp_path)
    reports = (root / "indiana_reports.csv").read_text()
    more = "2,again,,,,,Twice.,Twice.\n7,,,,,,,\n8,,,,,,No image.,\n"
    (root / "indiana_reports.csv").write_text(reports + more)
    projections = (root / "indiana_projections.csv").read_text()
    more = "7,7.png,Frontal\n9,9.png,Frontal\n1,gone.png,Frontal\n1,1_IM-0001-3001.dcm.png,Oblique\n1\n"
    (root / "indiana_projections.csv").write_text(projections + more)
    for name in ("7.png", "9.png", "stray.png"):
        write(root / "images" / "images_normalized" / name, b"png")
    table = read(root)
    assert len(table.frame) == 4
    assert set(table.frame["impression"]) == {"Normal.", "Large heart."}
    assert reasons(table) == {
        ("indiana_reports.csv, row 3", "the uid stands there twice"),
        ("CXR8", "the report names no image"),
        ("images/images_normalized/stray.png", "no report names it"),
        ("indiana_projections.csv, row 5", "its report has neither findings nor impression"),
        ("indiana_projections.csv, row 6", "its report is not there"),
        ("indiana_projections.csv, row 7", "the image is not there"),
        ("indiana_projections.csv, row 8", "the image is named twice"),
        ("indiana_projections.csv, row 9", "the image is not there"),
    }


LAUGHS = (
    '<?xml version="1.0"{encoding}?><!DOCTYPE lolz [<!ENTITY a "lol">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in ("ab", "bc", "cd", "de"))
    + "]><eCitation>&e;</eCitation>"
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no readable XML"),
        (b"<eCitation>", "no readable XML"),
        (LAUGHS.format(encoding="").encode(), "declares a document type"),
        (LAUGHS.format(encoding=' encoding="utf-16"').encode("utf-16"), "declares a document type"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>', "declares a document type"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "no readable XML"),
        (b"<a>" + b" " * MAX_REPORT + b"</a>", "more than 1,000,000 bytes"),
        (report(1, {}).encode(), "the report is there twice"),
        (report(5, {"../../secret": "PA"}).encode(), "the image is not there"),
    ],
)
def test_a_bad_xml_file_costs_only_itself(content: bytes, reason: str, tmp_path: Path) -> None:
    root = build_xml(tmp_path)
    write(root / "ecgen-radiology" / "5.xml", content)
    table = read(root)
    assert len(table.frame) == 4
    bad = [item["reason"] for item in table.left_out if item["where"].startswith("ecgen-radiology/5.xml")]
    assert len(bad) == 1
    assert reason in bad[0]


def test_whole_file_problems_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither ecgen-radiology"):
        read(tmp_path)
    root = build_csv(tmp_path)
    (root / "indiana_projections.csv").unlink()
    with pytest.raises(UserError, match=r"indiana_projections\.csv: no such file"):
        read(root)
    (root / "indiana_reports.csv").write_text("uid,findings\n1,a\n")
    with pytest.raises(UserError, match="missing column MeSH"):
        read(root)


def test_an_empty_folder_of_reports(tmp_path: Path) -> None:
    (tmp_path / "ecgen-radiology").mkdir()
    write(tmp_path / "a.png", b"png")
    table = read(tmp_path)
    assert table.frame.empty
    assert reasons(table) == {("a.png", "no report names it")}


@pytest.mark.real_data
def test_genuine_reports_come_back_unchanged_but_for_marks(tmp_path: Path) -> None:
    folder = os.environ.get("CMCGNS_DEV_DATA")
    if not folder:
        pytest.skip("CMCGNS_DEV_DATA is not set")
    genuine = pd.read_csv(Path(folder) / "iu_reports" / "iu_reports.csv", keep_default_na=False, dtype=str)
    reports = genuine.rename(columns={"mesh_major": "MeSH"}).assign(Problems="", image="")
    table = read(build_csv(tmp_path, reports))
    rules = load_rules("english")
    expected = reports.set_index("openi:CXR" + reports["uid"])
    expected = expected[(expected["findings"] != "") | (expected["impression"] != "")]
    assert len(table.frame) + len(table.left_out) == 2 * len(reports)
    frame = table.frame.drop_duplicates("study_id").set_index("study_id")
    assert len(frame) > 3900
    for column in ("findings", "impression"):
        assert frame[column].tolist() == [
            remove_marks(text, rules).strip() for text in expected.loc[frame.index, column]
        ]
        plain = ~expected.loc[frame.index, column].str.contains("X{4,}|_")
        assert (frame.loc[plain, column] == expected.loc[frame.index, column].str.strip()[plain]).all()
    assert frame["split"].value_counts(normalize=True).round(2).to_dict() == {"train": 0.8, "val": 0.1, "test": 0.1}
