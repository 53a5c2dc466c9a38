from pathlib import Path

import numpy as np
import pytest

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.pretrained.zero_shot import probability, prompt_prototype, prototype_cosines


def unit(seed: int, *shape: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_an_image_scores_high_where_it_resembles_the_prompt() -> None:
    scores = prototype_cosines([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[0], [1]])
    np.testing.assert_allclose(scores, [[1, 0], [0, 1]])


def test_ensemble_is_the_renormalised_mean_of_unit_vectors() -> None:
    np.testing.assert_allclose(prompt_prototype([[5.0, 0.0], [0.0, 0.1]]), [0.5**0.5, 0.5**0.5])
    images, prompts = unit(0, 6, 8), unit(1, 3, 8)
    mean = prompts.mean(axis=0)
    expected = np.stack([images @ mean / np.linalg.norm(mean), images @ prompts[1]], axis=1)
    np.testing.assert_allclose(prototype_cosines(images, prompts, [[0, 1, 2], [1]]), expected)


def test_probability_is_the_softmax_over_two() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 2))
    softmax = np.exp(logits / 0.07) / np.exp(logits / 0.07).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probability(logits[:, 0] - logits[:, 1], 0.07), softmax[:, 0])
    assert probability(np.array([2.0]), 1e-300).tolist() == [1.0]  # stays finite


def test_half_precision_images_count_as_unit() -> None:
    images = unit(0, 5, 512).astype(np.float16)
    assert prototype_cosines(images, unit(1, 2, 512), [[0, 1]]).shape == (5, 1)


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        ([[2.0, 0.0]], [[1.0, 0.0]], "embedding 0 is not of unit length"),
        ([[1.0, 0.0], [np.nan, 0.0]], [[1.0, 0.0]], r"embedding 1 is not of unit length \(1 such rows\)"),
        ([[1.0, 0.0]], [[0.0, 0.0]], "zero or not finite"),
        ([[1.0, 0.0]], [[np.nan, 0.0]], "zero or not finite"),
        ([[1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]], "cancel"),
    ],
)
def test_bad_embeddings_are_refused(images: list[list[float]], prompts: list[list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prototype_cosines(images, prompts, [range(len(prompts))])


@pytest.mark.parametrize(("half", "message"), [("report", "prompt embedding"), ("image", "image embedding 0")])
def test_weights_that_are_not_finite_give_no_scores(run: Path, images: list[Path], half: str, message: str) -> None:
    model = cmcgns.load(run)
    encoder = getattr(model.task.model, f"{half}_encoder")
    for weights in encoder.parameters():
        weights.fill_(np.nan)
    with pytest.raises(UserError, match=message):
        model.zero_shot(images[:1], ["Edema"])


def test_zero_shot_is_the_softmax_of_both_prompts(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    labels = {"Effusion": (["Pleural effusion."], ["No pleural effusion."]), "Big heart": (["Big."], ["Normal."])}
    table = model.zero_shot(images, labels)
    assert table.columns.tolist() == list(labels)
    assert table.index.tolist() == [str(path) for path in images]
    cosines = model.embed_image(images) @ model.embed_text(["Big.", "Normal."]).T
    softmax = np.exp(cosines / model.temperature) / np.exp(cosines / model.temperature).sum(1, keepdims=True)
    np.testing.assert_allclose(table["Big heart"], softmax[:, 0], rtol=1e-4)
    turned = model.zero_shot(images, {"Effusion": labels["Effusion"][::-1]})
    np.testing.assert_allclose(turned["Effusion"], 1 - table["Effusion"], rtol=1e-6)


def test_zero_shot_takes_names_and_one_picture(run: Path, images: list[Path]) -> None:
    model = cmcgns.load(run)
    table = model.zero_shot(images[0], ["Effusion", "Scimitar sign"])
    assert table.shape == (1, 2)
    assert ((table > 0) & (table < 1)).all(axis=None)
    unknown = model.zero_shot(images[0], {"Scimitar sign": (["Scimitar sign."], ["No scimitar sign."])})
    assert table["Scimitar sign"].iloc[0] == pytest.approx(unknown["Scimitar sign"].iloc[0])
    for labels in ("Effusion", []):
        with pytest.raises(UserError, match="zero_shot takes a list of labels"):
            model.zero_shot(images[0], labels)
    with pytest.raises(UserError, match="zero_shot got an empty list"):
        model.zero_shot([], ["Effusion"])
    with pytest.raises(UserError, match=r"text 1 is None"):
        model.zero_shot(images[0], {"Effusion": (["Effusion.", None], ["Normal."])})  # type: ignore[list-item]
