"""Trees of images with boxes, shapes and masks."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcgns.data.masks import encode_rle
from cmcgns.data.phantom.study import Finding
from cmcgns.data.phantom.trees.cases import Case, parts, region
from cmcgns.data.phantom.trees.files import write_csv, write_dicom, write_picture
from cmcgns.data.phantom.trees.labels import NIH_LABELS
from cmcgns.data.sources.siim import SIDE


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
        mask = _enlarge(region(case, "Pneumothorax"), SIDE)
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
