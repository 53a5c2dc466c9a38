"""What a run notes about where it was made."""

from importlib import metadata

import pytest

import cmcgns
from cmcgns.training.run_folder import describe_environment


def test_a_checkout_that_is_not_installed_has_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "cmcgns":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    assert describe_environment()["packages"]["cmcgns"] == cmcgns.__version__
    assert describe_environment()["packages"]["torch"] == known("torch")
