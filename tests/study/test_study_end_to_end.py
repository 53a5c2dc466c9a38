"""Real studies: nothing pretends."""

import json
import time
from pathlib import Path

import pytest
import yaml

from cmcgns.study.load import load_plan
from cmcgns.study.run import StudyOptions, run_study, write_study_table
from support.study import RECALL, results_of, tables_of, tiny_study
from support.training import assert_same_end, in_child, kill_at_step

CPU = StudyOptions(accelerator="cpu")


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    plan, out = load_plan("smoke"), tmp_path / "out"
    before = time.process_time()
    run_study(plan, out, CPU)
    assert time.process_time() - before < 120
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [(row["cell"], row["measure"]) for row in rows] == [
        ("global", "auroc"), ("full", "auroc"), ("global", RECALL), ("full", RECALL),
    ]  # fmt: skip
    assert all(row["value"] is not None for row in rows)
    assert rows[1]["low"] < rows[1]["difference"] < rows[1]["high"]
    results = results_of(out)
    assert len(results["full-seed-0.json"]["figures"][0]["replicates"]) == 400
    assert results["full-seed-0.json"]["parameters"] > results["global-seed-0.json"]["parameters"]
    first = tables_of(out)
    (out / "cells").rename(tmp_path / "cells")
    write_study_table(plan, out)
    assert tables_of(out) == first


def study_with_fault(step: int, study: str, out: Path) -> None:
    """Target of a process: killed at a step of the training; 0: not at all."""
    if step:
        kill_at_step(step)
    run_study(load_plan(study), out, CPU)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    study, whole, out = tiny_study(tmp_path), tmp_path / "whole", tmp_path / "out"
    assert in_child(study_with_fault, 0, study, whole) == 0
    assert in_child(study_with_fault, 7, study, out) < 0
    run = out / "cells" / "global" / "seed-0" / "run"
    assert [path.name for path in (run / "state").glob("step-*")] == [
        "step-00000004.safetensors",
        "step-00000006.safetensors",
    ]
    assert in_child(study_with_fault, 4, study, out) < 0
    assert in_child(study_with_fault, 0, study, out) == 0
    for cell in ("full", "global"):
        assert_same_end(*(folder / "cells" / cell / "seed-0" / "run" for folder in (whole, out)))
    assert results_of(out) == results_of(whole)
    assert tables_of(out) == tables_of(whole)


def test_other_synthetic_studies_are_refused(tmp_path: Path, pretended: Path) -> None:
    content = yaml.safe_load(Path(tiny_study(tmp_path)).read_text())
    content["data"] = {"phantom": {"train": 6, "val": 2, "test": 4, "size": 32}}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    run_study(load_plan(str(file)), out, CPU)
    manifests = [(out / name / "manifest.parquet").stat().st_mtime_ns for name in ("data", "test")]
    run_study(load_plan(str(file)), out, CPU)
    (out / "phantom.json").write_text('{"train": 6, "val": 2, "test": 4, "size": 32}')  # older than `seed`
    run_study(load_plan(str(file)), out, CPU)
    assert manifests == [(out / name / "manifest.parquet").stat().st_mtime_ns for name in ("data", "test")]
    content["data"]["phantom"]["train"] = 7
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"phantom.json: the folder has other synthetic studies .*another --out"):
        run_study(load_plan(str(file)), out, CPU)


def test_the_level_of_synthetic_studies_is_chosen_and_kept(tmp_path: Path, pretended: Path) -> None:
    content = yaml.safe_load(Path(tiny_study(tmp_path)).read_text())
    numbers = {"train": 6, "val": 2, "test": 4, "size": 32}
    file, out = tmp_path / "study.yaml", {level: tmp_path / level for level in ("plain", "hard")}
    for level, folder in out.items():
        content["data"] = {"phantom": numbers | {"level": level}}
        file.write_text(yaml.safe_dump(content))
        run_study(load_plan(str(file)), folder, CPU)
        assert (folder / "test" / "finding_layers").is_dir() == (level == "hard")
    with pytest.raises(ValueError, match="other synthetic studies"):
        run_study(load_plan(str(file)), out["plain"], CPU)
    noted = json.loads((out["plain"] / "phantom.json").read_text())
    del noted["level"]  # as before there were two
    (out["plain"] / "phantom.json").write_text(json.dumps(noted))
    content["data"] = {"phantom": numbers}
    file.write_text(yaml.safe_dump(content))
    run_study(load_plan(str(file)), out["plain"], CPU)
