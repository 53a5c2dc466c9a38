"""Figures that rest on a handful of patients: no interval below five of a kind, a mark below ten, fair means."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cmcgns.evaluation.contract import Predictions, seed_measures
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.interval_table import NARROW, IntervalTable
from cmcgns.metrics.intervals import measure_intervals, paired_intervals
from cmcgns.metrics.measure import Measure, Measures, joined
from cmcgns.metrics.overlap import overlap_measures

PATIENTS = 40


def classified(positives: dict[str, int], seed: int = 0, counted: list[bool] | None = None) -> Predictions:
    """Guesses about so many patients with each finding, two images a patient."""
    rng = np.random.default_rng(seed)
    labels = np.stack([np.arange(PATIENTS) < many for many in positives.values()], axis=1).astype(float)
    scores = rng.normal(size=(2 * PATIENTS, labels.shape[1])) + 0.7 * np.repeat(labels, 2, axis=0)
    arrays = {
        "scores": scores,
        "probabilities": 1 / (1 + np.exp(-scores)),
        "labels": np.repeat(labels, 2, axis=0),
        "label_names": np.array(list(positives)),
        "counted": np.array(counted or [True] * len(positives)),
    }
    patients = np.repeat([f"p{number}" for number in range(PATIENTS)], 2)
    return Predictions(np.arange(2 * PATIENTS).astype(str), patients, arrays)


def figures(predictions: Predictions, least: int = 5, task: str = "knn") -> tuple[Measures, IntervalTable]:
    (measures,) = seed_measures(get_task(task), [predictions], least)
    return measures, measure_intervals([measures], predictions.patients, resamples=200).mean


def shown(table: IntervalTable, metric: str, label: str = "") -> tuple[bool, bool]:
    """Whether there is an interval, and whether it is called too narrow."""
    place = table.of.index(Measure(metric, label))
    return not np.isnan(table.low[place]), NARROW in table.reasons[place]


@pytest.mark.parametrize("metric", ["auroc", "auprc", "brier", "ece"])
@pytest.mark.parametrize(("many", "expected"), [(3, (False, False)), (4, (False, False)), (5, (True, True)),
                                                (9, (True, True)), (10, (True, False)), (30, (True, False)),
                                                (31, (True, True)), (36, (False, False))])  # fmt: skip
def test_five_patients_of_either_kind_for_an_interval_ten_for_one_without_a_mark(
    many: int, expected: tuple[bool, bool], metric: str
) -> None:
    _, table = figures(classified({"Mass": many}))
    assert shown(table, metric, "Mass") == shown(table, metric) == expected
    assert table.support.tolist() == [min(many, PATIENTS - many)] * len(table.of)


def test_patients_count_and_not_their_images() -> None:
    one = classified({"Mass": 8})
    shared = np.array(["first" if row < 10 else name for row, name in enumerate(one.patients)])  # 5 of 8 are one
    _, table = figures(replace(one, patients=shared))
    assert table.support[0] == 4
    assert not shown(table, "auroc", "Mass")[0]
    assert "only 4 patients with the finding" in table.reasons[0]


def boxed(images: int) -> Predictions:
    truth, rng = np.arange(images), np.random.default_rng(0)
    corners = np.tile([0.0, 0.0, 10.0, 10.0], (PATIENTS, 1))
    arrays = {
        "image": np.arange(PATIENTS), "boxes": corners + rng.random((PATIENTS, 1)) * 6,
        "scores": rng.random(PATIENTS),
        "truth_image": truth, "truth_boxes": corners[truth], "ious": np.array([0.4, 0.5]),
        "skip_empty": np.array(False), "max_detections": np.array(100),
    }  # fmt: skip
    names = np.arange(PATIENTS).astype(str)
    return Predictions(names, names, arrays)


def drawn(images: int) -> Measures:
    rng, truth = np.random.default_rng(0), np.where(np.arange(PATIENTS) < images, 50, 0)
    return overlap_measures(np.where(truth > 0, rng.integers(1, 30, PATIENTS), 0), np.full(PATIENTS, 40), truth)


@pytest.mark.parametrize(("images", "expected"), [(4, (False, False)), (7, (True, True)), (12, (True, False))])
def test_boxes_and_masks_are_what_detection_and_dice_rest_on(images: int, expected: tuple[bool, bool]) -> None:
    _, found = figures(boxed(images), task="detection")
    assert shown(found, "map") == shown(found, "ap40") == expected
    table = measure_intervals([drawn(images)], np.arange(PATIENTS), resamples=100).mean
    assert shown(table, "dice_positive") == shown(table, "iou_positive") == expected
    assert shown(table, "dice_all") == (True, False)  # all images count


def test_a_mean_leaves_out_and_names_classes_of_few_patients() -> None:
    one = classified({"Mass": 20, "Hernia": 1, "Edema": 12, "Nodule": 37})
    measures, table = figures(one)
    areas = {
        name: roc_auc_score(one.arrays["labels"][:, c], one.arrays["scores"][:, c])
        for c, name in enumerate(one.arrays["label_names"].tolist())
    }
    assert table.value[0] == pytest.approx((areas["Mass"] + areas["Edema"]) / 2)
    named = "mean over 2 of 4 classes; left out: Hernia (1 positive test patient), Nodule (3 negative test patients)"
    assert measures.notes[Measure("auroc")] == measures.notes[Measure("brier")] == named
    assert measures.notes[Measure("auroc", "Hernia")] == "not in the mean: 1 positive test patient"
    assert table.value[table.of.index(Measure("auroc", "Hernia"))] == pytest.approx(areas["Hernia"])
    assert shown(table, "auroc") == (True, False)
    every = figures(one, least=1)[1]
    assert every.value[0] == pytest.approx(sum(areas.values()) / 4)
    assert not shown(every, "auroc")[0]


def test_a_mean_without_any_class_is_undefined_and_a_single_class_is_its_own() -> None:
    measures, table = figures(classified({"Mass": 2, "Hernia": 1}))
    assert np.isnan(table.value[0])
    assert "mean over 0 of 2 classes" in measures.notes[Measure("auroc")]
    alone, table = figures(classified({"Mass": 2}))
    assert table.value[0] == table.value[1]
    assert alone.notes == {}


def test_every_resample_is_about_the_same_classes() -> None:
    one = classified({"Mass": 20, "Edema": 5})
    measures, table = figures(one)
    counts = np.ones((1, 2 * PATIENTS))
    counts[0, :10] = 0  # without any Edema the mean would be that of Mass
    assert np.isnan(measures.compute(counts)[0, 0])
    assert not np.isnan(measures.compute(counts)[0, 1])
    assert table.resamples[0] <= table.resamples[1]


def test_seeds_and_encoders_have_means_over_the_same_classes() -> None:
    names = {"Mass": 20, "Edema": 12}
    cells = [classified(names, 1), classified(names, 2, [True, False]), classified(names, 3)]
    found = seed_measures(get_task("knn"), cells, 5)
    whole = np.ones((1, 2 * PATIENTS))
    for one in found:
        first, of_mass = one.compute(whole)[0, :2]
        assert first == of_mass
        assert (
            "Edema (the training rows have no positive or no negative of this class)" in one.notes[Measure("auroc")]
        )
    difference = paired_intervals(found[:1], found[2:], cells[0].patients, resamples=50).difference
    assert difference.value[0] == difference.value[1]


def test_a_subgroup_has_its_own_classes() -> None:
    one = classified({"Mass": 20, "Edema": 12})
    mask = np.arange(2 * PATIENTS) >= 18  # three patients with Edema are left
    (measures,) = seed_measures(get_task("knn"), [one], 5, mask)
    assert "Edema (3 positive test patients)" in measures.notes[Measure("auroc")]


def test_several_kinds_are_kept_when_figures_are_joined() -> None:
    parts: Callable[[int], Measures] = drawn
    assert joined([parts(4)]).rests_on.keys() == set(parts(4).of)
