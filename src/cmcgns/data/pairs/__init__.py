"""A table of radiographs and reports: read, checked, and split by patient."""

from cmcgns.data.pairs.rows import Pairs, choose_text, read_pairs
from cmcgns.data.pairs.splits import assign_splits
from cmcgns.data.pairs.table import find_table

__all__ = ["Pairs", "assign_splits", "choose_text", "find_table", "read_pairs"]
