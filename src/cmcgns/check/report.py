"""The report of a check: as plain data, as a table in the terminal, as a page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from cmcgns.check.rule import RULES, SEVERITIES, Finding, Severity
from cmcgns.common.errors import first_of
from cmcgns.common.files import write_text
from cmcgns.common.page import page_template
from cmcgns.common.safe_text import terminal_text

_IN_TABLE = 3
_ON_PAGE = 50
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True)
class Summary:
    """What was checked: the file, its number of rows, and rows by data set and by split."""

    file: Path
    rows: int
    datasets: dict[str, int]
    splits: dict[str, int]


@dataclass(frozen=True)
class Report:
    """Outcome of a check."""

    manifests: tuple[Summary, ...]
    findings: tuple[Finding, ...]
    ran: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 if there is an error, else 0."""
        return int(any(finding.severity == "error" for finding in self.findings))

    @property
    def severities(self) -> dict[Severity, int]:
        """Number of findings by severity."""
        return count_severities(self.findings)

    @property
    def by_rule(self) -> dict[str, list[Finding]]:
        """Findings by rule, rules with errors first; rules without a finding are not there."""
        grouped: dict[str, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity)):
            grouped.setdefault(finding.rule, []).append(finding)
        return grouped


def count_severities(findings: Sequence[Finding]) -> dict[Severity, int]:
    """Number of findings by severity."""
    counts = Counter(finding.severity for finding in findings)
    return {severity: counts[severity] for severity in SEVERITIES}


def count_rows(findings: Sequence[Finding]) -> int:
    """Number of different rows that findings are about."""
    return len({(finding.manifest, row) for finding in findings for row in finding.rows})


def severity_text(findings: Sequence[Finding]) -> str:
    """The severity of a rule's findings; with numbers where they differ."""
    counts = {name: count for name, count in count_severities(findings).items() if count}
    return next(iter(counts)) if len(counts) == 1 else _listed(counts)


def _listed(counts: dict[Severity, int]) -> str:
    return ", ".join(f"{count:,} {name}{'s' if count != 1 else ''}" for name, count in counts.items())


def report_json(report: Report) -> dict[str, Any]:
    """The whole report as plain data; rows are counted from 1, as in all messages."""
    by_rule = report.by_rule
    return {
        "exit_code": report.exit_code,
        "rows_count_from": 1,
        "manifests": [vars(item) | {"file": str(item.file)} for item in report.manifests],
        "severities": report.severities,
        "rules": {
            name: {"description": RULES[name].description, "rows": count_rows(by_rule.get(name, []))}
            | count_severities(by_rule.get(name, []))
            for name in report.ran
        },
        "findings": [
            {name: getattr(finding, name) for name in ("rule", "severity", "where", "message")}
            | {"manifest": str(finding.manifest), "rows": [row + 1 for row in finding.rows]}
            for finding in report.findings
        ],
    }


def print_report(report: Report, console: Console) -> None:
    """Print one line per rule with findings: severity, counts and the first three places."""
    for item in report.manifests:
        splits = ", ".join(f"{count:,} {name or 'without split'}" for name, count in item.splits.items())
        console.print(terminal_text(f"{item.file}: {item.rows:,} rows ({splits})"), highlight=False)
    if report.findings:
        console.print(_table(report))
    console.print(f"{_listed(report.severities)}; {len(report.ran)} rules", highlight=False)


def _table(report: Report) -> Table:
    numbers = [Column(name, justify="right") for name in ("findings", "rows")]
    table = Table("rule", *numbers, Column("first places", overflow="fold"), show_lines=True)
    for name, found in report.by_rule.items():
        style = _STYLES[found[0].severity]
        places = first_of(found, _IN_TABLE, lambda each: terminal_text(f"{each.where}: {each.message}"))
        label = f"[{style}]{name}[/]\n{severity_text(found)}"
        table.add_row(label, f"{len(found):,}", f"{count_rows(found):,}", "\n".join(places))
    return table


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file that needs nothing else."""
    grouped = report.by_rule
    page = page_template("cmcgns.check", "report.html.j2").render(
        report=report,
        grouped=[
            (name, RULES[name].description, found, found[:_ON_PAGE], count_rows(found), severity_text(found))
            for name, found in grouped.items()
        ],
        clean=[(name, RULES[name].description) for name in report.ran if name not in grouped],
        not_run=[(name, rule.description) for name, rule in RULES.items() if name not in report.ran],
    )
    write_text(path, page)
