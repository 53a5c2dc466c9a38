"""Trees of synthetic studies have the datasets' own names and columns, and say of every study what is true."""

import gzip
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.data.images.masks import decode_rle
from cmcgns.phantom import FINDINGS, make_study
from cmcgns.phantom.raster import bounding_box
from cmcgns.phantom.study import plan_study
from cmcgns.phantom.trees import tree_names, write_tree
from cmcgns.phantom.trees.cases import chexpert_labels, make_cases, parts, region, side_view
from cmcgns.prepare.sources import source_names

STUDIES, SEED, SIZE = 24, 261, 64  # these 24 have every finding, hidden ones and uncertain ones
HEX, UUID, UID = r"[0-9a-f]", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"[0-9][0-9.]{1,63}"
PATHS = {
    "mimic-cxr": (
        r"files/p1\d/p1\d{7}/s5\d{7}/([0-9a-f]{8}-){4}[0-9a-f]{8}\.jpg|mimic-cxr-reports\.zip"
        r"|mimic-cxr-2\.0\.0-(metadata|split|chexpert)\.csv\.gz"
    ),
    "openi": r"NLMCXR_png/CXR\d+_IM-\d{4}-[12]001\.png|ecgen-radiology/\d+\.xml",
    "chexpert": (
        r"CheXpert-v1\.0-small/((train|valid)/patient\d{5}/study\d+/view\d_(frontal|lateral)\.jpg|(train|valid)\.csv)"
    ),
    "rsna": (
        rf"stage_2_train_images/{UUID}\.dcm|stage_2_train_labels\.csv|stage_2_detailed_class_info\.csv"
        r"|pneumonia-challenge-dataset-mappings_2018\.json"
    ),
    "covidx": r"(train|test)/[^/]+\.(png|jpg)|(train|test)_COVIDx9A\.txt",
    "siim": rf"dicom-images-train/{UID}/{UID}/{UID}\.dcm|train-rle\.csv",
    "object-cxr": r"(train|dev)/\d{5}\.jpg|(train|dev)\.csv",
    "nih": (
        r"images_0(0[1-9]|1[0-2])/images/\d{8}_\d{3}\.png|Data_Entry_2017_v2020\.csv|BBox_List_2017\.csv"
        r"|(train_val|test)_list\.txt"
    ),
    "vindr": r"(train|test)/[0-9a-f]{32}\.dicom|annotations/(image_labels|annotations)_(train|test)\.csv",
}
HEADERS = {
    ("rsna", "stage_2_train_labels.csv"): "patientId,x,y,width,height,Target",
    ("rsna", "stage_2_detailed_class_info.csv"): "patientId,class",
    ("siim", "train-rle.csv"): "ImageId, EncodedPixels",
    ("object-cxr", "dev.csv"): "image_name,annotation",
    ("nih", "BBox_List_2017.csv"): "Image Index,Finding Label,Bbox [x,y,w,h],,,",
    ("nih", "Data_Entry_2017_v2020.csv"): "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient "
    "Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    ("chexpert", "CheXpert-v1.0-small/train.csv"): "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged "
    "Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices",
    ("vindr", "annotations/annotations_train.csv"): "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
    ("vindr", "annotations/annotations_test.csv"): "image_id,class_name,x_min,y_min,x_max,y_max",
}  # fmt: skip


def write(name, out, seed=SEED, studies=STUDIES):
    if name in ("rsna", "siim", "vindr"):
        pytest.importorskip("pydicom")
    return write_tree(name, out, studies, seed, SIZE)


def content(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cases():
    return make_cases(STUDIES, SEED, SIZE)


def test_there_is_a_tree_for_every_public_dataset():
    assert tree_names() == [name for name in source_names() if name != "table"]


@pytest.mark.parametrize("name", tree_names())
def test_files_have_the_official_names_and_columns_and_the_seed_makes_them(name, tmp_path):
    root = write(name, tmp_path / "one")
    assert root == tmp_path / "one"
    files = content(root)
    assert [path for path in files if not re.fullmatch(PATHS[name], path)] == []
    for (tree, path), header in HEADERS.items():
        if tree == name:
            assert (root / path).read_text().splitlines()[0] == header
    assert content(write(name, tmp_path / "same")) == files
    other = content(write(name, tmp_path / "other", seed=1, studies=8))
    assert not set(files.values()) & set(other.values())


def test_patients_are_those_of_the_studies_and_fill_the_parts_in_their_order(cases):
    by_number = {case.patient: case.study.patient_id for case in cases}
    assert sorted(by_number) == list(range(1, len(by_number) + 1))
    assert len(by_number) == len({case.study.patient_id for case in cases}) < STUDIES
    assert all(by_number[case.patient] == case.study.patient_id for case in cases)
    assert len({(case.patient, case.number) for case in cases}) == STUDIES
    found = parts(cases, {"a": 0.5, "b": 0.25, "c": 0.25})
    assert found == sorted(found)
    assert set(found) == {"a", "b", "c"}
    patients = pd.Series([case.patient for case in cases]).groupby(found).agg(set)
    assert not patients["a"] & patients["b"]
    assert not patients["b"] & patients["c"]
    assert abs(len(patients["a"]) - len(by_number) / 2) <= 1


def test_a_region_is_all_of_a_finding_even_where_another_one_hides_it(cases):
    hidden = 0
    for case in cases:
        for label in FINDINGS:
            seen, whole = case.study.mask == 1 + FINDINGS.index(label), region(case, label)
            boxes = [finding.box for finding in case.found(label)]
            assert whole.any() == bool(boxes)
            assert not (seen & ~whole).any()
            hidden += int((whole & ~seen).any())
            if boxes:  # they lie tight round what was painted
                x, y = min(box[0] for box in boxes), min(box[1] for box in boxes)
                right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
                assert bounding_box(whole) == (x, y, right - x, bottom - y)
    assert hidden > 3


def test_labels_of_the_report_know_three_states(cases):
    values = {value for case in cases for value in chexpert_labels(case).values()}
    assert values == {1, -1, None}
    for case in cases:
        labels = chexpert_labels(case)
        assert (labels["No Finding"] == 1) == (not case.study.findings)
        certain = {finding.label for finding in case.study.findings if finding.certain}
        assert (labels["Edema"] == 1) == ("Edema" in certain)
        assert (labels["Pleural Effusion"] == -1) == bool(case.found("Effusion") and "Effusion" not in certain)


def test_a_side_view_is_half_as_wide():
    image = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    assert (side_view(image) == image[:, 32:]).all()


def test_mimic_has_a_report_for_every_study(tmp_path):
    root = write("mimic-cxr", tmp_path / "tree")
    studies = {path.parent.relative_to(root).as_posix() for path in root.rglob("*.jpg")}
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as archive:
        assert {name.removesuffix(".txt") for name in archive.namelist()} == studies
        text = archive.read(archive.namelist()[0]).decode()
    assert all(heading in text for heading in ("FINAL REPORT", " FINDINGS:", " IMPRESSION:", "___"))
    assert max(map(len, text.splitlines())) <= 78
    table = gzip.decompress((root / "mimic-cxr-2.0.0-split.csv.gz").read_bytes()).decode()
    assert table.startswith("dicom_id,study_id,subject_id,split\n")


def test_rsna_and_nih_share_images_and_patients(tmp_path):
    rsna, nih = write("rsna", tmp_path / "rsna"), write("nih", tmp_path / "nih")
    mapping = json.loads((rsna / "pneumonia-challenge-dataset-mappings_2018.json").read_text())
    assert {record["img_id"] for record in mapping} == {path.name for path in nih.rglob("*.png")}
    assert {record["subset_img_id"] for record in mapping} == {path.stem for path in rsna.rglob("*.dcm")}


def test_masks_of_siim_are_relative_code_of_1024_pixels(tmp_path, cases):
    root = write("siim", tmp_path / "tree")
    rows = pd.read_csv(root / "train-rle.csv", dtype=str)
    assert all(code.startswith(" ") for code in rows[" EncodedPixels"])
    codes = rows.groupby("ImageId")[" EncodedPixels"].agg(list)
    assert set(codes.map(len)) == {1, 2}
    for case in cases:
        whole = decode_rle(codes[case.uid("image")], 1024, 1024)
        assert (whole == np.kron(region(case, "Pneumothorax"), np.ones((16, 16), dtype=bool))).all()


def test_object_cxr_has_every_shape(tmp_path):
    root = write("object-cxr", tmp_path / "tree")
    annotations = pd.concat([pd.read_csv(root / f"{part}.csv") for part in ("train", "dev")])["annotation"]
    assert set(annotations.dropna().str[0]) == {"0", "1", "2"}
    assert annotations.isna().any()


def test_dicom_files_are_of_12_bits_and_both_polarities(tmp_path, cases):
    pydicom = pytest.importorskip("pydicom")
    root = write("rsna", tmp_path / "tree")
    polarities = set()
    for case in cases:
        data = pydicom.dcmread(root / "stage_2_train_images" / f"{case.rsna_image}.dcm")
        polarities.add(data.PhotometricInterpretation)
        values = data.pixel_array.astype(int)
        white = values if data.PhotometricInterpretation == "MONOCHROME2" else 4095 - values
        assert data.BitsStored == 12
        assert np.abs(white / 4095 - case.study.image / 255).max() <= 1 / 4095
        assert (data.ViewPosition, data.PatientSex) == (case.study.view, case.study.sex)
        assert int(data.PatientAge[:3]) == case.study.age
    assert polarities == {"MONOCHROME1", "MONOCHROME2"}


def test_vindr_has_one_view_and_a_reader_who_overlooks(tmp_path):
    root = write("vindr", tmp_path / "tree")
    rows = pd.read_csv(root / "annotations" / "image_labels_train.csv")
    assert set(rows.groupby("image_id")["rad_id"].agg(tuple)) == {("R8", "R9", "R10")}
    found = rows.drop(columns=["image_id", "rad_id", "No finding"]).groupby(rows["rad_id"]).sum().sum(axis=1)
    assert found["R8"] == found["R9"] > found["R10"]
    for case in make_cases(STUDIES, SEED, SIZE, "PA"):
        assert plan_study(SEED, case.index).view == "PA"
        assert case.study.study_id == make_study(SEED, case.index, SIZE).study_id


def test_wrong_calls_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no tree is called 'mimic'\. Did you mean mimic-cxr\?"):
        write_tree("mimic", tmp_path / "out", 24)
    with pytest.raises(UserError, match="studies is 3; take 8 or more"):
        write_tree("nih", tmp_path / "out", 3)
    with pytest.raises(UserError, match="size 8 is too small"):
        write_tree("nih", tmp_path / "out", 24, size=8)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").write_text("")
    for out, message in ((tmp_path, "not an empty folder"), (tmp_path / "mine", "a file of that name, not a folder")):
        with pytest.raises(UserError, match=message):
            write_tree("nih", out, 24)


def test_without_pydicom_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom.dataset", None)
    with pytest.raises(UserError, match=r"pip install 'cmcgns\[dicom\]'"):
        write_tree("siim", tmp_path / "out", 8, size=SIZE)
