"""Two sets of synthetic studies that share nothing: to judge encoders on, and to pretrain on."""

from pathlib import Path

import pytest

from support.leakage import drawn


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that encoders are judged on: rows 0 to 23 train, 24 to 31 validate, 32 to 43 test."""
    return drawn(tmp_path_factory.mktemp("judged"), {"train": 24, "val": 8, "test": 12}, seed=1, size=128)


@pytest.fixture(scope="session")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other studies, to pretrain on: rows 0 to 15 train, 16 to 21 validate."""
    return drawn(tmp_path_factory.mktemp("pretraining"), {"train": 16, "val": 6}, seed=2, size=128)
