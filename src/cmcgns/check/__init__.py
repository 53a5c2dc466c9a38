"""Checks of manifests and the images they name: what is wrong, how badly, where, and a cleaned copy."""

from cmcgns.check.fix import Cleaned, fix
from cmcgns.check.output import print_report, report_json, write_page, write_report_json
from cmcgns.check.rule import Finding, rules
from cmcgns.check.run import Report, run_checks
from cmcgns.data.images.near_duplicates import near_duplicates, perceptual_hash, signature

__all__ = [
    "Cleaned",
    "Finding",
    "Report",
    "fix",
    "near_duplicates",
    "perceptual_hash",
    "print_report",
    "report_json",
    "rules",
    "run_checks",
    "signature",
    "write_page",
    "write_report_json",
]
