"""Checks of manifests and the images they name: what is wrong, how badly, where, and a cleaned copy."""

from cmcgns.check.report import Report, print_report, report_json, write_page
from cmcgns.check.rule import RULES, Finding
from cmcgns.check.run import Cleaned, fix, run_checks

__all__ = ["RULES", "Cleaned", "Finding", "Report", "fix", "print_report", "report_json", "run_checks", "write_page"]
