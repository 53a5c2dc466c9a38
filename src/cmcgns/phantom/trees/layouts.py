"""Writers of the public datasets' layouts: images with reports, labels, boxes, shapes or masks."""

import json
import textwrap
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from cmcgns.common.page import page_template
from cmcgns.data.images.masks import SIIM_SIDE, encode_rle
from cmcgns.data.vocabulary import CHEXPERT_FINDINGS
from cmcgns.phantom.study import DrawnFinding
from cmcgns.phantom.trees.cases import (
    LAYOUTS,
    Case,
    Row,
    chexpert_labels,
    parts,
    region,
    side_view,
    write_dicom,
    write_picture,
    write_tables,
)

_CHEXPERT_VALID = 64541  # number of the first patient of valid.csv
_COVIDX_COLLECTIONS = ("cohen", "rsna", "actmed", "sirm")
_VINDR_READERS = ("R8", "R9", "R10")


def write_mimic_cxr(out: Path, cases: list[Case]) -> None:
    """MIMIC-CXR-JPG 2.0.0 with MIMIC-CXR's zip of reports; every fourth study has a stand-in for a lateral image."""
    layout, findings = LAYOUTS["mimic-cxr"], sorted(CHEXPERT_FINDINGS)
    rows: dict[str, list[Row]] = defaultdict(list)
    with zipfile.ZipFile(out / "mimic-cxr-reports.zip", "w") as archive:
        for case, split in zip(cases, parts(cases, {"train": 0.6, "validate": 0.2, "test": 0.2}), strict=True):
            subject, study = f"1{case.patient % 10}{case.patient:06d}", f"{50_000_000 + case.index}"
            folder = f"files/p{subject[:2]}/p{subject}/s{study}"
            images = {case.study.view: case.study.image}
            if case.index % 4 == 0:
                images["LATERAL"] = side_view(case.study.image)
            for view, image in images.items():
                name = textwrap.TextWrapper(8).fill(case.digest(view, 40)).replace("\n", "-")
                write_picture(out / folder / f"{name}.jpg", image)
                when = (f"21{case.number + 10}0{1 + case.index % 9}15", "101500.0")
                codes = ("CHEST", *layout["codes"][view])
                rows["metadata"].append((name, subject, study, "CHEST", view, *image.shape, *when, *codes))
                rows["split"].append((name, study, subject, split))
            rows["chexpert"].append((subject, study, *_label_cells(chexpert_labels(case), findings)))
            archive.writestr(zipfile.ZipInfo(f"{folder}.txt"), _mimic_report(case))
    columns = {name: layout[name] for name in ("metadata", "split")}
    columns["chexpert"] = ["subject_id", "study_id", *findings]
    write_tables(out, columns, rows, "mimic-cxr-2.0.0-{}.csv.gz")


def _mimic_report(case: Case) -> str:
    """Typed as the dataset's reports are: indented by a blank, lines of at most 78 characters."""
    study = case.study
    findings, impression = (
        textwrap.fill(text, 78, initial_indent=" ", subsequent_indent=" ")
        for text in (study.findings_text, study.impression)
    )
    person = {"F": "woman", "M": "man"}[study.sex]
    text: str = LAYOUTS["mimic-cxr"]["report"]
    return text.format(view=study.view, person=person, findings=findings, impression=impression)


def _label_cells(stated: dict[str, int | None], names: list[str]) -> list[str | None]:
    """Labels as the tables have them, `1.0`; None for an empty cell."""
    labels = (stated.get(name) for name in names)
    return [None if label is None else f"{label}.0" for label in labels]


def write_openi(out: Path, cases: list[Case]) -> None:
    """The Indiana University collection as XML and PNG; every third report has a stand-in for a lateral image.

    The dataset names no patients: every study counts as one. Its codes are finding, place and degree, e.g.
    `Consolidation/right/upper zone/small`.
    """
    template = page_template("cmcgns.phantom.trees", "openi.xml.j2", trim=True)
    (out / "ecgen-radiology").mkdir()
    for case in cases:
        study, number = case.study, case.index + 1
        stem = f"CXR{number}_IM-{case.index + 1000:04d}"
        images = {f"{stem}-1001": study.image}
        if case.index % 3 == 0:
            images[f"{stem}-2001"] = side_view(study.image)
        for name, image in images.items():
            write_picture(out / "NLMCXR_png" / f"{name}.png", image)
        words = [(item.label, item.side, item.place, item.degree) for item in study.findings]
        text = template.render(
            number=number,
            study=study,
            person={"F": "female", "M": "male"}[study.sex],
            codes=["/".join(word for word in code if word != "none") for code in words] or ["normal"],
            images=images,
            caption="Xray Chest PA and Lateral" if len(images) > 1 else f"Xray Chest {study.view}",
        )
        (out / "ecgen-radiology" / f"{number}.xml").write_text(f"{text}\n", "utf-8")


def write_chexpert(out: Path, cases: list[Case]) -> None:
    """CheXpert-v1.0-small; every fourth study has a stand-in for a lateral image.

    Training labels are 1, -1 (the report is not certain) or empty; those of valid.csv, 1 or 0, are what is in the
    picture.
    """
    release, names = "CheXpert-v1.0-small", list(CHEXPERT_FINDINGS)
    columns = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *names)
    rows: dict[str, list[Row]] = defaultdict(list)
    first: dict[str, int] = {}
    for case, part in zip(cases, parts(cases, {"train": 0.8, "valid": 0.2}), strict=True):
        place = case.patient - first.setdefault(part, case.patient)
        patient = place + (1 if part == "train" else _CHEXPERT_VALID)
        stated = chexpert_labels(case)
        if part == "valid":
            stated = {name: int(stated.get(name) is not None) for name in names}
        views = {"Frontal": (case.study.image, case.study.view)}
        if case.index % 4 == 0:
            views["Lateral"] = (side_view(case.study.image), "")
        for number, (view, (image, beam)) in enumerate(views.items(), start=1):
            folder = f"{release}/{part}/patient{patient:05d}/study{case.number + 1}"
            path = f"{folder}/view{number}_{view.lower()}.jpg"
            write_picture(out / path, image)
            sex = {"F": "Female", "M": "Male"}[case.study.sex]
            rows[part].append((path, sex, case.study.age, view, beam, *_label_cells(stated, names)))
    write_tables(out / release, {"train": columns, "valid": columns}, rows, "{}.csv")


def write_covidx(out: Path, cases: list[Case]) -> None:
    """The lists of COVIDx 9A (three classes) from four collections.

    One of them is RSNA's challenge, with its names; the names of another one hold blanks. Edema, opacities of both
    lungs, stands for COVID-19, other opacities for pneumonia; the rest is normal.
    """
    lines: dict[str, str] = defaultdict(str)
    for case, part in zip(cases, parts(cases, {"train": 0.75, "test": 0.25}), strict=True):
        origin = _COVIDX_COLLECTIONS[case.patient % len(_COVIDX_COLLECTIONS)]
        patient = f"{case.patient}"
        name = f"{origin}-{patient}-day{case.number}.jpg"
        if origin == "rsna":  # where a patient is an image
            patient, name = case.rsna_image, f"{case.rsna_image}.png"
        elif origin == "sirm":
            patient, name = f"COVID-19 ({patient})", f"COVID-19 ({patient}) {case.number + 1}.png"
        write_picture(out / part / name, case.study.image)
        label = "COVID-19" if case.found("Edema") else "pneumonia" if case.found("Consolidation") else "normal"
        lines[part] += f"{patient} {name} {label} {origin}\n"
    for part, text in lines.items():
        (out / f"{part}_COVIDx9A.txt").write_text(text, "utf-8")


def write_nih(out: Path, cases: list[Case]) -> None:
    """NIH ChestX-ray14 in two of its twelve folders, with boxes of the test images."""
    layout = LAYOUTS["nih"]
    rows: dict[str, list[Row]] = defaultdict(list)
    lists: dict[str, str] = defaultdict(str)
    for case, part in zip(cases, parts(cases, {"train_val": 0.75, "test": 0.25}), strict=True):
        study, name = case.study, case.nih_image
        write_picture(out / f"images_{1 + case.patient % 2:03d}" / "images" / name, study.image)
        lists[part] += f"{name}\n"
        labels = "|".join(case.nih_labels) or "No Finding"
        facts = (labels, case.number, case.patient, study.age, study.sex, study.view)
        rows["Data_Entry_2017_v2020.csv"].append((name, *facts, *study.image.shape[::-1], 0.143, 0.143))
        for finding in study.findings if part == "test" else ():
            if finding.label in layout["boxed"]:
                label = layout["labels"][finding.label][-1]
                rows["BBox_List_2017.csv"].append((name, label, *finding.box, "", "", ""))
    write_tables(out, layout["tables"], rows)
    for part, names in lists.items():
        (out / f"{part}_list.txt").write_text(names, "utf-8")


def write_rsna(out: Path, cases: list[Case]) -> None:
    """RSNA's challenge, stage 2, with its mapping to NIH images; every consolidation is a boxed lung opacity."""
    rows: dict[str, list[Row]] = defaultdict(list)
    mapping = []
    for case in cases:
        image = case.rsna_image
        write_dicom(out / "stage_2_train_images" / f"{image}.dcm", case, case.uid("image"))
        boxes = [finding.box for finding in case.found("Consolidation")]
        rows["stage_2_train_labels.csv"] += [(image, *box, 1) for box in boxes] or [(image, "", "", "", "", 0)]
        other = "No Lung Opacity / Not Normal" if case.study.findings else "Normal"
        label = "Lung Opacity" if boxes else other
        rows["stage_2_detailed_class_info.csv"] += [(image, label)] * max(1, len(boxes))
        names = {
            "subset_img_id": image,
            "img_id": case.nih_image,
            "orig_labels": case.nih_labels or ["No Finding"],
        }
        kinds = {"StudyInstanceUID": "study", "SeriesInstanceUID": "series", "SOPInstanceUID": "image"}
        mapping.append(names | {key: case.uid(kind) for key, kind in kinds.items()})
    write_tables(out, LAYOUTS["rsna"], rows)
    (out / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping), "utf-8")


def write_siim(out: Path, cases: list[Case]) -> None:
    """SIIM-ACR, stage 1: masks as run-length code of 1024×1024 pixels, whatever the size of the drawn images.

    Every second mask is cut into an upper and a lower part, which are two rows.
    """
    table: list[Row] = []
    for case in cases:
        image = case.uid("image")
        folder = out / "dicom-images-train" / case.uid("study") / case.uid("series")
        write_dicom(folder / f"{image}.dcm", case, image)
        mask = region(case, "Pneumothorax")
        nearest = np.arange(SIIM_SIDE) * len(mask) // SIIM_SIDE  # pixel of the mask
        mask = mask[np.ix_(nearest, nearest)]
        pieces, rows = [mask], np.flatnonzero(mask.any(axis=1))
        if case.index % 2 == 0 and len(rows) > 1:
            upper = np.arange(SIIM_SIDE)[:, None] < rows[len(rows) // 2]
            pieces = [mask & upper, mask & ~upper]
        table += [(image, f" {encode_rle(piece)}") for piece in pieces]
    write_tables(out, LAYOUTS["siim"], {"train-rle.csv": table})


def write_object_cxr(out: Path, cases: list[Case]) -> None:
    """Object-CXR: foreign objects as boxes, ellipses and polygons in turn; images of 5 digits."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for case, part in zip(cases, parts(cases, {"train": 0.75, "dev": 0.25}), strict=True):
        name = f"{case.index + (1 if part == 'train' else 8001):05d}.jpg"
        write_picture(out / part / name, case.study.image)
        shapes = (_shape(finding, case.index % 3) for finding in case.found("Foreign Object"))
        rows[part].append((name, ";".join(shapes)))
    columns = ("image_name", "annotation")
    write_tables(out, {"train": columns, "dev": columns}, rows, "{}.csv")


def _shape(finding: DrawnFinding, kind: int) -> str:
    """A box (0), an ellipse (1) or a polygon (2) of four corners, with the finding's bounding box."""
    x, y, width, height = (round(value) for value in finding.box)
    right, bottom = x + width, y + height
    corners = [x, y, right, bottom]
    if kind == 2:
        across, down = x + width // 2, y + height // 2
        corners = [across, y, right, down, across, bottom, x, down]
    return " ".join(map(str, (kind, *corners)))


def write_vindr(out: Path, cases: list[Case]) -> None:
    """VinDr-CXR 1.0.0: two readers see everything, the third one overlooks what the report is not certain of."""
    layout = LAYOUTS["vindr"]
    labels, names = layout["labels"], layout["tables"]["image_labels_train"][2:]
    rows: dict[str, list[Row]] = defaultdict(list)
    for case, part in zip(cases, parts(cases, {"train": 0.75, "test": 0.25}), strict=True):
        image = case.digest("image")
        write_dicom(out / part / f"{image}.dicom", case, case.uid("image"))
        for reader in _VINDR_READERS if part == "train" else ("",):
            who = (image, reader) if reader else (image,)
            seen = [item for item in case.study.findings if item.label in labels]
            seen = [item for item in seen if item.certain or reader != _VINDR_READERS[-1]]
            stated = {labels[item.label] for item in seen} or {"No finding"}
            stated |= {"Pneumonia"} if "Consolidation" in stated else set()
            rows[f"image_labels_{part}"].append((*who, *(int(name in stated) for name in names)))
            corners = [(labels[item.label], item.box) for item in seen]
            boxes: list[Row] = [(*who, name, x, y, x + w, y + h) for name, (x, y, w, h) in corners]
            rows[f"annotations_{part}"] += boxes or [(*who, "No finding", "", "", "", "")]
    write_tables(out / "annotations", layout["tables"], rows, "{}.csv")
