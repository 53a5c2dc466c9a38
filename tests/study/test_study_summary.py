"""Cells with seeds of their own, with protocols that do not apply, and the mean of standardised differences."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.study.page import write_table
from cmcgns.study.plan import Plan
from cmcgns.study.results import Figure, Origin, Result
from cmcgns.study.settings import SUMMARY
from cmcgns.study.table import TableRow, standardised_by_seed, table_rows
from study.test_study_table import changed, results_for, slow_interval
from support.study import plan_of

BOTH = ["AUROC", "R@10"]
THREE: list[dict[str, Any]] = [
    {"name": "full", "seeds": [0, 1, 2, 3]},
    {"name": "global", "set": ["objective.weight_report=0"]},
    {"name": "blind", "set": ["objective.mu=2"], "without": ["retrieval/v1"]},
]


def row_of(rows: list[TableRow], cell: str, title: str = SUMMARY) -> TableRow:
    return next(row for row in rows if (row.cell, row.title) == (cell, title))


def test_a_cell_may_have_more_seeds_than_the_study(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=THREE[:2], seeds=[0, 1])
    assert [job.name for job in plan.jobs] == [
        "full-seed-0", "global-seed-0", "full-seed-1", "global-seed-1", "full-seed-2", "full-seed-3",
    ]  # fmt: skip
    assert plan.seeds == [0, 1, 2, 3]
    assert [job.name for job in plan.chosen(seeds=[2])] == ["full-seed-2"]
    row = row_of(table_rows(plan, results_for(plan)), "full", "AUROC")
    assert (row.seeds, row.shared) == (4, 2)


def test_a_cell_s_seed_is_there_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cell full: seeds: 1 is there 2 times"):
        plan_of(tmp_path, cells=[{"name": "full", "seeds": [1, 1]}, THREE[1]])


def test_what_does_not_apply_is_said_in_the_table_and_is_no_nought(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=THREE)
    assert [each.name for each in plan.judging_of("blind")] == ["linear/v1"]
    assert len(plan.protocols_of("blind")) == 1
    results = {
        key: Result(each.cell, each.seed, each.made_from, 1.0, 10, each.figures[: 1 if key[0] == "blind" else 2])
        for key, each in results_for(plan).items()
    }
    row = row_of(table_rows(plan, results), "blind", "R@10")
    assert (row.value, row.difference, row.applies) == (None, None, False)
    write_table(plan, results, tmp_path / "out")
    assert (tmp_path / "out" / "table.md").read_text().count("not applicable") == 1


def test_names_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cell full: without: there is no retrieval/v2. Did you mean retrieval/v1"):
        plan_of(tmp_path, cells=[{"name": "full", "without": ["retrieval/v2"]}, THREE[1]])
    with pytest.raises(UserError, match=r"summary: there is no auroc"):
        plan_of(tmp_path, summary=["auroc"])


@pytest.mark.parametrize(
    ("recipe", "judged", "said"),
    [
        ("demo+rival-mrm", "retrieval/v1", r"retrieval/v1 cannot be done: .* mrm: .*`without: \[retrieval/v1\]`"),
        ("demo+rival-mrm", "phantom-grounding/v1", r"v1 cannot be done: the run has objective\.name mrm"),
        ("demo+rival-mrm", "phantom-presence/v1", r"presence/v1 cannot be done"),
        ("demo+rival-clip", "phantom-sides/v1", ""),
        ("demo+rival-clip", "phantom-presence/v1", ""),
    ],
)
def test_what_an_objective_trains_nothing_for_is_said_before_anything_is_trained(
    recipe: str, judged: str, said: str, tmp_path: Path
) -> None:
    judge = [{"protocol": "linear/v1", "fractions": [10]}, {"protocol": judged}]
    measures = [{"protocol": "linear/v1", "measure": "auroc"}]
    cells = [{"name": "full"}, {"name": "rival", "recipe": recipe}]
    changes = {"recipe": "demo", "set": [], "judge": judge, "measures": measures, "summary": [], "baseline": "full"}
    with pytest.raises(UserError, match=said) if said else nullcontext():
        plan_of(tmp_path, cells=cells, **changes)
    cells[1]["without"] = [judged]
    plan_of(tmp_path, cells=cells, **changes)
    cells[1]["without"] = ["linear/v1", judged]
    with pytest.raises(UserError, match="cell rival: without names all that judges: leave the cell out"):
        plan_of(tmp_path, cells=cells, **changes)


def hand_made(plan: Plan, values: dict[str, list[tuple[float, float]]]) -> dict[tuple[str, int], Result]:
    """(AUROC, R@10) of each cell by seed, with resamples around them that all cells share."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=(2, 60))
    found = {}
    for cell, pairs in values.items():
        for seed, pair in enumerate(pairs):
            figures = [
                Figure(column.protocol, column.fraction, column.measure, value, 20, "rows",
                       (value * (1 + noise[place])).tolist())
                for place, (column, value) in enumerate(zip(plan.columns, pair, strict=True))
            ]  # fmt: skip
            found[cell, seed] = Result(cell, seed, Origin({}, "", []), 1.0, 10, figures)
    return found


VALUES = {
    "full": [(0.90, 0.40), (0.92, 0.50), (0.91, 0.42)],
    "global": [(0.88, 0.30), (0.89, 0.45), (0.93, 0.33)],
}


def test_the_mean_of_standardised_differences_is_that_of_a_slow_reference(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=[{"name": "full"}, THREE[1]], seeds=[0, 1, 2], summary=BOTH)
    results = hand_made(plan, VALUES)
    units = [
        np.sqrt(np.mean([np.var([pair[place] for pair in pairs], ddof=1) for pairs in VALUES.values()]))
        for place in range(2)
    ]
    by_hand = [
        sum((VALUES["full"][seed][place] - VALUES["global"][seed][place]) / units[place] for place in range(2)) / 2
        for seed in range(3)
    ]
    row = row_of(table_rows(plan, results), "full")
    assert row.difference == pytest.approx(np.mean(by_hand))
    drawn = [
        [
            sum(
                (results["full", seed].figures[place].drawn()[r] - results["global", seed].figures[place].drawn()[r])
                / units[place]
                for place in range(2)
            )
            / 2
            for r in range(60)
        ]
        for seed in range(3)
    ]
    assert (row.low, row.high) == pytest.approx(slow_interval(drawn))
    assert (row.seeds, row.note) == (3, "interval too narrow: only 3 seeds")
    by_seed = standardised_by_seed(plan, results, "full", "global")
    assert by_seed == pytest.approx(dict(enumerate(by_hand)))
    assert standardised_by_seed(plan, {("full", 0): results["full", 0]}, "full", "global") == {}


def test_a_seed_without_one_of_the_measures_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=[{"name": "full"}, THREE[1]], seeds=[0, 1, 2], summary=BOTH)
    results = hand_made(plan, VALUES)
    auroc, recall = results["global", 1].figures
    results["global", 1] = replace(results["global", 1], figures=[auroc, replace(recall, value=None)])
    row = row_of(table_rows(plan, results), "full")
    assert row.note == "interval too narrow: only 2 seeds; R@10 of global is undefined in seed 1"


def test_it_does_not_depend_on_the_scale_of_a_measure(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=[{"name": "full"}, THREE[1]], seeds=[0, 1, 2], summary=BOTH)
    scaled = {cell: [(100 * first, second) for first, second in pairs] for cell, pairs in VALUES.items()}
    first, second = (row_of(table_rows(plan, hand_made(plan, each)), "full") for each in (VALUES, scaled))
    assert first.difference == pytest.approx(second.difference)
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_a_measure_that_does_not_apply_takes_no_part_and_that_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=THREE, seeds=[0, 1, 2], summary=BOTH)
    results = hand_made(plan, VALUES | {"blind": [(0.95, 0.0), (0.96, 0.0), (0.97, 0.0)]})
    results = {
        key: Result(each.cell, each.seed, each.made_from, 1.0, 10, each.figures[: 1 if key[0] == "blind" else 2])
        for key, each in results.items()
    }
    row = row_of(table_rows(plan, results), "blind")
    assert row.note.startswith("over AUROC alone")
    aurocs = [[pair[0] for pair in pairs] for pairs in VALUES.values()] + [[0.95, 0.96, 0.97]]
    unit = np.sqrt(np.mean([np.var(each, ddof=1) for each in aurocs]))
    assert row.difference == pytest.approx((0.96 - np.mean([0.88, 0.89, 0.93])) / unit)
    rows = table_rows(plan, results)
    assert row_of(rows, "full").note == "interval too narrow: only 3 seeds"


@pytest.mark.parametrize(
    ("changes", "has_interval", "note"),
    [
        ({"support": 4}, False, "no interval: it rests on 4 patients, at least 5 are needed"),
        ({"replicates": [None] * 60}, False, "no interval: no variation among the resamples"),
        ({"few": True}, True, "interval too narrow: only 3 seeds, only 20 patients"),
    ],
    ids=["few patients", "undefined", "scarce patients"],
)
def test_its_interval_has_the_rules_of_every_other_one(
    tmp_path: Path, changes: dict[str, Any], has_interval: bool, note: str
) -> None:
    plan = plan_of(tmp_path, cells=[{"name": "full"}, THREE[1]], seeds=[0, 1, 2], summary=BOTH)
    results = hand_made(plan, VALUES)
    whole, row = (row_of(table_rows(plan, each), "full") for each in (results, changed(results, "global", **changes)))
    assert (row.difference, row.seeds, row.note) == (whole.difference, 3, note)
    assert (row.low is not None) == (row.high is not None) == has_interval
    assert row.clear == (whole.clear and has_interval)
    write_table(plan, changed(results, "global", **changes), tmp_path / "out")
    assert "NaN" not in (tmp_path / "out" / "table.json").read_text()


def test_a_single_seed_that_both_have_is_noted_in_it_too(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=[{"name": "full"}, THREE[1]], seeds=[0, 1, 2], summary=BOTH)
    results = {key: each for key, each in hand_made(plan, VALUES).items() if key in (("global", 0),) or "full" in key}
    row = row_of(table_rows(plan, results), "full")
    assert (row.seeds, row.note) == (1, "interval over patients alone: a single seed")


def test_a_baseline_that_has_none_of_the_measures_is_refused(tmp_path: Path) -> None:
    alone = [{"protocol": "retrieval/v1", "measure": "report_to_image_r@10", "title": "R@10"}]
    assert plan_of(tmp_path, cells=THREE, baseline="global", measures=alone, summary=[])
    with pytest.raises(UserError, match=r"baseline: blind has none of the measures \(see its `without`\)"):
        plan_of(tmp_path, cells=THREE, baseline=["global", "blind"], measures=alone, summary=[])


def test_without_spread_there_is_no_standardised_difference(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, cells=[{"name": "full"}, THREE[1]], seeds=[0], summary=BOTH)
    results = hand_made(plan, {cell: pairs[:1] for cell, pairs in VALUES.items()})
    row = row_of(table_rows(plan, results), "full")
    assert (row.difference, row.low) == (None, None)
    write_table(plan, results, tmp_path / "out")
    assert "needs a cell with two seeds" in (tmp_path / "out" / "table.md").read_text()
