"""What the leakage guard relies on: the run's record of what it saw, and caches of signatures and comparisons."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.leakage import check_leakage, fingerprints, refuse
from support.leakage import (
    RANDOM,
    altered,
    counts,
    encoder_of,
    judged_row,
    rows_of,
    run_on,
    set_cells,
    task_data,
    with_cells,
)


@pytest.mark.parametrize(
    ("name", "has_run", "said"),
    [
        ("run", True, "its run folder has no seen.parquet"),
        ("resnet50 (weights)", False, "resnet50 (weights) was pretrained on is not known"),
        ("imagenet resnet50", False, "is not known"),
        ("random-vit", False, "is not known"),  # a folder of weights may be called anything
    ],
)
def test_what_is_not_known_is_said(name: str, has_run: bool, said: str, judged: Path, tmp_path: Path) -> None:
    leakage = check_leakage(task_data(judged), encoder_of(tmp_path / "old run" if has_run else None, name))
    assert [each.kind for each in leakage.cautions] == ["unknown"]
    assert said in leakage.cautions[0].text
    refuse(leakage, allow=False)


def test_random_weights_are_known_to_have_seen_nothing(judged: Path) -> None:
    assert check_leakage(task_data(judged), RANDOM).cautions == []


def test_a_damaged_record_is_named(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    encoder = run_on(pretraining, tmp_path / "run")
    file = tmp_path / "run" / "seen.parquet"
    content = file.read_bytes()
    pd.DataFrame({"patient_id": ["a"]}).to_parquet(file)
    lacking = file.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PAR1" + b"x" * 100, lacking):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"seen\.parquet is damaged"):
            check_leakage(task_data(judged), encoder)


def test_a_run_folder_may_have_moved_and_its_data_be_gone(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    shared = {"patient_id": judged_row(judged)["patient_id"]}
    data = altered(pretraining, tmp_path / "data", with_cells({0: shared}))
    run_on(data, tmp_path / "run")
    before = check_leakage(task_data(judged), encoder_of(tmp_path / "run"), tmp_path / "cache")
    shutil.rmtree(data)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    after = check_leakage(task_data(judged), encoder_of(tmp_path / "elsewhere"), tmp_path / "cache2")
    assert after == before
    assert before.findings


def test_a_second_call_computes_nothing_and_finds_the_same(
    judged: Path, pretraining: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        shutil.copy(folder / judged_row(folder)["image_path"], folder / "images" / "copy.png")
        return set_cells(frame, {0: {"image_path": "images/copy.png"}})

    data = altered(judged, tmp_path / "judged", copied)
    encoder = run_on(pretraining, tmp_path / "run")
    shares: list[float] = []
    first = check_leakage(task_data(data), encoder, tmp_path / "cache", lambda _, share: shares.append(share))
    assert counts(first) == {"picture": 1}
    assert max(shares) == 1
    with monkeypatch.context() as patch:
        for module, name in ((fingerprints, "square_signatures"), (fingerprints, "near_duplicates")):
            patch.setattr(module, name, lambda *_: pytest.fail("computed again"))
        assert check_leakage(task_data(data), encoder, tmp_path / "cache") == first


def test_a_file_with_other_content_is_looked_at_again(judged: Path, tmp_path: Path) -> None:
    def copied(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        shutil.copy(folder / judged_row(folder)["image_path"], folder / "copy.png")
        return set_cells(frame, {0: {"image_path": "copy.png"}})

    data = altered(judged, tmp_path / "judged", copied)
    assert counts(check_leakage(task_data(data), RANDOM, tmp_path / "cache")) == {"picture": 1}
    shutil.copy(data / rows_of(data)["image_path"][1], data / "copy.png")
    os.utime(data / "copy.png", (1, 1))
    assert check_leakage(task_data(data), RANDOM, tmp_path / "cache").findings == []


def test_torn_caches_are_made_anew(judged: Path, pretraining: Path, tmp_path: Path) -> None:
    encoder, cache = run_on(pretraining, tmp_path / "run"), tmp_path / "cache"
    first = check_leakage(task_data(judged), encoder, cache)
    torn = list(cache.rglob("*.npz"))
    assert torn
    for file in torn:
        file.write_bytes(b"")
    assert check_leakage(task_data(judged), encoder, cache) == first
