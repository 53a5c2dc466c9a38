import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cmcgns.errors import UserError
from cmcgns.evaluation import metrics
from cmcgns.evaluation.metrics import auroc, mean_auroc, mean_over_classes


def tied_data(seed: int = 0, n: int = 120, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, classes)) < 0.3).astype(float)
    scores = np.round(rng.normal(size=(n, classes)) + labels, 1)  # few distinct values: many ties
    labels[rng.random((n, classes)) < 0.1] = np.nan
    return scores, labels


def test_known_answers() -> None:
    labels = np.array([[0, 0, 1, 1]]).T
    assert auroc([[1], [2], [3], [4]], labels) == [1.0]
    assert auroc([[4], [3], [2], [1]], labels) == [0.0]
    assert auroc([[7], [7], [7], [7]], labels) == [0.5]
    assert auroc([[1], [3], [3], [4]], labels) == [0.875]  # one of four pairs is a tie


def test_agrees_with_scikit_learn_under_ties_and_missing_labels() -> None:
    scores, labels = tied_data()
    for c, value in enumerate(auroc(scores, labels)):
        known = ~np.isnan(labels[:, c])
        assert value == pytest.approx(roc_auc_score(labels[known, c], scores[known, c]), abs=1e-12)


@pytest.mark.parametrize("cells", [1, 500, 1 << 18])
def test_weights_agree_with_scikit_learn_in_chunks_of_any_size(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_CHUNK_CELLS", cells)
    scores, labels = tied_data(1)
    weights = np.random.default_rng(2).poisson(1, size=(9, len(labels)))
    found = auroc(scores, labels, weights)
    assert found.shape == (9, 4)
    for r, c in np.ndindex(found.shape):
        use = ~np.isnan(labels[:, c])
        expected = roc_auc_score(labels[use, c], scores[use, c], sample_weight=weights[r, use])
        assert found[r, c] == pytest.approx(expected, abs=1e-9)


def test_weights_mean_repeated_rows() -> None:
    scores, labels = tied_data(3)
    counts = np.random.default_rng(4).integers(0, 4, size=len(labels))
    repeated = np.repeat(np.arange(len(labels)), counts)
    np.testing.assert_allclose(auroc(scores, labels, counts[None])[0], auroc(scores[repeated], labels[repeated]))


def test_classes_without_positive_or_negative_are_nan_and_left_out_of_the_mean() -> None:
    labels = np.array([[0, 1, 0, np.nan], [0, 1, 1, np.nan], [0, np.nan, 1, np.nan]])
    scores = np.tile([[0.1], [0.2], [0.3]], (1, 4))
    np.testing.assert_array_equal(auroc(scores, labels), [np.nan, np.nan, 1.0, np.nan])
    value, counted = mean_auroc(scores, labels)
    assert value == 1.0
    assert counted.tolist() == [False, False, True, False]
    nothing, counted = mean_auroc(scores[:, :2], labels[:, :2])
    assert np.isnan(nothing)
    assert not counted.any()


def test_a_resample_without_positives_is_nan() -> None:
    found = auroc([[1.0], [2.0]], [[0], [1]], [[1, 0], [0, 2], [1, 1], [0, 0]])
    np.testing.assert_array_equal(found[:, 0], [np.nan, np.nan, 1.0, np.nan])


def test_mean_over_classes_keeps_leading_axes() -> None:
    nan = np.nan
    np.testing.assert_array_equal(mean_over_classes(np.array([[1.0, nan], [nan, nan], [1.0, 0.0]])), [1, nan, 0.5])


def test_a_missing_score_matters_only_where_there_is_a_label() -> None:
    assert auroc([[np.nan], [1.0], [2.0]], [[np.nan], [0], [1]]) == [1.0]
    with pytest.raises(UserError, match="row 0, class 0 is NaN"):
        auroc([[np.nan], [1.0]], [[1], [0]])


@pytest.mark.parametrize(
    ("scores", "labels", "weights", "message"),
    [
        ([[1.0]], [[2]], None, "label 2 in row 0"),
        ([[1.0], [2.0]], [[1]], None, "one shape"),
        ([1.0, 2.0], [0, 1], None, r"\(n, C\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), None, "at least one row"),
        ([[1.0], [2.0]], [[0], [1]], [1, 1], r"\(resamples, 2\)"),
        ([[1.0], [2.0]], [[0], [1]], [[1, -1]], "0 or more"),
        ([[1.0], [2.0]], [[0], [1]], [[1, np.nan]], "0 or more"),
    ],
)
def test_bad_input_is_refused(scores: object, labels: object, weights: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        auroc(scores, labels, weights)  # type: ignore[arg-type]
