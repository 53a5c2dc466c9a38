"""Trees of images with boxes, shapes and masks."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.images.masks import SIIM_SIDE, encode_rle
from cmcgns.phantom.study import Finding
from cmcgns.phantom.trees.cases import Case, parts, region, write_csv, write_dicom, write_picture
from cmcgns.phantom.trees.labels import NIH_LABELS


def write_rsna(out: Path, cases: list[Case]) -> None:
    """RSNA's challenge, stage 2, with its mapping to NIH images; every consolidation is a boxed lung opacity."""
    labels: list[tuple[object, ...]] = [("patientId", "x", "y", "width", "height", "Target")]
    classes: list[tuple[object, ...]] = [("patientId", "class")]
    mapping = []
    for case in cases:
        image = case.rsna_image
        write_dicom(out / "stage_2_train_images" / f"{image}.dcm", case, case.uid("image"))
        boxes = [finding.box for finding in case.found("Consolidation")]
        labels += [(image, *box, 1) for box in boxes] or [(image, "", "", "", "", 0)]
        other = "No Lung Opacity / Not Normal" if case.study.findings else "Normal"
        classes += [(image, "Lung Opacity" if boxes else other)] * max(1, len(boxes))
        found = sorted({label for finding in case.study.findings for label in NIH_LABELS.get(finding.label, ())})
        mapping.append(
            {
                "subset_img_id": image,
                "img_id": case.nih_image,
                "orig_labels": found or ["No Finding"],
                "StudyInstanceUID": case.uid("study"),
                "SeriesInstanceUID": case.uid("series"),
                "SOPInstanceUID": case.uid("image"),
            }
        )
    write_csv(out / "stage_2_train_labels.csv", labels)
    write_csv(out / "stage_2_detailed_class_info.csv", classes)
    (out / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping), "utf-8")


def write_siim(out: Path, cases: list[Case]) -> None:
    """SIIM-ACR, stage 1: masks as run-length code of 1024×1024 pixels, whatever the size of the drawn images.

    Every second mask is cut into an upper and a lower part, which are two rows.
    """
    rows: list[tuple[object, ...]] = [("ImageId", " EncodedPixels")]
    for case in cases:
        image = case.uid("image")
        folder = out / "dicom-images-train" / case.uid("study") / case.uid("series")
        write_dicom(folder / f"{image}.dcm", case, image)
        mask = _enlarge(region(case, "Pneumothorax"), SIIM_SIDE)
        rows += [(image, f" {encode_rle(part)}") for part in _pieces(mask, case.index % 2 == 0)]
    write_csv(out / "train-rle.csv", rows)


def _enlarge(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A square mask (n,n) at another size (side,side), by the nearest pixel."""
    nearest = np.arange(side) * len(mask) // side
    return mask[np.ix_(nearest, nearest)]


def _pieces(mask: NDArray[np.bool_], cut: bool) -> list[NDArray[np.bool_]]:
    rows = np.flatnonzero(mask.any(axis=1))
    if not cut or len(rows) < 2:
        return [mask]
    upper = np.arange(len(mask))[:, None] < rows[len(rows) // 2]
    return [mask & upper, mask & ~upper]


def write_object_cxr(out: Path, cases: list[Case]) -> None:
    """Object-CXR: foreign objects as boxes, ellipses and polygons in turn; images of 5 digits."""
    rows: dict[str, list[tuple[object, ...]]] = {part: [("image_name", "annotation")] for part in ("train", "dev")}
    for case, part in zip(cases, parts(cases, {"train": 0.75, "dev": 0.25}), strict=True):
        name = f"{case.index + (1 if part == 'train' else 8001):05d}.jpg"
        write_picture(out / part / name, case.study.image)
        shapes = (_shape(finding, case.index % 3) for finding in case.found("Foreign Object"))
        rows[part].append((name, ";".join(shapes)))
    for part, table in rows.items():
        write_csv(out / f"{part}.csv", table)


def _shape(finding: Finding, kind: int) -> str:
    """A box (0), an ellipse (1) or a polygon (2) of four corners, with the finding's bounding box."""
    x, y, width, height = (round(value) for value in finding.box)
    right, bottom = x + width, y + height
    corners = [x, y, right, bottom]
    if kind == 2:
        across, down = x + width // 2, y + height // 2
        corners = [across, y, right, down, across, bottom, x, down]
    return " ".join(map(str, (kind, *corners)))


_FINDINGS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
    "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
    "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
_DISEASES = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases")
_NORMAL = "No finding"
VINDR_LABELS = {
    "Effusion": "Pleural effusion",
    "Pneumothorax": "Pneumothorax",
    "Consolidation": "Consolidation",
    "Nodule": "Nodule/Mass",
    "Cardiomegaly": "Cardiomegaly",
    "Edema": "Edema",
}
"""Canonical label -> VinDr's; foreign objects have none."""
_READERS = ("R8", "R9", "R10")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def write_vindr(out: Path, cases: list[Case]) -> None:
    """VinDr-CXR 1.0.0: two readers see everything, the third one overlooks what the report is not certain of."""
    names = (*_FINDINGS, *_DISEASES, _NORMAL)
    test_names = [name.replace("Other diseases", "Other disease") for name in names]  # the test table's spelling
    labels: dict[str, list[tuple[object, ...]]] = {
        "train": [("image_id", "rad_id", *names)],
        "test": [("image_id", *test_names)],
    }
    boxes: dict[str, list[tuple[object, ...]]] = {
        "train": [("image_id", "rad_id", "class_name", *_CORNERS)],
        "test": [("image_id", "class_name", *_CORNERS)],
    }
    for case, part in zip(cases, parts(cases, {"train": 0.75, "test": 0.25}), strict=True):
        image = case.digest("image")
        write_dicom(out / part / f"{image}.dicom", case, case.uid("image"))
        for reader in _READERS if part == "train" else ("",):
            who = (image, reader) if reader else (image,)
            seen = [item for item in case.study.findings if item.label in VINDR_LABELS]
            seen = [item for item in seen if item.certain or reader != _READERS[-1]]
            stated = _labels(seen)
            labels[part].append((*who, *(int(name in stated) for name in names)))
            boxes[part] += [(*who, *box) for box in _boxes(seen)]
    for part in labels:
        write_csv(out / "annotations" / f"image_labels_{part}.csv", labels[part])
        write_csv(out / "annotations" / f"annotations_{part}.csv", boxes[part])


def _labels(seen: list[Finding]) -> set[str]:
    stated = {VINDR_LABELS[finding.label] for finding in seen}
    return stated | ({"Pneumonia"} if "Consolidation" in stated else set()) or {_NORMAL}


def _boxes(seen: list[Finding]) -> list[tuple[object, ...]]:
    """Class and corners; one row without corners where nothing was seen."""
    boxes = [(VINDR_LABELS[finding.label], finding.box) for finding in seen]
    rows: list[tuple[object, ...]] = [(name, x, y, x + width, y + height) for name, (x, y, width, height) in boxes]
    return rows or [(_NORMAL, "", "", "", "")]
