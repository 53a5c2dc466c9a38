"""Trees of images with labels, two of them with reports."""

import textwrap
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from cmcgns.data.vocabulary import CHEXPERT_FINDINGS
from cmcgns.phantom.trees.cases import Case, chexpert_labels, parts, side_view, write_csv, write_picture

_MIMIC_LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
_MIMIC_METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
_CODES = {  # projection -> meaning of the codes of view and of the patient's orientation
    "AP": ("antero-posterior", "Recumbent"),
    "PA": ("postero-anterior", "Erect"),
    "LATERAL": ("lateral", "Erect"),
}
_MIMIC_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST ({view})

 INDICATION:  ___ year old {person} with cough.  Evaluate for acute process.

 COMPARISON:  ___.

 FINDINGS:

{findings}

 IMPRESSION:

{impression}
"""
_OPENI_REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <meta type="rr"/>
   <uId id="CXR{number}"/>
   <pmcId id="{number}"/>
   <docSource>CXR</docSource>
   <IUXRId id="{number}"/>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
            <AbstractText Label="COMPARISON">None.</AbstractText>
            <AbstractText Label="INDICATION">XXXX-year-old {person} with cough</AbstractText>
            <AbstractText Label="FINDINGS">{findings}</AbstractText>
            <AbstractText Label="IMPRESSION">{impression}</AbstractText>
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>
{codes}
   </MeSH>
{images}
</eCitation>
"""
_IMAGE = """   <parentImage id="{name}">
      <figureId>F{place}</figureId>
      <caption>{caption}</caption>
      <panel type="single"><url>/hadoop/storage/radiology/extract/{name}.jpg</url></panel>
   </parentImage>"""


_CHEXPERT_VALID = 64541  # number of the first patient of valid.csv
_COVIDX_COLLECTIONS = ("cohen", "rsna", "actmed", "sirm")
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


def write_mimic_cxr(out: Path, cases: list[Case]) -> None:
    """MIMIC-CXR-JPG 2.0.0 with MIMIC-CXR's zip of reports; every fourth study has a stand-in for a lateral image."""
    metadata: list[tuple[object, ...]] = [_MIMIC_METADATA]
    splits: list[tuple[object, ...]] = [("dicom_id", "study_id", "subject_id", "split")]
    labels: list[tuple[object, ...]] = [("subject_id", "study_id", *_MIMIC_LABELS)]
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
                metadata.append((name, subject, study, "CHEST", view, *image.shape, *when, "CHEST", *_CODES[view]))
                splits.append((name, study, subject, split))
            stated = chexpert_labels(case)
            labels.append((subject, study, *(_decimal(stated.get(label)) for label in _MIMIC_LABELS)))
            archive.writestr(zipfile.ZipInfo(f"{folder}.txt"), _report(case))
    for name, rows in {"metadata": metadata, "split": splits, "chexpert": labels}.items():
        write_csv(out / f"mimic-cxr-2.0.0-{name}.csv.gz", rows)


def _report(case: Case) -> str:
    """Typed as the dataset's reports are: indented by a blank, lines of at most 78 characters."""
    study = case.study
    findings, impression = (
        textwrap.fill(text, 78, initial_indent=" ", subsequent_indent=" ")
        for text in (study.findings_text, study.impression)
    )
    return _MIMIC_REPORT.format(
        view=study.view, person={"F": "woman", "M": "man"}[study.sex], findings=findings, impression=impression
    )


def write_openi(out: Path, cases: list[Case]) -> None:
    """The Indiana University collection as XML and PNG; every third report has a stand-in for a lateral image.

    The dataset names no patients: every study counts as one.
    """
    for case in cases:
        study, number = case.study, case.index + 1
        stem = f"CXR{number}_IM-{case.index + 1000:04d}"
        images = {f"{stem}-1001": study.image}
        if case.index % 3 == 0:
            images[f"{stem}-2001"] = side_view(study.image)
        caption = "Xray Chest PA and Lateral" if len(images) > 1 else f"Xray Chest {study.view}"
        for name, image in images.items():
            write_picture(out / "NLMCXR_png" / f"{name}.png", image)
        text = _OPENI_REPORT.format(
            number=number,
            person={"F": "female", "M": "male"}[study.sex],
            findings=escape(study.findings_text),
            impression=escape(study.impression),
            codes="\n".join(f"      <major>{code}</major>" for code in _codes(case)),
            images="\n".join(
                _IMAGE.format(name=name, place=place, caption=caption) for place, name in enumerate(images, start=1)
            ),
        )
        path = out / "ecgen-radiology" / f"{number}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def _codes(case: Case) -> list[str]:
    """Finding, place and degree, e.g. `Consolidation/right/upper zone/small`."""
    parts_of = ((item.label, item.side, item.place, item.degree) for item in case.study.findings)
    return ["/".join(part for part in words if part != "none") for words in parts_of] or ["normal"]


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
        patient = place + (1 if part == "train" else _CHEXPERT_VALID)
        folder = f"{part}/patient{patient:05d}/study{case.number + 1}"
        stated = chexpert_labels(case)
        if part == "valid":
            stated = {name: int(stated.get(name) is not None) for name in CHEXPERT_FINDINGS}
        cells = [_decimal(stated.get(name)) for name in CHEXPERT_FINDINGS]
        views = ["Frontal", *(["Lateral"] if case.index % 4 == 0 else [])]
        for number, view in enumerate(views, start=1):
            path = f"{release}/{folder}/view{number}_{view.lower()}.jpg"
            write_picture(out / path, case.study.image if view == "Frontal" else side_view(case.study.image))
            sex = {"F": "Female", "M": "Male"}[case.study.sex]
            beam = case.study.view if view == "Frontal" else None
            rows[part].append((path, sex, case.study.age, view, beam, *cells))
    for part, table in rows.items():
        write_csv(out / release / f"{part}.csv", table)


def _decimal(label: int | None) -> str | None:
    return None if label is None else f"{label}.0"


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
        origin = _COVIDX_COLLECTIONS[case.patient % len(_COVIDX_COLLECTIONS)]
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
