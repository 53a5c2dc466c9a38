"""The small world, and a folder in which a call is made."""

import platform
from importlib import import_module
from pathlib import Path

import pytest

from malformed.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    for name in ("cmcgns.demo", "lightning.fabric", "timm", "transformers"):  # so that no call is slow by its imports
        import_module(name)
    platform.processor()  # starts a process, once

    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # else a message is folded into a narrow box
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path
