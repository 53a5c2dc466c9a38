"""A data set of real reports under drawn pictures: what real language does to a method, without patients' images.

    python benchmarks/real_language.py REPORTS --out DIR

REPORTS is the folder of Open-i with indiana_reports.csv or ecgen-radiology, or a csv file with the columns uid,
findings, impression and mesh_major. Findings that a report is coded with are drawn as those of the hard synthetic
studies (codes.yaml); its text is its own. DIR is a prepared dataset, split by report. What is covered is printed, and
stands in docs/datasets.md. The reports have their own licence (CC BY-NC-ND 4.0): keep DIR to yourself.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cmcgns.common.errors import UserError
from cmcgns.data.reports.section_rules import load_rules
from cmcgns.data.reports.sections import remove_marks
from cmcgns.data.tables import read_table
from cmcgns.phantom.dataset import write_hard_studies
from cmcgns.phantom.study import Study
from cmcgns.prepare.sources.cells import draw_splits
from cmcgns.prepare.sources.openi import FRACTIONS, read_either
from coded_studies import CodedReport, code_table, make_coded_study, read_codes

SECTIONS = ("findings", "impression")


def read_texts(path: Path) -> pd.DataFrame:
    """Reports with study, findings, impression and mesh; marks of removed identifiers are taken out."""
    if path.is_file():
        names = {"uid": "study", "mesh_major": "mesh"}
        reports = read_table(path, (*names, *SECTIONS)).rename(columns=names)
    else:
        reports = read_either(path)[0]
    if repeated := reports["study"][reports["study"].duplicated()].tolist():
        raise UserError(f"{path}: the report {repeated[0]} stands there twice; take one away")
    rules = load_rules("english")
    for section in SECTIONS:
        reports[section] = [remove_marks(text, rules).strip() for text in reports[section]]
    return reports


def draw(reports: pd.DataFrame, coded: list[CodedReport], seed: int, size: int) -> Iterator[tuple[Study, str]]:
    """Every covered report as a study, with its split."""
    splits = draw_splits("openi:CXR" + reports["study"], seed, FRACTIONS)
    for index, (row, report, split) in enumerate(zip(reports.to_dict("records"), coded, splits, strict=True)):
        if covered(row, report):
            texts = (row["findings"], row["impression"])
            yield make_coded_study(seed, index, f"CXR{row['study']}", texts, report, size), split


def covered(row: dict[str, str], report: CodedReport) -> bool:
    """Whether there is a text, and something to draw under it."""
    return report.covered and bool(row["findings"] or row["impression"])


def summary(reports: pd.DataFrame, coded: list[CodedReport]) -> str:
    """What of the reports is covered, as lines."""
    kept = [report for row, report in zip(reports.to_dict("records"), coded, strict=True) if covered(row, report)]
    whole = sum(not report.other for report in kept)
    labels = Counter(label for report in kept for label in {finding.label for finding in report.findings})
    other = Counter(code.split("/")[0] for report in coded for code in report.other)
    return "\n".join(
        (
            f"{len(kept)} of {len(reports)} reports are covered ({len(kept) / len(reports):.1%}); "
            f"{sum(not report.findings for report in kept)} of them are normal",
            f"every code is drawn in {whole} ({whole / len(reports):.1%} of all)",
            "with a finding: " + ", ".join(f"{label} {count}" for label, count in labels.most_common()),
            "codes that are not drawn: " + ", ".join(f"{head} {count}" for head, count in other.most_common(15)),
        )
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    try:
        reports, table = read_texts(options.reports), code_table()
        coded = [read_codes(codes, table) for codes in reports["mesh"]]
        print(summary(reports, coded))
        print(write_hard_studies(options.out, draw(reports, coded, options.seed, options.size)))
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
