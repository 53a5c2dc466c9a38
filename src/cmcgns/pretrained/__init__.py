"""Using a finished run: `cmcgns.load(run)`."""

from cmcgns.pretrained.embed import BATCH, Embedder, Floats
from cmcgns.pretrained.load import Pretrained, load, random_twin

__all__ = ["BATCH", "Embedder", "Floats", "Pretrained", "load", "random_twin"]
