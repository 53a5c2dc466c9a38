"""Worker processes that leave each other room."""

import os
from pathlib import Path

import pytest

from cmcgns.common.processes import THREADS, worker_pool


def test_pitfall_speed_workers_have_one_thread_each_and_the_caller_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # what the user says stays
    with worker_pool(2) as pool:
        assert list(pool.map(os.getenv, THREADS)) == ["3", "1", "1", "1"]
    assert [os.environ.get(name) for name in THREADS] == ["3", None, None, None]


def test_the_environment_is_as_before_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FileNotFoundError), worker_pool(1) as pool:
        list(pool.map(os.listdir, [tmp_path / "absent"]))
    assert not set(THREADS) & set(os.environ)
