"""The mean area of findings that are rare in training."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cmcgns.data.manifest import write_manifest
from cmcgns.evaluation.contract import Predictions, seed_measures
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.tasks import get_task
from cmcgns.metrics.classification import binary_measures
from cmcgns.metrics.measure import Measure
from support.evaluation import figures, oracle, parts_of, predict, protocol_of, tiny_run
from support.linear import write_images
from support.text_tasks import NAMES, write_labelled

RARE = Measure("auroc_rare")
PROTOCOL = protocol_of("linear", labels=["A", "B", "C"])


def rare_images(folder: Path, positives: int = 3) -> Path:
    """Of 120 training rows a few have B; test rows stay as they are."""
    write_images(folder)
    frame = pd.read_parquet(folder / "manifest.parquet")
    train = np.flatnonzero(frame["split"] == "train")
    frame.loc[train[np.flatnonzero(frame.loc[train, "label_B"])[positives:]], "label_B"] = 0
    write_manifest(frame, folder / "manifest.parquet")
    return folder


def test_linear_has_the_area_of_the_rare_finding(tmp_path: Path) -> None:
    predictions = predict(PROTOCOL, rare_images(tmp_path / "d"), oracle())
    found = figures(PROTOCOL, predictions)
    area = roc_auc_score(predictions.arrays["labels"][:, 1], predictions.arrays["scores"][:, 1])
    assert found[RARE] == pytest.approx(area)
    assert found[RARE] == found[Measure("auroc", "B")] != found[Measure("auroc")]
    assert predictions.facts["rare"] == {"B": pytest.approx(3 / 120)}
    assert get_task("linear").measures(predictions).notes[RARE] == "mean over B"


def test_three_per_cent_are_not_rare(tmp_path: Path) -> None:
    predictions = predict(PROTOCOL, rare_images(tmp_path / "d", 4), oracle())
    assert "rare" not in predictions.facts
    prevalence = TaskData(PROTOCOL, tmp_path / "d", 16, 16).prevalence
    assert prevalence[1] == pytest.approx(4 / 120)
    assert RARE not in figures(PROTOCOL, predictions)


def test_a_rare_finding_of_few_test_patients_has_no_figure(tmp_path: Path) -> None:
    plain = predict(PROTOCOL, rare_images(tmp_path / "d"), oracle())
    few = np.flatnonzero(plain.arrays["labels"][:, 1] == 1)[4:]
    labels = plain.arrays["labels"].copy()
    labels[few, 1] = 0
    thinned = Predictions(plain.rows, plain.patients, {**plain.arrays, "labels": labels})
    (judged,) = seed_measures(get_task("linear"), [thinned], 5)
    assert RARE not in judged.of
    (judged,) = seed_measures(get_task("linear"), [plain], 5)
    assert RARE in judged.of


def test_weights_agree_with_scikit_learn_and_several_rare_findings_share_a_mean() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 4)), (rng.random((60, 4)) < 0.4).astype(float)
    weights = rng.integers(0, 3, 60)
    arrays = {
        "scores": scores, "labels": labels, "label_names": np.array(list("ABCD")), "counted": np.ones(4, bool),
        "rare": np.array([True, False, False, True]),
    }  # fmt: skip
    measures = binary_measures(arrays)
    found = dict(zip(measures.of, measures.compute(weights[None])[0], strict=True))
    areas = [roc_auc_score(labels[:, c], scores[:, c], sample_weight=weights) for c in (0, 3)]
    assert found[RARE] == pytest.approx(np.mean(areas))
    single = {name: values[:, :1] if values.ndim == 2 else values[:1] for name, values in arrays.items()}
    assert RARE not in binary_measures(single).of


def test_zero_shot_asks_the_training_split_without_its_images(tmp_path: Path) -> None:
    labels = (np.random.default_rng(0).random((100, 3)) < 0.4).astype(float)
    labels[:50, 1] = 0
    labels[7, 1] = 1
    folder = write_labelled(tmp_path / "d", labels, split=parts_of((50, 0, 50)))
    for number in range(50):
        (folder / "images" / f"{number}.png").unlink()
    protocol = protocol_of("zero_shot")
    predictions = predict(protocol, folder, tiny_run())
    assert predictions.facts["rare"] == {NAMES[1]: pytest.approx(0.02)}
    found = figures(protocol, predictions)
    assert found[RARE] == found[Measure("auroc", NAMES[1])]


def test_without_a_training_split_nothing_is_rare(tmp_path: Path) -> None:
    labels = (np.random.default_rng(0).random((20, 3)) < 0.4).astype(float)
    protocol = protocol_of("zero_shot")
    predictions = predict(protocol, write_labelled(tmp_path / "d", labels), tiny_run())
    assert "rare" not in predictions.arrays
    assert RARE not in figures(protocol, predictions)
