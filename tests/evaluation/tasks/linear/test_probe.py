import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cmcgns.common.errors import UserError
from cmcgns.evaluation.subsets import nested_fraction
from cmcgns.evaluation.task_settings.learned import L2_GRID
from cmcgns.evaluation.tasks.linear.probe import LinearProbe, fit_probe
from cmcgns.metrics.ranking import mean_auroc
from support.linear import predicted


def problem(seed: int = 0, n: int = 200, features: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Three findings that are linear in correlated features, with noise."""
    truth = np.random.default_rng(7).normal(size=(features, 3))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) @ np.diag(np.linspace(0.1, 3, features)) + 5
    logits = (x - 5) @ truth + rng.logistic(size=(n, 3))
    return x, (logits > 1).astype(float)


def scikit(x: np.ndarray, y: np.ndarray, l2: float) -> tuple[StandardScaler, LogisticRegression]:
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-10, max_iter=10_000)
    return scaler, model.fit(scaler.transform(x), y)


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_scikit_learn(l2: float, dtype: torch.dtype) -> None:
    x, y = problem()
    probe = fit_probe(x, y, x, y, [l2], dtype=dtype)
    assert probe.converged
    for c in range(3):
        scaler, model = scikit(x, y[:, c], l2)
        near = 1e-3 if dtype == torch.float64 else 2e-2
        np.testing.assert_allclose(probe.weight[c], model.coef_[0], atol=near)
        expected = model.predict_proba(scaler.transform(x))[:, 1]
        np.testing.assert_allclose(predicted(probe, x)[:, c], expected, atol=1e-3)


def test_strengths_fitted_together_equal_strengths_fitted_alone() -> None:
    (x, y), (vx, vy) = problem(0, 60), problem(1, 60)
    together = fit_probe(x, y, vx, vy)
    alone = [fit_probe(x, y, vx, vy, [l2]) for l2 in L2_GRID]
    best = max(alone, key=lambda probe: mean_auroc(probe.logits(vx), vy)[0])
    assert together.l2 == best.l2
    np.testing.assert_allclose(together.weight, best.weight, atol=1e-3)


def test_validation_picks_a_strong_penalty_for_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=80)
    x, vx = rng.normal(size=(2, 60, 80))
    y, vy = ((f @ truth + 10 * rng.normal(size=60) > 0).astype(float)[:, None] for f in (x, vx))
    assert fit_probe(x, y, vx, vy).l2 >= 1e-2


def test_missing_labels_are_as_good_as_absent_rows() -> None:
    x, y = problem()
    masked = y.copy()
    masked[50:, 1] = np.nan
    probe = fit_probe(x, masked, x, y, [0.1])
    scaler = StandardScaler().fit(x)  # features are known for all rows
    model = LogisticRegression(C=1 / (0.1 * 50), tol=1e-10, max_iter=10_000)
    model.fit(scaler.transform(x)[:50], y[:50, 1])
    np.testing.assert_allclose(probe.weight[1], model.coef_[0], atol=1e-3)
    whole = fit_probe(x, y, x, y, [0.1])
    np.testing.assert_allclose(probe.weight[[0, 2]], whole.weight[[0, 2]], atol=1e-5)


def test_constant_features_and_empty_or_one_sided_classes_stay_finite() -> None:
    x, y = problem()
    x[:, 0] = 0.1  # not exactly representable: its computed deviation is rounding
    y[:, 0], y[:, 1] = np.nan, 1
    probe = fit_probe(x, y, x, y)
    found = predicted(probe, x)
    assert np.isfinite(found).all()
    assert (found[:, 0] == 0.5).all()
    assert (found[:, 1] > 0.99).all()
    assert probe.scale[0] == 1
    assert abs(probe.logits(x + np.eye(1, 12) * 1e-3) - probe.logits(x)).max() < 0.1


def test_separable_data_converge() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 200))
    y = (x[:, :1] > 0).astype(float)
    assert fit_probe(x, y, x, y).converged


def test_log_loss_decides_where_validation_has_one_outcome() -> None:
    x, y = problem()
    y = y[:, :1]
    rows = y[:, 0] == 1
    probe = fit_probe(x, y, x[rows], y[rows])
    losses = {l2: -np.log(predicted(fit_probe(x, y, x, y, [l2]), x[rows])).mean() for l2 in L2_GRID}
    assert probe.l2 == min(losses, key=losses.__getitem__)


def test_of_equally_good_strengths_the_strongest_wins() -> None:
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    y = np.array([[0], [0], [1], [1]])
    assert fit_probe(x, y, x, y, [0.01, 10.0, 1.0]).l2 == 10.0


def test_a_probe_refuses_other_features() -> None:
    probe = LinearProbe(np.zeros((1, 3)), np.zeros(1), np.zeros(3), np.ones(3), 1.0, True)
    with pytest.raises(UserError, match="fitted on 3 features, not 2"):
        probe.logits(np.zeros((4, 2)))


def test_bad_input_is_refused() -> None:
    x, y = problem(0, 20)
    with pytest.raises(UserError, match="strengths above 0"):
        fit_probe(x, y, x, y, [0.0, 1.0])
    with pytest.raises(UserError, match="strengths above 0"):
        fit_probe(x, y, x, y, [])
    with pytest.raises(UserError, match="20 rows of training features, but 19"):
        fit_probe(x, y[1:], x, y)
    with pytest.raises(UserError, match="differ in the number"):
        fit_probe(x, y, x[:, 1:], y)
    with pytest.raises(UserError, match="every validation label is missing"):
        fit_probe(x, y, x, y * np.nan)
    with pytest.raises(UserError, match="row 3 are not finite"):
        fit_probe(np.where(np.arange(20)[:, None] == 3, np.inf, x), y, x, y)
    with pytest.raises(UserError, match="dtype"):
        fit_probe(x, y, x, y, dtype=torch.float16)


def patients(seed: int = 0, n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 4)) < [0.4, 0.2, 0.05, 0.002]).astype(float)
    labels[rng.random((n, 4)) < 0.05] = np.nan
    return np.array([f"p{i}" for i in rng.integers(0, n // 2, size=n)]), labels


def test_fractions_are_nested_whole_patients_of_the_right_number() -> None:
    groups, labels = patients()
    one, ten, whole = (set(nested_fraction(groups, labels, f, seed=0)) for f in (0.01, 0.1, 1.0))
    assert one < ten < whole == set(range(len(groups)))
    inside = set(groups[sorted(ten)])
    assert not inside & set(groups[sorted(whole - ten)])
    assert len(inside) == round(0.1 * len(set(groups)))


@pytest.mark.parametrize("seed", range(5))
def test_fractions_keep_every_finding_and_about_its_prevalence(seed: int) -> None:
    groups, labels = patients(1)
    one = labels[nested_fraction(groups, labels, 0.01, seed)]
    assert (np.nansum(one, axis=0) >= 1).all()
    ten = labels[nested_fraction(groups, labels, 0.1, seed)]
    np.testing.assert_allclose(np.nanmean(ten, axis=0), np.nanmean(labels, axis=0), atol=0.06)


def test_one_label_is_stratified_to_within_a_patient() -> None:
    labels = (np.arange(1000) < 230).astype(float)[:, None]
    rows = nested_fraction(np.arange(1000), labels, 0.1, seed=3)
    assert labels[rows].sum() == pytest.approx(23, abs=2)


def test_seed_decides_and_the_order_of_rows_does_not() -> None:
    groups, labels = patients(2)
    rows = nested_fraction(groups, labels, 0.1, seed=0)
    assert set(groups[rows]) != set(groups[nested_fraction(groups, labels, 0.1, seed=1)])
    mixed = np.random.default_rng(0).permutation(len(groups))
    again = nested_fraction(groups[mixed], labels[mixed], 0.1, seed=0)
    np.testing.assert_array_equal(np.sort(mixed[again]), rows)


def test_a_fraction_is_never_empty_and_unlabelled_patients_are_welcome() -> None:
    assert nested_fraction(["p", "p"], [[0], [1]], 0.01, seed=0).tolist() == [0, 1]
    assert len(nested_fraction(np.arange(10), np.full((10, 2), np.nan), 0.5, seed=0)) == 5


def test_a_fraction_smaller_than_the_findings_takes_the_rarest_first() -> None:
    labels = np.array([[1, 0]] * 9 + [[0, 1]])
    assert nested_fraction(np.arange(10), labels, 0.1, seed=0).tolist() == [9]


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, np.nan])
def test_bad_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"\(0, 1\]"):
        nested_fraction([1, 2], [[0], [1]], fraction, seed=0)
    with pytest.raises(UserError, match="2 rows of labels for 1"):
        nested_fraction([1], [[0], [1]], 0.5, seed=0)


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_softmax_agrees_with_scikit_learn(l2: float) -> None:
    x, y = problem()
    which = (y @ [1, 1, 1]).astype(int).clip(max=2)
    labels = np.eye(3)[which]
    found = fit_probe(x, labels, x, labels, [l2], outcome="multiclass")
    assert found.converged
    scaler, model = scikit(x, which, l2)
    np.testing.assert_allclose(found.weight, model.coef_, atol=1e-2)
    np.testing.assert_allclose(predicted(found, x), model.predict_proba(scaler.transform(x)), atol=1e-3)
    np.testing.assert_allclose(predicted(found, x).sum(1), 1, atol=1e-12)


def test_softmax_leaves_rows_without_a_label_out() -> None:
    x, y = problem()
    labels = np.eye(3)[(y @ [1, 1, 1]).astype(int).clip(max=2)]
    masked = labels.copy()
    masked[50:, 1] = np.nan
    found = fit_probe(x, masked, x, labels, [0.1], outcome="multiclass")
    scaler = StandardScaler().fit(x)  # features are known for all rows
    model = LogisticRegression(C=1 / (0.1 * 50), tol=1e-10, max_iter=10_000)
    model.fit(scaler.transform(x)[:50], labels[:50].argmax(1))
    np.testing.assert_allclose(found.weight, model.coef_, atol=1e-3)


def test_validation_scores_of_all_strengths_are_told() -> None:
    x, y = problem()
    found = fit_probe(x, y, x, y)
    assert found.validation.keys() == set(L2_GRID)
    assert found.validation[found.l2] == max(found.validation.values())
