"""Copies of small data sets with something done to them, and encoders that saw them."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd

from cmcgns.data.manifest import write_manifest
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage import Leakage, check_leakage
from cmcgns.evaluation.protocols.protocol import EvaluationProtocol, SplitSettings
from cmcgns.phantom.dataset import write_dataset
from cmcgns.training.data import prepare_data
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.write_seen import write_seen
from support.check import changed
from support.training import tiny_recipe

Change = Callable[[pd.DataFrame, Path], pd.DataFrame]
"""Rows of a manifest and its folder -> other rows."""


def drawn(folder: Path, counts: dict[str, int], seed: int, size: int) -> Path:
    """Synthetic studies under another name: pictures of two rows of `phantom` are not compared."""
    frame = pd.read_parquet(write_dataset(folder, counts, seed=seed, size=size))
    write_manifest(frame.assign(dataset="drawn"), folder / "manifest.parquet")
    return folder


def altered(source: Path, out: Path, change: Change) -> Path:
    """A copy of a dataset with something done to it."""
    shutil.copytree(source, out)
    alter(out, change)
    return out


def alter(folder: Path, change: Change) -> None:
    write_manifest(change(rows_of(folder), folder), folder / "manifest.parquet")


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "manifest.parquet")


def set_cells(frame: pd.DataFrame, rows: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """The frame with other values in some columns of some rows."""
    for row, cells in rows.items():
        for name, value in cells.items():
            frame = changed(frame, name, {row: value})
    return frame


def with_cells(rows: dict[int, dict[str, Any]]) -> Change:
    return lambda frame, _: set_cells(frame, rows)


def judged_row(folder: Path, number: int = 0) -> pd.Series:
    """A row of the test split."""
    frame = rows_of(folder)
    return frame[frame["split"] == "test"].iloc[number]


def task_data(folder: Path, task: Any = "linear", **split: Any) -> TaskData:
    protocol = EvaluationProtocol(
        id=f"{task.replace('_', '-')}/v1",
        title="",
        task=task,
        split=SplitSettings.model_validate({"rule": "any", **split}),
    )
    return TaskData(protocol, folder, 64, 72)


def run_on(data: Path, out: Path) -> FrozenEncoder:
    """What stands for an encoder whose run saw that data; nothing is trained."""
    recipe = tiny_recipe(data__image_size=64, data__resize=72)
    out.mkdir(parents=True)
    write_seen(RunFolder(out), prepare_data(recipe, data), recipe, None)
    return encoder_of(out)


def encoder_of(run: Path | None, name: str = "run", seen_nothing: bool = False) -> FrozenEncoder:
    pretrained = SimpleNamespace(folder=run) if run is not None else None
    return cast(FrozenEncoder, SimpleNamespace(name=name, pretrained=pretrained, seen_nothing=seen_nothing))


RANDOM = encoder_of(None, "random resnet18", seen_nothing=True)
"""An encoder that saw nothing."""


def leakage_of(test: Path, pretraining: Path, run: Path, task: Any = "linear") -> Leakage:
    """What a dataset shares with the pretraining of a run that is made for it."""
    return check_leakage(task_data(test, task), run_on(pretraining, run))


def counts(leakage: Leakage) -> dict[str, int]:
    """Test images by kind of finding."""
    return dict(Counter(kind for kind, _ in {(each.kind, each.image) for each in leakage.findings}))
