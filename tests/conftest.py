"""Fixtures shared by several folders."""

import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

# Tensors of tests are tiny: threads would only wait for each other, up to a hundred times longer on busy cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache; what is in this one has the name of its files, which differ.

    Child processes inherit it, and the single thread.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMCGNS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, where what is in it is counted or the same URLs have other content."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CMCGNS_CACHE", str(folder))
    return folder


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as some that machines share: who comes second makes an array as well."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.fixture(params=["small", "medium"])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """The reference values of `tests/golden/README.md`."""
    path = Path(__file__).parent / "golden" / f"{request.param}.npz"
    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
