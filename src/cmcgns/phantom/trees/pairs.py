"""Trees of images with reports."""

import textwrap
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

from cmcgns.phantom.trees.cases import Case, chexpert_labels, parts, side_view, write_csv, write_picture

_LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
_METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
_CODES = {  # projection -> meaning of the codes of view and of the patient's orientation
    "AP": ("antero-posterior", "Recumbent"),
    "PA": ("postero-anterior", "Erect"),
    "LATERAL": ("lateral", "Erect"),
}
_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST ({view})

 INDICATION:  ___ year old {person} with cough.  Evaluate for acute process.

 COMPARISON:  ___.

 FINDINGS:

{findings}

 IMPRESSION:

{impression}
"""
_XML = """<?xml version="1.0" encoding="utf-8"?>
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


def write_mimic_cxr(out: Path, cases: list[Case]) -> None:
    """MIMIC-CXR-JPG 2.0.0 with MIMIC-CXR's zip of reports; every fourth study has a stand-in for a lateral image."""
    metadata: list[tuple[object, ...]] = [_METADATA]
    splits: list[tuple[object, ...]] = [("dicom_id", "study_id", "subject_id", "split")]
    labels: list[tuple[object, ...]] = [("subject_id", "study_id", *_LABELS)]
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
            labels.append((subject, study, *(_decimal(stated.get(label)) for label in _LABELS)))
            archive.writestr(zipfile.ZipInfo(f"{folder}.txt"), _report(case))
    for name, rows in {"metadata": metadata, "split": splits, "chexpert": labels}.items():
        write_csv(out / f"mimic-cxr-2.0.0-{name}.csv.gz", rows)


def _decimal(label: int | None) -> str | None:
    return None if label is None else f"{label}.0"


def _report(case: Case) -> str:
    """Typed as the dataset's reports are: indented by a blank, lines of at most 78 characters."""
    study = case.study
    findings, impression = (
        textwrap.fill(text, 78, initial_indent=" ", subsequent_indent=" ")
        for text in (study.findings_text, study.impression)
    )
    return _REPORT.format(
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
        text = _XML.format(
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
