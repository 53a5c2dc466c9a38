"""Every public dataset from its own folders to a manifest: what is drawn in the pictures is what the rows say.

Rows are not matched by name: each stored picture is compared with all studies, and the nearest must be the one whose
labels, boxes, mask and report the row has.
"""

import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from cmcgns.data.manifest import label_columns, read_manifest
from cmcgns.data.pairs.rows import assign_splits, read_pairs
from cmcgns.data.reports.text import split_sentences
from cmcgns.phantom.trees import tree_names, write_tree
from cmcgns.phantom.trees.cases import Case, make_cases, region, side_view
from cmcgns.prepare import work
from cmcgns.prepare.run import PrepareOptions, prepare, read_report
from cmcgns.settings.config import DataSettings
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.dry_run import dry_run

STUDIES, SEED, SIZE, STORED = 24, 261, 96, 64  # the seed has every finding, hidden ones and uncertain ones
DICOM = ("rsna", "siim", "vindr")
PAIRS = ("mimic-cxr", "openi")
WITH_SIDES = {"mimic-cxr": 4, "chexpert": 4, "openi": 3}  # every fourth or third study has a second image
BY_PATIENT = ("mimic-cxr", "chexpert", "rsna", "nih")  # the others do not name all patients


@dataclass
class Prepared:
    """A prepared tree: `case` and `side` (Boolean) of every row are found by the picture."""

    name: str
    root: Path
    out: Path
    frame: pd.DataFrame
    cases: list[Case]
    side: list[bool]

    @property
    def rows(self):
        """Row and case of every row."""
        return list(zip(self.frame.to_dict("records"), self.cases, strict=True))


@cache
def studies(view=None):
    return make_cases(STUDIES, SEED, SIZE, view)


@cache
def thumbnails(view=None):
    """(2n, 64*64): the frontal images, then the stand-ins for lateral ones, enlarged to squares."""
    images = [case.study.image for case in studies(view)]
    return np.stack([square(image) for image in [*images, *map(side_view, images)]])


def square(image):
    return np.asarray(Image.fromarray(image).resize((STORED, STORED), Image.Resampling.BILINEAR)).ravel().astype(int)


def nearest(path, view):
    """Case and whether it is a side view, by the picture alone."""
    with Image.open(path) as image:
        stored = np.asarray(image)
    half = len(studies(view))
    side = stored.shape[1] < stored.shape[0]
    distances = np.abs(thumbnails(view)[half if side else 0 :][:half] - square(stored)).mean(axis=1)
    first, second = np.sort(distances)[:2]
    assert first < 2.5, f"{path.name}: no study looks like it (off by {first:.1f} gray levels)"
    assert second > 2 * first, f"{path.name}: two studies look like it"
    return studies(view)[int(distances.argmin())], side


@pytest.fixture(scope="module")
def do(tmp_path_factory):
    """Write and prepare the tree of a dataset, once."""

    @cache
    def made(name):
        if name in DICOM:
            pytest.importorskip("pydicom")
        folder = tmp_path_factory.mktemp(name)
        root = write_tree(name, folder / "tree", STUDIES, SEED, SIZE)
        prepare_quietly(name, root, folder / "out")
        frame = read_manifest(folder / "out")
        view = "PA" if name == "vindr" else None
        found = [nearest(folder / "out" / path, view) for path in frame["image_path"]]
        return Prepared(name, root, folder / "out", frame, [case for case, _ in found], [side for _, side in found])

    return made


@pytest.fixture(params=tree_names())
def prepared(do, request):
    return do(request.param)


def prepare_quietly(name, root, out):
    console = Console(file=io.StringIO(), width=200)
    prepare(name, root, out, PrepareOptions(size=STORED, workers=1), console)
    return console.file.getvalue()


def test_every_study_is_there_once_and_nothing_is_left_out(prepared):
    frame, cases = prepared.frame, np.array([case.index for case in prepared.cases])
    expected = [case.index for case in studies("PA" if prepared.name == "vindr" else None)]
    side = np.array(prepared.side)
    assert sorted(cases[~side]) == expected
    every = WITH_SIDES.get(prepared.name)
    assert sorted(cases[side]) == ([index for index in expected if index % every == 0] if every else [])
    report = read_report(prepared.out)
    assert report["left_out"] == []
    assert report["images"] == len(frame)
    assert set(frame["dataset"]) == {prepared.name}
    assert (frame["height"] == STORED).all()
    assert (frame["original_height"] == SIZE).all()
    assert (frame["width"] == np.where(side, STORED // 2, STORED)).all()


def test_no_patient_is_in_two_splits(prepared):
    frame = prepared.frame
    assert (frame.groupby("patient_id")["split"].nunique() == 1).all()
    assert (frame.groupby("study_id")["patient_id"].nunique() == 1).all()
    named = {"train", "test"} if prepared.name == "chexpert" else {"train", "val", "test"}  # 2.5 % of 16 are none
    assert set(frame["split"]) == named
    if prepared.name in BY_PATIENT:
        truth = [case.study.patient_id for case in prepared.cases]
        pairs = set(zip(frame["patient_id"], truth, strict=True))
        assert len(pairs) == frame["patient_id"].nunique() == len(set(truth)) < STUDIES


def test_views_sexes_and_ages_are_those_of_the_study(prepared):
    unnamed = ("covidx", "object-cxr")  # neither tables nor pictures tell; DICOM files of rsna and siim do
    for (row, case), side in zip(prepared.rows, prepared.side, strict=True):
        view = "LATERAL" if side else case.study.view
        if prepared.name == "openi":  # its caption tells the view of an image only where it is the only one
            view = "" if case.index % 3 == 0 else view
        assert row["view"] == ("FRONTAL" if prepared.name in unnamed else view)
        if prepared.name in ("chexpert", "nih", *DICOM):
            assert (row["sex"], row["age"]) == (case.study.sex, case.study.age)


def present(case, label):
    return int(bool(case.found(label)))


def from_report(case, label):
    """1, -1 (no finding of that label is certain), or missing."""
    found = [finding.certain for finding in case.study.findings if finding.label == label]
    return None if not found else 1 if any(found) else -1


def expected_labels(name, row, case):
    """What some labels must be, by what is drawn."""
    consolidation, edema = present(case, "Consolidation"), present(case, "Edema")
    if name == "covidx":
        normal = int(not edema and not consolidation)
        return {"Normal": normal, "Pneumonia": int(consolidation and not edema), "COVID-19": edema}
    if name in ("mimic-cxr", "chexpert"):
        read = present if row["split"] == "test" and name == "chexpert" else from_report
        names = {"Effusion": "Pleural Effusion", "Nodule": "Lung Lesion"}
        same = ("Cardiomegaly", "Edema", "Consolidation", "Pneumothorax")
        return {names.get(label, label): read(case, label) for label in (*same, *names)}
    if name == "nih":
        same = ("Cardiomegaly", "Consolidation", "Edema", "Effusion", "Nodule", "Pneumothorax")
        return {label: present(case, label) for label in same} | {"Pneumonia": consolidation, "Hernia": 0}
    if name == "vindr":
        names = {"Effusion": "Pleural effusion", "Nodule": "Nodule/Mass"}
        same = ("Cardiomegaly", "Consolidation", "Edema", "Pneumothorax")
        known = any(present(case, label) for label in (*same, *names))
        return {names.get(label, label): present(case, label) for label in (*same, *names)} | {
            "No finding": int(not known)
        }
    single = {"rsna": ("Pneumonia", "Consolidation"), "siim": ("Pneumothorax",) * 2}
    ours, theirs = single.get(name, ("Foreign Object",) * 2)
    return {ours: present(case, theirs)}


@pytest.mark.parametrize("name", [name for name in tree_names() if name != "openi"])
def test_labels_are_what_is_drawn(do, name):
    prepared = do(name)
    seen = set()
    for row, case in prepared.rows:
        for label, value in expected_labels(name, row, case).items():
            found = row[f"label_{label}"]
            assert (None if pd.isna(found) else found) == value, (row["source"], label)
            seen.add(value)
    assert {1, 0} <= seen or name == "mimic-cxr"
    assert (-1 in seen) == (name in ("mimic-cxr", "chexpert"))


@pytest.mark.parametrize("name", [name for name in tree_names() if name not in PAIRS])
def test_there_are_labels_to_learn_from_and_to_judge_by(do, name):
    frame = do(name).frame
    columns = label_columns(frame)
    train, test = frame.loc[frame["split"] == "train", columns], frame.loc[frame["split"] == "test", columns]
    assert any({0, 1} <= set(train[column].fillna(0)) for column in columns)
    assert test.notna().all(axis=None)
    assert test.isin([0, 1]).all(axis=None)


BOXED = {
    "rsna": {"Consolidation": "Lung Opacity"},
    "object-cxr": {"Foreign Object": "Foreign Object"},
    "nih": {
        "Cardiomegaly": "Cardiomegaly",
        "Consolidation": "Pneumonia",
        "Effusion": "Effusion",
        "Nodule": "Nodule",
        "Pneumothorax": "Pneumothorax",
    },
    "vindr": {
        "Cardiomegaly": "Cardiomegaly",
        "Consolidation": "Consolidation",
        "Edema": "Edema",
        "Effusion": "Pleural effusion",
        "Nodule": "Nodule/Mass",
        "Pneumothorax": "Pneumothorax",
    },
}


@pytest.mark.parametrize("name", BOXED)
def test_boxes_are_those_of_the_findings_in_pixels_of_the_stored_image(do, name):
    prepared, scale, number = do(name), STORED / SIZE, 0
    for row, case in prepared.rows:
        labels = BOXED[name]
        expected = [(labels[item.label], *item.box) for item in case.study.findings if item.label in labels]
        if name == "nih" and (row["split"] != "test" or not expected):
            assert row["boxes"] == "", "not annotated, which is not the same as no finding"
            continue
        boxes = json.loads(row["boxes"])
        found = sorted({(box["label"], box["x"], box["y"], box["width"], box["height"]) for box in boxes})
        assert [label for label, *_ in found] == sorted(label for label, *_ in expected)
        for (_, *sides), (_, *drawn) in zip(found, sorted(expected), strict=True):
            assert sides == pytest.approx([side * scale for side in drawn], abs=1)
            x, y, width, height = sides
            assert min(x, y) >= 0
            assert x + width <= row["width"]
            assert y + height <= row["height"]
            number += 1
    assert number >= 3


def test_vindr_keeps_the_boxes_of_all_readers(do):
    for row, case in do("vindr").rows:
        readers = [box.get("rad_id", "") for box in json.loads(row["boxes"])]
        known = [item for item in case.study.findings if item.label != "Foreign Object"]
        certain = sum(item.certain for item in known)
        counts = {"": len(known)} if row["split"] == "test" else {"R8": len(known), "R9": len(known), "R10": certain}
        assert {reader: readers.count(reader) for reader in counts} == counts
        assert len(readers) == sum(counts.values())


def test_masks_of_siim_are_what_is_drawn(do):
    prepared, overlaps = do("siim"), []
    for row, case in prepared.rows:
        with Image.open(prepared.out / row["mask_path"]) as image:
            assert image.size == (row["width"], row["height"])
            mask = np.asarray(image) > 0
        truth = two_thirds(region(case, "Pneumothorax"))
        assert mask.any() == truth.any() == bool(row["label_Pneumothorax"])
        if truth.any():
            overlaps.append((mask & truth).sum() / (mask | truth).sum())
    assert len(overlaps) >= 3
    assert min(overlaps) > 0.9


def two_thirds(mask):
    """(96, 96) -> (64, 64): a pixel is inside when half of its area was; in 3 × 3 cells that no border crosses."""
    cells = np.kron(mask, np.ones((2, 2))).reshape(STORED, 3, STORED, 3)
    return cells.mean(axis=(1, 3)) >= 0.5


def test_boxes_of_one_dataset_stay_out_of_the_others(do):
    for name in ("mimic-cxr", "openi", "chexpert", "covidx", "siim"):
        assert (do(name).frame["boxes"] == "").all()
    for name in tree_names():
        assert (do(name).frame["mask_path"] != "").all() == (name == "siim")


@pytest.mark.parametrize("name", PAIRS)
def test_pretraining_opens_the_reports_that_belong_to_the_pictures(do, name):
    prepared = do(name)
    case_of = {str((prepared.out / row["image_path"]).resolve()): case for row, case in prepared.rows}
    pairs = read_pairs(prepared.out, DataSettings())
    reasons = {str(entry["reason"]) for entry in pairs.left_out}
    assert reasons == ({"not a frontal view (data.views=all keeps it)"} if name == "mimic-cxr" else set())
    assert len(pairs.frame) == (STUDIES if name == "mimic-cxr" else len(prepared.frame))
    for path, text in zip(pairs.frame["image_path"], pairs.frame["text"], strict=True):
        study = case_of[path].study
        written = f"{study.findings_text}\n\n{study.impression}"
        assert text.split() == written.split()
        assert split_sentences(text) == split_sentences(written)
    train, val = assign_splits(pairs, DataSettings(), 0)
    assert min(len(train), len(val)) > 0


def test_rsna_and_nih_name_their_common_patients_alike(do):
    rsna, nih = ({case.index: row["patient_id"] for row, case in do(name).rows} for name in ("rsna", "nih"))
    assert rsna == nih
    assert all(patient.startswith("nih:") for patient in nih.values())


def test_a_second_call_does_nothing(prepared, monkeypatch):
    asked = []
    monkeypatch.setattr(work, "run_tasks", lambda function, tasks, *rest: asked.extend(tasks) or iter(()))
    before = {path: path.stat().st_mtime_ns for folder in ("images", "masks") for path in all_files(prepared, folder)}
    text = prepare_quietly(prepared.name, prepared.root, prepared.out)
    assert asked == []
    assert f"{len(prepared.frame)} images are prepared already" in text
    after = {path: path.stat().st_mtime_ns for folder in ("images", "masks") for path in all_files(prepared, folder)}
    assert before == after
    pd.testing.assert_frame_equal(read_manifest(prepared.out), prepared.frame)


def all_files(prepared, folder):
    return [path for path in (prepared.out / folder).rglob("*") if path.is_file()]


@pytest.mark.slow
def test_pretraining_takes_a_step_on_a_prepared_dataset(do, tmp_path):
    recipe = load_recipe(
        "demo",
        [
            "data.image_size=32", "data.resize=36", "training.batch_size=4", "report_encoder.vocabulary=200",
            "report_encoder.width=32", "image_encoder.name=resnet10t",
            "image_encoder.options={channels: [8, 16, 24, 32], stem_width: 8}",
            "objective.dim=32", "objective.negatives=cluster", "objective.reconstruction=cross_modal",
            "objective.decoder_width=16", "objective.bank.clusters=4",
        ],
    )  # fmt: skip
    figures = dry_run(recipe, do("mimic-cxr").out, "cpu", steps=1)
    assert figures["alignment_pairs_per_second"] > 0
    assert figures["reconstruction_pairs_per_second"] > 0
