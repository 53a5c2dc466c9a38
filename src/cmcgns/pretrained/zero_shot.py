"""Zero-shot classification: is the image closer to "{finding}" or to "no {finding}"?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.ranking import FloatArray
from cmcgns.pretrained.prompts import load_prompts

Prompts = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Sentences that state and sentences that deny each label."""

_UNIT_TOLERANCE = 1e-2  # half-precision embeddings are this far from length 1


def prompt_prototype(embeddings: npt.ArrayLike) -> FloatArray:
    """One direction for an ensemble of prompts (Radford et al., ICML 2021, section 3.1.4).

    Args:
        embeddings: (P, D), one row per prompt; made unit length first, so that no prompt outweighs another.

    Returns:
        (D,), the mean direction, of unit length.

    Raises:
        UserError: no prompt, a zero or non-finite embedding, or prompts that cancel each other.
    """
    prompts = np.asarray(embeddings, dtype=np.float64)
    if prompts.ndim != 2 or prompts.size == 0:
        raise UserError(f"prompt embeddings must be (P, D) with at least one prompt, not {prompts.shape}")
    lengths = np.linalg.norm(prompts, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        raise UserError("a prompt embedding is zero or not finite")
    mean = (prompts / lengths).mean(axis=0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise UserError("the prompts of one ensemble cancel each other: their mean direction is zero")
    return np.asarray(mean / length)


def zero_shot_scores(
    image_embeddings: npt.ArrayLike,
    positive: Sequence[npt.ArrayLike],
    negative: Sequence[npt.ArrayLike],
    temperature: float | None = None,
) -> FloatArray:
    """Score each class by its positive prompts against its negative ones.

    Args:
        image_embeddings: (n, D), unit length.
        positive: C ensembles, each (P, D), e.g. of "{finding}".
        negative: C ensembles, each (Q, D), e.g. of "no {finding}".
        temperature: None for the difference of cosines, in [-2, 2]; else a probability, the softmax over
            (positive, negative) at this temperature (1 / logit scale). Both rank images alike, but a low
            temperature rounds many probabilities to exactly 0 or 1, which makes ties: rank by the difference.

    Returns:
        (n, C).

    Raises:
        UserError: unequal numbers of ensembles or dimensions, images not of unit length, a temperature ≤ 0.
    """
    if len(positive) != len(negative) or len(positive) == 0:
        raise UserError(f"{len(positive)} positive and {len(negative)} negative ensembles: one pair a class")
    if temperature is not None and not 0 < temperature < np.inf:
        raise UserError(f"temperature must be above 0 and finite, not {temperature}")
    images = _unit_rows(image_embeddings)
    directions = [prompt_prototype(p) for p in positive], [prompt_prototype(q) for q in negative]
    for c, direction in enumerate(directions[0] + directions[1]):
        if direction.shape != images.shape[1:]:
            found = f"{len(direction)} dimensions in the prompts of class {c % len(positive)}"
            raise UserError(f"{found}, but {images.shape[1]} in the images")
    # For unit vectors the cosine is linear in each prototype, so the difference takes one product.
    difference = images @ (np.stack(directions[0]) - np.stack(directions[1])).T
    if temperature is None:
        return np.asarray(difference)
    return np.asarray(0.5 * (1 + np.tanh(difference / (2 * temperature))))  # softmax of two, without overflow


def label_cosines(image_embeddings: npt.ArrayLike, positive: Sequence[npt.ArrayLike]) -> FloatArray:
    """Cosine of each image with each label's ensemble, for labels that exclude each other: the largest one wins.

    Args:
        image_embeddings: (n, D), unit length.
        positive: C ensembles, each (P, D).

    Returns:
        (n, C).

    Raises:
        UserError: images not of unit length, or an ensemble without a direction.
    """
    return np.asarray(_unit_rows(image_embeddings) @ np.stack([prompt_prototype(prompts) for prompts in positive]).T)


def _unit_rows(image_embeddings: npt.ArrayLike) -> FloatArray:
    images = np.asarray(image_embeddings, dtype=np.float64)
    if images.ndim != 2:
        raise UserError(f"image embeddings must be (n, D), not {images.shape}")
    off = ~(np.abs(np.linalg.norm(images, axis=1) - 1) <= _UNIT_TOLERANCE)
    if off.any():
        raise UserError(f"image embedding {np.flatnonzero(off)[0]} is not of unit length ({off.sum()} such rows)")
    return images


def label_prompts(labels: Sequence[str] | Prompts) -> list[tuple[Sequence[str], Sequence[str]]]:
    """What states and what denies each label; of mere names what the package has for them.

    Raises:
        UserError: no list of labels.
    """
    if isinstance(labels, str) or not hasattr(labels, "__len__") or len(labels) == 0:
        example = labels if isinstance(labels, str) and labels else "Effusion"
        raise UserError(f"zero_shot takes a list of labels, for example zero_shot(paths, [{example!r}])")
    for number, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise UserError(f"zero_shot: label {number} is {label!r}; a name is expected")
    if twice := [label for label, times in Counter(list(labels)).items() if times > 1]:
        raise UserError(f"zero_shot: label {twice[0]} is given twice; name each once")
    if isinstance(labels, Mapping):
        for label, sides in labels.items():
            if isinstance(sides, str) or len(sides) != 2 or any(isinstance(s, str) or len(s) == 0 for s in sides):
                raise UserError(
                    f"zero_shot: label {label} needs two lists, of sentences that state it and that deny it, for "
                    f"example (['{label}.'], ['No {label.lower()}.'])"
                )
        return [labels[label] for label in labels]
    book = load_prompts()
    return [(book.of(label).positive, book.of(label).negative) for label in labels]
