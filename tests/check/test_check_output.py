import io
import json
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from cmcgns.check import Report, print_report, report_json, run_checks, write_page, write_report_json
from cmcgns.check.output import severity_text
from cmcgns.check.rule import Finding
from support.check import changed, rows, write

_VOID = {"meta", "br", "img", "hr", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects ids, links and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values[name] or "" for name in ("href", "src") if name in values]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def broken(folder: Path) -> Report:
    frame = changed(rows(80), "split", {0: "<script>alert(1)</script>", 1: "[bold]valid[/bold]"})
    frame = changed(frame, "findings", dict.fromkeys(range(5, 40), ""))
    frame = changed(frame, "patient_id", {10: "set:p70"})
    return run_checks([write(folder, frame)], open_images=False)


def test_json_has_everything_and_counts_rows_from_one(tmp_path: Path) -> None:
    report = broken(tmp_path)
    write_report_json(report, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert content == report_json(report)
    assert content["exit_code"] == 1
    assert content["severities"] == {"error": 3, "warning": 1, "note": 0}
    assert content["rules"]["unknown-split"]["error"] == 2
    assert content["rules"]["empty-report"]["rows"] == 35
    assert content["rules"]["same-file"]["warning"] == 0
    assert [finding["rows"] for finding in content["findings"] if finding["rule"] == "patients-across-splits"] == [
        [11, 71]
    ]


def test_the_table_shows_rules_counts_and_places(tmp_path: Path) -> None:
    stream = io.StringIO()
    print_report(broken(tmp_path), Console(file=stream, width=200))
    text = stream.getvalue()
    for expected in (
        "unknown-split",
        "<script>",
        "[bold]valid[/bold]",
        "rows 6, 7, 8, 9, 10 and 30 more",
        "3 errors",
    ):
        assert expected in text
    assert text.index("patients-across-splits") < text.index("empty-report")  # errors first


def test_a_clean_report_has_no_table(tmp_path: Path) -> None:
    stream = io.StringIO()
    print_report(run_checks([write(tmp_path, rows())], open_images=False), Console(file=stream, width=200))
    assert "0 errors, 0 warnings, 0 notes" in stream.getvalue()
    assert "first places" not in stream.getvalue()


def test_the_page_is_whole_self_contained_and_escaped(tmp_path: Path) -> None:
    report = broken(tmp_path)
    write_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "The data have errors" in text
    assert "url(" not in text


def test_the_page_of_a_clean_report_lists_what_was_looked_for(tmp_path: Path) -> None:
    write_page(run_checks([write(tmp_path, rows())], open_images=False), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Nothing was found" in text
    assert "patients-across-splits" in text
    assert "Not run" in text


def test_mixed_severities_are_counted():
    def some(*severities):
        return [Finding("rule", severity, "a", "b") for severity in severities]

    assert severity_text(some("warning", "warning")) == "warning"
    assert severity_text(some("warning", "error", "warning")) == "1 error, 2 warnings"
