import io
import json
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from cmcgns.check.report import Report, print_report, report_json, severity_text, write_page
from cmcgns.check.rule import Finding
from cmcgns.check.run import run_checks
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


def printed(report: Report) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=200))
    return stream.getvalue()


def test_json_has_everything_and_counts_rows_from_one(tmp_path: Path) -> None:
    content = json.loads(json.dumps(report_json(broken(tmp_path))))
    assert content["exit_code"] == 1
    assert content["severities"] == {"error": 3, "warning": 1, "note": 0}
    assert content["rules"]["unknown-split"]["error"] == 2
    assert content["rules"]["empty-report"]["rows"] == 35
    assert content["rules"]["same-file"]["warning"] == 0
    assert [finding["rows"] for finding in content["findings"] if finding["rule"] == "patients-across-splits"] == [
        [11, 71]
    ]


def test_the_table_shows_rules_counts_and_places(tmp_path: Path) -> None:
    text = printed(broken(tmp_path))
    for expected in (
        "unknown-split",
        "<script>",
        "[bold]valid[/bold]",
        "rows 6, 7, 8, 9, 10, and 30 more",
        "3 errors",
    ):
        assert expected in text
    assert text.index("patients-across-splits") < text.index("empty-report")  # errors first


def test_a_clean_report_has_no_table(tmp_path: Path) -> None:
    text = printed(run_checks([write(tmp_path, rows())], open_images=False))
    assert "0 errors, 0 warnings, 0 notes" in text
    assert "first places" not in text


def test_text_of_the_data_can_neither_colour_the_terminal_nor_move_its_cursor(tmp_path: Path) -> None:
    frame = changed(rows(), "split", {0: "\x1b[31mred"})
    frame = changed(frame, "patient_id", {1: "set:\x1b[2K\rp[bold]5[/bold]", 5: "set:\x1b[2K\rp[bold]5[/bold]"})
    folder = write(tmp_path / "a[red]b", frame)
    text = printed(run_checks([folder], open_images=False))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "1 \\x1b[31mred" in text
    assert "a[red]b" in text
    assert "set:\\x1b[2K\\rp[bold]5[/bold]" in text.replace("\n", "")


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
