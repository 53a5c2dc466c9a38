"""Using a finished run: `cmcgns.load(run)`."""

from cmcgns.pretrained.embed import BATCH
from cmcgns.pretrained.load import load, random_twin
from cmcgns.pretrained.model import Pretrained

__all__ = ["BATCH", "Pretrained", "load", "random_twin"]
