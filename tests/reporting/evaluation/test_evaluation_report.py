"""The report of an evaluation: nothing is left out, nothing is claimed that the rows do not say."""

import csv
import html
import io
import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.results import ResultRow, write_predictions, write_protocol
from cmcgns.reporting.evaluation.names import number, span
from cmcgns.reporting.evaluation.report import write_evaluation
from support.result_rows import make_failures, make_protocols, make_reliability, make_rows, make_skipped

ODD = "a|b *c* _d_ `e` <script>alert(1)</script> [f](javascript:g) $h$ & 名"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    provenance = {"command": ["cmcgns", "evaluate"], "packages": {"torch": "2.15"}}
    write_evaluation(
        folder, make_rows(), make_protocols(), make_failures(), make_skipped(), provenance, make_reliability()
    )
    return folder


def plain(page: str) -> str:
    """What a reader sees of a page, in one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def row(**changes: object) -> ResultRow:
    """One figure of a legacy protocol."""
    base = ResultRow(
        "chexpert-linear/legacy", "linear", "chexpert", "5" * 64, "encoder", "e" * 64, "auroc", primary=True,
        value=0.8123, low=0.7912, high=0.8345, n=202, patients=200, fraction=1.0, seeds=3, sd=0.0042, resamples=2000,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def write(folder: Path, *rows: ResultRow, **options: object) -> tuple[str, str]:
    """Markdown and page of a few rows."""
    page = write_evaluation(folder, rows, make_protocols(), **options)  # type: ignore[arg-type]
    return (folder / "report.md").read_text("utf-8"), page.read_text("utf-8")


def test_the_table_of_values_holds_every_field_of_every_row(folder: Path) -> None:
    read = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text("utf-8"))))
    expected = [
        {key: "" if value is None else str(value) for key, value in asdict(one).items()} for one in make_rows()
    ]
    assert read == expected
    assert list(read[0]) == [field.name for field in fields(ResultRow)]


def test_every_mean_is_printed_with_its_interval_and_spread(folder: Path) -> None:
    markdown, page = (folder / "report.md").read_text("utf-8"), plain((folder / "report.html").read_text("utf-8"))
    rows = make_rows()
    means = [one for one in rows if one.seed is None and not one.group and one.value is not None and not one.label]
    assert len(means) > 100
    for one in means:
        assert one.value is not None
        text = f"{number(one.value)} ({span(one.low, one.high)})" + (
            "" if one.sd is None else f", sd {number(one.sd)}"
        )
        assert text in markdown, one
        assert re.search(rf"{number(one.value)}(?: \S+)? \({span(one.low, one.high)}\)", page), one
    classes = [one for one in rows if one.seed is None and one.label and one.primary and one.value is not None]
    for one in classes:
        assert f"{number(one.value or 0)} ({span(one.low, one.high)})" in markdown, one


def test_what_was_measured_on_is_said_once_before_the_tables(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    markdown = (folder / "report.md").read_text("utf-8")
    for one in make_rows():
        if one.seed is None and not one.group:
            said = (
                rf"<tr><td><code>{one.protocol}</code>(?:(?!<tr>).)*?<td>{one.n:,}</td><td>{one.patients:,}</td>"
                rf'<td><code title="{one.split}">{one.split[:12]}</code>'
            )
            assert len(re.findall(said, page)) == 1
            assert markdown.count(f"`{one.split[:12]}`") == 1
    sections = [part for part in page.split("<section id=") if 'class="sources"' in part]
    assert len(sections) == 7
    assert all(part.index('class="sources"') < part.index('class="results') for part in sections)


def lines_of_summary(markdown: str) -> list[list[str]]:
    """Cells of the first table, its heading first."""
    text = markdown.split("## Primary figures")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in rows if cells[0] != "---"]


def test_the_first_table_has_the_primary_figure_of_every_protocol(folder: Path) -> None:
    markdown, page = (folder / "report.md").read_text("utf-8"), (folder / "report.html").read_text("utf-8")
    head, *lines = lines_of_summary(markdown)
    assert head == [
        "Protocol", "Measure", "No labels", "1 %", "10 %", "100 %", "Chance", "Test rows", "Patients",
    ]  # fmt: skip
    expected = [one for one in make_rows() if one.primary and one.seed is None and not one.group and not one.label]
    assert len(lines) == len({one.protocol for one in expected}) == len(make_protocols())
    for one in expected:
        line = next(cells for cells in lines if cells[0].endswith(f"`{one.protocol}`"))
        place = {None: 2, 1.0: 3, 10.0: 4, 100.0: 5}[one.fraction]
        assert line[place].startswith(f"{number(one.value or 0)} ({span(one.low, one.high)})")
        assert line[-2:] == [f"{one.n:,}", f"{one.patients:,}"]
        assert line[-3] == ("0.500" if one.metric == "auroc" else "–")
    first = page.split("<main>")[1]
    assert first.index('id="primary"') < first.index('id="reading"') < first.index('id="linear"')


def test_one_share_of_the_labels_is_named_beside_its_value(tmp_path: Path) -> None:
    head, line = lines_of_summary(write(tmp_path, row())[0])
    assert head == ["Protocol", "Measure", "Labels", "Value", "Chance", "Test rows", "Patients"]
    assert line[0] == "CheXpert, linear · `chexpert-linear/legacy`"
    assert line[1:] == ["AUROC", "1 %", "0.812 (0.791 to 0.835)", "0.500", "202", "200"]


def test_at_most_three_shares_and_the_others_are_said(tmp_path: Path) -> None:
    markdown, _ = write(tmp_path, *(row(fraction=f) for f in (1.0, 2.0, 10.0, 50.0, 100.0)))
    assert lines_of_summary(markdown)[0][2:5] == ["1 %", "10 %", "100 %"]
    assert "Further shares are in the sections below: 2 %, 50 %." in markdown


def test_chance_is_shown_where_it_is_known(tmp_path: Path) -> None:
    def chance(*rows: ResultRow) -> str:
        return lines_of_summary(write(tmp_path, *rows)[0])[1][-3]

    place = row(protocol="ms-cxr-grounding/v1", task="grounding", fraction=None, sd=None)
    pointing = replace(place, metric="pointing_similarity")
    assert chance(pointing) == "–"
    assert chance(pointing, replace(place, metric="pointing_chance", primary=False, value=0.0833)) == "0.083"
    assert chance(replace(place, metric="cnr_similarity")) == "0.000"
    assert chance(replace(place, metric="cnr_absolute_similarity")) == "–"
    assert chance(row(metric="accuracy")) == "–"
    for kind in ("", "_pooled", "_joint"):
        assert chance(replace(place, task="presence", metric=f"map_auroc{kind}")) == "0.500"


def kept_retrieval(folder: Path, cautions: list[str]) -> ResultRow:
    """What an evaluation of retrieval leaves in its folder, and its row."""
    (folder / "encoder.json").write_text(json.dumps({"encoder": "encoder", "sha256": "e" * 64}))
    write_protocol(folder, "retrieval/v1@toy", {"settings": {"task": "retrieval"}, "cautions": cautions})
    facts = {"chance_r": {"r@10": 0.02}, "chance_p": {"image_to_prompt": 0.2}}
    found = Predictions(np.array(["a"]), np.array(["p"]), {"x": np.zeros(1)}, facts)
    write_predictions(folder, "retrieval/v1@toy", Cell(), "key", found)
    return row(
        protocol="retrieval/v1@toy", task="retrieval", fraction=None, sd=None, metric="report_to_image_r@10",
        note=". ".join([*cautions, "3 images have no report"]),
    )  # fmt: skip


def test_chance_of_retrieval_is_what_was_kept(tmp_path: Path) -> None:
    found = kept_retrieval(tmp_path, [])
    assert lines_of_summary(write(tmp_path, found)[0])[1][-3] == "0.020"
    by_class = replace(found, metric="image_to_prompt_p@5")
    assert lines_of_summary(write(tmp_path, by_class)[0])[1][-3] == "0.200"


def test_what_the_guard_could_not_see_is_said_once_and_not_with_every_table(tmp_path: Path) -> None:
    unknown = "what encoder was pretrained on is not known"
    for text in write(tmp_path, kept_retrieval(tmp_path, [unknown])):
        assert f"none was found as far as it could be looked for: {unknown}." in text
        assert text.count(unknown) == 1
        assert "3 images have no report" in text
        assert "WARNING" not in text
        assert 'class="warning"' not in text


def test_a_banner_says_too_what_the_guard_could_not_see(tmp_path: Path) -> None:
    leaked = replace(kept_retrieval(tmp_path, ["its validation data are not known"]), leakage="1 of 9 test patients")
    markdown, page = write(tmp_path, leaked)
    assert "> Beyond that it is not all known: its validation data are not known." in markdown
    assert page.index("its validation data are not known") < page.index('id="primary"')


def test_a_damaged_cell_costs_the_page_no_more_than_its_chance(tmp_path: Path) -> None:
    found = kept_retrieval(tmp_path, [])
    next(tmp_path.glob("cells/*/all.npz")).write_bytes(b"no archive")
    assert lines_of_summary(write(tmp_path, found)[0])[1][-3] == "–"


def test_subgroups_and_further_metrics_are_folded_and_primary_figures_are_not(folder: Path) -> None:
    page, markdown = ((folder / name).read_text("utf-8") for name in ("report.html", "report.md"))
    for text in (page, markdown):
        visible = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
        assert text.count("<details>") == text.count("</details>") > 10
        assert not re.search("in subgroups<|in subgroups$|Forest plot of subgroups", visible, re.MULTILINE)
        assert "Further metrics by class" not in visible
        assert "By share of the labels" in visible
        assert "Figures of each class with intervals" in visible
        assert "Reliability diagram" in visible


def test_published_figures_stand_beside_legacy_protocols_alone(folder: Path) -> None:
    for text in ((folder / "report.md").read_text("utf-8"), (folder / "report.html").read_text("utf-8")):
        assert "orientation only" in text
        sections = re.split(r"\n#{2,3} |<h3>", text)
        holding = [part for part in sections if re.search(r"MGCA.{0,80}published", part, re.DOTALL)]
        assert holding
        assert all(part.startswith("Legacy protocols") for part in holding)


def test_a_published_figure_has_the_scale_of_the_measured_one(tmp_path: Path) -> None:
    markdown, _ = write(tmp_path, row(), row(fraction=10.0))
    line = next(line for line in markdown.splitlines() if "MGCA ResNet-50 (published)" in line)
    assert line == "| MGCA ResNet-50 (published) | 0.876 | 0.880 |"


@pytest.mark.parametrize("name", ["chexpert-linear/v1", "chexpert-linear/legacy+a1b2c3"])
def test_a_changed_or_new_protocol_has_no_published_figures(tmp_path: Path, name: str) -> None:
    protocols = make_protocols()
    protocols[name] = protocols["chexpert-linear/legacy"].model_copy(update={"id": name})
    write_evaluation(tmp_path, [row(protocol=name)], protocols)
    assert "MGCA" not in (tmp_path / "report.md").read_text("utf-8")
    assert "MGCA" not in (tmp_path / "report.html").read_text("utf-8")


def test_nothing_is_bold(folder: Path) -> None:
    assert "**" not in (folder / "report.md").read_text("utf-8")
    assert not re.search(r"<(b|strong)[ >]", (folder / "report.html").read_text("utf-8"))


def test_leakage_is_a_banner_above_every_figure_and_a_mark_at_the_cell(tmp_path: Path, folder: Path) -> None:
    text = "7 of 202 test patients were in pretraining"
    markdown, page = write(tmp_path, row(leakage=text))
    assert page.index('class="warning"') < page.index(text) < page.index('id="primary"')
    assert markdown.index("> [!WARNING]") < markdown.index(f"> - `chexpert-linear/legacy`: {text}")
    assert markdown.index(text) < markdown.index("## Primary figures")
    for each in (markdown, page):
        assert "has seen part of what it is tested on" in each
        assert "no test image or test patient was found" not in each
        assert re.search(r"0\.812[^|]*<sup>†</sup>", each.split("By share of the labels")[1])
    leaked = (folder / "report.md").read_text("utf-8")
    assert "> - `rsna-linear/v1`: 12 of 2,741 test patients were in pretraining" in leaked


def test_no_leakage_is_one_line(tmp_path: Path) -> None:
    for clean in write(tmp_path, row()):
        assert clean.count("Leakage: no test image or test patient was found") == 1
        assert clean.lower().replace("cmcgns", "").count("leakage") == 1
        assert "[!WARNING]" not in clean
        assert 'class="warning"' not in clean


def test_failed_and_skipped_are_listed_with_the_reason(folder: Path) -> None:
    for text in ((folder / "report.md").read_text("utf-8"), plain((folder / "report.html").read_text("utf-8"))):
        for protocol, cell, message in make_failures():
            assert all(part in html.unescape(text) for part in (protocol, cell, *message.splitlines()))
        for protocol, reason in make_skipped():
            assert protocol in text
            assert reason in html.unescape(text)
    assert "2 of 3 seeds" in (folder / "report.md").read_text("utf-8")


def test_a_missing_cell_says_whether_it_failed(tmp_path: Path) -> None:
    rows = [row(label="Edema", fraction=fraction) for fraction in (1.0, 10.0)]
    rows += [row(label="Atelectasis", fraction=fraction) for fraction in (10.0, 100.0)]
    failures = [("chexpert-linear/legacy", "100-percent-seed-0", "out of memory")]
    markdown, _ = write(tmp_path, *rows, failures=failures)
    assert "| Edema | 0.812 (0.791 to 0.835), sd 0.004 | 0.812 (0.791 to 0.835), sd 0.004 | –, failed |" in markdown
    assert "| Atelectasis | –, not run |" in markdown


def test_an_undefined_value_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    undefined = row(fraction=10.0, value=None, low=None, high=None, sd=None, note="no positive among the test rows")
    for text in write(tmp_path, row(), undefined):
        assert "no positive among the test rows" in text
    markdown, _ = write(tmp_path, row(), undefined)
    assert "| – <sup>a</sup> |" in markdown
    assert "nan" not in markdown.lower()
    lone, _ = write(tmp_path, row(value=float("nan"), low=None, high=None, sd=None))
    assert "| – <sup>a</sup> |" in lone
    assert "- <sup>a</sup> undefined on these test rows" in lone


def test_a_note_of_all_cells_needs_no_mark(tmp_path: Path) -> None:
    markdown, _ = write(tmp_path, row(note="13 of 14 classes"), row(fraction=10.0, note="13 of 14 classes"))
    assert "- 13 of 14 classes" in markdown
    assert "<sup>" not in markdown


def test_a_value_without_an_interval_says_so(tmp_path: Path) -> None:
    markdown, _ = write(tmp_path, row(low=None, high=None), row(fraction=10.0))
    assert "| 0.812, sd 0.004 <sup>a</sup> |" in markdown
    assert "no interval" in markdown


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    hostile = [
        row(encoder=ODD, fraction=f, label=label, note=ODD) for f in (1.0, 10.0) for label in ("", "Edema", ODD)
    ]
    failures = [("chexpert-linear/legacy", "all", ODD)]
    markdown, page = write(tmp_path, *hostile, failures=failures, skipped=[(ODD, ODD)], provenance={ODD: ODD})
    assert "<script" not in page
    assert "<script" not in markdown
    assert " ".join(ODD.split()) in plain(page)
    tables = [line for line in markdown.splitlines() if line.startswith("|") and "h" in line]
    assert tables
    assert (
        r"a\|b \*c\* \_d\_ \`e\` &lt;script&gt;alert(1)&lt;/script&gt; \[f\](javascript:g) \$h\$ &amp; 名" in markdown
    )
    for before, line in zip(markdown.splitlines(), markdown.splitlines()[1:], strict=False):
        if before.startswith("|") and line.startswith("|"):
            assert len(re.split(r"(?<!\\)\|", before)) == len(re.split(r"(?<!\\)\|", line))


def test_the_mean_over_seeds_is_shown_and_no_single_seed(tmp_path: Path) -> None:
    single, mean = row(seed=0, seeds=1, sd=None, value=0.7), row(value=0.75)
    for rows in ((single, mean), (mean, single)):
        both, _ = write(tmp_path, *rows)
        assert "0.750" in both
        assert "0.700" not in both


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patients": 29}, "Fewer than 30 test patients"),
        ({"patients": 30}, ""),
        ({}, "With 202 CheXpert test images the mean AUROC is uncertain by about ±3 points"),
        ({"n": 500}, ""),
    ],
)
def test_honest_sentences_appear_when_they_hold(tmp_path: Path, change: dict[str, int], said: str) -> None:
    markdown, page = write(tmp_path, row(**change))
    if said:
        assert said in markdown
        assert said in plain(page)
    elif "n" in change:
        assert "±3 points" not in markdown
    else:
        assert "Fewer than" not in markdown


def test_protocols_come_in_the_order_of_the_paper(folder: Path) -> None:
    markdown = (folder / "report.md").read_text("utf-8")
    heads = re.findall(r"^#{2,3} .*?(?:`(.*)`)?$", markdown, re.MULTILINE)
    order = [name for name in heads if name.endswith("/v1")]
    wanted = ["chexpert-linear/v1", "rsna-linear/v1", "covidx-linear/v1", "nih-linear/v1", "nih-knn/v1"]
    wanted += ["rsna-detection/v1", "object-cxr-detection/v1", "siim-segmentation/v1", "rsna-segmentation/v1"]
    assert order[: len(wanted)] == wanted


def test_pictures_are_files_and_in_the_page(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    pictures = sorted((folder / "pictures").glob("*.png"))
    kinds = {picture.name.partition("-")[0] for picture in pictures}
    assert kinds == {"fractions", "classes", "subgroups", "metrics", "reliability"}
    assert page.count("data:image/png;base64,") == len(pictures)
    for picture in pictures:
        assert f"(pictures/{picture.name})" in (folder / "report.md").read_text("utf-8")
        with Image.open(picture) as image:
            assert len(image.convert("L").getcolors(256) or []) > 20, picture  # not blank


def test_the_page_needs_nothing_else(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#|results\.csv")', page)
    assert "@import" not in page
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert set(anchors) <= set(re.findall(r'id="([^"]+)"', page))


def test_equal_rows_give_equal_files(tmp_path: Path) -> None:
    rows = [one for one in make_rows() if one.protocol in ("rsna-linear/legacy", "rsna-detection/v1")]
    for name in ("first", "second"):
        write_evaluation(tmp_path / name, rows, make_protocols(), make_failures())
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_pictures_of_an_earlier_report_go_and_others_stay(tmp_path: Path) -> None:
    write(tmp_path, row(), row(fraction=10.0))
    assert list((tmp_path / "pictures").glob("*.png"))
    foreign = tmp_path / "pictures" / "mine.png"
    foreign.write_bytes(b"")
    write(tmp_path, row())
    assert list((tmp_path / "pictures").glob("*.png")) == [foreign]


def test_a_report_without_any_result(tmp_path: Path) -> None:
    markdown, page = write(tmp_path, failures=make_failures(), skipped=make_skipped())
    for text in (markdown, page):
        assert "nothing was finished" in text
        assert "tried to allocate" in text


def test_rows_of_a_protocol_that_is_not_at_hand(tmp_path: Path) -> None:
    write_evaluation(tmp_path, [row(protocol="mine/v7")], {})
    assert "0.812 (0.791 to 0.835)" in (tmp_path / "report.md").read_text("utf-8")


def test_a_subgroup_that_is_too_small_has_no_counts_of_everyone(tmp_path: Path) -> None:
    small = row(group="age=80+ (2 rows of 2 patients)", value=None, low=None, high=None, sd=None, note="too small")
    markdown, _ = write(tmp_path, row(), small)
    assert "| age=80+ (2 rows of 2 patients) | – | – | – <sup>a</sup> |" in markdown
    assert not (tmp_path / "pictures").exists() or not list((tmp_path / "pictures").glob("subgroups*"))


def test_classes_stand_beside_their_positives(tmp_path: Path) -> None:
    classes = [row(label="Edema", n=190, positives=45), row(label="Atelectasis", positives=80)]
    for text in write(tmp_path, row(), *classes):
        assert re.search(r"Edema[^0-9]*45 of 190[^0-9]*0\.812", text)
        assert re.search(r"Atelectasis[^0-9]*80 of 202[^0-9]*0\.812", text)
    phrases = [row(label="Edema", n=120), row(label="Atelectasis", n=82)]
    markdown, _ = write(tmp_path, row(), *phrases)
    assert "| Class | test rows | 1 % |" in markdown
    assert "| Edema | 120 | 0.812" in markdown
    alike, _ = write(tmp_path, row(), *(replace(one, n=202) for one in phrases))
    assert "| Class | 1 % |" in alike


def test_skipped_protocols_of_one_reason_are_counted_each(tmp_path: Path) -> None:
    markdown, page = write(tmp_path, row(), skipped=[("a/v1, b/v1@toy", "the encoder has no report encoder")])
    assert "1 protocol with results (2 skipped)" in page
    assert "- `a/v1`, `b/v1@toy`: the encoder has no report encoder" in markdown
    assert "<code>a/v1</code>, <code>b/v1@toy</code>" in page
