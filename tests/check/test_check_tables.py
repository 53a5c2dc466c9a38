from pathlib import Path

import pytest

from cmcgns.check.run import run_checks
from cmcgns.check.tables import MOST_GROUPS
from support.check import changed, found, rows, sha, write


def test_a_good_manifest_has_no_finding(tmp_path: Path) -> None:
    report = run_checks([write(tmp_path, rows())], open_images=False)
    assert report.findings == ()
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("rule", "severity", "column", "values", "expected"),
    [
        ("missing-ids", "error", "patient_id", {2: ""}, [(2,)]),
        ("missing-ids", "error", "image_path", {1: ""}, [(1,)]),
        ("ids-without-dataset", "warning", "patient_id", {1: "17", 3: ":18"}, [(1, 3)]),
        ("ids-without-dataset", "warning", "study_id", {1: "other:s1"}, [(1,)]),
        ("repeated-images", "error", "image_path", {2: "images/1.png"}, [(1, 2)]),
        ("studies-of-several-patients", "error", "study_id", {2: "set:s1"}, [(1, 2)]),
        ("patients-across-splits", "error", "patient_id", {1: "set:p4"}, [(1, 4)]),
        ("patients-across-splits", "error", "patient_id", {1: "set:17.0", 4: " set:17"}, [(1, 4)]),
        ("likely-twin-patients", "warning", "patient_id", {1: "set:P 02"}, [(1, 2)]),
        ("same-file-across-splits", "error", "sha256", {1: sha("set4")}, [(1, 4)]),
        ("same-file", "warning", "sha256", {1: sha("set0")}, [(0, 1)]),
        ("unknown-split", "error", "split", {0: "valid", 5: "Train"}, [(0,), (5,)]),
        ("unknown-view", "error", "view", {0: "pa", 4: "pa", 5: "LL"}, [(0, 4), (5,)]),
        ("unknown-label-value", "error", "label_Edema", {0: 1, 1: 0, 2: -1, 3: 2, 4: -2}, [(4,), (3,)]),
    ],
)
def test_each_fault_is_found_in_its_rows_and_by_its_rule_alone(
    tmp_path: Path, rule: str, severity: str, column: str, values: dict[int, object], expected: list[tuple[int, ...]]
) -> None:
    folder = write(tmp_path, changed(rows(), column, values))
    report = run_checks([folder], open_images=False)
    assert {finding.rule for finding in report.findings} == {rule}
    assert [finding.rows for finding in report.findings] == expected
    assert {finding.severity for finding in report.findings} == {severity}
    assert report.exit_code == (severity == "error")
    assert all(str(folder / "manifest.parquet") in finding.where for finding in report.findings)


def test_rows_are_shown_counted_from_one(tmp_path: Path) -> None:
    (finding,) = found(write(tmp_path, changed(rows(), "split", {0: "valid"})), "unknown-split")
    assert finding.where.endswith("manifest.parquet, row 1")


def test_a_patient_without_split_or_without_id_is_not_across_splits(tmp_path: Path) -> None:
    frame = changed(changed(rows(), "patient_id", {0: "set:p4", 1: "", 5: ""}), "split", {0: ""})
    assert found(write(tmp_path, frame), "patients-across-splits") == []


def test_patients_across_manifests(tmp_path: Path) -> None:
    first = write(tmp_path / "a", rows(4))
    second = write(tmp_path / "b", changed(rows(4, "other"), "patient_id", {0: "set:p3", 3: "set:p2"}))
    findings = found([first, second], "patients-across-splits")
    # p3 is test in the first and train in the second; p2 is test in both, which is no fault.
    assert [(finding.manifest.parent.name, finding.rows, finding.drop) for finding in findings] == [
        ("a", (3,), ()),
        ("b", (0,), (0,)),
    ]
    assert "patient set:p3" in findings[0].message
    assert str(second / "manifest.parquet") in findings[0].message


def test_a_patient_whose_number_became_a_float_is_in_both_manifests(tmp_path: Path) -> None:
    """One gap makes a column of whole numbers one of floats."""
    first = write(tmp_path / "a", rows(4).assign(patient_id=["101", "102", "103", "104"]))
    (tmp_path / "b").mkdir()
    frame = rows(4, "other").assign(patient_id=[103.0, None, 105.0, 106.0])
    frame.to_parquet(tmp_path / "b" / "manifest.parquet")
    findings = found([first, tmp_path / "b"], "patients-across-splits")
    assert [(finding.rows, finding.drop) for finding in findings] == [((2,), ()), ((0,), (0,))]
    assert "patient 103 is in" in findings[0].message


def test_likely_twins_are_found_across_manifests_and_kept(tmp_path: Path) -> None:
    first = write(tmp_path / "a", rows(4))
    second = write(tmp_path / "b", changed(rows(4, "other"), "patient_id", {3: "SET:p01"}))
    findings = found([first, second], "likely-twin-patients")
    assert [(finding.manifest.parent.name, finding.rows, finding.drop) for finding in findings] == [
        ("a", (1,), ()), ("b", (3,), ()),
    ]  # fmt: skip
    assert findings[0].message == "'set:p1' and 'SET:p01' may be one patient"


def test_same_file_across_manifests_and_splits(tmp_path: Path) -> None:
    first = write(tmp_path / "a", rows(4))
    sums = {0: sha("set3"), 3: sha("set2")}
    second = write(tmp_path / "b", changed(rows(4, "other"), "sha256", sums))
    assert [finding.drop for finding in found([first, second], "same-file-across-splits")] == [(), (0,)]
    assert [finding.drop for finding in found([first, second], "same-file")] == [(), (3,)]


def test_the_same_studies_in_two_manifests(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", rows(4)), write(tmp_path / "b", rows(2))
    findings = found([first, second], "studies-in-several-manifests")
    assert [finding.rows for finding in findings] == [(0, 1), (0, 1)]
    assert found([first], "studies-in-several-manifests") == []


def test_only_manifests_that_hold_the_study_are_named(tmp_path: Path) -> None:
    study = rows(3)
    parts = {"a": study[:1], "b": study[:2], "c": study[1:2]}
    folders = [write(tmp_path / name, frame.reset_index(drop=True)) for name, frame in parts.items()]
    first, second, third = (each.message for each in found(folders, "studies-in-several-manifests"))
    files = {name: str(tmp_path / name / "manifest.parquet") for name in parts}
    assert first == f"1 studies are also in {files['b']}"
    assert second == f"2 studies are also in {files['a']}, {files['c']}"
    assert third == f"1 studies are also in {files['b']}"


def test_test_is_kept_then_val(tmp_path: Path) -> None:
    frame = changed(rows(6), "split", {3: "val"})
    frame = changed(frame, "patient_id", dict.fromkeys(range(5), "set:p0"))
    (finding,) = found(write(tmp_path, frame), "patients-across-splits")
    assert finding.drop == (0, 1, 2, 3)
    without_test = changed(frame, "patient_id", {4: "set:p9"})
    (finding,) = found(write(tmp_path, without_test), "patients-across-splits")
    assert finding.drop == (0, 1, 2)


def test_one_lateral_among_frontals_is_a_stray_and_many_are_not(tmp_path: Path) -> None:
    (finding,) = found(write(tmp_path, changed(rows(40), "view", {7: "LATERAL"})), "lateral-among-frontal")
    assert (finding.severity, finding.rows) == ("note", (7,))
    many = changed(rows(40), "view", dict.fromkeys(range(10), "LATERAL"))
    assert found(write(tmp_path, many), "lateral-among-frontal") == []


def test_very_many_groups_share_a_finding_and_no_row_is_lost(tmp_path: Path) -> None:
    count = MOST_GROUPS + 50
    frame = rows(2 * count)
    frame["patient_id"] = [f"set:p{number % count}" for number in range(2 * count)]
    findings = found(write(tmp_path, frame), "patients-across-splits")
    assert len(findings) == MOST_GROUPS + 1
    assert findings[-1].message.startswith("50 more ")
    assert sorted(row for finding in findings for row in finding.rows) == list(range(2 * count))
    assert sorted(row for finding in findings for row in finding.drop) == list(range(count))
