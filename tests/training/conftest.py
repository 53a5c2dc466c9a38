"""Data and one finished run, shared by the tests of the engine."""

from pathlib import Path

import pytest

from cmcgns.phantom.dataset import write_dataset
from support.training import TRAIN, VALIDATION, run


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic studies."""
    folder = tmp_path_factory.mktemp("studies")
    write_dataset(folder, {"train": TRAIN, "val": VALIDATION}, size=40)
    return folder


@pytest.fixture(scope="session")
def finished(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe that nothing interrupted; not to be changed."""
    return run(studies, tmp_path_factory.mktemp("runs") / "finished")
