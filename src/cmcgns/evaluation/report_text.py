"""Report text of a manifest's rows, and which rows say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmcgns.data.pairs import choose_text
from cmcgns.data.reports import normalise_sentence, split_sentences

TextKind = Literal["auto", "sections", "report"]


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
