"""Pretraining of chest-radiograph encoders from reports (CM-CGNS)."""

from pathlib import Path
from typing import TYPE_CHECKING

from cmcgns.common.version import VERSION

if TYPE_CHECKING:
    from cmcgns.pretrained import Pretrained

__all__ = ["__version__", "load"]

__version__ = VERSION


def load(run: str | Path, device: str = "cpu") -> "Pretrained":
    """Load a finished run folder; see `cmcgns.pretrained.load`."""
    from cmcgns import pretrained  # torch and transformers take seconds to import

    return pretrained.load(run, device)
