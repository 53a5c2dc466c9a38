"""Fixtures shared by several folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

# Tensors of tests are tiny: threads would only wait for each other, up to a hundred times longer on busy cores.
torch.set_num_threads(1)


@pytest.fixture(params=["small", "medium"])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """The reference values of `tests/golden/README.md`."""
    path = Path(__file__).parent / "golden" / f"{request.param}.npz"
    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
