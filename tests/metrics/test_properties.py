"""Areas of any scores and labels against scikit-learn, and what must not change an interval."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Predictions, seed_measures
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.interval_table import IntervalTable
from cmcgns.metrics.intervals import measure_intervals
from cmcgns.metrics.ranking import RankedScores

SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))
ROWS = st.lists(st.tuples(SCORES, st.booleans(), st.integers(0, 5)), min_size=2, max_size=60)


@settings(max_examples=400, deadline=None)
@given(ROWS)
def test_areas_agree_with_scikit_learn_whatever_the_ties_and_weights(rows: list[tuple[float, bool, int]]) -> None:
    scores, labels, weights = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    ranked = RankedScores(scores[:, None], labels[:, None])
    counts = weights.astype(np.int32)
    for given_weights in (counts, weights * 0.37):  # summed in single and in double precision
        area = ranked.auroc(given_weights[None])[0, 0]
        precision = ranked.average_precision(given_weights[None])[0, 0]
        positive, negative = (given_weights[labels == value].sum() for value in (1, 0))
        if positive and negative:
            assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=given_weights), abs=1e-9)
        else:
            assert np.isnan(area)
        if positive:
            expected = average_precision_score(labels, scores, sample_weight=given_weights)
            assert precision == pytest.approx(expected, abs=1e-9)
        else:
            assert np.isnan(precision)


def test_real_weights_of_many_rows_agree_with_scikit_learn() -> None:
    """More steps than are summed at once."""
    rng, n = np.random.default_rng(0), 300_000
    labels = (rng.random(n) < 0.5).astype(float)
    scores, weights = rng.normal(size=n) + labels, rng.random(n)
    ranked = RankedScores(scores[:, None], labels[:, None])
    expected = average_precision_score(labels, scores, sample_weight=weights)
    assert ranked.average_precision(weights[None])[0, 0] == pytest.approx(expected, abs=1e-9)
    assert ranked.auroc(weights[None])[0, 0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))


@given(st.integers(0, 9))
def test_a_score_that_is_not_a_number_is_refused(place: int) -> None:
    scores, labels = np.zeros((10, 1)), (np.arange(10) % 2).astype(float)[:, None]
    scores[place] = np.nan
    with pytest.raises(UserError, match=f"the score of row {place}, class 0 is NaN"):
        RankedScores(scores, labels)
    labels[place] = np.nan
    RankedScores(scores, labels)  # where there is no label nobody asks for the score


def table(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> IntervalTable:
    arrays = {
        "scores": scores, "labels": labels, "label_names": np.array(["a", "b"]), "counted": np.ones(2, dtype=bool)
    }  # fmt: skip
    cell = Predictions(np.arange(len(scores)).astype(str), patients, arrays)
    return measure_intervals(seed_measures(get_task("knn"), [cell], 5), patients, resamples=100, seed=3).mean


def same(one: IntervalTable, other: IntervalTable) -> None:
    for name in ("value", "low", "high", "resamples", "support"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)
    assert one.reasons == other.reasons


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 60))
def test_intervals_depend_on_order_alone_and_not_on_rows_or_names(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=(rows, 2)), 1)  # with ties
    labels = (rng.random((rows, 2)) < [0.4, 0.25]).astype(float)
    labels[rng.random((rows, 2)) < 0.1] = np.nan
    patients = np.array([f"p{number:03d}" for number in rng.integers(0, rows // 2, rows)])
    assume(all(len(set(labels[~np.isnan(labels[:, c]), c])) == 2 for c in (0, 1)))
    whole = table(scores, labels, patients)
    same(whole, table(np.exp(scores / 3), labels, patients))
    same(whole, table(scores * 7 - 2, labels, patients))
    mixed = rng.permutation(rows)
    same(whole, table(scores[mixed], labels[mixed], patients[mixed]))
    same(whole, table(scores, labels, np.array([f"x-{name}" for name in patients])))  # in the same order of names
