"""Who is in which part: by patient, never by a wrong rule, hashed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmcgns.common.errors import UserError
from cmcgns.data.manifest import read_manifest, write_manifest
from cmcgns.evaluation.data import TaskData, work_key
from cmcgns.evaluation.protocols import Cell, load_protocol
from support.evaluation import tiny_encoder, write_set


def data_of(folder: Path, *overrides: str, name: str = "linear/v1") -> TaskData:
    return TaskData(load_protocol(name, overrides), folder, 32, 32)


def test_parts_are_the_manifests_splits(tmp_path: Path) -> None:
    data = data_of(write_set(tmp_path))
    assert data.counts() == {"train": 12, "val": 6, "test": 8}
    assert (len(data.train), len(data.val), len(data.test)) == (12, 6, 8)


def test_validation_is_taken_out_of_training_by_patient(tmp_path: Path) -> None:
    """Pitfall: validation rows left in training."""
    patients = [f"p{number // 2}" for number in range(26)]
    folder = write_set(tmp_path, patient_id=patients)
    data = data_of(folder, "split.val=[]", "split.validation_share=0.3")
    train, val = set(data.train.patients), set(data.val.patients)
    assert not train & val
    assert len(data.train) + len(data.val) == 12
    assert len(val) == 2  # 30 % of 6 patients
    other = data_of(folder, "split.val=[]", "split.validation_share=0.3", "split.seed=3")
    assert set(other.val.patients) != val


def test_a_development_split_can_be_the_test_split(tmp_path: Path) -> None:
    data = data_of(write_set(tmp_path, counts=(12, 6, 0)), "split.test=[val]", "split.val=[]")
    assert data.counts() == {"train": 10, "val": 2, "test": 6}


def test_a_missing_split_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows of split test.*--set split.test=\[val\]"):
        data_of(write_set(tmp_path, counts=(12, 6, 0)))


def test_legacy_protocols_refuse_v1_splits_and_the_other_way_round(tmp_path: Path) -> None:
    columns = {"label_Pneumonia": 1}
    v1 = write_set(tmp_path / "a", "rsna", split_rule="v1", **columns)
    legacy = write_set(tmp_path / "b", "rsna", split_rule="legacy", **columns)
    with pytest.raises(UserError, match="prepared with --split v1, but rsna-linear/legacy needs legacy"):
        data_of(v1, name="rsna-linear/legacy")
    with pytest.raises(UserError, match="prepared with --split legacy, but rsna-linear/v1 needs v1"):
        data_of(legacy, name="rsna-linear/v1")
    with pytest.raises(UserError, match="no column split_detection"):
        data_of(legacy, name="rsna-detection/legacy")


def test_another_datasets_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rsna-linear/v1 is about rsna, but .* holds mine"):
        data_of(write_set(tmp_path), name="rsna-linear/v1")


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs the label Effusion \(found: Edema\)"):
        data_of(write_set(tmp_path), "labels=[Effusion]")


def test_lateral_views_are_not_judged_unless_asked(tmp_path: Path) -> None:
    views = ["LATERAL" if number % 2 else "PA" for number in range(26)]
    folder = write_set(tmp_path, view=views)
    assert sum(data_of(folder).counts().values()) == 13
    assert sum(data_of(folder, "views=all").counts().values()) == 26


def test_the_split_hash_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    before = data_of(folder).split_sha256
    frame = pd.read_parquet(folder / "manifest.parquet")
    frame.sample(frac=1, random_state=0).to_parquet(folder / "manifest.parquet", index=False)
    assert data_of(folder).split_sha256 == before
    frame.loc[0, "split"] = "test"
    frame.to_parquet(folder / "manifest.parquet", index=False)
    assert data_of(folder).split_sha256 != before


def _mask(folder: Path, value: int, name: str = "mask") -> str:
    Image.fromarray(np.full((32, 32), value, np.uint8)).save(folder / f"{name}.png")
    return f"{name}.png"


def _picture(folder: Path) -> None:
    pixels = np.full((32, 32), 7, np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "21.png")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, frame: _picture(folder),
        lambda folder, frame: _mask(folder, 0),
        lambda folder, frame: frame.update({"width": 40}),
        lambda folder, frame: frame.update({"height": 40}),
        lambda folder, frame: frame.update({"boxes": "[]"}),
        lambda folder, frame: frame.update({"label_Edema": 1}),
        lambda folder, frame: frame.update({"report": "Edema."}),
    ],
    ids=["image", "mask", "width", "height", "boxes", "labels", "report"],
)
def test_everything_that_enters_a_result_is_in_its_key(change: Any, tmp_path: Path) -> None:
    """A mask file that was drawn anew left the figures of the old one."""
    encoder, columns = tiny_encoder(), {"sha256": "a" * 64, "mask_path": "mask.png"}
    folder = write_set(tmp_path / "data", **columns)
    _mask(folder, 255)

    def key() -> str:
        return work_key(data_of(folder), encoder)

    before = key()
    assert key() == before
    changed = dict[str, Any]()
    change(folder, changed)
    write_manifest(read_manifest(folder).assign(**changed), folder / "manifest.parquet")
    assert key() != before


def test_the_key_does_not_depend_on_where_and_when_the_data_was_written(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    keys = {work_key(data_of(write_set(tmp_path / name)), encoder) for name in ("a", "b")}
    assert len(keys) == 1
    assert work_key(data_of(tmp_path / "a"), encoder, "10-percent-seed-0") not in keys


def test_fractions_are_nested_and_applied_once(tmp_path: Path) -> None:
    """Pitfall: fractions applied twice, or with no effect."""
    data = data_of(write_set(tmp_path, counts=(100, 6, 8)))
    rows = [data.fraction_rows(Cell(share, 1)) for share in (1, 10, 100)]
    assert [len(each) for each in rows] == [1, 10, 100]
    assert set(rows[0]) <= set(rows[1]) <= set(rows[2])
    assert not np.array_equal(data.fraction_rows(Cell(10, 2)), rows[1])


def test_uncertain_and_empty_labels_mean_what_the_protocol_says(tmp_path: Path) -> None:
    labels = pd.array([-1, None, 0, 1] * 6 + [1, 0], dtype="Int8")
    folder = write_set(tmp_path, label_Edema=labels)
    first = data_of(folder).train.labels[:4, 0]
    np.testing.assert_equal(first, [np.nan, np.nan, 0, 1])
    data = data_of(folder, "uncertain={Edema: 1}", "empty_labels=negative")
    np.testing.assert_equal(data.train.labels[:4, 0], [1, 0, 0, 1])


def test_a_test_image_counts_once(tmp_path: Path) -> None:
    """Subgroups find rows of a test image by its name."""
    names = [f"{number}.png" for number in range(25)] + ["24.png"]
    with pytest.raises(UserError, match=r"1 test rows name the same file.*24\.png"):
        data_of(write_set(tmp_path, source=names))
    assert len(data_of(write_set(tmp_path, source=["0.png", *names[:-1]])).test) == 8  # training rows may


def test_a_wrong_label_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path, label_Edema=[0, 1, -1, None, 2] + [0] * 21)
    with pytest.raises(UserError, match=r"label_Edema is 2 in mine:train04 \(1 such rows\)"):
        data_of(folder)


@pytest.mark.parametrize(
    ("missing", "hint"), [("train", "cmcgns prepare"), ("val", r"val=\[\]`"), ("test", r"test=\[val\]")]
)
def test_a_missing_split_has_a_way_out(missing: str, hint: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path, counts=tuple(0 if part == missing else 8 for part in ("train", "val", "test")))
    with pytest.raises(UserError, match=f"needs rows of split {missing}.*{hint}"):
        data_of(folder)


def test_an_uncertain_label_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the label Edma"):
        data_of(write_set(tmp_path), "uncertain={Edma: 1}")


def test_an_age_below_0_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "d", counts=(4, 2, 2), age=[40, 41, 42, 43, 44, 45, -1, 47])
    with pytest.raises(UserError, match="age is -1 in mine:test00"):
        TaskData(load_protocol("linear/v1"), folder, 32, 32)


def test_a_folders_name_alone_makes_no_public_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is about rsna, but .*rsna holds rsna, by its folder's name alone"):
        data_of(write_set(tmp_path / "rsna", ""), name="rsna-linear/v1")
