"""`seen.parquet`: who a run has seen, and who the run that it starts from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.data.images.near_duplicates import SIGNATURE, signature
from cmcgns.data.images.read import read_image
from cmcgns.data.shards.write import write_shards
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.leakage import check_leakage, refuse
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols.protocol import EvaluationProtocol, SplitSettings
from cmcgns.phantom.dataset import write_dataset
from cmcgns.training.data import prepare_data
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import SeenFile, open_seen, write_seen_file
from cmcgns.training.write_seen import write_seen
from support.training import TRAIN, VALIDATION, in_child, kill_at_step, run, run_with_fault, tiny_recipe

SEEN = "seen.parquet"


def opened(run: Path) -> SeenFile:
    seen = open_seen(run / SEEN)
    assert seen is not None
    return seen


def signatures(run: Path) -> NDArray[np.void]:
    return np.concatenate([block for _, block in opened(run).signatures()])


def noted(data: Path, out: Path, init: Path | None = None, **changes: object) -> dict[str, object]:
    """What a run on this data notes, without the run."""
    recipe = tiny_recipe(**changes)
    out.mkdir(parents=True, exist_ok=True)
    return write_seen(RunFolder(out), prepare_data(recipe, data), recipe, init)


def test_every_training_and_validation_image_is_noted(finished: Path, studies: Path) -> None:
    manifest = pd.read_parquet(studies / "manifest.parquet")
    frame = opened(finished).frame
    for column in ("patient_id", "study_id", "dataset", "sha256"):
        assert frame[column].tolist() == manifest[column].tolist(), column
    assert frame["part"].value_counts().to_dict() == {"train": TRAIN, "val": VALIDATION}
    assert set(frame["run"]) == {""}
    facts = json.loads((finished / "provenance.json").read_text())["seen"]
    images = TRAIN + VALIDATION
    assert facts == {"images": images, "of_init": 0, "pictures": images, "unknown": []}


def test_rows_of_no_split_are_not_noted(studies: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(studies / "manifest.parquet")
    frame["split"] = ["test" if row % 3 == 0 else split for row, split in enumerate(frame["split"])]
    frame["image_path"] = [str(studies / path) for path in frame["image_path"]]
    frame.to_parquet(tmp_path / "manifest.parquet")
    noted(tmp_path, tmp_path / "run")
    used = frame[frame["split"] != "test"]
    assert opened(tmp_path / "run").frame["study_id"].tolist() == used["study_id"].tolist()
    assert opened(tmp_path / "run").frame["sha256"].tolist() == used["sha256"].tolist()


def test_pictures_are_those_that_check_compares(finished: Path, studies: Path) -> None:
    """Hashes in every bit; thumbnails to six bits a pixel."""
    found = signatures(finished)
    assert found["comparable"].all()
    for row in (0, 17, TRAIN + 2):
        path = pd.read_parquet(studies / "manifest.parquet")["image_path"][row]
        hashes, thumbnails = signature(read_image(studies / path, 36))
        np.testing.assert_array_equal(found["hashes"][row], hashes)
        assert np.abs(found["thumbnails"][row].astype(int) - thumbnails).max() <= 3


def test_a_table_without_hashes_sizes_or_ids_is_noted_without_paths_of_this_machine(
    studies: Path, tmp_path: Path
) -> None:
    manifest = pd.read_parquet(studies / "manifest.parquet")
    shutil.copytree(studies / "images", tmp_path / "data" / "images")
    table = manifest[["image_path", "findings"]].rename(columns={"findings": "report"})
    table.to_csv(tmp_path / "data" / "pairs.csv", index=False)
    noted(tmp_path / "data", tmp_path / "run")
    frame = opened(tmp_path / "run").frame
    hashes = dict(zip(manifest["image_path"], manifest["sha256"], strict=True))
    assert frame["sha256"].tolist() == frame["study_id"].map(hashes).tolist()
    assert set(frame["patient_id"]) == {""}
    assert set(frame["study_id"]) == set(manifest["image_path"])
    assert str(tmp_path).encode() not in (tmp_path / "run" / SEEN).read_bytes()
    by_name = dict(zip(manifest["image_path"], signatures_of(studies), strict=True))
    for study, one in zip(frame["study_id"], signatures(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(one["hashes"], by_name[study])


def signatures_of(studies: Path) -> list[NDArray[np.uint64]]:
    paths = pd.read_parquet(studies / "manifest.parquet")["image_path"]
    return [signature(read_image(studies / path, 36))[0] for path in paths]


# Before the first checkpoint, where the run starts over, and after it.
@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 6])
def test_the_same_data_give_the_same_bytes_also_after_a_kill(
    step: int, finished: Path, studies: Path, tmp_path: Path
) -> None:
    expected, out = (finished / SEEN).read_bytes(), tmp_path / "run"
    assert in_child(run_with_fault, kill_at_step, (step,), studies, out, tiny_recipe()) == -9
    assert (out / SEEN).read_bytes() == expected
    written = (out / SEEN).stat().st_mtime_ns
    run(studies, out, resume=True)
    assert (out / SEEN).read_bytes() == expected
    assert (out / SEEN).stat().st_mtime_ns == written


def test_an_older_run_gets_the_file_when_it_goes_on(finished: Path, studies: Path, tmp_path: Path) -> None:
    """With what the run saw that it started from, which a resumed call is not told."""
    out = tmp_path / "run"
    frame = pd.read_parquet(studies / "manifest.parquet")
    shutil.copytree(studies, tmp_path / "data")
    frame.assign(study_id="x:" + frame["study_id"]).to_parquet(tmp_path / "data" / "manifest.parquet")
    arguments = (kill_at_step, (6,), tmp_path / "data", out, tiny_recipe())
    assert in_child(run_with_fault, *arguments, init=finished) == -9
    expected = (out / SEEN).read_bytes()
    assert set(opened(out).frame["run"]) == {"", "finished"}
    (out / SEEN).unlink()
    run(tmp_path / "data", out, resume=True)
    assert (out / SEEN).read_bytes() == expected


def test_a_run_inherits_what_its_start_has_seen(finished: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": 16, "val": 3}, seed=8, size=40)
    recipe = tiny_recipe(alignment__epochs=1, reconstruction__epochs=0, alignment__warmup_epochs=0)
    second = run(tmp_path / "data", tmp_path / "second", recipe, init=finished)
    noted(tmp_path / "data", tmp_path / "third", second)  # the same data again: nothing stands there twice
    first = opened(finished).frame
    for out in (second, tmp_path / "third"):
        frame, found = opened(out).frame, signatures(out)
        assert frame["run"].value_counts().to_dict() == {"finished": len(first), "": 19}
        inherited = (frame["run"] == "finished").to_numpy()
        assert frame["study_id"][inherited].tolist() == first["study_id"].tolist()
        assert found[inherited].tobytes() == signatures(finished).tobytes()
    assert json.loads((second / "provenance.json").read_text())["seen"]["of_init"] == len(first)


def test_what_cannot_be_inherited_is_said(finished: Path, studies: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    noted(studies, tmp_path / "run", old)
    assert opened(tmp_path / "run").unknown == ("what old saw, which the run starts from (it has no seen.parquet)",)
    noted(studies, tmp_path / "next", None, image_encoder__weights="/x/timm.pth")
    assert opened(tmp_path / "next").unknown == ("what timm.pth saw, the weights that the run starts from",)
    assert opened(finished).unknown == ()
    noted(
        studies, tmp_path / "more", finished, image_encoder__weights="/x/timm.pth"
    )  # not read beside a run's weights
    assert opened(tmp_path / "more").unknown == ()


def test_of_streamed_images_ids_and_hashes_are_noted(studies: Path, tmp_path: Path) -> None:
    write_shards(studies, tmp_path / "shards", per_shard=10)
    facts = noted(tmp_path / "shards", tmp_path / "run")
    manifest = pd.read_parquet(studies / "manifest.parquet").set_index("study_id")
    frame = opened(tmp_path / "run").frame
    assert facts["images"] == TRAIN + VALIDATION
    assert facts["pictures"] == VALIDATION  # they are held in memory
    assert opened(tmp_path / "run").without_picture == TRAIN
    assert frame["sha256"].tolist() == manifest["sha256"][frame["study_id"]].tolist()
    assert signatures(tmp_path / "run")["comparable"].tolist() == (frame["part"] == "val").tolist()
    # Pictures that an earlier run has noted of the same images are not lost.
    noted(studies, tmp_path / "first")
    noted(tmp_path / "shards", tmp_path / "second", tmp_path / "first")
    inherited = (opened(tmp_path / "second").frame["run"] == "first").to_numpy()
    assert inherited.sum() == TRAIN
    assert signatures(tmp_path / "second")["comparable"][inherited].all()


def test_validation_images_of_pretraining_are_no_test_images(finished: Path, studies: Path, tmp_path: Path) -> None:
    """From the run folder that `open_encoder` was given, wherever it is."""
    protocol = EvaluationProtocol(
        id="linear/v1", title="", task="linear", split=SplitSettings(rule="any", test=["val"], val=[])
    )
    moved = shutil.copytree(finished, tmp_path / "moved")
    leakage = check_leakage(TaskData(protocol, studies, 32, 36), open_encoder(str(moved)), tmp_path / "cache")
    frame = pd.read_parquet(studies / "manifest.parquet")
    test = frame["image_path"][frame["split"] == "val"]
    for kind in ("patient", "file"):
        images = [each.image for each in leakage.findings if each.kind == kind]
        assert sorted(images) == sorted(test), kind
    assert {each.where for each in leakage.findings} == {"pretraining validation"}
    with pytest.raises(UserError, match=f"{VALIDATION} by patient, {VALIDATION} by file"):
        refuse(leakage, allow=False)
    random = open_encoder(f"random:{moved}")
    assert check_leakage(TaskData(protocol, studies, 32, 36), random, tmp_path / "cache").findings == []


def test_many_rows_come_back_as_they_were_written_and_small(tmp_path: Path) -> None:
    count, generator = 18_000, np.random.default_rng(0)
    written = np.zeros(count, dtype=SIGNATURE)
    written["comparable"] = generator.random(count) < 0.9
    there = written["comparable"]
    written["hashes"][there] = generator.integers(0, 2**64, (int(there.sum()), 2, 4), dtype=np.uint64)
    waves = (
        127.5 + 127.5 * np.sin(np.arange(32) / 5 + np.arange(50)[:, None, None]) * np.linspace(0.5, 1, 32)[:, None]
    )
    written["thumbnails"][there] = waves.astype(np.uint8)[generator.integers(0, 50, (int(there.sum()), 2))]
    ids = pd.DataFrame({name: [f"{name}:{row}" for row in range(count)] for name in ("patient_id", "study_id")})
    frame = ids.assign(dataset="d", part="train", sha256="", run="")
    parts = (slice(0, 7), slice(7, 7), slice(7, 17_000), slice(17_000, count))
    write_seen_file(tmp_path / SEEN, ((frame[part], written[part]) for part in parts), ["more"])
    seen = opened(tmp_path)
    pd.testing.assert_frame_equal(seen.frame[frame.columns], frame, check_dtype=False)
    assert seen.unknown == ("more",)
    blocks = list(seen.signatures())
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(block) for _, block in blocks)])[:-1].tolist()
    assert max(len(block) for _, block in blocks) <= 16_384
    found = np.concatenate([block for _, block in blocks])
    np.testing.assert_array_equal(found["comparable"], there)
    np.testing.assert_array_equal(found["hashes"], written["hashes"])
    assert np.abs(found["thumbnails"].astype(np.int16) - written["thumbnails"]).max() <= 3
    assert seen.without_picture == count - there.sum()


def test_a_real_picture_takes_about_a_kilobyte(finished: Path) -> None:
    assert (finished / SEEN).stat().st_size / (TRAIN + VALIDATION) < 1500
