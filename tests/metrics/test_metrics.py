import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from cmcgns.common.errors import UserError
from cmcgns.metrics import ranking
from cmcgns.metrics.ranking import RankedScores, mean_auroc, mean_over_classes
from support.bootstrap import auroc


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
    monkeypatch.setattr(ranking, "_CHUNK_CELLS", cells)
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


@pytest.mark.parametrize("block", [1, 50, 1 << 17])
def test_average_precision_agrees_with_scikit_learn_in_blocks_of_any_size(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_BLOCK_CELLS", block)
    scores, labels = tied_data(5)
    weights = np.random.default_rng(6).poisson(0.7, size=(9, len(labels)))
    precision, area = RankedScores(scores, labels).average_precision(weights), auroc(scores, labels, weights)
    for r, c in np.ndindex(precision.shape):
        use = ~np.isnan(labels[:, c])
        known = (labels[use, c], scores[use, c])
        expected = average_precision_score(*known, sample_weight=weights[r, use])
        assert precision[r, c] == pytest.approx(expected, abs=1e-12)
        assert area[r, c] == pytest.approx(roc_auc_score(*known, sample_weight=weights[r, use]), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 0.37, 1e9])
def test_weights_need_not_be_counts(scale: float) -> None:
    scores, labels = tied_data(7)
    weights = scale * np.random.default_rng(8).random((5, len(labels)))
    ranked = RankedScores(scores, labels)
    for r, c in np.ndindex(5, 4):
        use = ~np.isnan(labels[:, c])
        known, weight = (labels[use, c], scores[use, c]), weights[r, use]
        assert ranked.auroc(weights)[r, c] == pytest.approx(roc_auc_score(*known, sample_weight=weight), abs=1e-12)
        expected = average_precision_score(*known, sample_weight=weight)
        assert ranked.average_precision(weights)[r, c] == pytest.approx(expected, abs=1e-12)


def test_large_counts_are_not_rounded() -> None:
    """Past 2^24 single precision would drop the last row."""
    counts = np.array([[1 << 25, 1, 1]])
    found = auroc([[1.0], [3.0], [2.0]], [[0], [0], [1]], counts)
    assert found[0, 0] == (1 << 25) / ((1 << 25) + 1)


def test_average_precision_at_the_edges() -> None:
    nan = np.nan
    cases = [
        ([[1.0], [2.0]], [[0], [0]], nan),  # no positive
        ([[1.0], [2.0]], [[1], [1]], 1.0),  # no negative: every row found is right
        ([[1.0], [1.0], [1.0], [1.0]], [[1], [0], [0], [0]], 0.25),  # one score for all: prevalence
        ([[1.0]], [[1]], 1.0),
        ([[1.0]], [[0]], nan),
        ([[1.0]], [[nan]], nan),
        ([[np.inf], [-np.inf], [0.0]], [[0], [1], [1]], np.mean([1 / 2, 2 / 3])),
    ]
    for scores, labels, expected in cases:
        found = RankedScores(scores, labels).average_precision(np.ones((1, len(labels))))
        np.testing.assert_allclose(found, [[expected]])
    found = RankedScores([[1.0], [2.0]], [[0], [1]]).average_precision([[1, 0], [0, 0], [0, 3], [2, 1]])
    np.testing.assert_array_equal(found[:, 0], [nan, nan, 1, 1])


def test_rows_of_no_weight_change_nothing() -> None:
    scores, labels = tied_data(9)
    inside = np.arange(len(labels)) % 3 > 0
    for figure in (RankedScores.auroc, RankedScores.average_precision):
        alone = figure(RankedScores(scores[inside], labels[inside]), np.ones((1, inside.sum())))
        np.testing.assert_allclose(figure(RankedScores(scores, labels), inside[None].astype(int)), alone)


def test_a_monotone_scale_changes_nothing_and_turning_scores_turns_the_area() -> None:
    scores, labels = tied_data(10)
    weights = np.random.default_rng(11).poisson(1, size=(6, len(labels)))
    for figure in (RankedScores.auroc, RankedScores.average_precision):
        found = [figure(RankedScores(s, labels), weights) for s in (scores, np.exp(scores) - 7)]
        np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(auroc(-scores, labels, weights), 1 - auroc(scores, labels, weights))


def test_threads_of_torch_are_as_before_and_do_not_matter() -> None:
    scores, labels = tied_data(12)
    weights = np.random.default_rng(13).poisson(1, size=(6, len(labels)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(auroc(scores, labels, weights))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_rows_that_share_a_weight_are_weighed_as_repeated_weights_do() -> None:
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 20, (60, 2)), (rng.random((60, 2)) < 0.3).astype(float)
    labels[rng.random((60, 2)) < 0.1] = np.nan
    weights = rng.integers(0, 4, (7, 15))
    shared, plain = RankedScores(scores, labels, 4), RankedScores(scores, labels)
    repeated = weights.repeat(4, axis=1)
    np.testing.assert_array_equal(shared.auroc(weights), plain.auroc(repeated))
    np.testing.assert_array_equal(shared.average_precision(weights), plain.average_precision(repeated))
    with pytest.raises(UserError, match=r"weights must be \(resamples, 15\)"):
        shared.auroc(repeated)
