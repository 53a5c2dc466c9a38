"""Zero-shot classification of test images, from pixels to figures."""

from pathlib import Path

import numpy as np
import pytest

from cmcgns.common.errors import UserError
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.tasks.zero_shot import TASK
from cmcgns.metrics.measure import Measure
from cmcgns.pretrained.prompts import load_prompts
from support.evaluation import figures, predict, protocol_of
from support.text_tasks import NAMES, SIDE, Blind, Seer, frozen, write_labelled

PROTOCOL = protocol_of("zero_shot")


def truthful() -> dict[str, np.ndarray]:
    """Each prompt points at, or away from, the dimension of its label."""
    texts: dict[str, np.ndarray] = {}
    for c, name in enumerate(NAMES):
        entry = load_prompts().of(name)
        direction = np.eye(11)[c]
        texts |= dict.fromkeys(entry.positive, direction) | dict.fromkeys(entry.negative, -direction)
    return texts


def draw(n: int = 40) -> np.ndarray:
    return (np.random.default_rng(0).random((n, 3)) < 0.4).astype(float)


def test_an_oracle_scores_one_and_is_calibrated_where_it_is_sure(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "d", draw())
    found = figures(PROTOCOL, predict(PROTOCOL, folder, frozen(Seer(truthful()))))
    assert found[Measure("auroc")] == found[Measure("auprc")] == 1
    assert all(found[Measure("auroc", name)] == 1 for name in NAMES)
    assert found[Measure("brier")] < 1e-3
    assert next(iter(found)) == Measure("auroc")


def test_a_blind_encoder_scores_half(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "d", draw(200))
    found = figures(PROTOCOL, predict(PROTOCOL, folder, frozen(Blind(truthful()))))
    assert abs(found[Measure("auroc")] - 0.5) < 0.1
    assert found[Measure("brier")] > 0.15


def test_negation_turns_the_sign(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "d", draw())
    entries = {name: load_prompts().of(name) for name in NAMES}
    turned = {n: {"positive": list(e.negative), "negative": list(e.positive)} for n, e in entries.items()}
    plain = predict(PROTOCOL, folder, frozen(Blind(truthful()))).arrays["scores"]
    other = predict(protocol_of("zero_shot", {"prompts": turned}), folder, frozen(Blind(truthful())))
    np.testing.assert_array_equal(other.arrays["scores"], -plain)
    assert other.facts["prompts"] == "the protocol's own prompts"


def test_permuting_studies_permutes_scores(tmp_path: Path) -> None:
    labels, order = draw(), np.random.default_rng(1).permutation(40)
    one = predict(PROTOCOL, write_labelled(tmp_path / "a", labels), frozen(Seer(truthful())))
    two = predict(PROTOCOL, write_labelled(tmp_path / "b", labels[order]), frozen(Seer(truthful())))
    np.testing.assert_allclose(two.arrays["probabilities"], one.arrays["probabilities"][order], rtol=1e-5)


def test_weights_of_zero_leave_rows_out(tmp_path: Path) -> None:
    labels = draw()
    predictions = predict(PROTOCOL, write_labelled(tmp_path / "d", labels), frozen(Blind(truthful())))
    half = np.arange(40) % 2
    from sklearn.metrics import roc_auc_score

    scores = predictions.arrays["scores"]
    expected = np.mean([roc_auc_score(labels[half > 0, c], scores[half > 0, c]) for c in range(3)])
    assert figures(PROTOCOL, predictions, half)[Measure("auroc")] == pytest.approx(expected)


def test_labels_that_exclude_each_other(tmp_path: Path) -> None:
    labels = np.eye(3)[np.random.default_rng(0).integers(0, 3, 30)]
    protocol = protocol_of("zero_shot", {"outcome": "multiclass"})
    folder = write_labelled(tmp_path / "d", labels)
    predictions = predict(protocol, folder, frozen(Seer(truthful())))
    found = figures(protocol, predictions)
    assert next(iter(found)) == Measure("accuracy")
    assert found[Measure("accuracy")] == found[Measure("macro_f1")] == found[Measure("auroc")] == 1
    np.testing.assert_allclose(predictions.arrays["probabilities"].sum(1), 1)
    blind = figures(protocol, predict(protocol, folder, frozen(Blind(truthful()))))
    assert blind[Measure("accuracy")] < 0.7
    with pytest.raises(UserError, match="belongs to exactly one"):
        predict(protocol, write_labelled(tmp_path / "e", draw()), frozen(Seer(truthful())))


def test_what_was_said_is_recorded(tmp_path: Path) -> None:
    labels = draw()
    labels[:, 1] = 0
    texts = truthful() | {"Edema.": np.eye(11)[0], "No edema.": -np.eye(11)[0]}
    texts |= {f"{n}.": np.eye(11)[3] for n in NAMES[1:]} | {f"No {n.lower()}.": np.eye(11)[4] for n in NAMES[1:]}
    protocol = protocol_of("zero_shot", {"prompts": "template"})
    facts = predict(protocol, write_labelled(tmp_path / "d", labels), frozen(Seer(texts))).facts
    assert facts["labels_from_template"] == list(NAMES)
    assert facts["sentences"]["Edema"] == {"positive": ["Edema."], "negative": ["No edema."]}
    assert facts["skipped"] == {"Pneumothorax": "no positive among the test rows"}


def test_one_sentence_instead_of_an_ensemble(tmp_path: Path) -> None:
    protocol = protocol_of("zero_shot", {"ensemble": False})
    facts = predict(protocol, write_labelled(tmp_path / "d", draw()), frozen(Seer(truthful()))).facts
    assert facts["sentences"]["Edema"]["positive"] == [load_prompts().of("Edema").positive[0]]


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "d", draw())
    data = TaskData(PROTOCOL, folder, SIDE, SIDE)
    assert "has no report encoder" in TASK.lacks(data, frozen(None))
    alone = Seer({})
    alone.recipe.objective.weight_global = 0
    assert "weight_global 0" in TASK.lacks(data, frozen(alone))
    large = Seer({})
    large.recipe.data.image_size = 64
    assert "scores images of 64 px only" in TASK.lacks(data, frozen(large))
    unlabelled = write_labelled(tmp_path / "e", np.zeros((4, 0)))
    assert "no labels" in TASK.lacks(TaskData(PROTOCOL, unlabelled, SIDE, SIDE), frozen(Seer({})))
