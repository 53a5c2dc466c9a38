"""Test images and their reports in the space that both share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.data.images.place import Pixels
from cmcgns.data.pairs.rows import choose_text
from cmcgns.data.reports.text import normalise_sentence, split_sentences
from cmcgns.evaluation.protocols.task_settings import TextKind

if TYPE_CHECKING:
    from cmcgns.evaluation.encoder import FrozenEncoder
    from cmcgns.pretrained import Pretrained

BATCH = 64  # as in `Pretrained.embed_image`: equal batches give equal bits
Floats = npt.NDArray[np.float32]


def lacks_report_encoder(encoder: FrozenEncoder) -> str:
    """Why images cannot be compared with text; empty if they can."""
    if encoder.pretrained is None:
        return f"{encoder.name} has no report encoder (only the folder of a run has one)"
    return ""


def lacks_joint_space(encoder: FrozenEncoder) -> str:
    """Why there are no global embeddings of images and text; empty if there are."""
    if (reason := lacks_report_encoder(encoder)) or encoder.pretrained is None:
        return reason
    recipe = encoder.pretrained.recipe
    if recipe.objective.weight_global == 0:
        return f"{encoder.name} was trained with objective.weight_global 0: its global embeddings mean nothing"
    if encoder.image_size != recipe.data.image_size:
        return f"{encoder.name} pools images of {recipe.data.image_size} px only, not of {encoder.image_size}"
    return ""


def pretrained_of(encoder: FrozenEncoder) -> Pretrained:
    """The run behind an encoder that lacks nothing."""
    assert encoder.pretrained is not None
    return encoder.pretrained


def embed_pixels(encoder: FrozenEncoder, pixels: Pixels, progress: Callable[[float], None]) -> Floats:
    """Embed stored squares; the same numbers as :meth:`cmcgns.pretrained.Pretrained.embed_image` of their files.

    Args:
        encoder: of a run.
        pixels: (n, S, S), may be memory-mapped.
        progress: called with the share that is done.

    Returns:
        (n, D) unit vectors.
    """
    model, parts = pretrained_of(encoder), []
    for start in range(0, len(pixels), BATCH):
        progress(start / len(pixels))
        parts.append(model.embed_tensors(encoder.tensors(np.array(pixels[start : start + BATCH]))))
    return np.concatenate(parts)


def texts_of(frame: pd.DataFrame, kind: TextKind) -> list[str]:
    """The text of each row by the rule of `data.text`, empty where it holds no sentence."""
    texts = choose_text(frame, kind).tolist()
    return [text if split_sentences(text) else "" for text in texts]


def right_groups(texts: Sequence[str], studies: Sequence[str]) -> npt.NDArray[np.intp]:
    """Numbers (n,), equal for rows that are right answers to each other.

    Those are rows of one study and rows whose reports are equal sentence by sentence (case, white space and closing
    punctuation aside), and rows that such steps connect.
    """
    normalised = ["\n".join(map(normalise_sentence, split_sentences(text))) for text in texts]
    number = np.arange(len(normalised))
    keys = [np.unique(np.asarray(key), return_inverse=True)[1] for key in (normalised, list(studies))]
    while True:
        before = number
        for key in keys:
            least = np.full(key.max() + 1, len(number))
            np.minimum.at(least, key, number)
            number = least[key]
        if (number == before).all():
            return number
