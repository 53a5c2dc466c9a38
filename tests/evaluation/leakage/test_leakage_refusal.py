"""What the leakage guard found stops the evaluation, unless it is allowed or what a legacy split does by itself."""

import csv
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.leakage import Leakage, Overlap, check_leakage, refuse
from support.leakage import RANDOM, altered, judged_row, leakage_of, rows_of, task_data, with_cells


def overlap(kind: Any, where: str, image: str = "i1", correlation: float | None = None) -> Overlap:
    return Overlap(kind, image, "s1", "p1", where, "s2", "p2", correlation)


def test_a_refusal_names_patients_the_file_with_all_and_the_way_out(
    judged: Path, pretraining: Path, tmp_path: Path
) -> None:
    frame = rows_of(judged)
    patients = frame["patient_id"][frame["split"] == "test"].unique()
    seen = with_cells({row: {"patient_id": patient} for row, patient in enumerate(patients)})
    leakage = leakage_of(judged, altered(pretraining, tmp_path / "data", seen), tmp_path / "run")
    file = tmp_path / "out" / "leakage.csv"
    with pytest.raises(UserError) as refused:
        refuse(leakage, allow=False, path=file)
    message = str(refused.value)
    for part in (
        "linear/v1", f"12 (of {len(patients)} patients; 12 by patient)", patients[0], str(file), "--allow-leakage",
        "cmcgns check PRETRAINING-DATA TEST-DATA --fix",
    ):  # fmt: skip
        assert part in message
    assert len(message.splitlines()) < 12
    with file.open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert {row["image"] for row in written} == set(frame["image_path"][frame["split"] == "test"])
    assert {row["patient"] for row in written} == set(patients)
    assert list(written[0]) == [each.name for each in fields(Overlap)]
    file.unlink()
    refuse(leakage, allow=True, path=file)
    assert file.is_file()
    assert leakage.text == f"of 12 test images 12 (of {len(patients)} patients; 12 by patient) in pretraining"


def test_legacy_splits_leak_by_design_but_pretraining_does_not() -> None:
    inside = [overlap("patient", "training"), overlap("picture", "validation", "i2", 0.99)]
    legacy = Leakage("rsna-linear/legacy", inside, legacy=True, images=9)
    refuse(legacy, allow=False)
    assert legacy.text == (
        "of 9 test images 2 (of 1 patients; 1 by patient, 1 by picture) in training or validation, by design of the "
        "legacy split"
    )
    both = Leakage("rsna-linear/legacy", [*inside, overlap("file", "pretraining of first")], legacy=True, images=9)
    with pytest.raises(UserError, match=r"(?s)1 by file.*the same file as s2 \(pretraining of first\)"):
        refuse(both, allow=False)
    assert both.text.startswith("of 9 test images 1 (of 1 patients; 1 by file) in pretraining; 2 (")
    with pytest.raises(UserError, match="manifest of `cmcgns check DATA --fix`"):
        refuse(Leakage("linear/v1", inside, images=9), allow=False)


@pytest.mark.parametrize(("rule", "legacy"), [("any", False), ("legacy", True)])
def test_the_rule_of_the_protocol_says_whether_it_is_legacy(
    rule: str, legacy: bool, judged: Path, tmp_path: Path
) -> None:
    twice = {"patient_id": judged_row(judged)["patient_id"]}
    data = altered(judged, tmp_path / "data", with_cells({0: twice}))
    leakage = check_leakage(task_data(data, rule=rule), RANDOM)
    assert leakage.findings
    assert (leakage.legacy, leakage.refused == []) == (legacy, legacy)


def test_a_stale_list_of_findings_does_not_stay(tmp_path: Path) -> None:
    file = tmp_path / "leakage.csv"
    refuse(Leakage("x/v1", [overlap("patient", "pretraining")], images=3), allow=True, path=file)
    assert len(file.read_text().splitlines()) == 2
    refuse(Leakage("x/v1", images=3), allow=False, path=file)
    assert len(file.read_text().splitlines()) == 1
