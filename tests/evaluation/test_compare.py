import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation import compare
from cmcgns.evaluation.compare import compare_folders, write_comparison_rows
from cmcgns.evaluation.contract import Predictions
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.results import read_predictions, write_predictions, write_protocol
from cmcgns.metrics.interval_table import NO_VARIATION
from cmcgns.metrics.intervals import mean_interval
from cmcgns.metrics.measure import Measure, Measures

PATIENTS = np.repeat([f"p{k}" for k in range(30)], 2)
ROWS = np.array([f"image {k}" for k in range(60)])


def measures(predictions: Predictions) -> Measures:
    """One mean for each array."""
    names = sorted(predictions.arrays, key=lambda name: name != "score")
    values = np.stack([predictions.arrays[name] for name in names], axis=1)
    of = tuple(Measure("score", "" if name == "score" else name) for name in names)
    return Measures(of, lambda counts: counts @ values / counts.sum(axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "get_task", {"linear": SimpleNamespace(measures=measures)}.__getitem__)


def judged(
    folder: Path,
    shift: float,
    protocols: tuple[str, ...] = ("toy/v1",),
    cells: tuple[Cell, ...] = (Cell(1, 0), Cell(1, 1), Cell(100, 0)),
    rows: np.ndarray = ROWS,
    patients: np.ndarray = PATIENTS,
    extra: tuple[str, ...] = (),
    record: dict[str, Any] | None = None,
) -> dict[Cell, np.ndarray]:
    """A folder of results; scores of its cells."""
    folder.mkdir(parents=True)
    (folder / "encoder.json").write_text(json.dumps({"encoder": folder.name, "sha256": f"of {folder.name}"}))
    easy, scores = np.random.default_rng(3).normal(size=60), {}
    rng = np.random.default_rng(list(folder.name.encode()))
    for name in protocols:
        about = {"settings": {"task": "linear", "primary": ""}, "split_sha256": "s", "protocol_sha256": "p"}
        write_protocol(folder, name, about | {"dataset": "toy", "leakage": ""} | (record or {}))
        for cell in cells:
            scores[cell] = easy + shift + 0.1 * rng.normal(size=60)
            arrays = {"score": scores[cell]} | dict.fromkeys(extra, scores[cell] ** 2)
            write_predictions(folder, name, cell, "key", Predictions(rows, patients, arrays))
    return scores


def test_differences_of_every_fraction_over_the_seeds(tmp_path: Path) -> None:
    a, b = judged(tmp_path / "a", 0.2), judged(tmp_path / "b", 0.0)
    found = compare_folders(tmp_path / "a", tmp_path / "b", resamples=200)
    assert (found.first, found.second, found.only_in_one) == ("a", "b", ())
    one, hundred = found.rows
    assert (one.fraction, one.seeds, hundred.fraction, hundred.seeds) == (1, 2, 100, 1)
    values = (a[Cell(1, 0)] + a[Cell(1, 1)] - b[Cell(1, 0)] - b[Cell(1, 1)]) / 2
    expected = mean_interval(values, PATIENTS, 200)
    assert (one.difference, one.low, one.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert one.a is not None
    assert one.b is not None
    assert one.difference == pytest.approx(one.a - one.b)
    assert (one.protocol, one.dataset, one.metric, one.label, one.primary) == ("toy/v1", "toy", "score", "", True)
    assert (one.n, one.patients, one.resamples, one.note) == (60, 30, 200, "")
    assert one.clear


def test_an_encoder_is_not_clearly_better_than_itself(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0.2)
    found = compare_folders(tmp_path / "a", tmp_path / "a", resamples=50)
    shown = [(row.difference, row.low, row.clear, row.note) for row in found.rows]
    assert shown == [(0, None, False, NO_VARIATION)] * 2


def test_swapping_turns_the_sign(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0.02), judged(tmp_path / "b", 0.0)
    there, back = (compare_folders(tmp_path / x, tmp_path / y, 100).rows[0] for x, y in ("ab", "ba"))
    assert back.low is not None
    assert back.high is not None
    assert there.low is not None
    assert there.low < there.high
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there.clear == back.clear


def test_what_is_only_in_one_is_named(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0.1, ("toy/v1", "mine/v1"), (Cell(1, 0), Cell(1, 1)), extra=("Edema",))
    judged(tmp_path / "b", 0.0, ("toy/v1", "yours/v1"), (Cell(1, 0), Cell(10, 0)), extra=("Mass",))
    found = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20)
    assert [(row.label, row.seeds) for row in found.rows] == [("", 1)]
    a, b = tmp_path / "a", tmp_path / "b"
    assert found.only_in_one == (
        f"mine/v1: only in {a}",
        f"yours/v1: only in {b}",
        f"toy/v1, 1-percent-seed-1: only in {a}",
        f"toy/v1, 10-percent-seed-0: only in {b}",
        f"toy/v1, score Edema: only in {a}",
        f"toy/v1, score Mass: only in {b}",
    )


def test_patches_of_another_grid_do_not_compare(tmp_path: Path) -> None:
    """And lose no other figure."""
    for name, grid in (("a", 4), ("b", 9)):
        judged(tmp_path / name, 0.0, cells=(Cell(1, 0), Cell(10, 0)))
        found = read_predictions(tmp_path / name, "toy/v1", Cell(1, 0))
        patches = {"patch_labels": np.zeros((60, grid, 1)), "counted": np.array([True])}
        write_predictions(tmp_path / name, "toy/v1", Cell(1, 0), "key", replace(found, arrays=found.arrays | patches))
    found = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20)
    assert [row.fraction for row in found.rows] == [10]
    assert found.only_in_one == ("toy/v1, 1-percent-seed-0: no difference: judged on other patches",)


def test_classes_are_rows_and_not_primary(tmp_path: Path) -> None:
    for name in "ab":
        judged(tmp_path / name, 0.0, cells=(Cell(),), extra=("Edema",))
    found = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20).rows
    assert [(row.label, row.primary, row.fraction) for row in found] == [("", True, None), ("Edema", False, None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record": {"split_sha256": "other"}}, "toy/v1: .* different splits"),
        ({"record": {"protocol_sha256": "other"}}, "different settings of the protocol"),
        ({"record": {"subset_rule": 2}}, r"toy/v1: the fractions .* by other rules \(versions 1 and 2\)"),
        ({"rows": np.r_[ROWS[:59], ["image 99"]]}, r"1-percent-seed-0: .* different rows \(2 are only in one"),
        ({"rows": ROWS[::-1].copy()}, "the same in another order"),
        ({"rows": ROWS[:50], "patients": PATIENTS[:50]}, "10 are only in one"),
        ({"patients": np.r_[PATIENTS[:59], ["q"]]}, "different patients"),
        ({"protocols": ("other/v1",)}, r"no finished cell in common \(toy/v1 against other/v1\)"),
        ({"cells": (Cell(),)}, "no finished cell in common"),
    ],
)
def test_what_does_not_compare_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    judged(tmp_path / "a", 0.0)
    many = change.get("rows", ROWS)
    if len(many) < 60:
        folder = tmp_path / "b"
        judged(folder, 0.0)
        for cell in (Cell(1, 0), Cell(1, 1), Cell(100, 0)):
            write_predictions(
                folder,
                "toy/v1",
                cell,
                "key",
                Predictions(many, PATIENTS[: len(many)], {"score": np.zeros(len(many))}),
            )
    else:
        judged(tmp_path / "b", 0.0, **change)
    with pytest.raises(UserError, match=message):
        compare_folders(tmp_path / "a", tmp_path / "b", resamples=20)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0.0)
    with pytest.raises(UserError, match="holds no results"):
        compare_folders(tmp_path / "a", tmp_path)


def test_leakage_and_a_single_patient_are_said(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0.5, patients=np.full(60, "p"), record={"leakage": "3 patients"})
    judged(tmp_path / "b", 0.0, patients=np.full(60, "p"))
    row = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20).rows[0]
    assert (row.low, row.high, row.clear, row.resamples) == (None, None, False, 0)
    assert row.difference == pytest.approx(0.5, abs=0.05)
    assert "one patient" in row.note
    assert re.search("LEAKAGE was allowed for .*: 3 patients", row.note)


def test_rows_are_written_as_json(tmp_path: Path) -> None:
    judged(tmp_path / "a", 0.0), judged(tmp_path / "b", float("nan"))
    found = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20)
    lines = write_comparison_rows(tmp_path / "new", found).read_text("utf-8").splitlines()
    first = json.loads(lines[0])
    assert len(lines) == len(found.rows)
    assert (first["first"], first["second"], first["protocol"]) == ("a", "b", "toy/v1")
    assert (first["b"], first["difference"], first["clear"]) == (None, None, False)


def test_whole_training_sets_compare_whatever_the_rule_of_fractions(tmp_path: Path) -> None:
    for name, rule in (("a", 1), ("b", 2)):
        judged(tmp_path / name, 0.0, cells=(Cell(100, 0),), record={"subset_rule": rule})
    assert compare_folders(tmp_path / "a", tmp_path / "b", resamples=20).rows


def test_a_primary_figure_that_nobody_has_leaves_the_first_one(tmp_path: Path) -> None:
    for name in "ab":
        settings = {"task": "linear", "primary": "auroc_rare"}
        judged(tmp_path / name, 0.1, cells=(Cell(1, 0),), extra=("Edema",), record={"settings": settings})
    rows = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20).rows
    assert [row.primary for row in rows] == [True, False]


def test_notes_of_both_encoders_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noted(predictions: Predictions) -> Measures:
        found, score = measures(predictions), predictions.arrays["score"]
        said = {measure: "one score for all" for measure in found.of if np.ptp(score) == 0}
        said |= {measure: "of two classes" for measure in found.of if measure.label}
        return replace(found, notes=said)

    monkeypatch.setattr(compare, "get_task", {"linear": SimpleNamespace(measures=noted)}.__getitem__)
    for name in "ab":
        judged(tmp_path / name, 0.1, cells=(Cell(1, 0),), extra=("Edema",))
    flat = Predictions(ROWS, PATIENTS, {"score": np.zeros(60), "Edema": np.arange(60.0)})
    write_predictions(tmp_path / "b", "toy/v1", Cell(1, 0), "key", flat)
    mean, edema = compare_folders(tmp_path / "a", tmp_path / "b", resamples=20).rows
    assert mean.note == "b: one score for all"
    assert edema.note == "of two classes"
