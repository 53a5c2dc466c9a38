from pathlib import Path

import numpy as np
import pytest

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.pretrained.zero_shot import prompt_prototype, zero_shot_scores


def unit(seed: int, *shape: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_an_image_scores_high_where_it_resembles_the_positive_prompt() -> None:
    east, north = [[1.0, 0.0]], [[0.0, 1.0]]
    scores = zero_shot_scores([[1.0, 0.0], [0.0, 1.0]], [east, north], [north, east])
    np.testing.assert_allclose(scores, [[1, -1], [-1, 1]])


def test_ensemble_is_the_renormalised_mean_of_unit_vectors() -> None:
    np.testing.assert_allclose(prompt_prototype([[5.0, 0.0], [0.0, 0.1]]), [0.5**0.5, 0.5**0.5])
    images, prompts, others = unit(0, 6, 8), unit(1, 3, 8), unit(2, 2, 8)
    mean, other = prompts.mean(axis=0), others.mean(axis=0)
    expected = images @ mean / np.linalg.norm(mean) - images @ other / np.linalg.norm(other)
    np.testing.assert_allclose(zero_shot_scores(images, [prompts], [others])[:, 0], expected)


def test_temperature_gives_the_softmax_over_positive_and_negative() -> None:
    images, positive, negative = unit(0, 6, 8), unit(1, 1, 8), unit(2, 1, 8)
    logits = np.stack([images @ positive[0], images @ negative[0]], axis=1) / 0.07
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(zero_shot_scores(images, [positive], [negative], 0.07)[:, 0], softmax[:, 0])


def test_a_tiny_temperature_stays_finite() -> None:
    scores = zero_shot_scores([[1.0, 0.0]], [[[1.0, 0.0]]], [[[-1.0, 0.0]]], 1e-300)
    assert scores.tolist() == [[1.0]]


def test_half_precision_images_count_as_unit() -> None:
    images = unit(0, 5, 512).astype(np.float16)
    assert zero_shot_scores(images, [unit(1, 2, 512)], [unit(2, 2, 512)]).shape == (5, 1)


ONE = [[[1.0, 0.0]]]


@pytest.mark.parametrize(
    ("images", "positive", "negative", "temperature", "message"),
    [
        ([[2.0, 0.0]], ONE, ONE, None, "embedding 0 is not of unit length"),
        ([[np.nan, 0.0]], ONE, ONE, None, "not of unit length"),
        ([1.0, 0.0], ONE, ONE, None, r"\(n, D\)"),
        ([[1.0, 0.0]], ONE, ONE + ONE, None, "1 positive and 2 negative"),
        ([[1.0, 0.0]], [], [], None, "one pair a class"),
        ([[1.0, 0.0]], ONE, ONE, 0.0, "temperature"),
        ([[1.0, 0.0]], [[[1.0]]], [[[1.0]]], None, "1 dimensions in the prompts of class 0"),
        ([[1.0, 0.0]], ONE, [[[0.0, 0.0]]], None, "zero or not finite"),
        ([[1.0, 0.0]], ONE, [[[1.0, 0.0], [-1.0, 0.0]]], None, "cancel"),
        ([[1.0, 0.0]], ONE, [np.zeros((0, 2))], None, "at least one prompt"),
    ],
)
def test_bad_input_is_refused(
    images: object, positive: object, negative: object, temperature: float | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        zero_shot_scores(images, positive, negative, temperature)  # type: ignore[arg-type]


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
