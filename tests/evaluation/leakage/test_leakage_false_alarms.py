"""The leakage guard finds nothing among images and patients that were not seen."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.data.manifest import write_manifest
from cmcgns.evaluation.leakage import check_leakage, refuse
from support.leakage import RANDOM, counts, drawn, leakage_of, set_cells, task_data


def test_nothing_is_found_among_different_studies(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    leakage = leakage_of(judged, pretraining, tmp_path / "run")
    assert leakage.findings == []
    assert leakage.cautions == []
    assert (leakage.text, counts(leakage), leakage.images) == ("", {}, 12)
    refuse(leakage, allow=False, path=tmp_path / "leakage.csv")
    assert not (tmp_path / "leakage.csv").exists()


@pytest.mark.slow
def test_nothing_is_found_among_three_hundred_synthetic_studies(tmp_path: Path) -> None:
    seen = drawn(tmp_path / "a", {"train": 180, "val": 10}, seed=3, size=64)
    judged = drawn(tmp_path / "b", {"train": 60, "val": 10, "test": 40}, seed=4, size=64)
    assert leakage_of(judged, seen, tmp_path / "run").findings == []


@pytest.fixture
def radiographs() -> pd.DataFrame:
    """Rows of a manifest of real radiographs of the NIH, where those are there."""
    folder = os.environ.get("CMCGNS_DEV_DATA")
    if not folder:
        pytest.skip("CMCGNS_DEV_DATA is not set")
    root = Path(folder).resolve() / "nih"
    labels = pd.read_csv(root / "labels.csv", dtype=str)
    return pd.DataFrame(
        {
            "image_path": [str(root / path) for path in labels["image_path"]],
            "study_id": "nih:" + labels["nih_index"],
            "patient_id": "nih:" + labels["patient_id"],
            "dataset": "nih",
            "view": labels["view"],
            "split": labels["split"],
            "label_Effusion": labels["Effusion"],
        }
    )


@pytest.mark.real_data
def test_real_patients_of_training_and_validation_share_no_picture(radiographs: pd.DataFrame, tmp_path: Path) -> None:
    splits = {"test": ["val"], "val": []}
    write_manifest(radiographs, tmp_path / "manifest.parquet")
    assert check_leakage(task_data(tmp_path, **splits), RANDOM, tmp_path).findings == []
    # … and a re-encoded copy with another patient's id is found among them.
    number = int(np.flatnonzero(radiographs["split"] == "val")[3])
    with Image.open(radiographs["image_path"][number]) as image:
        image.resize((300, round(300 * image.height / image.width))).save(tmp_path / "copy.jpg", quality=40)
    assert radiographs["split"][0] == "train"
    write_manifest(set_cells(radiographs, {0: {"image_path": "copy.jpg"}}), tmp_path / "manifest.parquet")
    found = check_leakage(task_data(tmp_path, **splits), RANDOM, tmp_path).findings
    assert [(each.kind, each.study) for each in found] == [("picture", radiographs["study_id"][number])]
