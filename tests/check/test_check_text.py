import os
import re
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.data.reports.identifiers import identifier_kinds
from support.check import changed, found, rows, write

DATES = [
    "Seen 12/03/2019.", "on 2019-03-12", "3/12/19 study", "12.03.2019", "am 12.03.19", "March 12, 2019",
    "12 March 2019", "Mar 12, 2019", "12th of March 2019", "el 12 de marzo de 2019", "am 12. März 2019",
    "since March 12", "12-Mar-2019", "COMPARISON: JANUARY 5, 2012",
]  # fmt: skip
NUMBERS = [
    "call (617) 555-0123", "617-555-0123", "617.555.0123", "pager 34521", "pager: 3-4521", "phone number 555 0123",
    "at +49 30 1234567", "tel. 030/123456",
]  # fmt: skip
NAMES = [
    "Dr. Smith", "Dr Smith", "DR. SMITH", "Dr. SMITH", "Dr. A. Smith", "Dr. J.B. O'Neil", "Mrs. Jones", "Mr Xu",
    "Herr Müller", "Prof. Özil", "Ms. Lopez-Garcia",
]  # fmt: skip
RECORDS = ["MRN 123456", "MRN: 00123456", "accession 12345678", "patient 10032725", "123-45-6789"]
ORDINARY = [
    "3.5 cm nodule at T5.", "2-3 cm", "10/12 ribs", "1/2 of the lung", "T5-T6", "ribs 5-6-10", "5/6/7 ribs",
    "Discussed with Dr. ___ at ___.", "Dr. XXXX by telephone at XXXX", "MR imaging of the chest", "MR. imaging",
    "DR chest", "The heart may 3 cm", "In comparison with the study of ___", "C7/T1, L4-5", "dose 12.345 mGy",
    "2.5 x 3.4 x 1.2 cm", "1. No effusion. 2. Normal.", "since 2015", "0.1234567", "by phone at 10:30 AM",
    "FEV1 2.34/3.45", "from 1990 to 2000", "the march of time", "Sr. doctor", "", "肺野清晰。",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("date", text) for text in DATES),
        *(("telephone number", text) for text in NUMBERS),
        *(("name after a title", text) for text in NAMES),
        *(("record number", text) for text in RECORDS),
        ("e-mail address", "mail a.b@clinic.org"),
    ],
)
def test_identifiers_are_recognised(kind: str, text: str) -> None:
    assert kind in identifier_kinds([text])


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_radiology_text_is_no_identifier(text: str) -> None:
    assert identifier_kinds([text]) == set()


def test_identifiers_are_found_in_a_manifest_and_never_printed(tmp_path: Path) -> None:
    texts = {1: "Seen by Dr. Quincy on 12/03/2019.", 3: "Call 617-555-0123.", 5: "See Dr. Quincy."}
    findings = found(write(tmp_path, changed(rows(), "impression", texts)), "residual-identifiers")
    assert [(finding.rows, finding.severity) for finding in findings] == [
        ((1,), "warning"), ((3,), "warning"), ((1, 5), "warning"),
    ]  # fmt: skip
    said = " ".join(finding.message + finding.where for finding in findings)
    for secret in ("Quincy", "2019", "12/03", "617", "0123"):
        assert secret not in said


def test_both_regular_expression_engines_agree(tmp_path: Path) -> None:
    texts = [*DATES, *NUMBERS, *NAMES, *RECORDS, *ORDINARY]
    frame = changed(rows(len(texts)), "impression", dict(enumerate(texts)))
    hits = {row for finding in found(write(tmp_path, frame), "residual-identifiers") for row in finding.rows}
    assert hits == {row for row, text in enumerate(texts) if identifier_kinds([text])}


def test_empty_reports_count_only_where_the_data_set_has_reports(tmp_path: Path) -> None:
    silent = rows(2, "silent").assign(findings="")
    frame = pd.concat([changed(rows(4), "findings", {1: "", 2: "___ ."}), silent], ignore_index=True)
    (finding,) = found(write(tmp_path, frame), "empty-report")
    assert (finding.rows, finding.severity) == ((1, 2), "warning")
    impression = changed(frame, "impression", {1: "Normal.", 2: "Normal heart."})
    assert found(write(tmp_path, impression), "empty-report") == []


def test_repeated_reports_are_counted_by_study(tmp_path: Path) -> None:
    frame = changed(rows(6), "findings", {1: "Normal.", 2: "Normal.", 4: "Normal.", 5: "Same study."})
    frame = changed(frame, "findings", {3: "Same study."})
    frame = changed(frame, "study_id", {5: "set:s3"})
    frame = changed(frame, "patient_id", {5: "set:p3"})
    (finding,) = found(write(tmp_path, frame), "repeated-report")
    assert (finding.severity, finding.rows) == ("note", (1, 2, 4))
    assert re.findall(r"\d+", finding.message) == ["1", "3", "3"]  # reports, studies with them, with the commonest


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ("Kein Erguss.", "Größe normal.", ((2,), "1 words of test")),  # ö and ß, in one of 11 words
        ("GRÖSSE, Größe.", "Gro\u0308ße normal.", None),  # the same letters, in capitals and as two characters
        ("Clear.", "心脏正常。", ((2,), "1 words of test")),
        ("心脏正常。", "心脏正常。", None),
        ("Clear.", "Normal.", None),
    ],
)
def test_letters_that_no_training_report_has(train, test, expected, tmp_path: Path) -> None:
    frame = changed(rows(4), "findings", {0: train, 2: test})
    findings = found(write(tmp_path, frame), "unknown-letters")
    assert [(each.rows, each.message.partition(" hold")[0]) for each in findings] == ([expected] if expected else [])


@pytest.mark.real_data
def test_few_false_alarms_on_reports_without_identifiers() -> None:
    data = os.environ.get("CMCGNS_DEV_DATA")
    if not data:
        pytest.skip("CMCGNS_DEV_DATA is not set")
    table = pd.read_csv(Path(data) / "iu_reports" / "iu_reports.csv", dtype=str, keep_default_na=False)
    texts = table["findings"] + "\n" + table["impression"]
    assert len(texts) == 3955
    assert sum(bool(identifier_kinds([text])) for text in texts) == 0  # they are de-identified


def test_tags_of_source_files_are_named_without_their_content(tmp_path):
    folder = write(tmp_path / "a", changed(rows(), "identifying_tags", {1: "PatientName, OperatorsName"}))
    note = found(folder, "identifiers-in-source")
    assert [finding.severity for finding in note] == ["note"]
    assert note[0].rows == (1,)
    assert "OperatorsName, PatientName" in note[0].message
    assert found(write(tmp_path / "b", rows()), "identifiers-in-source") == []
