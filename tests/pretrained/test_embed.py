"""Embeddings of images and texts, and what is said of lists that hold nothing usable."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import evaluation_order
from cmcgns.data.pairs.loader import make_loader
from cmcgns.evaluation.data import TaskData
from cmcgns.evaluation.open_encoder import open_encoder
from cmcgns.evaluation.protocols import EvaluationProtocol
from cmcgns.pretrained import Pretrained
from cmcgns.training.data import prepare_data
from support.pretrained import TEXTS


def test_embeddings_are_unit_vectors(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    for found, count in ((model.embed_image(images), len(images)), (model.embed_text(TEXTS), len(TEXTS))):
        assert found.shape == (count, 32)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert not any(p.requires_grad for p in model.task.parameters())
    assert not model.task.training


def test_embeddings_do_not_depend_on_the_batch(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    np.testing.assert_allclose(model.embed_image(images, 2), model.embed_image(images, 64), atol=1e-6)
    np.testing.assert_allclose(model.embed_text(TEXTS, 1), model.embed_text(TEXTS, 64), atol=1e-6)
    np.testing.assert_allclose(model.embed_image(images[::-1]), model.embed_image(images)[::-1], atol=1e-6)


def test_embeddings_are_those_of_training_time_evaluation(run: Path, data: Path, images: list[Path]) -> None:
    """Resizing, padding, cropping, normalisation and tokens are the same from files and from the data set."""
    model = cmcgns.load(run)
    prepared = prepare_data(model.recipe, data, run / "tokenizer")
    rows = prepared.validation
    with torch.no_grad():
        parts = [model.task.model(batch) for batch in make_loader(rows, evaluation_order(len(rows), 8))]
    image, report = (np.concatenate([getattr(part, f"{of}_global") for part in parts]) for of in ("image", "report"))
    np.testing.assert_allclose(model.embed_image(images), image, atol=1e-6)
    texts = prepared.pairs.frame["text"].iloc[rows.rows].tolist()
    np.testing.assert_allclose(model.embed_text(texts), report, atol=1e-6)


def test_evaluation_embeds_as_users_do(run: Path, data: Path, images: list[Path]) -> None:
    """Bit by bit: the same resize, crop, normalisation and batches."""
    encoder = open_encoder(str(run))
    settings = {"id": "t/v1", "title": "t", "task": "zero_shot", "split": {"rule": "any", "test": ["val"], "val": []}}
    protocol = EvaluationProtocol.model_validate(settings)
    found = TaskData(protocol, data, encoder.image_size, encoder.resize).test
    embedded = encoder.embed_pixels(found.pixels, lambda _: None)
    np.testing.assert_array_equal(embedded, cmcgns.load(run).embed_image(images))


def test_columns_of_tables_and_arrays_are_lists_too(loaded: Pretrained, images: list[Path]) -> None:
    expected = loaded.embed_text(TEXTS)
    for texts in (tuple(TEXTS), pd.Series(TEXTS, index=[5, 9, 2]), np.array(TEXTS), np.array(TEXTS, dtype=object)):
        np.testing.assert_array_equal(loaded.embed_text(texts), expected)
    paths = pd.Series([str(path) for path in images], index=range(7, 7 + len(images)))
    np.testing.assert_array_equal(loaded.embed_image(paths), loaded.embed_image(images))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.embed_text(["Normal.", None]), r"embed_text: text 1 is None \(a missing value\); a string is"),
        (lambda m: m.embed_text([float("nan")]), r"embed_text: text 0 is nan \(a missing value\)"),
        (lambda m: m.embed_text(pd.Series(["Normal.", None], index=[7, 8])), "embed_text: text 1 is .*missing value"),
        (lambda m: m.embed_text([3]), r"embed_text: text 0 is a int \(3\)"),
        (lambda m: m.embed_text([b"Normal."]), "embed_text: text 0 is a bytes;"),
        (lambda m: m.embed_text(["Normal.", ""]), r"embed_text: text 1 \(''\) holds no words"),
        (lambda m: m.embed_text(b"Normal."), "embed_text takes a list, not a single bytes"),
        (lambda m: m.embed_text(["Normal."], batch_size=0), "embed_text: batch_size is 0"),
        (lambda m: m.embed_text(["Normal."], batch_size=1.5), r"batch_size is 1\.5; a whole number"),
        (lambda m: m.zero_shot("a.png", (x for x in "ab")), r"list of labels, for example zero_shot\(paths, \['Eff"),
        (lambda m: m.embed_text(None), "embed_text takes a list, not a single NoneType"),
        (lambda m: m.embed_image([np.zeros((8, 8), np.uint8), None]), "picture 1: a picture is a path.*NoneType"),
        (lambda m: m.embed_image([np.zeros((8, 8), np.uint8)] * 3 + [float("nan")], 2), "picture 3: .*not float"),
        (lambda m: m.embed_image([""]), "picture 0: "),
        (lambda m: m.embed_image(np.zeros((8, 8), np.uint8)), r"not a single array of shape \(8, 8\)"),
        (lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), ["Edema", None]), "zero_shot: label 1 is None"),
        (lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), [" "]), "zero_shot: label 0 is ' '; a name is expected"),
        (lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), None), "zero_shot takes a list of labels"),
        (
            lambda m: m.zero_shot(np.zeros((8, 8), np.uint8), {"Edema": ("Edema.", "No edema.")}),
            r"zero_shot: label Edema needs two lists.*\(\['Edema\.'\], \['No edema\.'\]\)",
        ),
        (lambda m: m.zero_shot(None, ["Edema"]), "picture 0: a picture is a path"),
        (lambda m: m.zero_shot([], ["Edema"]), "got an empty list"),
        (lambda m: m.ground(np.zeros((8, 8), np.uint8), None), "ground: the phrase is None"),
        (lambda m: m.ground(np.zeros((8, 8), np.uint8), "Edema.", against=None), "ground: against is None"),
        (lambda m: m.ground(np.zeros((8, 8), np.uint8), "Edema.", kind="heat"), "no map of kind heat; choose pooled"),
        (lambda m: m.ground(None, "Edema."), "a picture is a path, .*NoneType"),
    ],
)  # fmt: skip
def test_cells_that_hold_nothing_usable_are_named(loaded: Pretrained, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(loaded)


def test_bad_input_has_a_clear_message(run: Path, tmp_path: Path) -> None:
    model = cmcgns.load(run)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"missing\.png: no such file"):
        model.embed_image([tmp_path / "missing.png"])
    with pytest.raises(UserError, match=r"broken\.png: not a PNG"):
        model.embed_image([broken])
    with pytest.raises(UserError, match=r"embed_image takes a list, for example embed_image\(\['a\.png'\]\)"):
        model.embed_image("a.png")
    with pytest.raises(UserError, match="embed_text takes a list"):
        model.embed_text("Normal.")
    with pytest.raises(UserError, match="embed_image got an empty list"):
        model.embed_image([])
    with pytest.raises(UserError, match=r"embed_text: text 1 \('\?!'\) holds no words"):
        model.embed_text(["Normal.", "?!"])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("objective", {"weight_reconstruction": 0.0}),
        ("objective", {"reconstruction": "off"}),
        ("reconstruction", {"epochs": 0}),
    ],
)
def test_a_decoder_that_was_not_trained_rebuilds_nothing(run: Path, part: str, change: dict[str, Any]) -> None:
    model = cmcgns.load(run)
    assert model.rebuilds
    settings = getattr(model.recipe, part).model_copy(update=change)
    model.recipe = model.recipe.model_copy(update={part: settings})
    assert not model.rebuilds
