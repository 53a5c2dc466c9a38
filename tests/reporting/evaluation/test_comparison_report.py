"""The report of a comparison: bold where the paired interval leaves out 0, and nowhere else."""

import csv
import html
import io
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cmcgns.evaluation.compare import Comparison, ComparisonRow
from cmcgns.reporting.evaluation.comparison import write_comparison
from support.result_rows import make_comparison


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(folder, make_comparison())
    return folder


def difference(**changes: object) -> ComparisonRow:
    base = ComparisonRow(
        "rsna-linear/v1", "rsna", 10.0, "auroc", "", True, 0.8, 0.75, 0.05, 0.02, 0.08, 4003, 2741, 3, 2000, True
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_every_row_is_in_the_table_of_values(folder: Path) -> None:
    read = list(csv.DictReader(io.StringIO((folder / "comparison.csv").read_text("utf-8"))))
    rows = make_comparison().rows
    assert len(read) == len(rows) > 100
    for line, row in zip(read, rows, strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in asdict(row).items()}


def test_every_row_is_printed(folder: Path) -> None:
    text = (folder / "comparison.md").read_text("utf-8")
    summary, tables = text.split("## How to read")
    primary = [row for row in make_comparison().rows if row.primary and not row.label]
    assert sum(line.startswith("| `") for line in summary.splitlines()) == len(primary)
    heads = sum(line.startswith(("| ---", "| Metric", "| Class")) for line in tables.splitlines())
    assert sum(line.startswith("| ") for line in tables.splitlines()) - heads == len(make_comparison().rows)
    assert "siim-segmentation/v1 was run for one alone" in text


@pytest.mark.parametrize(
    ("metric", "sign", "clear", "verdict"),
    [
        ("auroc", 1, True, "A better"),
        ("auroc", -1, True, "B better"),
        ("auroc", 1, False, "not clear"),
        ("ece", 1, True, "B better"),
        ("brier", -1, True, "A better"),
        ("cnr_similarity", -1, True, "B better"),
    ],
)
def test_the_verdict_knows_which_direction_is_better(
    tmp_path: Path, metric: str, sign: int, clear: bool, verdict: str
) -> None:
    low, high = sorted((sign * (0.02 if clear else -0.01), sign * 0.08))
    row = difference(metric=metric, difference=sign * 0.05, low=low, high=high, clear=clear)
    page = write_comparison(tmp_path, Comparison("a", "b", (row,), ())).read_text("utf-8")
    for text in (page, (tmp_path / "comparison.md").read_text("utf-8")):
        assert re.search(rf"{verdict}</td></tr>|\| {verdict} \|", text)
        assert f"Primary figures: A better in {int(verdict == 'A better')} of 1" in text
        assert ("lower is better" in text) == (metric in ("ece", "brier"))


def test_chance_levels_are_in_the_table_of_values_alone(tmp_path: Path) -> None:
    chance = difference(metric="pointing_chance", primary=False, difference=0.0, low=0.0, high=0.0, clear=False)
    page = write_comparison(tmp_path, Comparison("a", "b", (difference(), chance), ())).read_text("utf-8")
    for text in (page, (tmp_path / "comparison.md").read_text("utf-8")):
        assert "by chance," not in text
        assert "Pointing" not in text
        assert "1 of 1 differences are clear" in text
    assert "pointing_chance" in (tmp_path / "comparison.csv").read_text("utf-8")


def test_the_verdict_comes_first_and_classes_are_folded(folder: Path) -> None:
    page = (folder / "comparison.html").read_text("utf-8")
    assert page.index('id="verdict"') < page.index('id="reading"') < page.index("<h2><code>")
    for text in (page, (folder / "comparison.md").read_text("utf-8")):
        visible = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
        assert "Cardiomegaly" in text
        assert "Cardiomegaly" not in visible


def test_leakage_is_a_banner_above_every_difference(tmp_path: Path) -> None:
    note = "one patient; LEAKAGE was allowed for a: of 8 test images 8 (of 1 patients; 8 by patient) in pretraining"
    page = write_comparison(tmp_path, Comparison("a", "b", (difference(note=note),), ())).read_text("utf-8")
    text = (tmp_path / "comparison.md").read_text("utf-8")
    said = "was allowed for a: of 8 test images 8 (of 1 patients; 8 by patient) in pretraining"
    assert page.index('class="warning"') < page.index(said) < page.index('id="verdict"')
    assert text.index("> [!WARNING]") < text.index(f"> - `rsna-linear/v1`: {said}") < text.index("## Verdict")
    clean = write_comparison(tmp_path, Comparison("a", "b", (difference(),), ())).read_text("utf-8")
    assert 'class="warning"' not in clean


@pytest.mark.parametrize(("low", "clear"), [(0.02, True), (-0.01, False)])
def test_bold_means_clear(tmp_path: Path, low: float, clear: bool) -> None:
    page = write_comparison(tmp_path, Comparison("a", "b", (difference(low=low, clear=clear),), ())).read_text(
        "utf-8"
    )
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert ("<strong" in page) == clear
    assert ("**+0.050**" in text) == clear
    assert "+0.050" in page


def test_as_many_bold_as_clear(folder: Path) -> None:
    rows = make_comparison().rows
    assert 0 < sum(row.clear for row in rows) < len(rows)
    clear = sum(row.clear for row in rows) + sum(row.clear for row in rows if row.primary and not row.label)
    assert (folder / "comparison.html").read_text("utf-8").count("<strong") == clear
    assert (folder / "comparison.md").read_text("utf-8").count("**") == 2 * clear


def test_names_are_escaped_and_told_apart(tmp_path: Path) -> None:
    name = "<i>x</i>|$y$"
    page = write_comparison(tmp_path, Comparison(name, name, (difference(),), ())).read_text("utf-8")
    assert "<i>" not in page
    assert f"A is {name}, B is {name}." in html.unescape(page)
    escaped = r"&lt;i&gt;x&lt;/i&gt;\|\$y\$"
    assert f"| A: {escaped} | B: {escaped} |" in (tmp_path / "comparison.md").read_text("utf-8")


def test_an_undefined_difference_is_a_dash(tmp_path: Path) -> None:
    empty = difference(b=None, difference=None, low=None, high=None, clear=False, note="one class is missing")
    page = write_comparison(tmp_path, Comparison("a", "b", (empty,), ())).read_text("utf-8")
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert "| AUROC | 10 % | 0.800 | – | – | – | undefined |" in text
    assert "Measured on 4,003 test rows of 2,741 patients, 3 seeds that both have, 2,000 resamples." in text
    assert "one class is missing" in page
    assert "one class is missing" in text


def test_few_patients_and_chance_are_said(tmp_path: Path) -> None:
    rows = [difference(patients=12, label=f"class {number}") for number in range(40)]
    write_comparison(tmp_path, Comparison("a", "b", tuple(rows), ()))
    text = (tmp_path / "comparison.md").read_text("utf-8")
    assert "rsna-linear/v1 (12)" in text
    assert "40 of 40 differences are clear" in text
    assert "about 2 of 40" in text


def test_nothing_in_common(tmp_path: Path) -> None:
    page = write_comparison(tmp_path, Comparison("a", "b", (), ("rsna only in a",))).read_text("utf-8")
    assert "nothing that both were judged on" in page
    assert "rsna only in a" in page


def test_the_page_needs_nothing_else_and_is_the_same_again(folder: Path, tmp_path: Path) -> None:
    page = write_comparison(tmp_path, make_comparison()).read_bytes()
    assert page == (folder / "comparison.html").read_bytes()
    assert not re.search(rb'(?:src|href)="(?!data:|#)', page)


def test_protocols_are_in_the_order_of_their_tasks(tmp_path: Path) -> None:
    tasks = ("segmentation", "zero-shot", "grounding", "zero-shot-segmentation")  # as in names.yaml
    rows = [difference(protocol=f"phantom-{task}/v1") for task in reversed(tasks)]
    page = write_comparison(tmp_path, Comparison("a", "b", tuple(rows), ())).read_text("utf-8")
    assert re.findall("<h2><code>phantom-(.*?)/v1</code></h2>", page) == list(tasks)
