"""The scripts behind docs/rivals.md: which trial is best, and what a step keeps."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cmcgns.study.load import load_plan
from cmcgns.study.settings import SUMMARY
from cmcgns.study.table import TableRow

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def test_the_mean_of_a_trial_is_over_its_measures_and_waits_for_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trials

    done = {"recipe": [SimpleNamespace(value=0.5), SimpleNamespace(value=0.9)], "own": [SimpleNamespace(value=0.8)]}
    assert trials.means(done) == pytest.approx({"recipe": 0.7, "own": 0.8})
    assert trials.means(done | {"fast": [SimpleNamespace(value=None)]}) == {}


def test_memory_counts_each_kept_tensor_once_and_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals

    layer = torch.nn.Linear(1024, 1024, bias=False)
    given = torch.ones(256, 1024, requires_grad=True)

    def step() -> None:
        hidden = layer(given)  # keeps `given` and the weight
        (hidden.exp() + hidden.exp()).sum().backward()  # keeps what each exp gave

    assert rivals.kept_for_backward(layer, step) == pytest.approx(3.0)  # MiB


def test_every_rival_is_among_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals
    from objectives.rivals.test_every_rival import RIVALS

    found = rivals.recipes("demo")
    assert {"default", "sentences", *RIVALS} == set(found)
    assert {recipe.objective.dim for recipe in found.values()} == {128}
    read = {name for name, recipe in found.items() if recipe.objective.decoder_width == 64}
    assert read == {"default", "sentences", *rivals.DECODERS}


def test_the_page_has_a_line_for_each_rival_and_dashes_where_a_study_has_not_got(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals_page

    def row(cell: str, title: str, difference: float, low: float, baseline: str = "default") -> TableRow:
        high = 2 * difference - low
        return TableRow(
            cell, baseline, title, "", "", None, 3, 0.5, 0.1, 3, difference, low, high, low > 0 or high < 0, ""
        )

    beds = {
        "plain": [
            row("form", SUMMARY, 0.75, 0.5),
            row("clip", SUMMARY, 0.5, 0.25),
            row("clip", SUMMARY, 2.5, 2.25, "form"),
            row("clip", "R@10", 0.1, 0.05),
            row("gloria", SUMMARY, -0.25, -0.5),
        ],
        "hard": [row("clip", SUMMARY, 0.5, -0.5)],
    }
    costs = {
        "clip": {"seconds": [1.0, 2.0], "memory": 80.0, "parameters": 1.5},
        "default": {"seconds": [1.5, 3.0], "memory": 120.4, "parameters": 1.75},
    }
    assert rivals_page.table(beds, costs)[2:] == [
        "| `clip` | **+0.500** (+0.250 to +0.750) | +0.500 (−0.500 to +1.500) | 1.00 | 80 MiB | 1.50 M |",
        "| `gloria` | −0.250 (−0.500 to 0.000) | – | – | – | – |",
        "| `default` |  |  | 1.50 | 120 MiB | 1.75 M |",
    ]
    assert rivals_page.measure_tables(beds["plain"])[1:] == [
        "| default − | mean of standardised differences | R@10 |",
        "|---|---|---|",
        "| `form` | **+0.750** (+0.500 to +1.000) | – |",
        "| `clip` | **+0.500** (+0.250 to +0.750) | **+0.100** (+0.050 to +0.150) |",
        "| `gloria` | −0.250 (−0.500 to 0.000) | – |",
        "",
        "| form − | mean of standardised differences |",
        "|---|---|",
        "| `clip` | **+2.500** (+2.250 to +2.750) |",
    ]
    lone = replace(row("clip", SUMMARY, 0.5, 0.25), shared=1)
    assert rivals_page.measure_tables([lone])[3:] == ["| `clip` | **+0.500** (+0.250 to +0.750; one seed) |"]
    panels = rivals_page.picture(beds, costs).axes
    assert [axes.get_title(loc="left") for axes in panels] == [SUMMARY, "R@10", "time of a step"]
    assert [line.get_label() for line in panels[0].lines if not line.get_label().startswith("_")] == [
        "plain", "plain", "hard",
    ]  # fmt: skip


def test_docs_show_what_the_kept_results_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(ROOT)  # where paths in a study count from
    import rivals_page

    costs, page = json.loads(rivals_page.COST.read_text()), rivals_page.PAGE.read_text("utf-8")
    assert page == rivals_page.made_anew(page, *rivals_page.read_beds(rivals_page.BEDS), costs)


def test_an_interval_over_seeds_alone_is_student_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two values half their distance times 12.706, of three as a table of t has it: 4.303."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals_page

    assert rivals_page.student_interval([0.0, 1.0]) == pytest.approx((0.5 - 6.3531, 0.5 + 6.3531), abs=1e-3)
    assert rivals_page.student_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    row = TableRow(
        "mrm",
        "default",
        SUMMARY,
        "",
        "",
        None,
        2,
        None,
        None,
        2,
        0.5,
        0.1,
        0.9,
        True,
        "over linear, patch alone; few",
    )
    other = TableRow(
        "clip", "default", SUMMARY, "", "", None, 1, None, None, 1, 0.5, None, None, False, "a single seed"
    )
    by_seed = {"plain": {"mrm": [4.0, 4.5], "clip": [0.5]}, "hard": {}}
    assert rivals_page.seeds_table({"plain": [row, other], "hard": []}, by_seed)[2:] == [
        "| `mrm` | 2 | **+4.250** (+1.073 to +7.427) | – | – | linear, patch |",
        "| `clip` | 1 | – | – | – | all six |",
    ]


def test_what_is_trained_for_the_time_of_one_rival_stands_beside_that_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(ROOT)
    import rivals_page

    rows = rivals_page.differences(*rivals_page.read_study(ROOT / "benchmarks/results/rivals"))
    assert {row.cell for row in rows if row.baseline == "twice-as-long"} == {"gloria"}
    assert {row.cell for row in rows if row.baseline == "default"} > {"clip", "gloria", "twice-as-long"}


def test_both_beds_take_the_best_trial_of_each_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial sets is what the cells of the beds set; where the recipe is the best, that is nothing."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(ROOT)
    import trials

    tried = {cell.name: set(cell.set) for cell in load_plan("rivals-tuning").cells}
    best = {
        method: trials.best(own)
        for method, own in trials.trials_of(ROOT / "benchmarks/results/rivals-tuning").items()
    }
    assert len(best) == 10
    assert all(best.values())
    for study in ("rivals", "rivals-hard"):
        cells = {cell.name: set(cell.set) for cell in load_plan(study).cells}
        for method, trial in best.items():
            assert cells[method] == tried[f"{method}-{trial}"], (study, method)
