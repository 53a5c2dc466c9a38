"""Synthetic chest radiograph studies: image, report and ground truth from a seed.

They let every part of the package be tried, tested and measured without patient data. They are drawings, not
simulations: nothing learnt from them says anything about real radiographs.
"""

from cmcgns.phantom.dataset import write_dataset
from cmcgns.phantom.findings import FINDINGS
from cmcgns.phantom.study import DrawnFinding, Study, make_study

__all__ = ["FINDINGS", "DrawnFinding", "Study", "make_study", "write_dataset"]
