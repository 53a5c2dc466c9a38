import itertools

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from cmcgns.common.errors import UserError
from cmcgns.metrics.calibration import calibration_measures, reliability
from cmcgns.metrics.measure import Measure


def drawn(seed: int, n: int = 400, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right, and labels with gaps."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((n, classes))
    labels = (rng.random((n, classes)) < probabilities).astype(float)
    labels[rng.random((n, classes)) < 0.2] = np.nan
    return probabilities, labels


def obvious_ece(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    total, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in itertools.pairwise(edges):
        inside = (probabilities >= low) & ((probabilities < high) | (high == 1))
        if weights[inside].sum() > 0:
            gap = np.average(probabilities[inside] - labels[inside], weights=weights[inside])
            total += weights[inside].sum() / weights.sum() * abs(gap)
    return total


def test_names_come_mean_first() -> None:
    names = [(one.metric, one.label) for one in calibration_measures([[0.5, 0.5]], [[0, 1]], ["A", "B"]).of]
    assert names == [("brier", ""), ("ece", ""), ("brier", "A"), ("ece", "A"), ("brier", "B"), ("ece", "B")]
    assert Measure("ece", "1") in calibration_measures([[0.5, 0.5]], [[0, 1]]).of


def test_agrees_with_scikit_learn_and_an_obvious_reference() -> None:
    probabilities, labels = drawn(0)
    weights = np.random.default_rng(1).poisson(1, size=(6, len(labels)))
    found = calibration_measures(probabilities, labels).compute(weights)
    for r, c in np.ndindex(6, 3):
        use = ~np.isnan(labels[:, c])
        y, p, w = labels[use, c], probabilities[use, c], weights[r, use]
        assert found[r, 2 + 2 * c] == pytest.approx(brier_score_loss(y, p, sample_weight=w), abs=1e-12)
        assert found[r, 3 + 2 * c] == pytest.approx(obvious_ece(p, y, w), abs=1e-12)
    np.testing.assert_allclose(found[:, 0], found[:, 2::2].mean(axis=1))
    np.testing.assert_allclose(found[:, 1], found[:, 3::2].mean(axis=1))


def test_known_answers() -> None:
    one = np.ones((1, 4))
    labels = np.array([[0], [0], [1], [1]])
    np.testing.assert_allclose(calibration_measures(labels, labels).compute(one), 0)
    np.testing.assert_allclose(calibration_measures(1 - labels, labels).compute(one), 1)
    half = calibration_measures(np.full((4, 1), 0.5), labels).compute(one)[0]
    np.testing.assert_allclose(half, [0.25, 0, 0.25, 0])  # calibrated, and of no use


def test_right_probabilities_have_little_error_and_shifted_ones_the_shift() -> None:
    probabilities, labels = drawn(2, 60_000, 1)
    one = np.ones((1, len(labels)))
    assert calibration_measures(probabilities, labels).compute(one)[0, 1] < 0.015
    shifted = 0.8 * probabilities
    found = calibration_measures(shifted, labels).compute(one)[0, 1]
    assert found == pytest.approx(0.1, abs=0.01)  # mean of 0.2 p


def test_undefined_classes_are_nan_and_left_out_of_the_mean() -> None:
    labels = np.array([[1, np.nan], [0, np.nan]])
    found = calibration_measures(np.full((2, 2), 0.5), labels).compute(np.array([[1, 1], [0, 0], [2, 0]]))
    np.testing.assert_array_equal(found[0], [0.25, 0, 0.25, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found[1], np.nan)
    np.testing.assert_array_equal(found[2], [0.25, 0.5, 0.25, 0.5, np.nan, np.nan])


def test_a_missing_probability_matters_only_where_there_is_a_label() -> None:
    found = calibration_measures([[np.nan], [1.0]], [[np.nan], [1]]).compute(np.ones((1, 2)))
    np.testing.assert_array_equal(found, 0)


def test_reliability_is_what_the_error_is_made_of() -> None:
    probabilities, labels = drawn(3)
    found = calibration_measures(probabilities, labels).compute(np.ones((1, len(labels))))
    for column, (p, y) in enumerate(zip(probabilities.T, labels.T, strict=True)):
        probability, positive, rows = reliability(p, y)
        assert rows.sum() == (~np.isnan(y)).sum()
        assert (rows * np.abs(probability - positive)).sum() / rows.sum() == pytest.approx(found[0, 3 + 2 * column])


def test_reliability_of_few_rows() -> None:
    probability, positive, rows = reliability([0.0, 0.05, 1.0, 0.5], [0, 1, 1, np.nan])
    assert rows.tolist() == [2, 1]  # bins without a labelled row are left out
    np.testing.assert_allclose(probability, [0.025, 1])
    np.testing.assert_allclose(positive, [0.5, 1])


@pytest.mark.parametrize(
    ("probabilities", "labels", "names", "message"),
    [
        ([[1.2]], [[1]], [], r"row 0, class 0: 1.2 is no probability"),
        ([[np.nan]], [[1]], [], "nan is no probability"),
        ([[0.5]], [[0.5]], [], "only 0, 1 and NaN"),
        ([[0.5]], [[1], [0]], [], "one shape"),
        ([[0.5]], [[1]], ["A", "B"], "2 names for 1 classes"),
    ],
)
def test_bad_input_is_refused(probabilities: object, labels: object, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        calibration_measures(probabilities, labels, names)  # type: ignore[arg-type]
