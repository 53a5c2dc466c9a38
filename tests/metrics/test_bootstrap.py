import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from cmcgns.common.errors import UserError
from cmcgns.metrics import resamples
from cmcgns.metrics.interval_table import Interval, leaves_out_zero
from cmcgns.metrics.intervals import mean_interval, measure_intervals, paired_intervals
from cmcgns.metrics.resamples import patient_index
from support.bootstrap import cluster_resample_counts, first_of, of_areas, of_values


def clustered(seed: int, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Values whose true mean is 0: one to five rows a patient, and rows of one patient alike."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), rng.integers(1, 6, size=patients))
    return rng.normal(size=patients)[groups] + 0.5 * rng.normal(size=len(groups)), groups


def coverage(simulations: int, resamples: int, patients: int) -> float:
    hits = 0
    for seed in range(simulations):
        values, groups = clustered(seed, patients)
        interval = mean_interval(values, groups, resamples, seed)
        hits += interval.low <= 0 <= interval.high
    return hits / simulations


def scored(seed: int = 0, n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < [0.5, 0.3, 0.1]).astype(float)
    return rng.normal(size=(n, 3)) + labels, labels, rng.integers(0, n // 2, size=n).astype(str)


def area_interval(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean area."""
    found = measure_intervals([of_areas(scores, labels)], groups, None, resamples, seed, logit=False)
    return first_of(found.mean)


def paired_areas(
    first: npt.ArrayLike, second: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike, resamples: int
) -> Interval:
    sides = ([of_areas(scores, labels)] for scores in (first, second))
    return first_of(paired_intervals(*sides, groups, resamples).difference)


def test_whole_patients_are_drawn_and_as_many_as_there_are() -> None:
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    counts = cluster_resample_counts(groups, 500, seed=1)
    assert counts.shape == (500, 6)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    np.testing.assert_array_equal(counts[:, 1], counts[:, 4])
    np.testing.assert_array_equal(counts[:, [0, 1, 3]].sum(axis=1), 3)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)


def test_seed_decides_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.arange(37) // 2
    whole = cluster_resample_counts(groups, 50, seed=3)
    assert (whole != cluster_resample_counts(groups, 50, seed=4)).any()
    monkeypatch.setattr(resamples, "_CHUNK_CELLS", 7 * 37)
    monkeypatch.setattr(resamples, "_CHUNK_RESAMPLES", 1)
    np.testing.assert_array_equal(whole, cluster_resample_counts(groups, 50, seed=3))


def test_mean_interval_matches_an_obvious_bootstrap() -> None:
    values, groups = clustered(0, 60)
    interval = mean_interval(values, groups, 4000, seed=0)
    rng = np.random.default_rng(99)
    rows = [np.flatnonzero(groups == g) for g in range(60)]
    means = [values[np.concatenate([rows[g] for g in rng.integers(0, 60, size=60)])].mean() for _ in range(4000)]
    assert interval.value == pytest.approx(values.mean())
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(means, [0.025, 0.975]), atol=0.02)
    assert (interval.n, interval.resamples) == (len(values), 4000)


def test_ignoring_patients_would_be_too_narrow() -> None:
    values, groups = clustered(1, 80)
    by_patient, by_row = mean_interval(values, groups), mean_interval(values, np.arange(len(values)))
    assert by_patient.high - by_patient.low > 1.3 * (by_row.high - by_row.low)


def test_coverage_is_roughly_nominal() -> None:
    assert coverage(simulations=200, resamples=400, patients=120) == pytest.approx(0.95, abs=0.04)


@pytest.mark.slow
def test_coverage_is_nominal() -> None:
    assert coverage(simulations=1000, resamples=2000, patients=120) == pytest.approx(0.95, abs=0.02)


def test_auroc_interval_matches_scikit_learn_resample_by_resample() -> None:
    scores, labels, groups = scored()
    interval = area_interval(scores, labels, groups, 60, seed=5)
    expected = []
    for counts in cluster_resample_counts(groups, 60, seed=5):
        drawn = np.repeat(np.arange(len(labels)), counts)
        columns = [c for c in range(3) if 0 < labels[drawn, c].sum() < len(drawn)]
        expected.append(np.mean([roc_auc_score(labels[drawn, c], scores[drawn, c]) for c in columns]))
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(expected, [0.025, 0.975]))
    assert interval.value == pytest.approx(roc_auc_score(labels, scores))


def test_paired_difference_of_equals_is_zero_and_is_narrower_than_unpaired() -> None:
    scores, labels, groups = scored(2, 200)
    same = paired_areas(scores, scores, labels, groups, 200)
    assert (same.value, same.n, same.resamples) == (0.0, 200, 0)
    assert (same.low, same.high) == (None, None)  # the same in every resample: no interval
    noisy = scores + 0.2 * np.random.default_rng(0).normal(size=scores.shape)
    one, other = (area_interval(s, labels, groups, 500) for s in (scores, noisy))
    paired = paired_areas(scores, noisy, labels, groups, 500)
    assert paired.value == pytest.approx(one.value - other.value)
    assert paired.high - paired.low < 0.6 * (one.high - one.low)
    swapped = paired_areas(noisy, scores, labels, groups, 500)
    np.testing.assert_allclose([swapped.low, swapped.high], [-paired.high, -paired.low], atol=1e-12)


def test_paired_difference_takes_any_statistics() -> None:
    values, groups = clustered(3, 50)
    doubled = paired_intervals([of_values(2 * values)], [of_values(values)], groups, 50).difference
    alone = mean_interval(values, groups, 50)
    np.testing.assert_allclose(doubled.records()[0], [alone.value, alone.low, alone.high, 50])


def test_one_patient_has_no_interval_but_can_be_counted() -> None:
    assert (cluster_resample_counts(["p", "p"], 5) == 1).all()
    with pytest.raises(UserError, match="at least two"):
        mean_interval([0.1, 0.2], ["p", "p"])


def test_patients_are_numbered_by_sorted_id() -> None:
    index, patients = patient_index(np.array(["p2", "p10", "p2"], dtype=object))
    assert (index.tolist(), patients) == ([1, 0, 1], 2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "n > 0"),
        ([[1], [2]], r"\(n,\)"),
        ([1.0, np.nan], "row 1 has no patient id"),
        (np.array(["a", None], dtype=object), "row 1 has no patient id"),
        (np.array(["a", 1], dtype=object), "mix types"),
    ],
)
def test_bad_patient_ids_are_refused(groups: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster_resample_counts(groups)  # type: ignore[arg-type]


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="row 1 is not finite"):
        mean_interval([1.0, np.nan], ["a", "b"])
    with pytest.raises(UserError, match="must both be"):
        mean_interval([1.0], ["a", "b"])
    with pytest.raises(UserError, match="weights must be"):
        area_interval([[1.0], [2.0]], [[0], [1]], ["a"])
    with pytest.raises(UserError, match="resamples must be 1"):
        mean_interval([1.0, 2.0], ["a", "b"], resamples=0)


def test_values_that_are_all_equal_have_an_interval_of_no_width() -> None:
    assert mean_interval([0.5] * 5, list("abcde"), 20) == Interval(0.5, 0.5, 0.5, 5, 20)


def test_a_mean_over_fewer_than_five_patients_has_no_interval() -> None:
    found = mean_interval([0.1, 0.2, 0.4, 0.5, 0.7], list("abcdd"), 20)
    assert (found.value, found.n, found.resamples) == (pytest.approx(0.38), 5, 0)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False), (None, None, False)],
)
def test_an_interval_leaves_out_0_or_is_none(low: float | None, high: float | None, expected: bool) -> None:
    assert leaves_out_zero(low, high) is expected
