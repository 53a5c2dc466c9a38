"""Linear classification, and what went wrong in published programs of it."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from cmcgns.common.errors import UserError
from cmcgns.evaluation.protocols import Cell
from cmcgns.evaluation.task_settings.learned import LinearSettings
from cmcgns.evaluation.tasks import get_task
from cmcgns.evaluation.tasks.linear import probe
from cmcgns.metrics.measure import Measure
from support.bootstrap import cluster_resample_counts
from support.evaluation import figures, oracle, run
from support.linear import CLASSES, change_labels, make_job, write_images

ADAMW = {"solver": "adamw", "adamw": {"learning_rate": 0.05, "epochs": 20}}
SOLVERS = pytest.mark.parametrize("settings", [{}, ADAMW], ids=["lbfgs", "adamw"])


def score_of(tmp_path, name, change=None, **options):
    """Test scores of one cell after a change of the manifest."""
    folder = write_images(tmp_path / name)
    if change is not None:
        change_labels(folder, change)
    job = make_job(folder, tmp_path, **options)
    return run(job)[job.cells[0]].arrays["scores"]


@SOLVERS
def test_an_oracle_scores_one(tmp_path, settings):
    job = make_job(write_images(tmp_path / "d"), tmp_path, settings=settings)
    found = figures(job, run(job)[job.cells[0]])
    assert found[Measure("auroc")] > 0.995
    assert found[Measure("auprc")] > 0.995
    assert found[Measure("brier")] < 0.15


def test_labels_that_images_do_not_show_score_a_half_and_intervals_cover_it(tmp_path):
    job = make_job(write_images(tmp_path / "d", (200, 60, 300)), tmp_path, settings={"l2_grid": [0.01, 0.1]})
    values, covered = [], 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        for part in (job.data.train, job.data.val, job.data.test):
            rng.shuffle(part.labels)
        predictions = run(job)[job.cells[0]]
        counts = cluster_resample_counts(predictions.patients, 200, seed)
        drawn = get_task("linear").measures(predictions).compute(counts)[:, 0]
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += low < 0.5 < high
        values.append(figures(job, predictions)[Measure("auroc")])
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)
    assert covered >= 6


def test_figures_are_those_of_scikit_learn(tmp_path):
    job = make_job(write_images(tmp_path / "d", (20, 20, 60)), tmp_path)
    predictions = run(job)[job.cells[0]]
    scores, labels = (predictions.arrays[name] for name in ("scores", "labels"))
    counts = np.random.default_rng(0).integers(0, 4, (1, len(labels)))
    found = figures(job, predictions, counts)
    for c, name in enumerate(CLASSES):
        assert found[Measure("auroc", name)] == pytest.approx(
            roc_auc_score(labels[:, c], scores[:, c], sample_weight=counts[0])
        )
        expected = average_precision_score(labels[:, c], scores[:, c], sample_weight=counts[0])
        assert found[Measure("auprc", name)] == pytest.approx(expected)
    assert found[Measure("auroc")] == pytest.approx(np.mean([found[Measure("auroc", name)] for name in CLASSES]))


def test_classes_that_exclude_each_other_give_accuracy_and_macro_f1_of_scikit_learn(tmp_path):
    folder = write_images(tmp_path / "d", (30, 30, 80), exclusive=True, random=True)
    job = make_job(folder, tmp_path, settings={"outcome": "multiclass"})
    predictions = run(job)[job.cells[0]]
    arrays = predictions.arrays
    counts = np.random.default_rng(0).integers(0, 4, (1, 80))
    found = figures(job, predictions, counts)
    truth, chosen = arrays["labels"].argmax(1), arrays["scores"].argmax(1)
    assert next(iter(found)) == Measure("accuracy")
    assert found[Measure("accuracy")] == pytest.approx(accuracy_score(truth, chosen, sample_weight=counts[0]))
    expected = f1_score(truth, chosen, average="macro", sample_weight=counts[0])
    assert found[Measure("macro_f1")] == pytest.approx(expected)
    np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, atol=1e-9)
    np.testing.assert_array_equal(arrays["probabilities"].argmax(1), chosen)


@SOLVERS
def test_an_oracle_classifies_exclusive_classes(tmp_path, settings):
    folder = write_images(tmp_path / "d", exclusive=True)
    job = make_job(folder, tmp_path, settings=settings | {"outcome": "multiclass"})
    assert figures(job, run(job)[job.cells[0]])[Measure("accuracy")] > 0.95


def test_an_image_of_two_classes_is_no_multiclass_image(tmp_path):
    folder = write_images(tmp_path / "d")
    with pytest.raises(UserError, match="belongs to exactly one class"):
        run(make_job(folder, tmp_path, settings={"outcome": "multiclass"}))


@SOLVERS
def test_test_rows_choose_nothing(tmp_path, settings):
    def permute(frame):
        test = (frame["split"] == "test").to_numpy()
        columns = [f"label_{name}" for name in CLASSES]
        frame.loc[test, columns] = frame.loc[test, columns].to_numpy()[::-1]
        return frame

    plain = score_of(tmp_path, "a", settings=settings)
    np.testing.assert_array_equal(score_of(tmp_path, "b", permute, settings=settings), plain)


def test_validation_rows_are_not_in_training(tmp_path):
    """With one strength there is nothing to choose, so labels of validation rows must not matter at all."""

    def invert(frame):
        rows = (frame["split"] == "val").to_numpy()
        frame.loc[rows, [f"label_{name}" for name in CLASSES]] ^= 1
        return frame

    settings = {"l2_grid": [0.01]}
    plain = score_of(tmp_path, "a", settings=settings)
    np.testing.assert_array_equal(score_of(tmp_path, "b", invert, settings=settings), plain)


def test_training_rows_do_matter(tmp_path):
    def invert(frame):
        rows = (frame["split"] == "train").to_numpy()
        frame.loc[rows, [f"label_{name}" for name in CLASSES]] ^= 1
        return frame

    settings = {"l2_grid": [0.01]}
    assert (score_of(tmp_path, "a", settings=settings) * score_of(tmp_path, "b", invert, settings=settings) < 0).all()


def test_a_fraction_is_applied_once_and_by_patient(tmp_path):
    cells = tuple(Cell(fraction, 1) for fraction in (10, 50, 100))
    job = make_job(write_images(tmp_path / "d"), tmp_path, cells=cells)
    found = run(job)
    assert [found[cell].facts["train_images"] for cell in cells] == [12, 60, 120]  # 6, 30, 60 patients of two images
    rows = [set(job.data.fraction_rows(cell)) for cell in cells]
    assert rows[0] < rows[1] < rows[2]


def test_a_seed_draws_other_rows_and_gives_other_scores(tmp_path):
    cells = Cell(10, 0), Cell(10, 1)
    found = run(make_job(write_images(tmp_path / "d"), tmp_path, cells=cells))
    assert (found[cells[0]].arrays["scores"] != found[cells[1]].arrays["scores"]).any()


def test_seeds_with_the_same_rows_share_one_solution(tmp_path, monkeypatch):
    calls = []
    fit = probe.fit_probe
    monkeypatch.setattr(
        "cmcgns.evaluation.tasks.linear.task.fit_probe", lambda *a, **k: calls.append(1) or fit(*a, **k)
    )
    cells = tuple(Cell(100, seed) for seed in range(3))
    found = run(make_job(write_images(tmp_path / "d"), tmp_path, cells=cells))
    assert len(found) == 3
    assert len(calls) == 1


def test_each_cell_can_be_computed_alone(tmp_path):
    folder, cells = write_images(tmp_path / "d"), (Cell(10, 0), Cell(100, 1))
    together = run(make_job(folder, tmp_path, cells=cells))
    alone = run(make_job(folder, tmp_path, cells=cells[1:]))
    np.testing.assert_array_equal(together[cells[1]].arrays["scores"], alone[cells[1]].arrays["scores"])


def test_classes_without_both_outcomes_are_named_and_left_out_of_the_mean(tmp_path):
    def change(frame):
        frame.loc[frame["split"] == "train", "label_A"] = 0
        frame.loc[frame["split"] == "test", "label_B"] = 1
        return frame

    folder = write_images(tmp_path / "d")
    change_labels(folder, change)
    job = make_job(folder, tmp_path)
    predictions = run(job)[job.cells[0]]
    assert predictions.facts["skipped"] == {
        "A": "no positive among the training rows",
        "B": "no negative among the test rows",
    }
    found = figures(job, predictions)
    assert np.isnan(found[Measure("auroc", "A")])
    assert np.isnan(found[Measure("auroc", "B")])
    assert found[Measure("auroc")] == found[Measure("auroc", "C")]


def test_facts_say_what_was_chosen_and_whether_it_converged(tmp_path):
    job = make_job(write_images(tmp_path / "d"), tmp_path)
    facts = run(job)[job.cells[0]].facts
    assert facts["converged"] is True
    assert facts["validation_of_l2"][f"{facts['l2']:g}"] == max(facts["validation_of_l2"].values())
    assert facts["train_positives"].keys() == set(CLASSES)


@SOLVERS
def test_the_frozen_encoder_is_bit_identical_afterwards(tmp_path, settings):
    encoder = oracle()
    before = {name: value.clone() for name, value in encoder.encoder.state_dict().items()}
    run(make_job(write_images(tmp_path / "d"), tmp_path, settings=settings, encoder=encoder))
    assert all((value == before[name]).all() for name, value in encoder.encoder.state_dict().items())
    assert not encoder.encoder.training


def test_what_is_lacking_is_said(tmp_path):
    folder = write_images(tmp_path / "d")

    def unlabel(frame):
        for name in CLASSES:
            frame[f"label_{name}"] = frame[f"label_{name}"].astype("Int8").mask(frame["split"] == "test")
        return frame

    change_labels(folder, unlabel)
    job = make_job(folder, tmp_path)
    assert get_task("linear").lacks(job.data, job.encoder) == "no image of test has a label"
    whole = make_job(write_images(tmp_path / "e"), tmp_path)
    assert get_task("linear").lacks(whole.data, whole.encoder) == ""


@pytest.mark.parametrize("settings", [{"solver": "adamw"}, {"finetune": True}])
def test_a_training_needs_labels_in_validation(settings, tmp_path):
    job = make_job(write_images(tmp_path / "d"), tmp_path, settings=settings)
    job.data.val.labels[:] = np.nan
    with pytest.raises(UserError, match="no validation image has a label"):
        run(job)


def test_settings_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="l2_grid"):
        LinearSettings(l2_grid=[])
    with pytest.raises(ValueError, match="greater than 0"):
        LinearSettings(l2_grid=[0.0])
