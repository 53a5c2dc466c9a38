"""Whether test patients or images were seen before: in pretraining, training or validation."""

from cmcgns.evaluation.leakage.check import check_leakage
from cmcgns.evaluation.leakage.overlap import Caution, Leakage, Overlap, refuse

__all__ = ["Caution", "Leakage", "Overlap", "check_leakage", "refuse"]
