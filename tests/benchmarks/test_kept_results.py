"""Results of studies that are kept in the repository: their tables follow from them."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from cmcgns.study.load import load_plan
from cmcgns.study.run import write_study_table

ROOT = Path(__file__).resolve().parents[2]
MOST = 100_000  # bytes of a file of text in a repository
sys.path.append(str(ROOT / "benchmarks"))
importlib.import_module("ideas")  # registers the objectives of one of them


def test_every_table_follows_from_the_kept_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where paths in a study count from
    for study in (ROOT / "benchmarks" / "results").glob("*/study.yaml"):
        kept = study.parent
        assert max(file.stat().st_size for file in kept.rglob("*.*")) < MOST
        copy = shutil.copytree(kept, tmp_path / kept.name)
        write_study_table(load_plan(str(study)), copy)
        assert (copy / "table.md").read_text() == (kept / "table.md").read_text()
