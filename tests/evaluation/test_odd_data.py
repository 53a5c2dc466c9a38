"""Data that say little or nothing: a message or a note each, and never a figure that looks like one."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cmcgns.evaluation.results import ResultRow
from cmcgns.evaluation.run import EvaluateOptions
from cmcgns.evaluation.select import choose
from cmcgns.metrics.classification import ONE_SCORE
from cmcgns.reporting.evaluation.command import judge_encoder, print_judgement, run_figures
from support.evaluation import parts_of, tiny_encoder, write_pictures, write_set
from support.result_rows import read_results

COUNTS = (24, 12, 24)


def judged(
    data: Path, protocols: str = "knn/v1,linear/v1", fraction: float = 100.0, seeds: int = 1, *overrides: str
) -> tuple[dict[str, ResultRow], list[str], str]:
    """Primary figures by protocol, failures and reasons for what was skipped, and what the terminal says."""
    console = Console(file=io.StringIO(), width=400)
    options = EvaluateOptions((fraction,), seeds, allow_leakage=True)
    out = data.parent / "out"
    done = judge_encoder(tiny_encoder(), choose(protocols, [data], overrides), out, options, console)
    print_judgement(done, console)
    assert isinstance(console.file, io.StringIO)
    rows = {
        row.protocol.partition("/")[0]: row for row in done.rows if row.primary and row.seed is None and not row.group
    }
    said = [message for _, _, message in done.outcome.failures] + [reason for _, reason in done.outcome.skipped]
    return rows, said, " ".join(console.file.getvalue().split())


def test_one_class_alone_has_no_figure(tmp_path: Path) -> None:
    rows, _, shown = judged(write_set(tmp_path / "d", counts=COUNTS, label_Edema=1))
    assert {name: row.value for name, row in rows.items()} == {"knn": None, "linear": None}
    assert "left out: Edema (the training rows have no positive or no negative of this class)" in shown


@pytest.mark.parametrize(("label", "message"), [
    (None, "no image of train has a label"), (-1, "none of the 24 training images has a label"),
])  # fmt: skip
def test_without_a_usable_label_nothing_is_computed(tmp_path: Path, label: int | None, message: str) -> None:
    rows, said, _ = judged(write_set(tmp_path / "d", counts=COUNTS, label_Edema=pd.array([label] * 60, "Int8")))
    assert not rows
    assert any(message in each for each in said)


@pytest.mark.parametrize(("patients", "counts"), [("p", COUNTS), (None, (24, 12, 1))])
def test_one_patient_or_one_image_has_no_interval(
    tmp_path: Path, patients: str | None, counts: tuple[int, int, int]
) -> None:
    columns = {} if patients is None else {"patient_id": patients}
    rows, _, shown = judged(write_set(tmp_path / "d", counts=counts, **columns))
    assert all(row.low is None and row.note for row in rows.values())
    assert "no interval" in shown or "at least two" in shown


def test_a_small_fraction_of_one_kind_is_said(tmp_path: Path) -> None:
    rows, _, shown = judged(write_set(tmp_path / "d", counts=COUNTS), fraction=1.0, seeds=2)
    assert {row.value for row in rows.values()} == {None}
    assert "left out: Edema (the training rows have no positive or no negative of this class)" in shown


def test_pictures_that_all_look_alike_give_no_finding(tmp_path: Path) -> None:
    black = (np.zeros((32, 32), np.uint8) for _ in range(sum(COUNTS)))
    labels = [number % 2 for number in range(sum(COUNTS))]
    data = write_pictures(tmp_path / "d", black, split=parts_of(COUNTS), label_Edema=labels)
    rows, _, shown = judged(data)
    for row in rows.values():
        assert (row.value, row.low) == (0.5, None)
        assert f"{ONE_SCORE} of Edema" in row.note
    assert ONE_SCORE in shown


def test_an_unlearnt_class_is_named_beside_the_accuracy(tmp_path: Path) -> None:
    part = np.repeat([0, 1, 2], COUNTS)
    third = np.where(part == 2, np.arange(60) % 3 == 2, 0)  # in the test set alone
    first = np.where(third == 1, 0, np.arange(60) % 2)
    labels = {"label_A": first, "label_B": 1 - first - third, "label_C": third}
    _, _, _ = judged(write_set(tmp_path / "d", counts=COUNTS, label_Edema=0, **labels), "linear/v1", 100.0, 1,
                     "settings.outcome=multiclass", "labels=[A, B, C]")  # fmt: skip
    accuracy = next(row for row in read_results(tmp_path / "out") if row.metric == "accuracy" and row.seed is None)
    assert "the training rows have no positive or no negative of C" in accuracy.note


def test_figures_are_computed_again_from_what_is_kept(tmp_path: Path) -> None:
    data, out = write_set(tmp_path / "d", counts=COUNTS), tmp_path / "out"
    judged(data, fraction=50.0, seeds=2)
    before = {name: (out / name).read_bytes() for name in ("results.jsonl", "results.csv")}
    for file in (*data.rglob("*.png"), data / "manifest.parquet", *(out / name for name in before)):
        file.unlink()
    assert run_figures(out) == 0
    assert {name: (out / name).read_bytes() for name in before} == before
