import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmcgns.check.rule import RULES
from cmcgns.check.run import run_checks
from cmcgns.common.errors import UserError
from cmcgns.data.manifest import write_manifest
from support.check import changed, rows, write


def test_rules_have_kebab_case_names_and_one_line(tmp_path: Path) -> None:
    assert len(RULES) > 20
    for name, rule in RULES.items():
        assert name == name.lower().strip("-").replace("_", "-").replace(" ", "-")
        assert rule.description
        assert "\n" not in rule.description
    assert run_checks([write(tmp_path, rows(), images=True)]).ran == tuple(RULES)


def test_skipped_rules_do_not_run(tmp_path: Path) -> None:
    folder = write(tmp_path, changed(rows(), "split", {0: "valid"}))
    report = run_checks([folder], open_images=False, skip=["unknown-split"])
    assert report.exit_code == 0
    assert "unknown-split" not in report.ran


def test_without_images_no_file_is_opened(tmp_path: Path) -> None:
    report = run_checks([write(tmp_path, rows())], open_images=False)
    assert report.findings == ()
    assert "unreadable-image" not in report.ran
    assert list(tmp_path.iterdir()) == [tmp_path / "manifest.parquet"]


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    report = run_checks([write(tmp_path, changed(rows(), "findings", {0: ""}))], open_images=False)
    assert report.severities == {"error": 0, "warning": 1, "note": 0}
    assert report.exit_code == 0


def test_the_summary_counts(tmp_path: Path) -> None:
    (summary,) = run_checks([write(tmp_path, rows(5))], open_images=False).manifests
    assert (summary.rows, summary.datasets, summary.splits) == (5, {"set": 5}, {"test": 2, "train": 3})


def test_an_empty_manifest_is_checked_without_a_finding(tmp_path: Path) -> None:
    assert run_checks([write(tmp_path, rows(2).iloc[:0])]).findings == ()


def test_bad_calls_and_manifests_are_user_errors(tmp_path: Path) -> None:
    folder = write(tmp_path / "good", rows())
    with pytest.raises(UserError, match="no rule is called 'no-rule'"):
        run_checks([folder], skip=["no-rule"])
    with pytest.raises(UserError, match="nothing to check"):
        run_checks([])
    with pytest.raises(UserError, match="named twice"):
        run_checks([folder, folder / "manifest.parquet"])
    with pytest.raises(UserError, match="no such manifest"):
        run_checks([tmp_path / "none"])
    (tmp_path / "text").mkdir()
    (tmp_path / "text/manifest.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="cannot be read"):
        run_checks([folder, tmp_path / "text"])
    (tmp_path / "less").mkdir()
    rows().drop(columns=["patient_id"]).to_parquet(tmp_path / "less/manifest.parquet")
    with pytest.raises(UserError, match="missing column patient_id"):
        run_checks([tmp_path / "less"])


def million(folder: Path) -> None:
    count = 1_000_000
    numbers, study = np.arange(count), np.arange(count) // 2
    generator = np.random.default_rng(0)
    words = np.array(
        ["lungs", "clear", "without", "focal", "consolidation", "effusion", "3.5", "cm", "at", "T5", "stable"]
    )
    texts = np.array([" ".join(generator.choice(words, 30)) for _ in range(5_000)])
    frame = pd.DataFrame(
        {
            "image_path": [f"images/p{number % 97}/{number:09d}.jpg" for number in numbers],
            "study_id": [f"big:s{number}" for number in study],
            "patient_id": [f"big:p{number // 2}" for number in study],
            "dataset": "big",
            "view": np.where(numbers % 2, "PA", "LATERAL"),
            "split": np.where(study // 2 % 10 == 0, "test", "train"),
            "findings": [f"{texts[number % 5_000]} {number}" for number in study],
            "boxes": np.where(numbers % 4 == 0, '[{"label": "a", "x": 1, "y": 1, "width": 50, "height": 60}]', ""),
            "width": 512,
            "height": 512,
            "sha256": [f"{number:064x}" for number in numbers],
            "label_Edema": numbers % 2,
        }
    )
    folder.mkdir()
    write_manifest(frame, folder / "manifest.parquet")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux' /proc")
def test_a_million_rows_are_checked_within_two_gigabytes(tmp_path: Path) -> None:
    million(tmp_path / "big")
    program = (
        "import sys; from pathlib import Path; from cmcgns.check.run import run_checks\n"
        "report = run_checks([Path(sys.argv[1])], open_images=False)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(len(report.findings), status.split('VmHWM:')[1].split()[0])"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", program, str(tmp_path / "big")]
    found, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert found == 0
    assert peak * 1024 < 2e9
    assert time.perf_counter() - start < 120  # about 25 s on one core of a busy machine
