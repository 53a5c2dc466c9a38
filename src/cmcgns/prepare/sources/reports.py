"""Reports of a table of one's own: whole ones are cut into sections."""

import re
from functools import partial

import pandas as pd

from cmcgns.common.errors import first_of
from cmcgns.data.manifest import REPORT_COLUMNS
from cmcgns.data.reports.section_rules import READ, SectionRules, list_rules, load_rules
from cmcgns.data.reports.sections import has_heading, remove_marks, split_sections, without_own_heading
from cmcgns.data.reports.text import MAX_REPORT, compose
from cmcgns.data.tables import map_once
from cmcgns.prepare.sources.base import PLACE, SourceTable

_SHOWN = 5  # rows or studies in a message
_SAMPLE = 200  # reports that other languages' rules are tried on
_WRITTEN_BREAK = re.compile(r"\\r\\n|\\n|\\r|<br ?/?>", re.IGNORECASE)  # line breaks as an export may spell them


def cut_reports(table: SourceTable, name: str) -> None:
    """Give rows with a whole report the sections that pretraining reads, as MIMIC-CXR's reports are cut.

    Marks of removed identifiers go from every text, and from findings and impression a heading of their own. A report
    with neither section gives no text: nothing of it would be learned but its other sections.

    Args:
        table: its frame has `PLACE` and any of findings, impression, report; stated sections stay.
        name: of the rule file.
    """
    rules = load_rules(name)
    for column in REPORT_COLUMNS:
        if column in table.frame:
            cells = table.frame[column].map(compose)
            table.frame[column] = cells
            table.leave_out(cells.str.len() > MAX_REPORT, f"its {column} has more than {MAX_REPORT:,} characters")
    frame = table.frame
    for column in READ:
        if column in frame:
            bare = partial(without_own_heading, section=column, rules=rules)
            frame[column] = map_once(frame[column], bare).astype("str")
    if "report" not in frame:
        return
    for column in READ:
        frame[column] = frame.get(column, "")
    whole = (frame["report"].str.strip() != "") & ((frame["findings"] == "") | (frame["impression"] == ""))
    reports = frame.loc[whole, "report"].map(_with_line_breaks)
    frame["report"] = map_once(frame["report"], lambda text: remove_marks(text, rules).strip()).astype("str")
    if whole.any():
        sections = {text: split_sections(text, rules) for text in reports.unique()}
        for column in READ:
            told = reports.map({text: found.get(column, "") for text, found in sections.items()})
            frame[column] = frame[column].mask(whole & (frame[column] == ""), told)
        empty = whole & (frame["findings"] + frame["impression"] == "")
        frame.loc[empty, "report"] = ""
        _note_what_was_cut(table, whole, empty, name)
        _note_other_language(table, reports.drop_duplicates(), rules, name)


def _with_line_breaks(text: str) -> str:
    return text if "\n" in text else _WRITTEN_BREAK.sub("\n", text)


def _note_what_was_cut(table: SourceTable, whole: pd.Series, empty: pd.Series, name: str) -> None:
    frame = table.frame
    counts = ", ".join(f"{int((frame.loc[whole, column] != '').sum()):,} with {column}" for column in READ)
    table.notes.append(f"{int(whole.sum()):,} whole reports cut into sections by the rules {name}: {counts}")
    if empty.any():
        rows = frame.loc[empty, PLACE]
        table.notes.append(
            f"{len(rows):,} reports have neither findings nor impression; these rows have no text: "
            + "; ".join(first_of(rows.tolist(), _SHOWN))
        )  # fmt: skip


def _note_other_language(table: SourceTable, reports: pd.Series, rules: SectionRules, name: str) -> None:
    """Say when the rules of another language find headings where these find none."""
    sample = reports.head(_SAMPLE)
    found = {name: sum(has_heading(text, rules) for text in sample)}
    if found[name] > len(sample) / 2:
        return
    found |= {other: sum(has_heading(text, load_rules(other)) for text in sample) for other in list_rules()}
    best = max(found, key=lambda each: (found[each], each == name))
    if best != name:
        table.notes.append(
            f"headings were found in {found[name]} of {len(sample)} reports, and in {found[best]} with --rules {best}"
        )
