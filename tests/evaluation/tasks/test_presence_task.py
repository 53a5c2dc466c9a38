"""The largest value of maps, with a finding against without it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cmcgns.common.errors import UserError
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.tasks.presence import TASK
from cmcgns.metrics.measure import Measure
from cmcgns.pretrained.prompts import load_prompts
from support.evaluation import figures, oracle, predict, protocol_of, tiny_run, write_set
from support.text_tasks import NAMES, SIDE, Seer, frozen, write_labelled

PROTOCOL = protocol_of("presence", whole_image=True)
KINDS = ("pooled", "patches", "attention")


def draw(n: int = 40) -> np.ndarray:
    return (np.random.default_rng(0).random((n, 3)) < 0.4).astype(float)


def test_figures_are_those_of_maps_made_one_by_one(tmp_path: Path) -> None:
    """A run with random weights: prompt by prompt, image by image, and scikit-learn's area."""
    encoder = tiny_run()
    folder = write_set(tmp_path / "d", counts=(2, 2, 16))
    protocol = protocol_of("presence", {"prompts": "phantom"}, labels=["Edema"], whole_image=True)
    predictions = predict(protocol, folder, encoder)
    found = figures(protocol, predictions)
    test = TaskData(protocol, folder, encoder.image_size, encoder.resize).test
    for kind in KINDS:
        largest = []
        for image in range(16):
            tokens = encoder.tokens(encoder.tensors(test.pixels[image : image + 1]))
            maps = [
                encoder.run.patch_maps(tokens, encoder.run.encode_texts([text]), kind)[0, 0].numpy()
                for text in load_prompts("phantom").of("Edema").positive
            ]
            largest.append(np.mean(maps, axis=0).max())
        expected = roc_auc_score(test.labels[:, 0], np.array(largest, np.float32))
        np.testing.assert_allclose(predictions.arrays[f"largest_{kind}"][:, 0], largest, rtol=1e-4)
        assert found[Measure(f"map_auroc_{kind}", "Edema")] == pytest.approx(expected, abs=0.02)
    assert found[Measure("map_auroc")] == found[Measure(f"map_auroc_{encoder.run.map}")]
    assert next(iter(found)) == Measure("map_auroc")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps show the columns of pixels that a label has to itself, by attention turned round."""

    def maps(_: object, tokens: torch.Tensor, phrases: list[str], kind: str) -> torch.Tensor:
        owner = [
            next(c for c, name in enumerate(NAMES) if text in load_prompts().of(name).positive) for text in phrases
        ]
        grid = tokens.mean(2).unflatten(1, (8, 8))
        column = torch.stack([grid[:, :4, c] for c in owner], 1).flatten(2)
        return -column if kind == "attention" else column

    monkeypatch.setattr(Seer, "encode_texts", lambda _, texts: list(texts))
    monkeypatch.setattr(Seer, "patch_maps", maps, raising=False)


@pytest.mark.usefixtures("shown")
def test_an_oracle_sees_what_is_there_and_boxes_take_no_part(tmp_path: Path) -> None:
    boxes = ["", "[]"] * 20
    folder = write_labelled(tmp_path / "d", draw(), boxes=boxes)
    predictions = predict(PROTOCOL, folder, frozen(Seer({})))
    found = figures(PROTOCOL, predictions)
    assert len(predictions.rows) == 40
    assert found[Measure("map_auroc")] == found[Measure("map_auroc_pooled", "Edema")] == 1
    assert found[Measure("map_auroc_attention")] == 0


@pytest.mark.usefixtures("shown")
def test_maps_that_nothing_trained_are_not_asked(tmp_path: Path) -> None:
    model = Seer({})
    model.recipe.objective.weight_report = 0
    predictions = predict(PROTOCOL, write_labelled(tmp_path / "d", draw()), frozen(model))
    assert {m.metric for m in figures(PROTOCOL, predictions)} == {"map_auroc", "map_auroc_pooled"}


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    data = TaskData(PROTOCOL, write_labelled(tmp_path / "d", draw()), SIDE, SIDE)
    assert "no report encoder" in TASK.lacks(data, frozen(None))
    alone = Seer({})
    alone.recipe.objective.weight_global = alone.recipe.objective.weight_report = 0
    assert "weight_global 0" in TASK.lacks(data, frozen(alone))
    bare = TaskData(PROTOCOL, write_labelled(tmp_path / "e", np.zeros((4, 0))), SIDE, SIDE)
    assert "no labels" in TASK.lacks(bare, frozen(Seer({})))


@pytest.mark.usefixtures("shown")
def test_tokens_that_are_not_finite_are_named(tmp_path: Path) -> None:
    encoder = oracle(4, SIDE, pretrained=Seer({}))
    encoder.tokens = lambda images: encoder.encoder.tokens(images) * np.nan  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"tokens of 0\.png are not finite"):
        predict(PROTOCOL, write_labelled(tmp_path / "d", draw()), encoder)
