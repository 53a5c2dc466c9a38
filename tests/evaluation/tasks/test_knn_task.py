"""Neighbours vote."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.learned import KnnSettings
from cmcgns.evaluation.tasks.knn import vote
from cmcgns.metrics.measure import Measure
from support.evaluation import figures, run
from support.linear import make_job, write_images


def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 6)), (rng.random((80, 3)) < 0.4).astype(float), rng.normal(size=(30, 6))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_votes_are_those_of_scikit_learn(temperature):
    train, labels, test = problem()
    found = vote(train, labels, test, 7, temperature)
    for c in range(3):
        model = KNeighborsClassifier(
            7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature)
        ).fit(train, labels[:, c])
        np.testing.assert_allclose(found[:, c], model.predict_proba(test)[:, 1], atol=1e-5)


def test_images_without_a_label_are_no_neighbours_for_that_class():
    train, labels, test = problem()
    labels[::3, 1] = np.nan
    known = ~np.isnan(labels[:, 1])
    found = vote(train, labels, test, 5, 0.1)
    np.testing.assert_allclose(found[:, 1], vote(train[known], labels[known], test, 5, 0.1)[:, 1], atol=1e-12)
    np.testing.assert_allclose(found[:, 0], vote(train, labels[:, :1], test, 5, 0.1)[:, 0], atol=1e-12)


def test_a_class_without_labels_and_few_images_are_welcome():
    train, labels, test = problem()
    labels[:, 2] = np.nan
    found = vote(train[:3], labels[:3], test, 20, 0.07)
    assert (found[:, 2] == 0.5).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_length_of_features_does_not_matter_and_small_temperatures_do_not_overflow():
    train, labels, test = problem()
    scaled = vote(train * np.linspace(0.1, 9, 80)[:, None], labels, test, 5, 0.1)
    np.testing.assert_allclose(scaled, vote(train, labels, test, 5, 0.1), atol=1e-5)
    assert np.isfinite(vote(train, labels, test, 5, 1e-4)).all()


def test_an_oracle_scores_high_and_fractions_are_nested(tmp_path):
    cells = Cell(10, 0), Cell(100, 0)
    job = make_job(write_images(tmp_path / "d"), tmp_path, "knn", {"k": 10}, cells)
    found = run(job)
    assert [found[cell].facts["train_images"] for cell in cells] == [12, 120]
    assert figures(job, found[cells[1]])[Measure("auroc")] > 0.9


def test_test_rows_choose_nothing(tmp_path):
    job = make_job(write_images(tmp_path / "d"), tmp_path, "knn")
    plain = run(job)[job.cells[0]].arrays["scores"]
    job.data.test.labels[:] = job.data.test.labels[::-1].copy()
    np.testing.assert_array_equal(run(job)[job.cells[0]].arrays["scores"], plain)


def test_defaults_are_those_of_the_papers():
    assert (KnnSettings().k, KnnSettings().temperature) == (20, 0.07)
