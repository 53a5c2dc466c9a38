"""Zero-shot classification: is the image closer to "{finding}" or to "no {finding}"?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cmcgns.common.errors import UserError
from cmcgns.metrics.ranking import FloatArray
from cmcgns.pretrained.arguments import check_texts
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
        UserError: a zero or non-finite embedding, or prompts that cancel each other.
    """
    prompts = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(prompts, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        raise UserError("a prompt embedding is zero or not finite")
    mean = (prompts / lengths).mean(axis=0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise UserError("the prompts of one ensemble cancel each other: their mean direction is zero")
    return np.asarray(mean / length)


def prototype_cosines(
    images: npt.ArrayLike, prompts: npt.ArrayLike, ensembles: Sequence[Sequence[int]]
) -> FloatArray:
    """(n, C) cosines of images with the direction of each ensemble.

    Args:
        images: (n, D) embeddings of unit length.
        prompts: (K, D) embeddings.
        ensembles: of each of C ensembles the numbers of its prompts.

    Raises:
        UserError: images not of unit length, or an ensemble without a direction.
    """
    rows, texts = np.asarray(images, dtype=np.float64), np.asarray(prompts)
    off = ~(np.abs(np.linalg.norm(rows, axis=1) - 1) <= _UNIT_TOLERANCE)
    if off.any():
        raise UserError(f"image embedding {np.flatnonzero(off)[0]} is not of unit length ({off.sum()} such rows)")
    return np.asarray(rows @ np.stack([prompt_prototype(texts[each]) for each in ensembles]).T)


def probability(difference: FloatArray, spread: float) -> FloatArray:
    """Softmax over two scores at a temperature, from their difference, without overflow.

    It ranks as the difference does, but a low temperature rounds many to exactly 0 or 1, which makes ties.
    """
    return np.asarray(0.5 * (1 + np.tanh(difference / (2 * spread))))


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
            for side in sides:
                check_texts(side, "embed_text: text {}")
        return [labels[label] for label in labels]
    book = load_prompts()
    return [(book.of(label).positive, book.of(label).negative) for label in labels]
