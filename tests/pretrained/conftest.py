"""Data and one finished run in use, shared by the tests of this folder; not to be changed."""

from pathlib import Path

import pandas as pd
import pytest

import cmcgns
from cmcgns.phantom.dataset import write_dataset
from cmcgns.pretrained import Pretrained
from cmcgns.settings.recipe import parse_recipe
from cmcgns.training.pretrain import pretrain
from support.pretrained import RECIPE


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("studies"), {"train": 24, "val": 9}, size=44).parent


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(parse_recipe(RECIPE, "test"), data, out, accelerator="cpu", quiet=True)


@pytest.fixture(scope="session")
def loaded(run: Path) -> Pretrained:
    """The run in use; not to be changed."""
    return cmcgns.load(run)


@pytest.fixture(scope="session")
def images(data: Path) -> list[Path]:
    frame = pd.read_parquet(data / "manifest.parquet")
    return [data / path for path in frame.loc[frame["split"] == "val", "image_path"]]
