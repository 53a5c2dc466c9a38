"""A report of the checks as JSON, as a table in the terminal and as a page."""

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cmcgns.check.rule import RULES, SEVERITIES, Finding
from cmcgns.check.run import Report
from cmcgns.common.files import write_json, write_text

_IN_TABLE = 3
_ON_PAGE = 50
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def report_json(report: Report) -> dict[str, Any]:
    """The whole report as plain data; rows are counted from 1, as in all messages."""
    return {
        "exit_code": report.exit_code,
        "rows_count_from": 1,
        "manifests": [
            {"file": str(item.file), "rows": item.rows, "datasets": item.datasets, "splits": item.splits}
            for item in report.manifests
        ],
        "severities": report.severities,
        "rules": {name: _rule_json(name, report) for name in report.ran},
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "where": finding.where,
                "message": finding.message,
                "manifest": str(finding.manifest),
                "rows": [row + 1 for row in finding.rows],
            }
            for finding in report.findings
        ],
    }


def _rule_json(name: str, report: Report) -> dict[str, Any]:
    found = report.by_rule.get(name, [])
    counts = {severity: sum(finding.severity == severity for finding in found) for severity in report.severities}
    return {"description": RULES[name].description, "rows": count_rows(found)} | counts


def count_rows(findings: list[Finding]) -> int:
    """Number of different rows that findings are about."""
    return len({(finding.manifest, row) for finding in findings for row in finding.rows})


def severity_text(findings: list[Finding]) -> str:
    """The severity of a rule's findings; with numbers where they differ."""
    counts = Counter(finding.severity for finding in findings)
    if len(counts) == 1:
        return findings[0].severity
    return ", ".join(
        f"{counts[name]:,} {name}{'s' if counts[name] != 1 else ''}" for name in SEVERITIES if counts[name]
    )


def write_report_json(report: Report, path: Path) -> None:
    """Write :func:`report_json`."""
    write_json(path, report_json(report))


def print_report(report: Report, console: Console | None = None) -> None:
    """Print one line per rule with findings: severity, counts and the first three places."""
    console = console or Console()
    for item in report.manifests:
        splits = ", ".join(f"{count:,} {name or 'without split'}" for name, count in item.splits.items())
        console.print(escape(f"{item.file}: {item.rows:,} rows ({splits})"), highlight=False)
    if report.findings:
        console.print(_table(report))
    counts = ", ".join(f"{count:,} {name}{'s' if count != 1 else ''}" for name, count in report.severities.items())
    console.print(f"{counts}; {len(report.ran)} rules", highlight=False)


def _table(report: Report) -> Table:
    table = Table(show_lines=True)
    for name, justify in (("rule", "left"), ("findings", "right"), ("rows", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("first places", overflow="fold")
    for name, found in report.by_rule.items():
        style = _STYLES[found[0].severity]
        places = "\n".join(escape(f"{finding.where}: {finding.message}") for finding in found[:_IN_TABLE])
        more = f"\n… and {len(found) - _IN_TABLE:,} more" if len(found) > _IN_TABLE else ""
        label = f"[{style}]{escape(name)}[/]\n{severity_text(found)}"
        table.add_row(label, f"{len(found):,}", f"{count_rows(found):,}", places + more)
    return table


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file that needs nothing else."""
    text = resources.files("cmcgns.check").joinpath("templates/html.j2").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    grouped = report.by_rule
    page = template.render(
        report=report,
        grouped=[
            (name, RULES[name].description, found, found[:_ON_PAGE], count_rows(found), severity_text(found))
            for name, found in grouped.items()
        ],
        clean=[(name, RULES[name].description) for name in report.ran if name not in grouped],
        not_run=[(name, rule.description) for name, rule in RULES.items() if name not in report.ran],
    )
    write_text(path, page)
