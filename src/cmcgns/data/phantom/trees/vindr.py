"""The tree of VinDr-CXR: three readers of every training image, one consensus of every test image."""

from pathlib import Path

from cmcgns.data.phantom.study import Finding
from cmcgns.data.phantom.trees.cases import Case, parts
from cmcgns.data.phantom.trees.files import write_csv, write_dicom

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
