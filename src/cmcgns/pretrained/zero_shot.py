"""Findings without training on labels: how much more radiographs resemble one sentence than its denial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cmcgns.data.pictures import Picture
from cmcgns.errors import UserError
from cmcgns.evaluation.prompts import load_prompts
from cmcgns.evaluation.zero_shot import zero_shot_scores

if TYPE_CHECKING:
    from cmcgns.pretrained.model import Pretrained, Prompts


def compare_prompts(
    model: Pretrained, paths: Picture | Sequence[Picture], labels: Sequence[str] | Prompts
) -> pd.DataFrame:
    """The table of :meth:`cmcgns.pretrained.Pretrained.zero_shot`; its arguments and errors.

    Returns:
        (pictures, labels) shares in [0, 1].
    """
    pictures: Sequence[Picture] = paths if isinstance(paths, list | tuple) else [paths]  # type: ignore[list-item]
    if isinstance(labels, str) or len(labels) == 0:
        raise UserError(f"zero_shot takes a list of labels, for example zero_shot(paths, [{str(labels)!r}])")
    sides = zip(*_sentences(labels), strict=True)
    positive, negative = ([model.embed_text(list(texts)) for texts in side] for side in sides)
    found = zero_shot_scores(model.embed_image(pictures), positive, negative, model.temperature)
    names = [str(picture) if isinstance(picture, str | Path) else n for n, picture in enumerate(pictures)]
    return pd.DataFrame(found, index=names, columns=list(labels))


def _sentences(labels: Sequence[str] | Prompts) -> list[tuple[Sequence[str], Sequence[str]]]:
    """What states and what denies each label; of mere names what the package has for them."""
    if isinstance(labels, Mapping):
        return [labels[label] for label in labels]
    book = load_prompts()
    return [(book.of(label).positive, book.of(label).negative) for label in labels]
