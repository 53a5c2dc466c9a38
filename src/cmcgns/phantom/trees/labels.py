"""Trees of images with labels."""

from pathlib import Path

from cmcgns.data.vocabulary import CHEXPERT_FINDINGS
from cmcgns.phantom.trees.cases import Case, chexpert_labels, parts, side_view, write_csv, write_picture

_FIRST_VALID = 64541  # number of the first patient of valid.csv
_COLLECTIONS = ("cohen", "rsna", "actmed", "sirm")
NIH_LABELS = {
    "Effusion": ("Effusion",),
    "Pneumothorax": ("Pneumothorax",),
    "Consolidation": ("Consolidation", "Pneumonia"),
    "Nodule": ("Nodule",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Edema": ("Edema",),
}
"""Canonical label -> NIH's; the last one names its boxes. Foreign objects have no label there."""
_NIH_ENTRY = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position",
    "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
_NIH_BOXED = ("Effusion", "Pneumothorax", "Consolidation", "Nodule", "Cardiomegaly")  # edema has no boxes


def write_chexpert(out: Path, cases: list[Case]) -> None:
    """CheXpert-v1.0-small; every fourth study has a stand-in for a lateral image.

    Training labels are 1, -1 (the report is not certain) or empty; those of valid.csv, 1 or 0, are what is in the
    picture.
    """
    release = "CheXpert-v1.0-small"
    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)
    rows: dict[str, list[tuple[object, ...]]] = {"train": [header], "valid": [header]}
    first: dict[str, int] = {}
    for case, part in zip(cases, parts(cases, {"train": 0.8, "valid": 0.2}), strict=True):
        place = case.patient - first.setdefault(part, case.patient)
        patient = place + (1 if part == "train" else _FIRST_VALID)
        folder = f"{part}/patient{patient:05d}/study{case.number + 1}"
        stated = chexpert_labels(case)
        cells = [
            _training_cell(stated.get(name)) if part == "train" else _read_cell(stated, name)
            for name in CHEXPERT_FINDINGS
        ]
        views = ["Frontal", *(["Lateral"] if case.index % 4 == 0 else [])]
        for number, view in enumerate(views, start=1):
            path = f"{release}/{folder}/view{number}_{view.lower()}.jpg"
            write_picture(out / path, case.study.image if view == "Frontal" else side_view(case.study.image))
            sex = {"F": "Female", "M": "Male"}[case.study.sex]
            beam = case.study.view if view == "Frontal" else None
            rows[part].append((path, sex, case.study.age, view, beam, *cells))
    for part, table in rows.items():
        write_csv(out / release / f"{part}.csv", table)


def _training_cell(label: int | None) -> str | None:
    return None if label is None else f"{label}.0"


def _read_cell(stated: dict[str, int | None], name: str) -> str:
    return "0.0" if stated.get(name) is None else "1.0"


def covidx_class(case: Case) -> str:
    """Edema, opacities of both lungs, stands for COVID-19, other opacities for pneumonia; the rest is normal."""
    if case.found("Edema"):
        return "COVID-19"
    return "pneumonia" if case.found("Consolidation") else "normal"


def write_covidx(out: Path, cases: list[Case]) -> None:
    """The lists of COVIDx 9A (three classes) from four collections.

    One of them is RSNA's challenge, with its names; the names of another one hold blanks.
    """
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for case, part in zip(cases, parts(cases, {"train": 0.75, "test": 0.25}), strict=True):
        origin = _COLLECTIONS[case.patient % len(_COLLECTIONS)]
        patient, name = _covidx_names(case, origin)
        write_picture(out / part / name, case.study.image)
        lines[part].append(f"{patient} {name} {covidx_class(case)} {origin}\n")
    for part, text in lines.items():
        (out / f"{part}_COVIDx9A.txt").write_text("".join(text), "utf-8")


def _covidx_names(case: Case, origin: str) -> tuple[str, str]:
    """Patient and image; a patient of the challenge is an image."""
    if origin == "rsna":
        return case.rsna_image, f"{case.rsna_image}.png"
    if origin == "sirm":
        return f"COVID-19 ({case.patient})", f"COVID-19 ({case.patient}) {case.number + 1}.png"
    return f"{case.patient}", f"{origin}-{case.patient}-day{case.number}.jpg"


def write_nih(out: Path, cases: list[Case]) -> None:
    """NIH ChestX-ray14 in two of its twelve folders, with boxes of the test images."""
    rows: list[tuple[object, ...]] = [_NIH_ENTRY]
    boxes: list[tuple[object, ...]] = [("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")]
    lists: dict[str, list[str]] = {"train_val": [], "test": []}
    for case, part in zip(cases, parts(cases, {"train_val": 0.75, "test": 0.25}), strict=True):
        study, name = case.study, case.nih_image
        write_picture(out / f"images_{1 + case.patient % 2:03d}" / "images" / name, study.image)
        lists[part].append(f"{name}\n")
        found = {label for finding in study.findings for label in NIH_LABELS.get(finding.label, ())}
        sides = study.image.shape[::-1]
        labels = "|".join(sorted(found)) or "No Finding"
        rows.append((name, labels, case.number, case.patient, study.age, study.sex, study.view, *sides, 0.143, 0.143))
        boxes += [
            (name, NIH_LABELS[finding.label][-1], *finding.box, "", "", "")
            for finding in study.findings
            if part == "test" and finding.label in _NIH_BOXED
        ]
    write_csv(out / "Data_Entry_2017_v2020.csv", rows)
    write_csv(out / "BBox_List_2017.csv", boxes)
    for part, names in lists.items():
        (out / f"{part}_list.txt").write_text("".join(names), "utf-8")
