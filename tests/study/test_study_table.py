"""The table against slow references: what is paired, drawn and left out."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmcgns.common.files import sha256
from cmcgns.evaluation.compare import compare_folders
from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.protocols import Cell, load_protocol
from cmcgns.evaluation.results import (
    discard,
    open_results,
    read_predictions,
    read_protocol,
    write_predictions,
    write_protocol,
)
from cmcgns.study.page import write_table
from cmcgns.study.plan import Plan
from cmcgns.study.results import Figure, Origin, Result, read_figures, read_result, write_result
from cmcgns.study.table import difference_interval, table_rows
from support.study import figures_from, plan_of, tables_of

Results = dict[tuple[str, int], Result]


def results_for(plan: Plan) -> Results:
    origin = Origin({}, "", [])
    return {
        (job.cell, job.seed): Result(job.cell, job.seed, origin, 1.0, 10, figures_from(job.recipe, plan))
        for job in plan.jobs
    }


def slow_interval(differences: list[list[float]]) -> tuple[float, float]:
    """One resample after the other, with each all ways to draw the seeds."""
    means = []
    for of_resample in zip(*differences, strict=True):
        if not any(np.isnan(each) for each in of_resample):
            means += [sum(drawn) / len(drawn) for drawn in product(of_resample, repeat=len(of_resample))]
    means.sort()
    ends = []
    for share in (0.025, 0.975):  # linear between the two nearest, as numpy's default
        exact = share * (len(means) - 1)
        below = int(exact)
        above = min(below + 1, len(means) - 1)
        ends.append(means[below] + (exact - below) * (means[above] - means[below]))
    return ends[0], ends[1]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_interval_is_that_of_the_slow_reference(seeds: int) -> None:
    differences = np.random.default_rng(7).normal(size=(seeds, 40))
    assert difference_interval(differences) == pytest.approx(slow_interval(differences.tolist()), abs=1e-12)
    differences[0, :4] = np.nan
    assert difference_interval(differences) == pytest.approx(slow_interval(differences.tolist()), abs=1e-12)


def test_interval_of_many_seeds_is_that_of_many_draws() -> None:
    """Beyond five seeds ways are drawn, so the ends agree with those of other draws within their error."""
    differences = np.random.default_rng(7).normal(loc=1.0, size=(7, 60))
    rng = np.random.default_rng(1)
    means = np.concatenate([differences[rng.integers(0, 7, size=7)].mean(axis=0) for _ in range(20_000)])
    assert difference_interval(differences) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


def test_order_of_few_seeds_and_of_resamples_does_not_matter() -> None:
    differences = np.random.default_rng(3).normal(size=(4, 50))
    mixed = differences[[2, 0, 3, 1]][:, np.random.default_rng(0).permutation(50)]
    assert difference_interval(mixed) == pytest.approx(difference_interval(differences), abs=1e-12)


def test_interval_of_a_single_seed_is_over_patients_alone() -> None:
    difference = np.random.default_rng(0).normal(size=(1, 400))
    assert difference_interval(difference) == pytest.approx(tuple(np.quantile(difference, [0.025, 0.975])))


def test_nothing_defined_gives_no_ends() -> None:
    assert np.isnan(difference_interval(np.full((2, 10), np.nan))).all()


def test_rows_are_means_spreads_and_paired_differences(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=[0, 1, 2])
    results = results_for(plan)
    row = table_rows(plan, results)[0]
    ours, theirs = ([results[cell, seed].figures[0] for seed in range(3)] for cell in ("full", "global"))
    values = [figure.value or 0.0 for figure in ours]
    assert (row.cell, row.title, row.seeds, row.shared) == ("full", "AUROC", 3, 3)
    assert row.value == pytest.approx(sum(values) / 3)
    assert row.sd == pytest.approx(np.std(values, ddof=1))
    paired = [(one.value or 0.0) - (other.value or 0.0) for one, other in zip(ours, theirs, strict=True)]
    assert row.difference == pytest.approx(sum(paired) / 3)
    drawn = [(one.drawn() - other.drawn()).tolist() for one, other in zip(ours, theirs, strict=True)]
    assert (row.low, row.high) == pytest.approx(slow_interval(drawn))
    assert row.note == "interval too narrow: only 3 seeds"


def test_only_seeds_that_both_have_are_paired(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=[0, 1, 2])
    results = results_for(plan)
    del results["global", 1], results["full", 2]
    row = table_rows(plan, results)[0]
    first = [results[cell, 0].figures[0].value or 0.0 for cell in ("full", "global")]
    assert (row.seeds, row.shared, row.note) == (2, 1, "interval over patients alone: a single seed")
    assert row.difference == pytest.approx(first[0] - first[1])
    del results["global", 0], results["global", 2]
    row = table_rows(plan, results)[0]
    assert (row.seeds, row.shared, row.difference, row.low) == (2, 0, None, None)


def test_every_pair_of_baselines_and_cells_is_compared_once(tmp_path: Path) -> None:
    cells = [{"name": name, "set": [f"objective.mu={number + 2}"]} for number, name in enumerate("abc")]
    plan = plan_of(tmp_path, cells=cells, baseline=["a", "b"], seeds=[0, 1, 2])
    results = results_for(plan)
    rows = [row for row in table_rows(plan, results) if row.title == "AUROC"]
    assert [(row.cell, row.baseline) for row in rows] == [("a", "a"), ("b", "a"), ("c", "a"), ("c", "b")]
    by_hand = [
        np.mean([results[one, seed].figures[0].value - results[other, seed].figures[0].value for seed in range(3)])  # type: ignore[operator]
        for one, other in ("ba", "ca", "cb")
    ]
    assert rows[0].difference is None
    assert [row.difference for row in rows[1:]] == pytest.approx(by_hand)
    written = write_table(plan, results, tmp_path / "out").read_text()
    assert written.index("Values, and differences: cell − a") < written.index("Differences: cell − b")
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.count("- every difference: interval too narrow: only 3 seeds") == 1
    assert text.split("Differences: cell − b\n\n")[1].startswith("| Measure | c |\n| --- | --- |\n| AUROC | ")


def test_differences_can_be_those_of_the_baseline_from_the_others(tmp_path: Path) -> None:
    about: dict[str, Any] = {"seeds": [0, 1, 2], "summary": ["AUROC"]}
    usual = plan_of(tmp_path, **about)
    turned = plan_of(tmp_path, **about, difference="baseline - cell")
    results = results_for(usual)
    for one, other in zip(table_rows(usual, results), table_rows(turned, results), strict=True):
        assert (one.cell, one.value, one.clear, one.note) == (other.cell, other.value, other.clear, other.note)
        if one.cell != one.baseline:
            assert one.difference is not None
            assert one.difference != 0
            assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))  # type: ignore[operator]
    write_table(turned, results, tmp_path / "out")
    assert "Values, and differences: global − cell\n" in (tmp_path / "out" / "table.md").read_text()


def test_a_table_of_more_measures_than_cells_has_cells_as_columns(tmp_path: Path) -> None:
    measures = [
        {"protocol": "linear/v1", "measure": "auroc", "fraction": share, "title": f"{share} %"} for share in (10, 100)
    ]
    measures.append({"protocol": "retrieval/v1", "measure": "report_to_image_r@10", "title": "R@10"})
    for count, corner, heads in ((2, "Cell", 2), (3, "Measure", 2)):
        plan = plan_of(tmp_path, measures=measures[:count])
        results = results_for(plan)
        write_table(plan, results, tmp_path / "out")
        lines = (tmp_path / "out" / "table.md").read_text().splitlines()
        table = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        assert (table[0][0].strip(), len(table[0]) - 1) == (corner, heads)
        value = f"{np.mean([results['full', seed].figures[0].value for seed in (0, 1)]):.3f}"  # type: ignore[misc]
        assert table[2][1].strip().startswith(value)  # of full in the first measure, either way round


def test_a_note_names_the_measures_and_where_needed_the_cells(tmp_path: Path) -> None:
    cells = [{"name": name, "set": [f"objective.mu={number + 2}"]} for number, name in enumerate("abc")]
    plan = plan_of(tmp_path, cells=cells, baseline="a", seeds=[0, 1, 2, 3, 4])
    results = changed(results_for(plan), "b", support=4)
    write_table(plan, results, tmp_path / "out")
    note = "no interval: it rests on 4 patients, at least 5 are needed"
    assert f"- AUROC (b − a); R@10 (b − a): {note}\n" in (tmp_path / "out" / "table.md").read_text()


def test_page_and_picture_are_the_same_every_time(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    results = results_for(plan)
    page = write_table(plan, results, tmp_path / "one").read_text()
    assert "In every cell: training.batch_size=4" in page
    assert "4 of 4 runs finished" in page
    assert page.count("data:image/png") == 1
    write_table(plan, results, tmp_path / "other")
    assert tables_of(tmp_path / "one") == tables_of(tmp_path / "other")
    assert len(tables_of(tmp_path / "one")) == 4


def test_only_clear_differences_are_set_off(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    near = changed(changed(results_for(plan), "full", value=0.5), "global", value=0.5)
    rng = np.random.default_rng(0)
    near = changed(near, "full", replicates=rng.normal(0.5, 0.1, size=40).tolist())
    near = changed(near, "global", replicates=rng.normal(0.5, 0.1, size=40).tolist())
    assert not any(row.clear for row in table_rows(plan, near))
    page = write_table(plan, near, tmp_path / "near")
    assert "<strong>" not in page.read_text()
    assert "**" not in (tmp_path / "near" / "table.md").read_text()
    far = changed(changed(near, "full", value=0.9), "full", replicates=rng.normal(0.9, 0.01, size=40).tolist())
    far = changed(far, "global", replicates=rng.normal(0.5, 0.01, size=40).tolist())
    page = write_table(plan, far, tmp_path / "far")
    assert page.read_text().count("<strong>+0.400</strong>") == 2
    assert (tmp_path / "far" / "table.md").read_text().count("**+0.400**") == 2


def changed(results: Results, cell: str, **changes: Any) -> Results:
    """Other values in every figure of a cell."""
    return {
        place: replace(result, figures=[replace(figure, **changes) for figure in result.figures])
        if place[0] == cell
        else result
        for place, result in results.items()
    }


def test_what_has_no_interval(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    results = results_for(plan)
    row = table_rows(plan, changed(results, "global", support=4))[0]
    assert (row.low, row.clear) == (None, False)
    assert row.note == "no interval: it rests on 4 patients, at least 5 are needed"
    same = changed(changed(results, "global", replicates=[0.5] * 9, value=0.5), "full", replicates=[0.5] * 9)
    assert table_rows(plan, same)[0].note == "no interval: no variation among the resamples"
    row = table_rows(plan, changed(results, "full", value=None))[0]
    assert (row.seeds, row.value, row.difference) == (0, None, None)
    undefined = changed(results, "full", replicates=[None] * 40)
    assert table_rows(plan, undefined)[0].note == "no interval: no variation among the resamples"


def test_what_is_left_out_of_a_difference_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=[0, 1, 2])
    results = results_for(plan)
    lost = changed({("full", 1): results["full", 1]}, "full", value=None)
    row = table_rows(plan, results | lost)[0]
    assert (row.seeds, row.shared) == (2, 2)
    assert row.note == "interval too narrow: only 2 seeds; AUROC of full is undefined in seed 1"
    apart = {
        place: result for place, result in results.items() if place not in {("full", 0), ("full", 2), ("global", 1)}
    }
    row = table_rows(plan, apart)[0]
    assert (row.seeds, row.shared, row.note) == (1, 0, "no difference: no seed that global has too")


def test_resamples_that_are_undefined_or_of_another_number_are_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    results = results_for(plan)
    drawn = results["full", 0].figures[0].replicates
    few = changed(results, "full", replicates=[None] * 10 + drawn[10:])
    assert table_rows(plan, few)[0].note.endswith(f"only {len(drawn) - 10} of {len(drawn)} resamples are defined")
    most = changed(results, "full", replicates=[None, *drawn[1:]])
    assert "defined" not in table_rows(plan, most)[0].note
    shorter = table_rows(plan, changed(results, "full", replicates=drawn[:-1]))[0]
    assert (shorter.low, shorter.high) == (None, None)
    assert "others have another number of them" in shorter.note


def test_other_test_rows_do_not_pair(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    results = changed(results_for(plan), "full", rows="others")
    row = table_rows(plan, results)[0]
    assert (row.difference, row.low, row.high, row.clear) == (None, None, None, False)
    assert row.value == table_rows(plan, results_for(plan))[0].value
    write_table(plan, results, tmp_path / "out")
    said = (tmp_path / "out" / "table.md").read_text()
    assert "no difference: judged on other test rows, so nothing pairs" in said


def test_without_resamples_there_is_a_difference_and_no_interval(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    whole = table_rows(plan, results_for(plan))[0]
    row = table_rows(plan, changed(results_for(plan), "global", replicates=[]))[0]
    assert (row.value, row.difference) == (whole.value, whole.difference)
    assert (row.low, row.high, row.clear) == (None, None, False)
    assert row.note.startswith("no interval: results from before the measure was asked for")


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    figure = Figure("linear/v1", 10.0, "auroc", None, 3, "rows", [0.12345, None])
    result = Result("full", 3, Origin({"a": 1}, "data", [["linear/v1", "sha", [10.0], 3]]), 2.5, 7, [figure])
    write_result(tmp_path / "full-seed-3.json", result)
    assert read_result(tmp_path / "full-seed-3.json") == result
    before = sha256(tmp_path / "full-seed-3.json")
    write_result(tmp_path / "full-seed-3.json", read_result(tmp_path / "full-seed-3.json"))
    assert sha256(tmp_path / "full-seed-3.json") == before


def judged(folder: Path, seed: int, shift: float) -> Path:
    """A folder of `cmcgns evaluate` with two draws of a linear probe's predictions, several images a patient."""
    rng = np.random.default_rng(99)
    patients = np.repeat([f"p{number}" for number in range(40)], 2)
    rows = np.array([f"{patient}-{place % 2}" for place, patient in enumerate(patients)])
    labels = (rng.random((40, 2)) < 0.4).astype(float).repeat(2, axis=0)
    open_results(folder, folder.name, str(seed))
    settings = load_protocol("linear/v1").model_dump(mode="json")
    about = {"settings": settings, "dataset": "d", "split_sha256": "s", "protocol_sha256": "p", "subset_rule": 2}
    write_protocol(folder, "linear/v1@d", {"key": "k", **about})
    for draw in range(2):
        noise = np.random.default_rng(10 * seed + draw).normal(size=labels.shape)
        probabilities = 1 / (1 + np.exp(-noise - shift * labels))
        arrays = {
            "labels": labels, "probabilities": probabilities, "scores": noise + shift * labels,
            "label_names": np.array(["A", "B"]), "counted": np.array([True, True]),
            "exclusive": np.array(False),
        }  # fmt: skip
        write_predictions(folder, "linear/v1@d", Cell(10.0, draw), "k", Predictions(rows, patients, arrays, {}))
    return folder


def test_resamples_of_the_table_and_of_main_figures_are_kept(tmp_path: Path) -> None:
    measures = [{"protocol": "linear/v1", "measure": "ece", "fraction": 10}]
    linear, retrieval = (plan := plan_of(tmp_path, measures=measures)).judging
    assert plan.resampled(linear) == {(10, "ece"), (10, "auroc"), (100, "auroc")}
    assert plan.resampled(retrieval) == {(None, "report_to_image_r@10")}
    folder = judged(tmp_path / "judged", 1, 2.0)
    whole = list(read_figures(folder, "linear/v1@d", "linear"))
    found = list(read_figures(folder, "linear/v1@d", "linear", plan.resampled(linear)))
    assert {figure.measure for figure in found if figure.replicates} == {"auroc", "ece"}
    assert [replace(figure, replicates=[]) for figure in found] == [replace(one, replicates=[]) for one in whole]


def test_draws_that_nobody_asks_for_any_more_do_not_count(tmp_path: Path) -> None:
    folder, protocol = judged(tmp_path / "judged", 1, 2.0), "linear/v1@d"
    record = read_protocol(folder, protocol)
    alone = {}
    for draw in range(2):
        settings = record["settings"] | {"seeds": 1} if draw == 0 else record["settings"]
        write_protocol(folder, protocol, record | {"settings": settings})
        alone[draw] = [figure.value for figure in read_figures(folder, protocol, "linear")]
    discard(folder, protocol, Cell(10.0, 1))
    assert alone[0] == [figure.value for figure in read_figures(folder, protocol, "linear")] != alone[1]
    write_protocol(folder, protocol, record | {"settings": record["settings"] | {"fractions": [1.0]}})
    assert list(read_figures(folder, protocol, "linear")) == []


def test_a_difference_of_few_patients_is_said_to_be_too_sure(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=[0, 1, 2, 3, 4])
    results = results_for(plan)
    assert table_rows(plan, results)[0].note == ""
    assert table_rows(plan, changed(results, "full", few=True, support=12))[0].note == (
        "interval too narrow: only 12 patients"
    )
    plan = plan_of(tmp_path, seeds=[0])
    note = table_rows(plan, changed(results_for(plan), "full", few=True, support=12))[0].note
    assert note == "interval over patients alone: a single seed; interval too narrow: only 12 patients"
    folder = judged(tmp_path / "judged", 1, 2.0)
    found = {each.measure: each for each in read_figures(folder, "linear/v1@d", "linear")}
    assert (found["auroc"].support, found["auroc"].few) == (13, False)  # two classes, whose means need 2 x 5
    for draw in range(2):
        whole = read_predictions(folder, "linear/v1@d", Cell(10.0, draw))
        arrays = dict(whole.arrays) | {"counted": np.array([True, False])}  # one class, which needs 2 x 10
        write_predictions(folder, "linear/v1@d", Cell(10.0, draw), "k", replace(whole, arrays=arrays))
    assert {each.measure: each for each in read_figures(folder, "linear/v1@d", "linear")}["auroc"].few


def test_patches_of_another_grid_do_not_pair(tmp_path: Path) -> None:
    hashes = []
    for name, patches, counted in (("a", 4, True), ("b", 16, True), ("c", 4, False), ("d", 4, True)):
        folder, protocol = judged(tmp_path / name, 1, 2.0), "linear/v1@d"
        for draw in range(2):
            found = read_predictions(folder, protocol, Cell(10.0, draw))
            arrays = {**found.arrays, "patch_labels": np.zeros((80, patches, 2))}
            arrays["counted"] = np.array([True, counted])
            write_predictions(folder, protocol, Cell(10.0, draw), "k", replace(found, arrays=arrays))
        hashes += list({figure.rows for figure in read_figures(folder, protocol, "linear")})
    assert len(hashes) == 4
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3


def test_replicates_are_those_of_compare(tmp_path: Path) -> None:
    """Differences from two files with rounded resamples are what `cmcgns compare` gets from the predictions."""
    folders = [judged(tmp_path / name, seed, shift) for name, seed, shift in (("a", 1, 2.0), ("b", 2, 1.0))]
    ours, theirs = ({each.measure: each for each in read_figures(one, "linear/v1@d", "linear")} for one in folders)
    expected = [row for row in compare_folders(*folders, resamples=400).rows if not row.label]
    assert expected
    for row in expected:
        one, other = ours[row.metric], theirs[row.metric]
        assert one.rows == other.rows
        assert one.support == row.support
        assert (one.value, other.value) == pytest.approx((row.a, row.b), abs=1e-12)
        assert len(one.replicates) == 400
        low, high = difference_interval((one.drawn() - other.drawn())[None])
        assert (low, high) == pytest.approx((row.low, row.high), abs=2e-5)
