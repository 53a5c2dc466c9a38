"""Lists of pictures or texts that users hand over: what holds nothing usable is refused by its number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cmcgns.common.errors import UserError


def check_texts(texts: Sequence[Any], where: str) -> None:
    """Refuse what is no string, such as the empty cell of a table.

    Args:
        texts: to be looked at.
        where: what a text is called, with a place for its number.

    Raises:
        UserError: names the first such text by its number.
    """
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{where.format(number)} is {_name(text)}; a string is expected")


def as_list(values: Any, function: str, batch_size: int) -> list[Any]:
    """Pictures or texts as a list.

    Args:
        values: what the user gave.
        function: what was called, for messages.
        batch_size: how many the user wants at a time.

    Raises:
        UserError: one picture or text alone, none, or an impossible `batch_size`.
    """
    if isinstance(values, str | Path):
        raise UserError(f"{function} takes a list, for example {function}([{str(values)!r}])")
    if not hasattr(values, "__len__") or isinstance(values, bytes | Image.Image):
        raise UserError(f"{function} takes a list, not a single {type(values).__name__}")
    if isinstance(values, np.ndarray) and (values.ndim == 0 or (values.ndim == 2 and function == "embed_image")):
        raise UserError(f"{function} takes a list, not a single array of shape {values.shape}")
    if len(values) == 0:
        raise UserError(f"{function} got an empty list")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"{function}: batch_size is {batch_size!r}; a whole number of at least 1 is expected")
    return list(values)


def _name(value: Any) -> str:
    """What a value is, for a message: never a whole array."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f"{value} (a missing value)"
    shown = f" ({value})" if isinstance(value, int | float | np.number) else ""
    return f"a {type(value).__name__}{shown}"
