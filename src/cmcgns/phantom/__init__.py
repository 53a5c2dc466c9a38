"""Synthetic chest radiograph studies: image, report and ground truth from a seed.

They let every part of the package be tried, tested and measured without patient data. They are drawings, not
simulations: nothing learnt from them says anything about real radiographs.
"""

from cmcgns.phantom.dataset import finding_mask, write_dataset
from cmcgns.phantom.findings import FINDINGS
from cmcgns.phantom.study import DrawnFinding, Study, make_study
from cmcgns.phantom.truth import SentenceTruth, sentence_truth

__all__ = [
    "FINDINGS",
    "DrawnFinding",
    "SentenceTruth",
    "Study",
    "finding_mask",
    "make_study",
    "sentence_truth",
    "write_dataset",
]
