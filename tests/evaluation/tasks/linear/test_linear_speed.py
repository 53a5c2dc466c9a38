"""What makes the linear probe affordable on 190,000 images."""

import numpy as np
import pytest
import torch

from cmcgns.evaluation.tasks.linear import logistic
from cmcgns.evaluation.tasks.linear.logistic import Design, measure_scale
from cmcgns.evaluation.tasks.linear.probe import fit_probe
from support.linear import predicted


def correlated(n=1500, width=96, seed=0):
    """Skewed, correlated features of very different scales, some of them dead."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(5)
    latent = rng.normal(size=(n, 12))
    x = np.maximum(latent @ shape.normal(size=(12, width)) + 0.2 * rng.normal(size=(n, width)), 0)
    x *= np.exp(2 * shape.normal(size=width)) * (shape.random(width) > 0.05)
    y = (latent @ shape.normal(size=(12, 3)) + 2 * rng.logistic(size=(n, 3)) > 1).astype(float)
    return x.astype(np.float32), y


def test_correlated_features_need_few_evaluations(monkeypatch):
    x, y = correlated()
    sizes = []
    evaluate = logistic.BinaryRegressions.evaluate
    monkeypatch.setattr(
        logistic.BinaryRegressions,
        "evaluate",
        lambda self, weight, rows: sizes.append(len(rows)) or evaluate(self, weight, rows),
    )
    assert fit_probe(x, y, x, y, dtype=torch.float32).converged
    assert len(sizes) < 40
    assert sizes == sorted(sizes, reverse=True)  # those that converged are not evaluated any more
    assert sizes[-1] < sizes[0]


@pytest.mark.parametrize("outcome", ["binary", "multiclass"])
def test_single_and_double_precision_agree(outcome):
    x, y = correlated()
    if outcome == "multiclass":
        y = np.eye(3)[(y @ [1, 1, 1]).astype(int).clip(max=2)]
    single, double = (
        fit_probe(x, y, x, y, [1e-3], dtype=dtype, outcome=outcome) for dtype in (torch.float32, torch.float64)
    )
    assert single.converged
    assert double.converged
    np.testing.assert_allclose(predicted(single, x), predicted(double, x), atol=2e-3)


def test_rows_are_read_in_blocks_from_a_memory_map_that_may_not_be_written(tmp_path, monkeypatch):
    x, y = correlated(400, 24)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.sort(np.random.default_rng(1).permutation(400)[:300])
    whole = fit_probe(x[rows], y[rows], x, y)
    monkeypatch.setattr("cmcgns.evaluation.tasks.linear.logistic._BLOCK_CELLS", 24 * 37)
    blocks = fit_probe(mapped, y, x, y, rows=rows)
    np.testing.assert_allclose(blocks.weight, whole.weight, atol=1e-6)
    np.testing.assert_array_equal(mapped, x)


def test_scale_is_that_of_numpy_also_far_from_zero():
    x, _ = correlated(300, 20)
    x = x.astype(np.float64) + 1e4
    x[:, 3] = 0.1
    rows = np.arange(0, 300, 2)
    scale = measure_scale(x, rows)
    np.testing.assert_allclose(scale.mean, x[rows].mean(0), rtol=1e-12)
    varies = x[rows].std(0) > 1e-6 * abs(x[rows].mean(0))
    np.testing.assert_allclose(scale.scale[varies], x[rows].std(0)[varies], rtol=1e-6)
    assert (scale.scale[~varies] == 1).all()
    assert not varies[3]


def test_the_preconditioner_is_the_inverse_of_gram_and_penalty():
    x, _ = correlated(150, 10)  # up to 16 rows a feature it looks at all of them
    rows = np.arange(150)
    design = Design(x, rows, measure_scale(x, rows), torch.float64, torch.device("cpu"))
    block = torch.cat([block for _, block in design.blocks()])
    gradient = torch.randn(2, 11, dtype=torch.float64)
    curvature, l2 = torch.tensor([0.1, 0.2]).double(), torch.tensor([0.3, 1e-3]).double()
    found = logistic.Preconditioner(design)(gradient, curvature, l2)
    for row in range(2):
        hessian = curvature[row] * block.T @ block / 150 + l2[row] * torch.eye(10).double()
        torch.testing.assert_close(found[row, :-1], torch.linalg.solve(hessian, gradient[row, :-1]))
        torch.testing.assert_close(found[row, -1], gradient[row, -1] / curvature[row])
