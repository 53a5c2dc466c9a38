"""Using a finished run: `cmcgns.load(run)`."""

from cmcgns.pretrained.from_run import load, random_twin
from cmcgns.pretrained.model import BATCH, Floats, Pretrained, Prompts

__all__ = ["BATCH", "Floats", "Pretrained", "Prompts", "load", "random_twin"]
