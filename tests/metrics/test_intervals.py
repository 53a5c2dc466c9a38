from collections.abc import Sequence

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.contract import Predictions, seed_measures
from cmcgns.metrics import resamples
from cmcgns.metrics.interval_table import NO_VARIATION, ONE_PATIENT, Interval, none_if_undefined
from cmcgns.metrics.intervals import mean_interval, measure_intervals, paired_intervals
from cmcgns.metrics.measure import Measure, Measures
from cmcgns.metrics.ranking import RankedScores, mean_over_classes
from cmcgns.metrics.resamples import percentile_ends, share_ends
from support.bootstrap import mean_area, percentile_interval


class Counted:
    """Mean area, area of each class, and the mean of a value, counting the calls."""

    def __init__(self, seed: int, patients: int = 40, weight: float = 1.0) -> None:
        rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
        self.groups = np.repeat(np.arange(patients), 3).astype(str)
        self.labels = (shared.random((len(self.groups), 2)) < [0.4, 0.2]).astype(float)
        self.scores = rng.normal(size=self.labels.shape) + weight * self.labels
        self.values = rng.random(len(self.groups))
        self.calls = 0
        ranked = RankedScores(self.scores, self.labels)

        def compute(counts: np.ndarray) -> np.ndarray:
            self.calls += 1
            area = ranked.auroc(counts)
            return np.column_stack([mean_over_classes(area), area, counts @ self.values / counts.sum(axis=1)])

        names = (Measure("auroc"), Measure("auroc", "A"), Measure("auroc", "B"), Measure("score"))
        self.measures = Measures(names, compute)


def as_share(interval: Interval, patients: int) -> object:
    """A record whose interval comes from the percentile interval of one figure."""
    single = [np.array([end]) for end in (interval.value, interval.low, interval.high)]
    low, high = share_ends(*single, patients)
    return pytest.approx((interval.value, low[0], high[0], interval.resamples), abs=1e-12)


def undefined(names: Sequence[str]) -> Measures:
    return Measures(tuple(map(Measure, names)), lambda counts: np.full((len(counts), len(names)), np.nan))


def test_all_figures_agree_with_one_at_a_time() -> None:
    one = Counted(0)
    found = measure_intervals([one.measures], one.groups, resamples=300, seed=7)
    area = percentile_interval(mean_area(one.scores, one.labels), one.groups, 300, 7)
    mean = mean_interval(one.values, one.groups, 300, 7)
    assert [found.mean.records()[column] for column in (0, 3)] == [as_share(area, 40), as_share(mean, 40)]
    assert (found.mean.rows, found.mean.patients, found.mean.reasons) == (120, 40, ("",) * 4)
    assert found.mean.of == one.measures.of
    np.testing.assert_array_equal(found.seeds[0].low, found.mean.low)
    assert np.isnan(found.sd).all()


def test_mean_over_seeds_is_resampled_as_a_mean() -> None:
    seeds = [Counted(k) for k in range(3)]
    found = measure_intervals([one.measures for one in seeds], seeds[0].groups, resamples=200)
    np.testing.assert_allclose(found.mean.value, np.mean([table.value for table in found.seeds], axis=0))
    np.testing.assert_allclose(found.sd, np.std([table.value for table in found.seeds], axis=0, ddof=1))
    together = mean_interval(np.mean([one.values for one in seeds], axis=0), seeds[0].groups, 200)
    assert found.mean.records()[3] == as_share(together, 40)


def test_the_size_of_chunks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Counted(1)
    whole = measure_intervals([one.measures], one.groups, resamples=70)
    calls = one.calls
    monkeypatch.setattr(resamples, "_CHUNK_CELLS", 1)
    monkeypatch.setattr(resamples, "_CHUNK_RESAMPLES", 9)
    parts = measure_intervals([one.measures], one.groups, resamples=70)
    np.testing.assert_allclose(whole.mean.low, parts.mean.low, rtol=1e-12)
    np.testing.assert_allclose(whole.mean.high, parts.mean.high, rtol=1e-12)
    assert calls == 2  # once for the sample, once for the only chunk
    assert one.calls - calls == 1 + 8


def test_equal_seeds_cost_nothing() -> None:
    one, other = Counted(2), Counted(3)
    found = measure_intervals([one.measures, other.measures, one.measures], one.groups, resamples=50)
    assert (one.calls, other.calls) == (2, 2)
    np.testing.assert_array_equal(found.seeds[0].high, found.seeds[2].high)
    assert (found.seeds[0].high != found.seeds[1].high).all()
    assert found.sd[0] > 0


def test_equal_predictions_share_their_figures() -> None:
    class Task:
        made = 0

        def measures(self, predictions: Predictions) -> Measures:
            Task.made += 1
            values = predictions.arrays["value"]
            return Measures((Measure("mean"),), lambda counts: (counts @ values / counts.sum(axis=1))[:, None])

    def predictions(value: float, row: str = "r") -> Predictions:
        return Predictions(np.array([row]), np.array(["p"]), {"value": np.array([value])})

    found = seed_measures(Task(), [predictions(v) for v in (1.0, 2.0, 1.0, np.nan, np.nan)], 1)  # type: ignore[arg-type]
    assert Task.made == 3
    assert found[0] is found[2] is not found[1]
    assert found[3] is found[4]
    with pytest.raises(UserError, match="different rows"):
        seed_measures(Task(), [predictions(1.0), predictions(1.0, "s")], 1)  # type: ignore[arg-type]


def test_a_subgroup_is_as_if_the_others_were_not_there() -> None:
    one = Counted(4)
    inside = np.arange(120) >= 45
    found = measure_intervals([one.measures], one.groups, inside, 200, 5)
    alone = percentile_interval(mean_area(one.scores[inside], one.labels[inside]), one.groups[inside], 200, 5)
    assert found.mean.records()[0] == as_share(alone, 25)
    assert (found.mean.rows, found.mean.patients) == (75, 25)
    everyone = measure_intervals([one.measures], one.groups, np.full(120, True), 200, 5)
    np.testing.assert_array_equal(
        everyone.mean.low, measure_intervals([one.measures], one.groups, None, 200, 5).mean.low
    )


def test_an_undefined_figure_does_not_fail_the_others() -> None:
    labels = np.array([[1.0], [0.0], [0.0], [0.0], [0.0]])
    ranked, groups = RankedScores([[2.0], [1.0], [3.0], [0.0], [4.0]], labels), ["a", "b", "c", "d", "e"]

    def compute(counts: np.ndarray) -> np.ndarray:
        seldom = ranked.auroc(counts)[:, 0]
        only_resamples = np.where(len(counts) == 1, np.nan, 1.0) * np.ones(len(counts))
        return np.column_stack([counts.sum(axis=1), seldom, np.full(len(counts), np.nan), only_resamples])

    names = tuple(map(Measure, ("rows", "seldom", "never", "not on the sample")))
    found = measure_intervals([Measures(names, compute)], groups, resamples=400).mean.records()
    assert found[0] == (5.0, None, None, 0)  # the same in every resample
    assert found[1][0] == pytest.approx(2 / 4)
    share = 1 - 0.8**5 - 0.2**5  # the positive is drawn, and not alone
    assert found[1][3] == pytest.approx(400 * share, abs=40)
    assert found[2:] == [(None, None, None, 0)] * 2


def test_a_seed_without_the_figure_leaves_the_mean_undefined() -> None:
    one = Counted(5)
    names = [f"{each.metric}{each.label}" for each in one.measures.of]
    found = measure_intervals([Measures(undefined(names).of, one.measures.compute), undefined(names)], one.groups)
    assert none_if_undefined(found.mean.value) == [None] * 4
    assert found.seeds[0].resamples.tolist() == [2000] * 4


def test_one_patient_has_values_but_no_interval() -> None:
    one = Counted(6)
    found = measure_intervals([one.measures], ["p"] * 120)
    assert [record[1:] for record in found.mean.records()] == [(None, None, 0)] * 4
    assert not np.isnan(found.mean.value).any()
    assert found.mean.reasons == (ONE_PATIENT,) * 4
    paired = paired_intervals([one.measures], [Counted(7).measures], ["p"] * 120)
    assert (paired.difference.reasons, paired.difference.patients) == (found.mean.reasons, 1)
    assert paired.difference.value[0] == paired.first[0] - paired.second[0]


def test_paired_difference_agrees_with_one_at_a_time() -> None:
    one, other = Counted(8), Counted(9)
    found = paired_intervals([one.measures], [other.measures], one.groups, 300, 3)
    areas = [mean_area(each.scores, one.labels) for each in (one, other)]
    expected = percentile_interval(lambda counts: areas[0](counts) - areas[1](counts), one.groups, 300, 3)
    assert found.difference.records()[0] == pytest.approx((expected.value, expected.low, expected.high, 300))
    swapped = paired_intervals([other.measures], [one.measures], one.groups, 300, 3)
    np.testing.assert_allclose(swapped.difference.low, -found.difference.high)
    assert found.difference.high[0] - found.difference.low[0] > 0


def test_paired_seeds_are_averaged_before_they_are_compared() -> None:
    first, second = [Counted(k) for k in range(3)], [Counted(k, weight=3.0) for k in (5, 6)]
    found = paired_intervals([o.measures for o in first], [o.measures for o in second], first[0].groups, 200)
    values = [np.mean([one.values for one in side], axis=0) for side in (first, second)]
    expected = mean_interval(values[0] - values[1], first[0].groups, 200)
    assert found.difference.records()[3] == pytest.approx((expected.value, expected.low, expected.high, 200))
    assert found.difference.high[0] < 0  # the second sees more


def test_an_encoder_is_no_better_than_itself() -> None:
    one = Counted(10)
    found = paired_intervals([one.measures, one.measures], [one.measures] * 3, one.groups, resamples=50)
    assert [record[1:] for record in found.difference.records()] == [(None, None, 0)] * 4
    np.testing.assert_allclose(found.difference.value, 0, atol=1e-15)
    assert found.difference.reasons == (NO_VARIATION,) * 4
    assert one.calls == 4


def test_only_common_figures_are_compared() -> None:
    one = Counted(11)
    turned = Measures(one.measures.of[::-1][:2], lambda counts: one.measures.compute(counts)[:, ::-1][:, :2])
    found = paired_intervals([one.measures, one.measures], [turned], one.groups, resamples=20)
    assert found.difference.of == (Measure("auroc", "B"), Measure("score"))
    np.testing.assert_allclose(found.difference.value, 0, atol=1e-15)
    assert one.calls == 4
    with pytest.raises(UserError, match="no figure in common"):
        paired_intervals([one.measures], [undefined(["other"])], one.groups)


def test_ends_are_quantiles_of_what_is_defined() -> None:
    drawn = np.random.default_rng(0).normal(size=(500, 3))
    drawn[::2, 1] = np.nan
    drawn[:, 2] = np.nan
    low, high, used = percentile_ends(drawn)
    assert used.tolist() == [500, 250, 0]
    np.testing.assert_allclose(low, [*(np.quantile(c, 0.025) for c in (drawn[:, 0], drawn[1::2, 1])), np.nan])
    np.testing.assert_allclose(high, [*(np.quantile(c, 0.975) for c in (drawn[:, 0], drawn[1::2, 1])), np.nan])
    assert [len(part) for part in percentile_ends(np.empty((0, 2)))] == [2, 2, 2]


def test_resamples_near_a_bound_do_not_widen_the_other_side() -> None:
    """A lower end of 1e-6 instead of 1e-3 (ties do that) is no reason for a higher upper end."""
    value, high = np.array([0.03, 0.03]), np.array([0.07, 0.07])
    low, top = share_ends(value, np.array([1e-3, 1e-6]), high, 1000)
    np.testing.assert_allclose(top[0], top[1])
    odds = np.array([top[1], 0.07, 0.03]) / (1 - np.array([top[1], 0.07, 0.03]))
    assert odds[0] / odds[2] == pytest.approx((odds[1] / odds[2]) ** 2)  # twice as far on the logit scale
    assert (low > 0).all()
    bottom, _ = share_ends(1 - value, 1 - high, 1 - np.array([1e-3, 1e-6]), 1000)
    np.testing.assert_allclose(bottom, 1 - top)


def test_a_share_has_the_width_of_its_percentiles_on_the_logit_scale() -> None:
    def logit(share: np.ndarray) -> np.ndarray:
        return np.log(share / (1 - share))

    value, low, high = np.array([0.5, 0.96, 0.02]), np.array([0.4, 0.88, 0.01]), np.array([0.6, 0.99, 0.05])
    found = share_ends(value, low, high, 1000)
    np.testing.assert_allclose(logit(found[1]) - logit(found[0]), logit(high) - logit(low))
    np.testing.assert_allclose((logit(found[1]) + logit(found[0])) / 2, logit(value), atol=1e-12)
    np.testing.assert_allclose([found[0][0], found[1][0]], [0.4, 0.6])
    turned = share_ends(1 - value, 1 - high, 1 - low, 1000)
    np.testing.assert_allclose(turned, [1 - found[1], 1 - found[0]])


def test_shares_stay_between_0_and_1_and_hold_their_figure() -> None:
    value, low, high = np.array([0.99, 1.0, 0.0]), np.array([0.9, 0.9, 0.0]), np.array([1.0, 1.0, 0.3])
    found = np.stack(share_ends(value, low, high, 30))
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[0] <= value).all()
    assert (found[1] >= value).all()
    assert (found[0] < found[1]).all()


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.3])
def test_a_figure_that_is_the_same_in_every_resample_has_no_interval(constant: float) -> None:
    """Twenty patients of twenty are right: the next one may still be wrong, so `1.000 (1.000 to 1.000)` is a lie."""
    rng = np.random.default_rng(0)
    values = np.column_stack([np.full(40, constant), rng.random(40) < 0.5])

    def compute(counts: np.ndarray) -> np.ndarray:
        return counts @ values / counts.sum(axis=1, keepdims=True)

    measures = Measures((Measure("recall"), Measure("other")), compute)
    found = measure_intervals([measures], np.repeat(np.arange(20), 2), resamples=300).mean
    assert found.records()[0] == (pytest.approx(constant), None, None, 0)
    assert found.reasons == (NO_VARIATION, "")
    assert found.low[1] < found.value[1] < found.high[1]
    assert found.resamples[1] == 300


def test_one_deviating_patient_is_enough_for_an_interval() -> None:
    values = np.r_[0.0, np.ones(29)]
    measures = Measures((Measure("recall"),), lambda counts: (counts @ values / counts.sum(axis=1))[:, None])
    found = measure_intervals([measures], np.arange(30), resamples=300).mean
    assert not any(found.reasons)
    assert 0 < found.low[0] < found.value[0] < found.high[0] <= 1


def test_an_undefined_figure_is_not_called_flat() -> None:
    def compute(counts: np.ndarray) -> np.ndarray:
        return np.full((len(counts), 2), [np.nan, 0.5] if len(counts) == 1 else [0.5, np.nan])

    found = measure_intervals([Measures((Measure("a"), Measure("b")), compute)], np.arange(5), resamples=9).mean
    assert not any(found.reasons)
    assert np.isnan(found.low).all()


def test_figures_without_bounds_have_percentile_intervals() -> None:
    values = np.random.default_rng(0).beta(9, 1, size=(50, 3)) * [1, 1, 2]
    of = (Measure("dice"), Measure("cnr"), Measure("length"))
    measures = Measures(of, lambda counts: counts @ values / counts.sum(axis=1, keepdims=True))
    found, plain = (measure_intervals([measures], np.arange(50), logit=logit).mean for logit in (True, False))
    for table, same in ((found, [False, True, True]), (plain, [True, True, True])):
        alone = [mean_interval(column, np.arange(50)) for column in values.T]
        np.testing.assert_array_equal(np.isclose(table.low, [each.low for each in alone], rtol=1e-12), same)
        np.testing.assert_array_equal(np.isclose(table.high, [each.high for each in alone], rtol=1e-12), same)


def test_bad_input_is_refused() -> None:
    one = Counted(12)
    with pytest.raises(UserError, match="no finished cell"):
        measure_intervals([], one.groups)
    with pytest.raises(UserError, match="different figures"):
        measure_intervals([one.measures, undefined(["auroc"])], one.groups)
    with pytest.raises(UserError, match="has no rows"):
        measure_intervals([one.measures], one.groups, np.zeros(120, dtype=bool))
    with pytest.raises(UserError, match="must be \\(120,\\) of Booleans"):
        measure_intervals([one.measures], one.groups, np.ones(120))
    with pytest.raises(ValueError, match="2 figures of 1 resamples"):
        measure_intervals([Measures((Measure("a"), Measure("b")), lambda c: np.zeros((len(c), 1)))], one.groups)
