"""Identifiers of persons left in texts: which kinds, and where; never what they are."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from cmcgns.common.packaged import packaged_yaml

_TABLE: dict[str, Any] = packaged_yaml("cmcgns.data.reports", "identifiers.yaml")
PATTERNS = {kind: "|".join(patterns) % _TABLE["parts"] for kind, patterns in _TABLE["kinds"].items()}
MARK = "mark of a removed identifier"


def find_identifiers(texts: pd.Series, marks: bool = False) -> dict[str, list[int]]:
    """Where texts seem to hold an identifier.

    Args:
        texts: (n,) text.
        marks: also find what stands in place of a removed one, `___` and `[**…**]`.

    Returns:
        Kind -> positions from 0, of kinds that were found.
    """
    patterns = PATTERNS | ({MARK: "|".join(_TABLE["marks"])} if marks else {})
    column = pyarrow.array(texts.fillna(""), pyarrow.large_string())
    any_kind = "|".join(f"(?:{pattern})" for pattern in patterns.values())
    suspects = _matches(column, any_kind)  # one pass over all, the kinds on what is left
    some = column.take(suspects)
    found = {kind: suspects[_matches(some, pattern)].tolist() for kind, pattern in patterns.items()}
    return {kind: rows for kind, rows in found.items() if rows}


def _matches(column: Any, pattern: str) -> NDArray[np.int64]:
    """Positions of what RE2 finds; pandas would take Python's engine for some of it, which a long word stops."""
    found = pyarrow.compute.match_substring_regex(column, pattern)
    return np.flatnonzero(found.to_numpy(zero_copy_only=False))


def identifier_kinds(texts: Iterable[str]) -> set[str]:
    """Kinds of identifiers that texts, such as tags of an image file, seem to hold."""
    return set(find_identifiers(pd.Series(list(texts), dtype="str")))
