"""Reports of an evaluation for people: Markdown, CSV, one HTML page, pictures."""

from cmcgns.evaluation.report.comparison import write_comparison
from cmcgns.evaluation.report.reliability import ReliabilityCurve
from cmcgns.evaluation.report.write import write_report

__all__ = ["ReliabilityCurve", "write_comparison", "write_report"]
