import numpy as np
import pytest

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
